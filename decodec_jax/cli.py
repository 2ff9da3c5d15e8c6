"""The `decodec` command: a thin skin over `inference`."""

import argparse
import logging
import sys

from decodec_jax import audio
from decodec_jax.errors import UserError

COMMANDS = {
    "reconstruct": "code a recording and decode it again",
    "enhance": "keep the speech of a recording and drop its background",
    "background": "keep the background of a recording and drop its speech",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="decodec",
        description="Take a recording apart into speech and background with a trained DeCodec model.",
        epilog="example: decodec enhance noisy.wav clean.wav --model runs/small",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        command.add_argument("input", help="wav, flac or ogg file, of any sample rate and number of channels")
        command.add_argument("output", help="file to write, in the format of its suffix, as long as the input")
        command.add_argument("--model", required=True, metavar="RUN", help="run folder that training wrote")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 after one line that says what was wrong."""
    arguments = parser().parse_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        run(arguments)
    except UserError as error:
        print(f"decodec: {error}", file=sys.stderr)
        return 2
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Read, process, write."""
    audio.check_writable(arguments.output)
    wave, rate = audio.read(arguments.input)
    from decodec_jax.inference.codec import DeCodec  # JAX takes its time: a wrong file name is told at once

    codec = DeCodec.load(arguments.model)
    if not codec.quantized:
        print("decodec: this run's codebooks have not started yet; its continuous embedding is used", file=sys.stderr)
    audio.write(arguments.output, getattr(codec, arguments.command)(wave, rate), rate)


if __name__ == "__main__":
    sys.exit(main())
