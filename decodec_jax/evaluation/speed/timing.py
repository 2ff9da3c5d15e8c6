"""What all measurements of speed share: rows of a table, seconds, memory, and the yardstick of products."""

import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from decodec_jax.codec.product import product


class Row(NamedTuple):
    """One measured figure."""

    name: str
    value: float
    unit: str


def table(rows: list[Row]) -> str:
    """The rows as markdown."""
    lines = [f"| {row.name} | {row.value:.3g} {row.unit} |" for row in rows]
    return "\n".join(["| what | measured |", "|---|---|", *lines])


def say(text: str) -> None:
    """Tell on standard error what is being done."""
    print(text, file=sys.stderr, flush=True)


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """Something to process, `[t]`."""
    return np.float32(0.05) * np.random.default_rng(seed).standard_normal(round(seconds * rate), np.float32)


def timed(task) -> float:
    """Seconds that a task takes."""
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


def matmul_rate(precision: str) -> float:
    """FLOP/s of one device in its best product of two square matrices: the yardstick of all the rest.

    precision: "float32" or "bfloat16", as codec/product.py multiplies.
    """
    best = 0.0
    for size in (1024, 2048, 4096, 8192):
        matrix = jnp.asarray(noise(size, size).reshape(size, size))
        multiply = jax.jit(lambda a, b: product(a, b, precision))
        multiply(matrix, matrix).block_until_ready()
        seconds = min(timed(lambda: multiply(matrix, matrix).block_until_ready()) for _ in range(5))  # noqa: B023
        best = max(best, 2 * size**3 / seconds)
        if seconds > 0.05:  # long enough for what starting it takes not to show
            break
    return best


def most_memory() -> float:
    """The most that this process has held, MB; getrusage would count its parent's, up to exec, where /proc is there."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1e6 if sys.platform == "darwin" else 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3
