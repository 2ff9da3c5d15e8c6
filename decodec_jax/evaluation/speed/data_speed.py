"""How fast training examples are made of files, and how long a training step waits for them."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from decodec_jax.config import Config, Data
from decodec_jax.data import pipeline, synthetic
from decodec_jax.data.packing import pack
from decodec_jax.data.sources import ClipSource, open_source
from decodec_jax.evaluation.speed.timing import Row, say

FORMATS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}
SPEAKERS, CLIPS, BACKGROUNDS = 8, 4, 16
SECONDS = 12.0  # of a file: much longer than a crop, as files of a corpus are


def throughput(data: Data, sample_rate: int, seconds: float = 3.0) -> list[Row]:
    """Finished audio (s) for each second that a core works on it: `seconds` of work from each kind of source.

    Reading, decoding, cropping, mixing and batching, all in one process and with no other work beside it. The files
    have just been written, so that they come from the system's memory, not from a disk; `in_memory` has them decoded
    and kept by the process itself, as small corpora are.
    """
    rows = []
    with corpora(sample_rate, {*FORMATS, "array_record"}) as roots:
        for kind in (*roots, "in_memory"):
            say(f"data: {kind}")
            root, cache_mb = (roots["flac"], 512) if kind == "in_memory" else (roots[kind], 0)
            source_data = replace(data, root=str(root), cache_mb=cache_mb, workers=0, targets="")
            source = open_source(source_data, sample_rate)
            for clip in range(len(source.clips)):  # into memory: the system's, or the process's own
                source.read(clip, 0.0, data.seconds)
            rows.append(Row(f"data/{kind}", _rate(source_data, source, seconds), "s of audio per s and core"))
    return rows


def _rate(data: Data, source: ClipSource, seconds: float) -> float:
    batches = pipeline.batches(source, data)
    try:
        for _ in range(2 * pipeline.AHEAD):  # from then on one is made whenever one is taken
            next(batches)
        began, made = time.process_time(), 0
        while time.process_time() - began < seconds:
            made += next(batches)["mixture"].shape[0]
        return 2 * made * data.seconds / (time.process_time() - began)
    finally:
        batches.close()


def waiting(config: Config, step: Callable[[dict[str, np.ndarray]], object], steps: int, workers: int) -> list[Row]:
    """The share of a training run's time that is waiting for data: FLAC, kept nowhere, read by `workers` processes.

    step: an update on a batch, which returns when it is done.
    """
    say(f"data: {steps} steps of {config.variant}, fed by {workers} workers")
    rate, waited = config.model.sample_rate, 0.0
    with corpora(rate, {"flac"}) as roots:
        data = replace(config.data, root=str(roots["flac"]), cache_mb=0, workers=workers, targets="")
        batches = pipeline.batches(open_source(data, rate), data)
        try:
            for _ in range(3):  # the workers begin
                step(next(batches))
            began = time.perf_counter()
            for _ in range(steps):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                step(batch)
            elapsed = time.perf_counter() - began
        finally:
            batches.close()
    return [Row(f"data/{config.variant}/waiting", 100 * waited / elapsed, f"% of a step, {workers} workers")]


@contextmanager
def corpora(sample_rate: int, kinds: set[str]) -> Iterator[dict[str, Path]]:
    """Folders of the same synthetic clips by kind, until the context ends: of `FORMATS`, or "array_record" of flac."""
    minutes = (SPEAKERS * CLIPS + BACKGROUNDS) * SECONDS / 60
    say(f"data: writing {minutes:.0f} min of audio as {', '.join(sorted(kinds))}")
    with tempfile.TemporaryDirectory() as folder:
        roots = {kind: Path(folder) / kind for kind in sorted(kinds)}
        for kind in sorted(kinds & FORMATS.keys()):
            container, subtype = FORMATS[kind]
            for name, wave in _clips(sample_rate):
                file = roots[kind] / f"{name}.{container.lower()}"
                file.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(file, wave, sample_rate, subtype, format=container)
        if "array_record" in kinds:
            pack(roots["flac"], roots["array_record"])
        yield roots


def _clips(rate: int) -> Iterator[tuple[str, np.ndarray]]:
    for index in range(SPEAKERS * CLIPS):
        speaker = index % SPEAKERS
        yield f"speech/{speaker}/{index}", synthetic.speech(speaker, index, rate, SECONDS)
    for index in range(BACKGROUNDS):
        yield f"background/{index}", synthetic.background(index, rate, SECONDS)
