"""Shared by all speed measurements: table rows, timing, peak memory and this machine's matrix product rate."""

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


def print_progress(text: str) -> None:
    """Print a progress line on standard error."""
    print(text, file=sys.stderr, flush=True)


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """White noise with an RMS of 0.05, float32 `[t]`, as input for measurements. rate: Hz."""
    return np.float32(0.05) * np.random.default_rng(seed).standard_normal(round(seconds * rate), np.float32)


def timed(task) -> float:
    """Seconds that one call of `task` takes."""
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


def matmul_rate(precision: str) -> float:
    """The best rate (FLOP/s) at which one device multiplies two square matrices. Other rates are given relative to it.

    precision: "float32" or "bfloat16", as codec/product.py multiplies.
    """
    best = 0.0
    for size in (1024, 2048, 4096, 8192):
        matrix = jnp.asarray(noise(size, size).reshape(size, size))
        multiply = jax.jit(lambda a, b: product(a, b, precision))
        multiply(matrix, matrix).block_until_ready()
        seconds = min(timed(lambda: multiply(matrix, matrix).block_until_ready()) for _ in range(5))  # noqa: B023
        best = max(best, 2 * size**3 / seconds)
        if seconds > 0.05:  # long enough to make the launch overhead negligible
            break
    return best


def most_memory() -> float:
    """Peak resident memory of this process, MB.

    From /proc where that exists, since getrusage there also counts the parent's memory up to exec.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1e6 if sys.platform == "darwin" else 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3
