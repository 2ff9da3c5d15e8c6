"""The suites of `decodec evaluate`: the items that each one needs, what it measures, and the tables of the results."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Console
from rich.progress import track

from decodec_jax.config import Data
from decodec_jax.data.sources import open_source
from decodec_jax.errors import UserError
from decodec_jax.evaluation.reports import charts, paper, tables
from decodec_jax.evaluation.reports.tables import Row
from decodec_jax.evaluation.suites import absence, compare, conversion, leakage, probe, scoring
from decodec_jax.evaluation.suites import items as recordings
from decodec_jax.evaluation.suites.scoring import Tools
from decodec_jax.evaluation.systems.base import Item, System, oracle, untouched
from decodec_jax.inference.codec import DeCodec

SECONDS = 4.0  # of a mixture
RATE = 16_000  # Hz
WORDS = 12  # clips for the word error rate of the first level in the ablation suite
ALL = "all SNRs"

T = TypeVar("T")


class Loaded(NamedTuple):
    """A model, its name in the tables, and the path that it comes from."""

    name: str
    path: Path
    model: DeCodec


class Job(NamedTuple):
    """The input of a suite."""

    systems: Sequence[System]
    models: Sequence[Loaded]
    items: Sequence[Item]
    tools: Tools
    out: Path
    notes: list[str]  # to be printed below the tables
    recognisers: Sequence = ()  # of recognition.py
    converter: Any = None  # of conversion.py
    voice: Any = None  # of synthesis.py


def load(folder: str, suite: str, limit: int = 16, seed: int = 0, seconds: float = SECONDS,
         rate: int = RATE) -> list[Item]:  # fmt: skip
    """The items of a suite, from a folder with a test split (data/sources.py), or synthetic ones if it is "".

    Those of "synthesis" depend on its models, see sentences.py.

    limit:   number of clean clips, of backgrounds, of paired recordings, of pairs of speakers, and of mixtures at each
             SNR.
    seconds: length of mixtures; those of the suites "leakage" and "recognition" are as long as their utterances.

    Raises UserError if there is no such suite, or if the folder lacks what it needs.
    """
    check(suite)
    check_sizes(limit, seconds)
    source = open_source(Data(root=folder, cache_mb=0), rate, "test")
    match suite:
        case "reconstruction":
            return recordings.clean(source, limit) + recordings.mixtures(source, limit, seconds, seed)
        case "enhancement":
            mixed = recordings.mixtures(source, limit, seconds, seed) + recordings.paired(folder, rate, limit)
            return mixed + recordings.clean(source, limit)
        case "conversion":
            return recordings.voices(source, limit, seed=seed)
        case "ablation":  # phone classifiers need many clips
            return recordings.mixtures(source, limit, seconds, seed) + recordings.clean(source)
        case "absence":
            return recordings.without_speech(source, limit, absence.SECONDS) + recordings.clean(source, limit)
        case "recognition":
            return recordings.mixtures(source, limit, None, seed) + recordings.clean(source, limit)
        case _:
            return recordings.mixtures(source, limit, None, seed)


def check_sizes(limit: int, seconds: float) -> None:
    """Raise UserError if there is to be no mixture, or an empty one."""
    if limit < 1 or not seconds > 0:
        raise UserError(f"the limit is {limit} and the mixtures last {seconds:g} s; both must be above 0")


def run(suite: str, systems: Sequence[System], items: Sequence[Item], out: Path, models: Sequence[Loaded] = (),
        tools: Tools | None = None, recognisers: Sequence = (), converter=None,
        voice=None) -> dict[str, str]:  # fmt: skip
    """Run a suite, and write tables.md, tables.csv, tables.json, charts and the items as wav files into `out`.

    Returns the table of each group of items as markdown, by its heading. Suites about what only models can do need
    `models`; the others measure `systems` (`systems.base.decodec` makes one of a model), and "recognition" measures
    `recognisers` (recognition.py). converter: another one for "conversion"; voice: the models of "synthesis"
    (synthesis.py) and what they say. Raises UserError if there are none.
    """
    check(suite)
    if suite == "recognition" and not recognisers:
        raise UserError("the suite 'recognition' measures runs of configs/asr.py; give some: --recogniser NAME=RUN")
    if suite == "synthesis" and voice is None:
        raise UserError("the suite 'synthesis' measures two runs of configs/tts.py; give --model-first and --model-nar")
    if suite != "recognition" and not (systems if suite in OF_SYSTEMS else models):
        raise UserError(f"the suite {suite!r} has nothing to measure; give it a model")
    tools = scoring.tools() if tools is None else tools
    recordings.save(items, out / "items")
    missing = () if suite == "recognition" else tools.missing
    job = Job(systems, models, items, tools, out, [f"Not measured: {why}." for why in missing], recognisers, converter,
              voice)  # fmt: skip
    rows = SUITES[suite](job)
    pooled = [row._replace(group=ALL) for row in rows if row.group.endswith(" dB")]
    found = tables.summarised([*pooled, *rows], [each.name for each in models] if suite == "ablation" else [])
    about = {
        "suite": suite,
        "models": {name: {"path": str(path), "step": model.step} for name, path, model in models},
        "notes": job.notes,
    }
    written = tables.write(out, suite, found, rows, paper.TABLES.get(suite, {}), about, job.notes)
    charts.draw(found, out)
    return written


def check(suite: str) -> None:
    """Raise UserError if there is no such suite."""
    if suite not in SUITES:
        raise UserError(f"there is no suite {suite!r}; choose from {', '.join(SUITES)}")


# --- the suites -------------------------------------------------------------------------------------------------------


def _reconstruction(job: Job) -> list[Row]:
    able = [system for system in job.systems if "reconstruct" in system.tasks]
    return [
        Row("clean" if item.background is None else "noisy", system.name, item.name,
            scoring.reconstruction(system, item, job.tools))
        for system, item in _tracked("reconstruction", product(able, job.items), len(able) * len(job.items))
    ]  # fmt: skip


def _enhancement(job: Job) -> list[Row]:
    able = [system for system in job.systems if system.tasks.keys() & {"enhance", "background"}]
    return [
        Row(recordings.group(item), system.name, item.name, scoring.separation(system, item, job.tools))
        for system, item in _tracked("enhancement", product(able, job.items), len(able) * len(job.items))
    ]


def _absence(job: Job) -> list[Row]:
    able = [system for system in job.systems if "enhance" in system.tasks]
    return [
        Row(absence.group(item), system.name, item.name, absence.scores(system, item))
        for system, item in _tracked("absence", product(able, job.items), len(able) * len(job.items))
    ]


def _conversion(job: Job) -> list[Row]:
    for each in job.models:
        if not each.model.quantized:
            raise UserError(f"conversion needs codes, and the codebooks of {each.path} have not started yet")
    pairs = conversion.pairs(job.items)
    rows = [conversion.untouched(*pair, job.tools) for pair in pairs]
    for each, pair in _tracked("conversion", product(job.models, pairs), len(job.models) * len(pairs)):
        rows += conversion.measure(each.name, each.model, *pair, job.tools, job.converter)
    return rows


def _ablation(job: Job) -> list[Row]:
    mixed = [item for item in job.items if item.background is not None]
    names = [system.name for system in job.systems]
    floors = [each for each in (untouched(), oracle()) if each.name not in names]
    rows = _enhancement(job._replace(systems=[*floors, *job.systems], items=mixed))
    for name, path, model in job.models:
        values = compare.values(model, mixed, compare.teacher_of(path))
        rows += compare.rows(ALL, name, [item.name for item in mixed], values)
    return rows + _probe(job)


def _probe(job: Job) -> list[Row]:
    """Measure how much the first level says about the words of clean speech."""
    clean = [item for item in job.items if item.background is None]
    try:
        spoken = probe.utterances(_tracked("phones", clean, len(clean)), job.out / "phones.json")
    except UserError as error:
        job.notes.append(f"Not measured: probe of the first level ({error}).")
        return []
    sample = recordings.spread(spoken, WORDS)
    names, few = [each.name for each in spoken], [each.name for each in sample]
    rows = []

    def words(column: str, process: Callable) -> list[Row]:
        rates = {} if job.tools.words is None else probe.word_error_rates(sample, process, job.tools.words)
        return compare.rows("first level, clean speech", column, few, rates)

    rows += words("clean speech", lambda wave, rate: wave)
    for name, path, model in job.models:
        teacher = compare.teacher_of(path)
        if teacher is not None:
            found = probe.teacher_accuracy(teacher, spoken)
            rows += compare.rows("first level, clean speech", f"teacher of {name}", names, found)
        if model.quantized:
            found = probe.accuracies(probe.first_level(model, spoken), probe.first_vectors(model))
            rows += compare.rows("first level, clean speech", name, names, found) + words(name, model.semantic)
    return rows


def _leakage(job: Job) -> list[Row]:
    rows = leakage.untouched(job.items, job.tools)
    for step, each in _tracked("leakage", product(leakage.STEPS, job.models), len(leakage.STEPS) * len(job.models)):
        rows += step(each.name, each.model, job.items, job.tools)
    return rows


def _recognition(job: Job) -> list[Row]:
    from decodec_jax.evaluation.suites import recognition  # its packages come with an extra of their own

    count = len(job.recognisers) * len(job.items)
    rows = [row for each, item in _tracked("recognition", product(job.recognisers, job.items), count)
            for row in recognition.measure(each, item)]  # fmt: skip
    if not rows:
        raise UserError("no test clip has a transcript that the recognisers can spell; give another folder of data")
    for name, each in job.recognisers:
        minutes = each.card["data"]["minutes"]
        job.notes.append(f"{name}: step {each.step}, trained on {minutes:g} min of tokens of the codec "
                         f"{each.card['codec']}.")  # fmt: skip
    return rows


def _synthesis(job: Job) -> list[Row]:
    from decodec_jax.evaluation.suites import synthesis  # its packages come with an extra of their own

    voice, rows, made = job.voice, [], []
    codec = voice.speaker.codec
    name = next((each.name for each in job.models if each.model is codec), "codec")
    for sentence in _tracked("synthesis", voice.sentences.read, len(voice.sentences.read)):
        spoken = synthesis.spoken_by(voice.speaker, sentence)
        rows += synthesis.rows(name, codec, sentence, spoken, job.tools)
        made.append(spoken)
    synthesis.save(voice, made[: synthesis.HEARD], job.out / "spoken")
    job.notes.extend(synthesis.notes(voice))
    return rows


def _tracked(what: str, work: Iterable[T], count: int) -> Iterable[T]:
    """Iterate over `work`, with a progress bar if standard error is a terminal."""
    console = Console(stderr=True)
    return track(work, what, count, console=console, disable=not console.is_terminal)


OF_SYSTEMS = ("reconstruction", "enhancement", "absence")
SUITES: dict[str, Callable[[Job], list[Row]]] = {
    "reconstruction": _reconstruction,
    "enhancement": _enhancement,
    "absence": _absence,
    "conversion": _conversion,
    "ablation": _ablation,
    "leakage": _leakage,
    "recognition": _recognition,
    "synthesis": _synthesis,
}
