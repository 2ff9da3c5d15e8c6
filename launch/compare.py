"""Compare models on the same test mixtures:
`python launch/compare.py --models NAME=MODEL NAME=MODEL --root FOLDER --out FOLDER [--probe]`.

Prints a table, a column for each model and for what each has more than the first, and writes compare.md, .csv and .json
(with the scores of every mixture). --probe adds a second one, of what the first speech level says of the words. Needs
`pip install 'decodec_jax[eval]'`.
"""

import argparse
import json
from pathlib import Path

from decodec_jax import config as settings
from decodec_jax.config import Data
from decodec_jax.data.sources import ClipSource, open_source
from decodec_jax.errors import UserError
from decodec_jax.evaluation import compare, judges, probe, separation
from decodec_jax.inference.bundle import is_bundle
from decodec_jax.inference.codec import DeCodec
from decodec_jax.launching import one_line
from decodec_jax.objective.teacher import Teacher
from decodec_jax.training.loop import load_teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=MODEL", help="run folders or bundles")
    parser.add_argument("--root", required=True, help="folder with a manifest that has a test split; empty: synthetic")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--count", type=int, default=8, help="mixtures at each SNR (default 8)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a mixture (default 4)")
    parser.add_argument("--probe", action="store_true", help="phones and words in the first speech level (transcripts)")
    parser.add_argument("--clips", type=int, default=12, help="clips whose words --probe recognises (default 12)")
    arguments = parser.parse_args()
    for name in ("speechmos.dnsmos", *(["pocketsphinx"] if arguments.probe else [])):
        judges.package(name)  # or it would be missed minutes later
    paths = named(arguments.models)
    models = {name: DeCodec.load(path) for name, path in paths.items()}
    rates = {model.config.sample_rate for model in models.values()}
    if len(rates) > 1:
        raise UserError(f"the models' sample rates are {sorted(rates)}; only models of one rate can be compared")
    source = open_source(Data(root=arguments.root, cache_mb=0), *rates, "test")
    arguments.out.mkdir(parents=True, exist_ok=True)

    mixtures = separation.make_mixtures(source, arguments.count, arguments.seconds)
    columns = compare.floors_and_ceilings(mixtures, *rates)
    for name, model in models.items():
        columns[name] = compare.measure(model, mixtures, teacher_of(paths[name]))
    tables = {"compare": columns}
    if arguments.probe:
        tables["probe"] = probed(models, source, arguments.out, arguments.clips)
    for name, scores in tables.items():
        found = compare.figures(scores, list(models))
        text = compare.table(found, paper=name == "compare")
        print(text, end="\n\n")
        (arguments.out / f"{name}.md").write_text(text + "\n")
        (arguments.out / f"{name}.csv").write_text(compare.as_csv(found))
        (arguments.out / f"{name}.json").write_text(json.dumps({
            "models": {name: {"path": str(paths[name]), "step": model.step} for name, model in models.items()},
            "figures": {column: {key: each._asdict() for key, each in row.items()} for column, row in found.items()},
            "scores": {column: {key: each.tolist() for key, each in row.items()} for column, row in scores.items()},
        }, indent=1) + "\n")  # fmt: skip


def named(models: list[str]) -> dict[str, Path]:
    """NAME=MODEL by name. Raises UserError for anything else, and for a name given twice."""
    pairs = [model.partition("=") for model in models]
    for name, equals, path in pairs:
        if not (name and equals and path):
            raise UserError(f"--models is {name + equals + path!r}; it must be NAME=MODEL, such as guided=runs/small")
        if [other for other, _, _ in pairs].count(name) > 1:
            raise UserError(f"--models has two called {name!r}; give each a name of its own")
    return {name: Path(path) for name, _, path in pairs}


def teacher_of(path: Path) -> Teacher | None:
    """What a run was guided by; None without guidance, for a bundle, and where HuBERT's weights are not at hand."""
    if is_bundle(path):
        return None
    config = settings.load(path / "config.json")
    at_hand = config.teacher.kind == "cepstra" or config.teacher.path
    return load_teacher(config) if config.loss.guidance and at_hand else None


def probed(models: dict[str, DeCodec], source: ClipSource, out: Path, clips: int) -> dict[str, compare.Scores]:
    """The probe's scores of the untouched speech and of each model that has codes."""
    spoken = probe.utterances(source, out / "phones.json")
    some = spoken[:: max(1, len(spoken) // clips)][:clips]  # of every speaker
    columns = {"clean speech": probe.words_heard(some, lambda wave, rate: wave)}
    for name, model in models.items():
        columns[name] = {}
        if model.quantized:
            columns[name] = probe.accuracies(probe.first_level(model, spoken), probe.first_vectors(model))
            columns[name] |= probe.words_heard(some, model.semantic)
    return columns


if __name__ == "__main__":
    with one_line("compare.py"):
        main()
