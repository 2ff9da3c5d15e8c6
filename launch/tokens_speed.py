"""How fast `decodec tokenize` is beside `codec.encode` in a loop: `python launch/tokens_speed.py RECORDINGS`.

Each runs twice over the recordings and is measured the second time, when all is compiled. Core-seconds are those of all
threads of this process.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from decodec_jax import audio
from decodec_jax.arguments import BUILT_IN, MODEL_HELP
from decodec_jax.corpora import items
from decodec_jax.corpora.tokenize import tokenize
from decodec_jax.inference.codec import DeCodec
from decodec_jax.launching import one_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", metavar="RECORDINGS", help="folder of short recordings, such as LibriSpeech's")
    parser.add_argument("--model", default=BUILT_IN, help=MODEL_HELP)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="that read for tokenize (default: 1 2)")
    arguments = parser.parse_args(argv)
    codec, found = DeCodec.load(arguments.model), items.listed(arguments.recordings)
    seconds = sum(audio.info(item.path).seconds for item in found)

    def loop() -> None:
        for item in found:
            wave, rate = audio.read(item.path)
            codec.encode(audio.mono(wave), rate)

    def shards(threads: int) -> None:
        with TemporaryDirectory() as out:
            tokenize(codec, arguments.recordings, str(Path(out) / "tokens"), threads=threads)

    print(f"{len(found)} recordings, {seconds:.0f} s\n")
    print("| | wall, s | core-seconds | audio-seconds a core-second |\n|---|---|---|---|")
    report("`codec.encode` in a loop", loop, seconds)
    for threads in arguments.threads:
        report(f"tokenize, reading threads: {threads}", lambda threads=threads: shards(threads), seconds)


def report(name: str, work, seconds: float) -> None:
    """Print a row of the table."""
    work()
    wall, core = time.perf_counter(), time.process_time()
    work()
    wall, core = time.perf_counter() - wall, time.process_time() - core
    print(f"| {name} | {wall:.1f} | {core:.1f} | {seconds / core:.0f} |", flush=True)


if __name__ == "__main__":
    with one_line("tokens_speed.py"):
        main()
