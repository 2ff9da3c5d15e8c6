"""How fast a model runs on this machine, how long a live stream waits, and what memory a long recording takes."""

import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import soundfile

from decodec_jax.codec.model import initialise
from decodec_jax.config import Model
from decodec_jax.errors import UserError
from decodec_jax.inference import files
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.live import Stopwatch


class Row(NamedTuple):
    """One measured figure."""

    name: str
    value: float
    unit: str


def random_codec(config: Model) -> DeCodec:
    """A codec of untrained weights: what it costs does not depend on them."""
    return DeCodec(config, *initialise(config, jax.random.key(0)))


def inference(codec: DeCodec, seconds: float, repeats: int = 5) -> list[Row]:
    """Real-time factors (processing time over duration) of whole recordings, medians of `repeats`, compiling aside."""
    rate = codec.config.sample_rate
    wave = noise(seconds, rate)
    tokens = codec.encode(wave, rate)
    tasks = {
        "encode": lambda: codec.encode(wave, rate),
        "decode": lambda: codec.decode(tokens),
        "enhance": lambda: codec.enhance(wave, rate),
    }
    rows = []
    for name, task in tasks.items():
        task()
        taken = np.median([timed(task) for _ in range(repeats)])
        rows.append(Row(f"inference/{name}/real_time_factor", taken / seconds, ""))
    return rows


def streaming(codec: DeCodec, seconds: float) -> list[Row]:
    """What a live stream waits, frame by frame: for the rest of its frame, and for the codec.

    Raises UserError for a model that is not causal.
    """
    if not codec.config.causal:
        raise UserError("only a causal model streams; choose one, such as configs/decodec.py:small_causal")
    rate, hop = codec.config.sample_rate, codec.config.hop
    frames = np.split(noise(round(seconds * rate / hop) * hop / rate, rate)[None], round(seconds * rate / hop), axis=1)
    rows = [Row("streaming/algorithmic", 1000 * hop / rate, "ms")]
    for name, keep in (("reconstruct", "both"), ("enhance", "speech")):
        for _ in codec.stream(iter(frames[:50]), rate, keep):  # compiles, and lets the machine settle
            pass
        watch = Stopwatch(codec.config, rate)
        for _ in codec.stream(watch.started(iter(frames)), rate, keep):
            watch.stop()
        for percent in (50, 99):
            rows.append(Row(f"streaming/{name}/p{percent}", 1000 * np.percentile(watch.times, percent), "ms a frame"))
    return rows


def memory(config: Model, minutes: float) -> list[Row]:
    """The most memory that a process of its own takes to enhance a recording from file to file, and its speed."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "long.wav"
        with soundfile.SoundFile(source, "w", config.sample_rate, 1) as file:
            for piece in range(round(minutes)):
                file.write(noise(60, config.sample_rate, piece))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, most = pool.apply(_enhanced, (config, str(source), str(Path(folder) / "enhanced.wav")))
        if soundfile.info(Path(folder) / "enhanced.wav").frames != soundfile.info(source).frames:
            raise RuntimeError("the enhanced recording is not as long as its source")
    name = f"memory/enhance_{minutes:.0f}_min"
    return [Row(f"{name}/most", most, "MB"), Row(f"{name}/real_time_factor", seconds / (60 * round(minutes)), "")]


def table(rows: list[Row]) -> str:
    """The rows as markdown."""
    lines = [f"| {row.name} | {row.value:.3g} {row.unit} |" for row in rows]
    return "\n".join(["| what | measured |", "|---|---|", *lines])


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """Something to process, `[t]`."""
    return np.float32(0.05) * np.random.default_rng(seed).standard_normal(round(seconds * rate), np.float32)


def timed(task) -> float:
    """Seconds that a task takes."""
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


def _enhanced(config: Model, source: str, target: str) -> tuple[float, float]:
    codec = random_codec(config)
    seconds = timed(lambda: files.transform(codec, source, target, lambda _: None, "speech"))
    return seconds, _most_memory()


def _most_memory() -> float:
    """The most that this process has held, MB; getrusage would count its parent's, up to exec, where /proc is there."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1e6 if sys.platform == "darwin" else 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3
