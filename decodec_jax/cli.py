"""The `decodec` command: a thin skin over `inference`, `corpora`, `downstream` and `evaluation`."""

import argparse
import contextlib
import json
import logging
import sys
import tempfile
import webbrowser
from functools import partial
from pathlib import Path

from decodec_jax import audio
from decodec_jax.arguments import parser
from decodec_jax.errors import UserError
from decodec_jax.inference import batch, compiled
from decodec_jax.inference.pipes import PIPE
from decodec_jax.weights import BUILT_IN


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 after a line for each error, 130 after Ctrl-C."""
    arguments, others = parser().parse_known_args(argv)
    if others and (arguments.command != "prepare" or not all(each.startswith("--") for each in others)):
        # what begins with -- is Beam's; two runs of sources, with options between, would put OUT among the others
        parser().error(f"unrecognized arguments: {' '.join(others)}")
    arguments.others = others
    logging.getLogger("absl").setLevel(logging.ERROR)
    compiled.keep()
    commands = {"info": _info, "export": _export, "demo": _demo, "evaluate": _evaluate, "page": _page}
    commands |= {"prepare": _prepare, "tokenize": _tokenize, "speak": _speak}
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
    from decodec_jax.inference import export  # here and below: importing JAX takes seconds, which --help need not wait

    installed = {} if arguments.inputs else {"installation": export.installation()}
    found = {name: export.describe(name) for name in arguments.inputs or [BUILT_IN]}
    if not arguments.json:
        for name, facts in (installed | found).items():
            print(name)
            print(*(f"  {key.replace('_', ' '):<18} {export.shown(value)}" for key, value in facts.items()), sep="\n")
    return {**installed, "found": found}, []


def _export(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    from decodec_jax.inference import export

    if arguments.check:
        try:
            from decodec_jax.evaluation import agreement
        except ImportError:
            raise UserError("--check needs PyTorch, which is not installed: pip install 'decodec_jax[torch]'") from None
    if arguments.onnx or arguments.int8:
        try:
            from decodec_jax.evaluation import onnx_agreement
        except ImportError as error:
            raise UserError(f"--onnx needs the package {error.name}, which is not installed: "
                            "pip install 'decodec_jax[onnx]'") from None  # fmt: skip
    for name in arguments.check:
        audio.info(name)
    facts, errors = export.export(arguments.run, arguments.output, arguments.half, arguments.beam), []
    _say(f"{arguments.output} holds the model {facts['fingerprint']}, after {facts['training_steps']} steps")
    if arguments.check:
        found = agreement.compare_files(arguments.output, arguments.check)
        for name, each in found.items():
            line = f"{name}: of PyTorch and JAX, {each}"
            _say(line) if each.good else errors.append(line)
        facts["check"] = {name: vars(each) for name, each in found.items()}
    if arguments.onnx or arguments.int8:
        licence = export.licence_of(arguments.run)
        exported = onnx_agreement.export(Path(arguments.output), arguments.check, licence, arguments.int8)
        for line in exported.lines:
            _say(line)
        errors += [f"{name}: the ONNX graphs do not give what JAX gives: {each}"
                   for name, each in exported.agreement.items() if not each.good]  # fmt: skip
        facts["onnx"] = exported.summary()
    return {"output": arguments.output, **facts}, errors


def _demo(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    """Build the page and, unless a folder is named for it, serve it until Ctrl-C."""
    from decodec_jax.demo import site

    if arguments.build:
        index = site.build(arguments.model, arguments.build, arguments.int8)
        _say(f"{index.parent} holds the page; put it on any https address, or look at it with: "
             f"python -m http.server -d {index.parent}")
        return {"page": str(index)}, []
    with tempfile.TemporaryDirectory() as folder:
        site.build(arguments.model, folder, arguments.int8)
        with site.serve(Path(folder), arguments.port) as server:
            address = f"http://localhost:{server.server_port}/"
            _say(f"the page is at {address}; press Ctrl-C to stop")
            if not arguments.no_browser:
                webbrowser.open(address)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
    return {"address": address}, []


def _evaluate(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    from decodec_jax.evaluation import commands

    tables = commands.evaluate(
        arguments.suite, arguments.data, arguments.out, arguments.model, arguments.baselines, arguments.limit,
        arguments.seconds, arguments.whisper, arguments.speaker, arguments.continuous, arguments.recogniser,
        arguments.model_nar, arguments.model_first, arguments.voice,
    )  # fmt: skip
    if not arguments.json:
        for heading, table in ((heading, table) for suite in tables.values() for heading, table in suite.items()):
            print(f"{heading}\n\n{table}\n")
    return {"out": str(arguments.out), "tables": tables}, []


def _page(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    from decodec_jax.evaluation import commands

    index = commands.page(
        arguments.model, arguments.data, arguments.out, arguments.baselines, arguments.limit, arguments.seconds,
        arguments.tables, arguments.continuous, arguments.model_nar,
    )  # fmt: skip
    _say(f"open {index} in a browser")
    return {"page": str(index)}, []


def _prepare(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    """The report, and a line for each source that cannot be read."""
    from decodec_jax.corpora import beam, prepare, screen

    settings = prepare.Settings(arguments.rate, arguments.shard_mb, screen.Limits(longest=arguments.longest))
    options = ([f"--runner={arguments.runner}"] if arguments.runner else []) + arguments.others
    run = beam.runner(arguments.output, arguments.workers, options, _say)
    report = prepare.prepare(arguments.sources, arguments.output, settings, run, arguments.kind, _say)
    _say(f"{arguments.output} holds {report['clips']} clips, {report['hours']:.2f} h")
    for reason, each in report["dropped"].items():
        _say(f"left out, {reason}: {each['recordings']} recordings, {each['hours']:.2f} h")
    return {"output": arguments.output, **report}, [reason for _, reason in report["unreadable"]]


def _tokenize(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    """The report, and a line for each recording that was left out."""
    from decodec_jax.corpora import tokenize
    from decodec_jax.inference.codec import DeCodec

    share = tokenize.shared() if arguments.distributed else arguments.share
    codec = DeCodec.load(arguments.model)
    report = tokenize.tokenize(
        codec, arguments.source, arguments.output, arguments.format, arguments.levels, arguments.shard_mb,
        arguments.batch, arguments.threads, share, _say, arguments.latents,
    )  # fmt: skip
    _say(f"{arguments.output} holds the tokens of {report['recordings']} recordings, {report['seconds'] / 3600:.2f} h")
    errors = [f"{name}: {reason}" if name not in reason else reason for name, reason in report["failed"]]
    return {"output": arguments.output, "fingerprint": codec.fingerprint, **report}, errors


def _speak(arguments: argparse.Namespace) -> tuple[dict, list[str]]:
    """Facts about what was said."""
    from decodec_jax.downstream.tts import prompts
    from decodec_jax.downstream.tts.sampling import Sampling
    from decodec_jax.downstream.tts.speaker import Speaker
    from decodec_jax.inference.codec import DeCodec

    audio.check_writable(arguments.output)
    codec = DeCodec.load(arguments.model) if arguments.model else None
    speaker = Speaker.load(arguments.model_first, arguments.model_nar, codec)
    prompt = prompts.read(speaker.codec, arguments.voice, arguments.prompt_text)
    sampling = Sampling(arguments.temperature, arguments.top_p)
    tokens = speaker.speak(arguments.text, prompt, arguments.background, sampling, arguments.seed)
    audio.write(arguments.output, speaker.codec.decode(tokens), tokens.sample_rate)
    return {"output": arguments.output, "seconds": tokens.seconds, "fingerprint": tokens.fingerprint}, []


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
            _say("the codebooks of this run have not started yet; the quantizers are bypassed")
        if getattr(arguments, "continuous", False):
            codec = codec.continuous()
        found["fingerprint"] = codec.fingerprint
        convert = _converter(arguments, codec) if arguments.command == "convert" else None
        return lambda job, advance: _do(arguments, codec, job, advance, other, convert)

    outcomes, elapsed = batch.run(jobs, lambda job: batch.check(job, written), prepare, arguments.overwrite)
    found |= batch.summary(outcomes, elapsed)
    if len(jobs) > 1:
        factor = f", real-time factor {found['real_time_factor']:.3f}" if "real_time_factor" in found else ""
        _say(f"{found['written']} written, {found['skipped']} skipped, {found['failed']} failed; "
             f"{found['audio_seconds']:.1f} s of sound in {elapsed:.1f} s{factor}")  # fmt: skip
    files = [{name: value for name, value in vars(outcome).items() if value is not None} for outcome in outcomes]
    return {**found, "files": files}, [outcome.error for outcome in outcomes if outcome.error]


def _converter(arguments: argparse.Namespace, codec):
    """What converts the voice of a waveform: frames of the reference, or a model on tokens."""
    if not arguments.model_nar:
        return partial(codec.convert, alignment=arguments.align, keep=arguments.keep)
    from decodec_jax.downstream.tts.converter import Converter

    return partial(Converter.load(arguments.model_nar, codec).convert, keep=arguments.keep)


def _do(arguments: argparse.Namespace, codec, job: batch.Job, advance, other, convert=None) -> dict | None:
    """One file; returns further facts for the report."""
    from decodec_jax.inference import files

    command, task = arguments.command, (codec, job.source, job.target, advance)
    if command == "encode":
        return files.encode(*task, arguments.levels, arguments.gain)
    if command == "decode":
        damaged = files.decode(*task, arguments.keep, arguments.rate, arguments.recover)
        for stream, start, end, _ in damaged:
            _say(f"{job.source}: the {stream} from {start:.3f} to {end:.3f} s is damaged; silence replaces it")
        return {"damaged": [damage[:3] for damage in damaged]}
    if command == "embed":
        return files.embed(*task)
    if command == "convert":
        return files.convert(convert, job.source, job.target, advance, other)
    if command == "recombine":
        return files.recombine(*task, other)
    keep = {"reconstruct": "both", "enhance": "speech"}.get(command, command)
    watch = files.transform(*task, keep, getattr(arguments, "levels", None), arguments.raw, arguments.gain)
    if watch is None:
        return None
    _say(str(watch))
    return watch.summary()


def _say(line: str) -> None:
    print(f"decodec: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
