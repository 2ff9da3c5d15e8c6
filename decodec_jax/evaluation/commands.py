"""The commands `decodec evaluate` and `decodec page`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from decodec_jax.config import Data
from decodec_jax.data.sources import open_source
from decodec_jax.errors import UserError
from decodec_jax.evaluation import figures
from decodec_jax.evaluation.suites import conversion, items, scoring, suite
from decodec_jax.evaluation.suites.suite import Loaded
from decodec_jax.evaluation.systems import baselines
from decodec_jax.evaluation.systems.base import Item, System, decodec
from decodec_jax.inference import bundle
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.export import history
from decodec_jax.weights import BUILT_IN

CLIPS, SENTENCES = 16, 20  # default limits
PANELS = {
    "loss": ["loss"],
    "held-out SI-SDR, dB": ["valid/si_sdr/mixture", "valid/si_sdr/speech", "valid/si_sdr/background"],
    "gain over the mixture, dB": ["valid/si_sdr_gain/speech", "valid/sdr_gain/background"],
}


def evaluate(suites: Sequence[str], data: str, out: Path, models: Sequence[str], others: Sequence[str],
             limit: int | None, seconds: float, whisper: str, embedder: str, continuous: bool,
             recognisers: Sequence[str] = (), nar: str = "", ar: str = "", voice: str = "",
) -> dict[str, dict[str, str]]:  # fmt: skip
    """Run every suite into OUT/SUITE, and draw the training curves of runs into OUT. Returns the tables of each suite.

    models: MODEL or NAME=MODEL, see `load`; others: baselines, see `baselines.find`. If there are neither, the model in
    the package is measured. continuous: see `systems_of`. recognisers: RUN or NAME=RUN, for the suite "recognition".
    limit: None: 16, or 20 sentences. nar: a run of configs/tts.py, for the suite "conversion"; ar, nar, voice: two runs
    and a prompt, for the suite "synthesis".
    Raises UserError if something is missing.
    """
    for name in suites:
        suite.check(name)
    loaded, measured = load(models if models or others else [BUILT_IN]), [baselines.find(spec) for spec in others]
    measured = distinct([*measured, *systems_of(loaded, continuous)])
    if not loaded and set(suites) - set(suite.OF_SYSTEMS):
        raise UserError(f"the suite {min(set(suites) - set(suite.OF_SYSTEMS))!r} measures only models; give --model, "
                        f"such as --model {BUILT_IN}")  # fmt: skip
    rate, tools = rate_of(loaded), scoring.tools(whisper, embedder)
    speech_recognisers = []
    if recognisers or "recognition" in suites:
        from decodec_jax.evaluation.suites import recognition  # its packages come with an extra of their own

        speech_recognisers = recognition.load(recognisers, [each.model for each in loaded])
    converter = conversion.load(nar, [each.model for each in loaded]) if nar and "conversion" in suites else None
    speaking = None
    if "synthesis" in suites:
        from decodec_jax.evaluation.suites import synthesis  # as above

        speaking = synthesis.load(ar, nar, [each.model for each in loaded], data, SENTENCES if limit is None else limit,
                                  voice)  # fmt: skip
    tables = {}
    for name in suites:
        if name == "synthesis":
            test_items = speaking.sentences.items
        else:
            test_items = suite.load(data, name, CLIPS if limit is None else limit, seconds=seconds, rate=rate)
        _create(out / name)
        tables[name] = suite.run(name, measured, test_items, out / name, loaded, tools, speech_recognisers,
                                 converter, speaking)  # fmt: skip
        if name == "enhancement":
            draw_separation(loaded, test_items, out / name, continuous)
    draw_curves(loaded, out)
    return tables


def page(model: str, data: str, out: Path, others: Sequence[str], limit: int, seconds: float, evaluated: str,
         continuous: bool, nar: str = "") -> Path:  # fmt: skip
    """Build the demo page of a model and baselines, with what `evaluate` wrote into a folder. Returns its index.html.

    nar: a run of configs/tts.py, which converts voices too.
    """
    from decodec_jax.evaluation.reports import page as pages
    from decodec_jax.evaluation.reports import spoken

    suite.check_sizes(limit, seconds)
    loaded = load([model])
    systems = [*systems_of(loaded, continuous), *(baselines.find(spec) for spec in others)]
    codec, rate = loaded[0].model, rate_of(loaded)
    source = open_source(Data(root=data, cache_mb=0), rate, "test")
    shown = [*items.mixtures(source, limit, seconds), *items.paired(data, rate, limit), *items.clean(source, limit + 1)]
    charts = {_title(path): path for path in sorted(Path(evaluated).rglob("*.png"))} if evaluated else {}
    converter = conversion.load(nar, [codec]) if nar else None
    tables = read_tables(evaluated) if evaluated else {}
    readings = spoken.read(Path(evaluated)) if evaluated else []
    return pages.build(codec, distinct(systems), shown, out, tables, charts, converter, readings)


def load(models: Sequence[str]) -> list[Loaded]:
    """Load MODEL or NAME=MODEL: run folders, bundles or "built-in". Raises UserError if two have the same name."""
    named = []
    for text in models:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if not (name and path):
            raise UserError(f"--model is {text!r}; it must be MODEL or NAME=MODEL, such as guided=runs/small")
        named.append((name, bundle.located(path)))
    names = [name for name, _ in named]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--model has two models called {name!r}; name one of them, such as guided=runs/small")
    return [Loaded(name, path, DeCodec.load(path)) for name, path in named]


def systems_of(loaded: Sequence[Loaded], continuous: bool) -> list[System]:
    """The models as systems; if `continuous`, each of them again without its quantizers."""
    named = {each.name: each.model for each in loaded}
    if continuous:
        named |= {f"{each.name}, continuous": each.model.continuous() for each in loaded}
    return [decodec(name, model) for name, model in named.items()]


def rate_of(loaded: Sequence[Loaded]) -> int:
    """The sample rate of all models, Hz. Raises UserError if they differ."""
    rates = sorted({each.model.config.sample_rate for each in loaded})
    if len(rates) > 1:
        raise UserError(f"the models' sample rates are {rates}; only models of one rate can be compared")
    return rates[0] if rates else suite.RATE


def distinct(measured: Sequence[System]) -> list[System]:
    """Return the systems. Raises UserError if two have the same name, as each is a column of a table."""
    names = [system.name for system in measured]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two models or systems are called {name!r}; list each once, or rename one: NAME=MODEL")
    return list(measured)


def read_tables(folder: str) -> dict[str, str]:
    """Read the tables that `evaluate` wrote into a folder, by heading. Raises UserError if there are none."""
    tables = {}
    for path in sorted(Path(folder).glob("*/tables.md")):
        for section in path.read_text().split("\n## ")[1:]:
            heading, _, text = section.partition("\n\n")
            tables[heading] = text.strip()
    if not tables:
        raise UserError(f"{folder} has no */tables.md; give the folder that `decodec evaluate --out` wrote")
    return tables


def _create(folder: Path) -> None:
    """Create a folder. Raises UserError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be created ({error.strerror}); give another --out") from None


def _title(picture: Path) -> str:
    return f"{picture.parent.name}: {picture.stem.replace('_', ' ')}"


def draw_curves(loaded: Iterable[Loaded], out: Path) -> None:
    """Draw the training curves of each run as NAME_curve.png; bundles have none."""
    for each in loaded:
        if rows := history(each.path):
            figures.curves(out / f"{each.name}_curve.png", rows, PANELS)


def draw_separation(loaded: Iterable[Loaded], test_items: Sequence[Item], out: Path, continuous: bool) -> None:
    """Draw spectrograms of the first 0 dB mixture and each model's outputs as NAME_taken_apart.png.

    continuous: add a row without quantizers.
    """
    shown = next(item for item in test_items if item.snr == 0)

    def outputs(model: DeCodec) -> dict[str, np.ndarray]:
        functions = {"mixture": model.reconstruct, "speech": model.enhance, "background": model.background}
        return {part: function(shown.mixture, shown.rate) for part, function in functions.items()}

    for name, _, model in loaded:
        rows = {
            "reference": {"mixture": shown.mixture, "speech": shown.speech, "background": shown.background},
            "output": outputs(model),
        }
        if continuous:
            rows["without quantizers"] = outputs(model.continuous())
        figures.taken_apart(out / f"{name}_taken_apart.png", rows, shown.rate)
