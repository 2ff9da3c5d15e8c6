"""How fast `decodec tokenize` is beside `codec.encode` in a loop: `python launch/tokens_speed.py RECORDINGS`.

Each runs twice over the recordings and is measured the second time, when all is compiled. Core-seconds are those of all
threads of this process. The last line counts codes that differ between the two.
"""

import argparse
import functools
import shutil
import time
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from decodec_jax import audio
from decodec_jax.arguments import BUILT_IN, MODEL_HELP
from decodec_jax.corpora import items, shards
from decodec_jax.corpora.tokenize import tokenize
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.tokens import STREAMS, Tokens
from decodec_jax.launching import one_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", metavar="RECORDINGS", help="folder of short recordings, such as LibriSpeech's")
    parser.add_argument("--model", default=BUILT_IN, help=MODEL_HELP)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="that read for tokenize (default: 1 2)")
    arguments = parser.parse_args(argv)
    codec, found = DeCodec.load(arguments.model), items.listed(arguments.recordings)
    seconds = sum(audio.info(item.path).seconds for item in found)

    def loop() -> dict[str, Tokens]:
        waves = ((item.id, *audio.read(item.path)) for item in found)
        return {name: codec.encode(audio.mono(wave), rate) for name, wave, rate in waves}

    def tokenized(threads: int, out: str) -> None:
        shutil.rmtree(out, ignore_errors=True)
        tokenize(codec, arguments.recordings, out, threads=threads)

    print(f"{len(found)} recordings, {seconds:.0f} s\n")
    print("| | wall, s | core-seconds | audio-seconds a core-second |\n|---|---|---|---|")
    alone = measured("`codec.encode` in a loop", loop, seconds)
    with TemporaryDirectory() as folder:
        out = f"{folder}/tokens"
        for threads in arguments.threads:
            measured(f"tokenize, reading threads: {threads}", functools.partial(tokenized, threads, out), seconds)
        together = {row["id"]: tokens for row, tokens in shards.read(out)}
    pairs = [(getattr(alone[name], stream), getattr(together[name], stream)) for name in alone for stream in STREAMS]
    differ = sum(int(np.sum(one != other)) for one, other in pairs)
    print(f"\n{differ} of {sum(one.size for one, _ in pairs)} codes differ")


def measured(name: str, work: Callable[[], Any], seconds: float) -> Any:
    """Print a row of the table; returns what the work returns."""
    work()
    wall, core = time.perf_counter(), time.process_time()
    result = work()
    wall, core = time.perf_counter() - wall, time.process_time() - core
    print(f"| {name} | {wall:.1f} | {core:.1f} | {seconds / core:.0f} |", flush=True)
    return result


if __name__ == "__main__":
    with one_line("tokens_speed.py"):
        main()
