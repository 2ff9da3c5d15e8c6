"""How fast the data pipeline makes training examples from files, and how long training steps wait for them."""

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
from decodec_jax.evaluation.speed.timing import Row, print_progress

FORMATS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}
SPEAKERS, CLIPS, BACKGROUNDS = 8, 4, 16
SECONDS = 12.0  # length of a file: much longer than a crop, as in real corpora


def throughput(data: Data, sample_rate: int, seconds: float = 3.0) -> list[Row]:
    """Seconds of finished audio per second of one core, measured over `seconds` of CPU time for each kind of source.

    Covers reading, decoding, cropping, mixing and batching, all in one process that does nothing else. The files have
    just been written, so they come from the operating system's page cache and not from a disk. For `in_memory` the
    process itself keeps the decoded files, as it does for small corpora.
    """
    rows = []
    with corpora(sample_rate, {*FORMATS, "array_record"}) as roots:
        for kind in (*roots, "in_memory"):
            print_progress(f"data: {kind}")
            root, cache_mb = (roots["flac"], 512) if kind == "in_memory" else (roots[kind], 0)
            source_data = replace(data, root=str(root), cache_mb=cache_mb, workers=0, targets="")
            source = open_source(source_data, sample_rate)
            for clip in range(len(source.clips)):  # warm up the page cache, or the process's own cache
                source.read(clip, 0.0, data.seconds)
            rows.append(Row(f"data/{kind}", _rate(source_data, source, seconds), "s of audio per s and core"))
    return rows


def _rate(data: Data, source: ClipSource, seconds: float) -> float:
    batches = pipeline.batches(source, data)
    try:
        for _ in range(2 * pipeline.AHEAD):  # fill the queue; afterwards taking a batch makes a new one
            next(batches)
        began, made = time.process_time(), 0
        while time.process_time() - began < seconds:
            made += next(batches)["mixture"].shape[0]
        return 2 * made * data.seconds / (time.process_time() - began)
    finally:
        batches.close()


def waiting(config: Config, step: Callable[[dict[str, np.ndarray]], object], steps: int, workers: int) -> list[Row]:
    """The share of training time spent waiting for data. `workers` processes read FLAC files, with no cache.

    step: performs one update on a batch and returns when it is done.
    """
    print_progress(f"data: {steps} steps of {config.variant}, fed by {workers} workers")
    rate, waited = config.model.sample_rate, 0.0
    with corpora(rate, {"flac"}) as roots:
        data = replace(config.data, root=str(roots["flac"]), cache_mb=0, workers=workers, targets="")
        batches = pipeline.batches(open_source(data, rate), data)
        try:
            for _ in range(3):  # until the workers have started
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
    """Temporary folders, by kind, with the same synthetic clips: the kinds in `FORMATS`, and "array_record" of flac."""
    minutes = (SPEAKERS * CLIPS + BACKGROUNDS) * SECONDS / 60
    print_progress(f"data: writing {minutes:.0f} min of audio as {', '.join(sorted(kinds))}")
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
