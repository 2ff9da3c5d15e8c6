"""The `decodec` command: a thin skin over `inference` and `evaluation`."""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import NamedTuple

from decodec_jax import audio
from decodec_jax.errors import UserError
from decodec_jax.inference import batch, compiled
from decodec_jax.inference.pipes import PIPE
from decodec_jax.weights import BUILT_IN


class Command(NamedTuple):
    """What a command does, in a line, with an example of it."""

    what: str
    example: str


TAKE_APART = {
    "enhance": Command("the speech of a recording, without its background", "noisy.wav clean.wav"),
    "background": Command("the background of a recording, without its speech", "noisy.wav street.wav"),
    "reconstruct": Command("both, coded and decoded again", "in.wav out.flac --levels 4,4"),
    "semantic": Command("the first speech level alone: the words more than the voice", "in.wav out.wav"),
}
CODE = {
    "encode": Command("a recording, mixed down to one channel, to tokens", "talk.wav talk.dcc"),
    "decode": Command("tokens to a recording, or to one part of it", "talk.dcc talk.wav --keep speech"),
    "embed": Command("a recording, mixed down, to embeddings: what is quantized", "talk.wav talk.npz"),
}
COMBINE = {
    "convert": Command("what a recording says, in another voice", "in.wav out.wav --reference voice.wav"),
    "recombine": Command("its speech over another background", "in.wav out.wav --background sea.wav"),
}
MODELS = {
    "info": Command("what a .dcc file, a recording or a model is", "talk.dcc"),
    "export": Command("a bundle of a training run, with a model card", "runs/small models/small"),
}
MEASURE = {
    "evaluate": Command("tables of how good models are", "--suite enhancement --data TEST --out OUT"),
    "page": Command("a folder to listen to: recordings, pictures, tables", "--data TEST --out PAGE"),
}
GROUPS = {
    "take recordings apart": TAKE_APART, "code": CODE, "combine": COMBINE, "look and keep": MODELS, "measure": MEASURE,
}  # fmt: skip
MODEL_HELP = "bundle or run folder; without it, the model that comes with the package"
SUITES = ("reconstruction", "enhancement", "absence", "conversion", "ablation", "leakage")

PAGE = """\
Take recordings apart into speech and background, and code them, with a DeCodec model.

{commands}

A model comes with the package. Another is named by --model, a bundle (what `decodec export` writes)
or the folder of a training run; the word {BUILT_IN} names the one that comes with the package:

    decodec enhance noisy.wav clean.wav --model runs/small
    decodec evaluate --suite enhancement --model {BUILT_IN} runs/small --data TEST --out OUT

IN is a file and OUT the file to make of it; or IN is several files, folders or patterns such as
"talks/**/*.wav", and OUT a folder. Subfolders are kept, and files that are there already are
skipped, so that the same command goes on where it was stopped:

    decodec enhance recordings cleaned

Any sample rate, number of channels and length will do. What comes out has those of what went in,
to the sample, but nothing above half the model's rate (8 kHz for a model of 16 kHz). Tokens and
embeddings are those of one channel: `encode` and `embed` mix several down, `decode` gives one, at
the model's rate. What `embed` writes, numpy.load reads: `speech` and `background`, as they are
before quantization, float32 [frames, width]; `frames_per_second`; the model's `fingerprint`.

Recordings are coded at one level, -26 dB of full scale, and given back at their own. How loud a
pipe will be is not known when it begins: it is coded as it is, or --gain DB louder. (`embed`,
`convert` and `recombine` wait for its end, and measure it.)

A single - is standard input or output, as wav. A causal model answers while it listens, and tells
its delays at the end: the algorithmic one, which `decodec info` tells too, and what computing adds:

    arecord -f S16_LE -r 16000 -t wav | decodec enhance - - | aplay

The first call of a kind (of files, of a pipe, of tokens) compiles the model, which takes some
seconds. What is compiled is kept for the calls after it, up to 512 MB, in ~/.cache/decodec_jax (or
in decodec_jax within $XDG_CACHE_HOME); with the environment variable DECODEC_CACHE=off nothing is.

The exit code is 0, or 2 after one line for each thing that went wrong. Nothing half-written stays.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    lines = []
    for title, group in GROUPS.items():
        lines.append(f"{title}:")
        for name, command in group.items():
            lines += [f"  {name:<12} {command.what}", f"  {'':<12}   decodec {name} {command.example}"]
    raw = argparse.RawDescriptionHelpFormatter
    description = PAGE.format(commands="\n".join(lines), BUILT_IN=BUILT_IN)
    top = argparse.ArgumentParser("decodec", "decodec COMMAND ...", description, formatter_class=raw)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", help="decodec COMMAND --help: more")
    options = {}
    for name, command in {name: command for group in GROUPS.values() for name, command in group.items()}.items():
        description = f"{command.what[0].upper()}{command.what[1:]}.\n\nexample: decodec {name} {command.example}"
        one = commands.add_parser(name, prog=f"decodec {name}", description=description, formatter_class=raw)
        options[name] = one.add_argument
        if name not in MODELS | MEASURE:
            options[name]("inputs", nargs="+", metavar="IN", help="file, folder, pattern, or - for standard input")
            options[name]("output", metavar="OUT", help="file or folder to write, or - for standard output")
            options[name]("--model", default=BUILT_IN, help=MODEL_HELP)
            options[name]("--overwrite", action="store_true", help="make files that are in the folder OUT again")
        options[name]("--json", action="store_true", help="tell what happened as JSON, on standard error if OUT is -")
    for name in ("enhance", "background", "reconstruct", "encode"):
        options[name]("--levels", type=_levels, metavar="S,N", help="of speech and background; fewer: a lower bitrate")
    for name in ("enhance", "background", "reconstruct"):
        options[name]("--continuous", action="store_true", help="without quantizers: no tokens, nothing lost by them")
    for name in (*TAKE_APART, "encode"):
        options[name]("--gain", type=float, metavar="DB", help="code it so much louder (default: to -26 dB; 0 for -)")
    for name in TAKE_APART:
        options[name]("--raw", type=int, metavar="HZ", help="- is 16-bit samples of one channel at this rate, not wav")
    options["decode"]("--keep", default="both", choices=("both", "speech", "background", "semantic"))
    options["decode"]("--rate", type=int, metavar="HZ", help="of the recording (default: the model's)")
    options["decode"]("--recover", action="store_true", help="put silence where the file is damaged")
    options["convert"]("--reference", dest="other", required=True, metavar="FILE", help="the voice, for some seconds")
    options["convert"]("--align", default="content", choices=("content", "tile"),
                       help="take the voice from where the reference says the same, or from its start on")  # fmt: skip
    options["convert"]("--keep", default="speech", choices=("speech", "both"), help="both: the background too")
    options["recombine"]("--background", dest="other", required=True, metavar="FILE", help="repeated or cut to fit")
    options["info"]("inputs", nargs="+", metavar="FILE", help=f".dcc file, recording, bundle, run, or {BUILT_IN}")
    options["export"]("run", metavar="RUN", help="folder that training wrote, or a bundle")
    options["export"]("output", metavar="OUT", help="folder to write; a README.md there is kept, if people wrote it")
    options["export"]("--half", action="store_true", help="in half precision: half the size, and weights are rounded")
    options["export"]("--check", nargs="+", default=[], metavar="FILE",
                      help="recordings on which PyTorch, with the bundle, must give what JAX gives")  # fmt: skip
    _measuring(options["evaluate"], options["page"])
    return top


def _measuring(evaluate, page) -> None:
    """The options of the commands that measure."""
    evaluate("--suite", nargs="+", required=True, choices=SUITES, metavar="SUITE", help=" | ".join(SUITES))
    evaluate("--model", nargs="+", default=[], metavar="[NAME=]MODEL", help="bundles or run folders, a column each; "
             f"without them and --baselines, {BUILT_IN}: the model that comes with the package")  # fmt: skip
    page("--model", default=BUILT_IN, metavar="[NAME=]MODEL", help=MODEL_HELP)
    for option in (evaluate, page):
        option("--data", required=True, metavar="FOLDER", help='with a test split in its manifest.csv; "": synthetic')
        option("--out", required=True, type=Path, metavar="FOLDER", help="where to write; of what is there, files of "
               "the same names are replaced")  # fmt: skip
        option("--baselines", nargs="+", default=[], metavar="NAME", help="such as mixture silence oracle noisereduce "
               "opus:8; a wrong name lists them all")  # fmt: skip
        option("--seconds", type=float, default=4.0, help="length of a mixture (default 4)")
        option("--continuous", action="store_true", help="every model once more, its quantizers left out")
    evaluate("--limit", type=int, default=16, metavar="N", help="mixtures at each SNR, clips, pairs (default 16)")
    evaluate("--whisper", default="", metavar="FOLDER", help="Whisper's weights, for word error rates")
    evaluate("--speaker", default="", metavar="FOLDER", help="WavLM's weights, for speaker similarity")
    page("--limit", type=int, default=1, metavar="N", help="mixtures at each SNR, clips, pairs (default 1)")
    page("--tables", default="", metavar="FOLDER", help="what `decodec evaluate --out` wrote, to be shown too")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 after a line for each thing that was wrong, 130 after Ctrl-C."""
    arguments = parser().parse_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)
    compiled.keep()
    commands = {"info": _info, "export": _export, "evaluate": _evaluate, "page": _page}
    command = commands.get(arguments.command, _process)
    try:
        result, errors = command(arguments)
    except UserError as error:
        result, errors = {"error": str(error)}, [str(error)]
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        piped = getattr(arguments, "output", None) == PIPE
        print(json.dumps({"command": arguments.command, **result}), file=sys.stderr if piped else sys.stdout)
    for error in errors:
        _say(error)
    return 2 if errors else 0


def _info(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    from decodec_jax.inference import export  # JAX takes its time: here and below, only what needs it waits for it

    found = {name: export.describe(name) for name in arguments.inputs}
    if not arguments.json:
        for name, facts in found.items():
            print(name)
            print(*(f"  {key.replace('_', ' '):<18} {export.shown(value)}" for key, value in facts.items()), sep="\n")
    return {"found": found}, []


def _export(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    from decodec_jax.inference import export

    if arguments.check:
        try:
            from decodec_jax.interop import comparison
        except ImportError:
            raise UserError("--check needs PyTorch, which is not installed: pip install torch") from None
    for name in arguments.check:
        audio.info(name)
    facts = export.export(arguments.run, arguments.output, arguments.half)
    _say(f"{arguments.output} holds the model {facts['fingerprint']}, after {facts['training_steps']} steps")
    if not arguments.check:
        return {"output": arguments.output, **facts}, []
    agreements, errors = comparison.compare_files(arguments.output, arguments.check), []
    for name, agreement in agreements.items():
        line = f"{name}: of PyTorch and JAX, {agreement}"
        _say(line) if agreement.good else errors.append(line)
    checked = {name: vars(agreement) for name, agreement in agreements.items()}
    return {"output": arguments.output, **facts, "check": checked}, errors


def _evaluate(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    from decodec_jax.evaluation import commands

    tables = commands.evaluate(
        arguments.suite, arguments.data, arguments.out, arguments.model, arguments.baselines, arguments.limit,
        arguments.seconds, arguments.whisper, arguments.speaker, arguments.continuous,
    )  # fmt: skip
    if not arguments.json:
        for heading, table in ((heading, table) for suite in tables.values() for heading, table in suite.items()):
            print(f"{heading}\n\n{table}\n")
    return {"out": str(arguments.out), "tables": tables}, []


def _page(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    from decodec_jax.evaluation import commands

    index = commands.page(
        arguments.model, arguments.data, arguments.out, arguments.baselines, arguments.limit, arguments.seconds,
        arguments.tables, arguments.continuous,
    )  # fmt: skip
    _say(f"open {index} in a browser")
    return {"page": str(index)}, []


def _process(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    """A command that makes a file of each file."""
    sought = batch.TOKENS if arguments.command == "decode" else batch.RECORDINGS
    written = {"encode": batch.TOKENS, "embed": batch.EMBEDDINGS}.get(arguments.command, tuple(audio.FORMATS))
    jobs = batch.plan(arguments.inputs, arguments.output, sought, written)
    other = audio.read(arguments.other) if "other" in arguments else None
    found = {}

    def prepare() -> batch.Work:
        from decodec_jax.inference.codec import DeCodec

        codec = DeCodec.load(arguments.model)
        if not codec.quantized:
            _say("this run's codebooks have not started yet; its continuous embedding is used")
        if getattr(arguments, "continuous", False):
            codec = codec.continuous()
        found["fingerprint"] = codec.fingerprint
        return lambda job, advance: _do(arguments, codec, job, advance, other)

    outcomes, elapsed = batch.run(jobs, lambda job: batch.check(job, written), prepare, arguments.overwrite)
    found |= batch.summary(outcomes, elapsed)
    if len(jobs) > 1:
        factor = f", real-time factor {found['real_time_factor']:.3f}" if "real_time_factor" in found else ""
        _say(f"{found['written']} written, {found['skipped']} skipped, {found['failed']} failed; "
             f"{found['audio_seconds']:.1f} s of sound in {elapsed:.1f} s{factor}")  # fmt: skip
    files = [{name: value for name, value in vars(outcome).items() if value is not None} for outcome in outcomes]
    return {**found, "files": files}, [outcome.error for outcome in outcomes if outcome.error]


def _do(arguments: argparse.Namespace, codec, job: batch.Job, advance, other) -> dict | None:
    """One file; returns what else there is to tell of it."""
    from decodec_jax.inference import files

    command, task = arguments.command, (codec, job.source, job.target, advance)
    if command == "encode":
        return files.encode(*task, arguments.levels, arguments.gain)
    if command == "decode":
        damaged = files.decode(*task, arguments.keep, arguments.rate, arguments.recover)
        for stream, start, end, _ in damaged:
            _say(f"{job.source}: the {stream} from {start:.3f} to {end:.3f} s is damaged, and silent now")
        return {"damaged": [damage[:3] for damage in damaged]}
    if command == "embed":
        return files.embed(*task)
    if command == "convert":
        return files.convert(*task, other, arguments.align, arguments.keep)
    if command == "recombine":
        return files.recombine(*task, other)
    keep = {"reconstruct": "both", "enhance": "speech"}.get(command, command)
    watch = files.transform(*task, keep, getattr(arguments, "levels", None), arguments.raw, arguments.gain)
    if watch is None:
        return None
    _say(str(watch))
    return watch.summary()


def _levels(text: str) -> tuple[int, int]:
    try:
        speech, background = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers as in 4,2") from None
    return speech, background


def _say(line: str) -> None:
    print(f"decodec: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
