"""Compute a teacher's targets once: `python launch/cache_targets.py --config configs/decodec.py:VARIANT --out CACHE`.

Covers all speech in data.root, held-out clips too, so that the cache still fits when data.holdout changes. With
`--config.data.targets=CACHE`, launch/train.py reads these targets and runs no teacher. Runs on one device. If it stops
early, it leaves nothing behind. The exit code is 2 for a mistake, which one line explains.

The teacher processes each clip whole; clips longer than 30 s are split into equal pieces. Each clip is padded with
silence to the next full second, so that the teacher need not be compiled for every length, or to 30 s for Whisper,
which expects that. The padding affects the last frames: for cepstra, the last four have a cosine over features of 0.84
with those of the unpadded clips.
"""

import logging
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from decodec_jax.errors import UserError
from decodec_jax.launching import one_line, parser

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration, for example configs/decodec.py:paper.")
OUT = flags.DEFINE_string("out", None, "New folder for the targets; must not exist.")
flags.mark_flags_as_required(["config", "out"])

QUIET = 20  # s between progress lines


def main(_):
    # after the flags, so that a typo in a flag is reported at once
    from decodec_jax import config as settings
    from decodec_jax.data.sources import open_source
    from decodec_jax.data.targets import About, speech_targets, write_cache
    from decodec_jax.objective.teacher import of_whole_clips
    from decodec_jax.training.loop import load_teacher

    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # like Ctrl-C, this removes unfinished work
    config, out = CONFIG.value, Path(OUT.value)
    settings.check(config)
    if not config.loss.guidance:
        raise UserError(f"{config.variant} has no teacher, because its loss.guidance is 0")
    data, rate = replace(config.data, cache_mb=0), config.model.sample_rate  # no cache: each clip is read once
    sources = [open_source(data, rate, split) for split in ("train", "valid")]
    seconds = {clip.name: clip.seconds for source in sources for clip in source.clips if clip.kind == "speech"}
    teacher = load_teacher(config)
    about = About(teacher.fingerprint, teacher.width, config.model.hop, rate)
    write_cache(out, about, with_progress(speech_targets(sources, about, of_whole_clips(teacher)), seconds))
    print(f"{out}: {about.width} features per frame for {len(seconds)} clips, from the teacher {about.teacher}")


def with_progress(
    targets: Iterator[tuple[str, np.ndarray]], seconds: dict[str, float]
) -> Iterator[tuple[str, np.ndarray]]:
    """The same targets, printing a progress line every `QUIET` seconds. seconds: the length of each clip by name."""
    begun = told = time.monotonic()
    done, total = 0.0, sum(seconds.values())
    for number, (name, features) in enumerate(targets, 1):
        yield name, features
        done += seconds[name]
        if time.monotonic() - told > QUIET:
            told = time.monotonic()
            left = (told - begun) * (total / done - 1) / 60
            print(f"{number} of {len(seconds)} clips, {done / 3600:.1f} h of speech; {left:.0f} min left", flush=True)


if __name__ == "__main__":
    with one_line("cache_targets.py"):
        try:
            app.run(main, flags_parser=parser(CONFIG))
        except OSError as error:
            raise UserError(str(error)) from None
