"""Predicts training on 1 to 1,024 chips from compiled costs, published chip figures and stated assumptions.

The values in `Assumed` are guesses, to be replaced by measurements. The values in `CHIPS` are the vendors' figures.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from decodec_jax.codec.product import resolve
from decodec_jax.config import Config
from decodec_jax.evaluation.speed import cost
from decodec_jax.evaluation.speed.cost import Compiled, compiled, on, products_of
from decodec_jax.evaluation.speed.timing import matmul_rate, timed
from decodec_jax.evaluation.speed.train_speed import SyntheticRun, trainable

COUNTS = (1, 8, 64, 256, 1024)


@dataclass(frozen=True)
class Chip:
    """A chip's published figures, in bytes, bytes/s and FLOP/s. Network rates are for one direction."""

    name: str
    flops: float  # bfloat16, dense
    memory: float
    memory_rate: float
    links: float  # rate to chips of the same domain
    network: float  # a chip's share of its domain's rate to other domains
    domain: int  # number of chips connected by fast links
    host: int  # chips per host
    loose_below: int = 0  # a slice with fewer chips is not a torus, so it has half the paths


CHIPS = (
    Chip("TPU v5e", 197e12, 16e9, 819e9, 200e9, 6.4e12 / 8 / 256, 256, 8, loose_below=256),
    Chip("TPU v6e", 918e12, 32e9, 1640e9, 400e9, 25.6e12 / 8 / 256, 256, 8, loose_below=256),
    Chip("H100 SXM", 989e12, 80e9, 3350e9, 450e9, 400e9 / 8, 8, 8),
    Chip("H200 SXM", 989e12, 141e9, 4800e9, 450e9, 400e9 / 8, 8, 8),
)


@dataclass(frozen=True)
class Assumed:
    """Assumed shares of the published figures that a step reaches."""

    products: float = 0.4  # share of peak FLOP/s in convolutions and matrix products
    memory_rate: float = 0.8
    links: float = 0.5
    memory: float = 0.9  # share of the memory that a step can use


# --- communication --------------------------------------------------------------------------------------------------


def ring_seconds(size: float, devices: int, rate: float) -> float:
    """Seconds to all-reduce `size` bytes around a ring: each device sends 2 (n - 1) / n of them at `rate` bytes/s."""
    return 2 * (devices - 1) / devices * size / rate


def all_reduce_seconds(size: float, chips: int, chip: Chip, share: float = 1.0) -> float:
    """Seconds to all-reduce: a ring within each domain, then a ring across domains for the piece that each chip holds.

    share: share of the published rates that is reached.
    """
    within = min(chips, chip.domain)
    links = share * chip.links * (0.5 if chips < chip.loose_below else 1.0)
    return ring_seconds(size, within, links) + ring_seconds(
        size / within, math.ceil(chips / within), share * chip.network
    )


# --- costs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A cost that is linear in the number of pairs of clips on a device: `fixed + pairs * each`."""

    fixed: float
    each: float

    def __call__(self, pairs: float) -> float:
        return self.fixed + pairs * self.each

    @classmethod
    def from_points(cls, few: tuple[float, float], more: tuple[float, float]) -> "Line":
        """The line through two points `(pairs, value)`."""
        each = (more[1] - few[1]) / (more[0] - few[0])
        return cls(few[1] - few[0] * each, each)


@dataclass(frozen=True)
class Costs:
    """The costs of one config's training step, per device."""

    flops: Line  # products, counting every turn of each loop
    fused_bytes: Line  # bfloat16 operands and float32 results of products, as if all else were fused into them
    parts: dict[str, int]  # bytes of each part of the training state, which fsdp shards
    seconds: float  # length of a clip
    compiled: tuple[Compiled, ...]  # one for each of LAYOUTS

    @property
    def state(self) -> int:
        """Bytes of the whole training state."""
        return sum(self.parts.values())

    @property
    def reduced(self) -> int:
        """Bytes to all-reduce if each gradient and each codebook statistic is reduced once."""
        return self.parts["params"] + self.parts["discriminators"] + self.parts["codebook"]

    @property
    def unsharded(self) -> float:
        """Bytes that fsdp does not divide: the teacher, and the batch, which is small."""
        return self.compiled[0].arguments - self.state

    @property
    def temporary(self) -> Line:
        """Memory in addition to the arguments, float32, with the whole state on each device."""
        few, _, more = self.compiled
        return Line.from_points((few.pairs, few.temporary), (more.pairs, more.temporary))

    def memory(self, pairs: int, pieces: int = 1) -> float:
        """Total bytes on each device, with the state sharded into `pieces`."""
        gathered = self.compiled[1].temporary - self.temporary(self.compiled[1].pairs)  # extra with a sharded state
        return self.state / pieces + self.unsharded + self.temporary(pairs) + (gathered if pieces > 1 else 0.0)

    @property
    def accessed(self) -> Line:
        """Bytes of memory traffic as compiled, float32, loop bodies counted once."""
        few, _, more = self.compiled
        return Line.from_points((few.pairs, few.bytes), (more.pairs, more.bytes))


DEVICES = 8
LAYOUTS = ((DEVICES, "data", 1), (DEVICES, "fsdp", 1), (1, "data", 2))  # devices, axis, pairs on each


def costs(config: Config, file: Path | None = None, report: Callable[[str], None] = print) -> Costs:
    """Trace with one and two pairs in bfloat16, as chips train, and compile in float32 for each of `LAYOUTS`.

    Each compilation takes minutes at paper size. file: keeps the compiled costs; read if it exists. report: receives
    progress lines.
    """
    kept = json.loads(file.read_text()) if file and file.exists() else {"traced": [], "compiled": []}

    def keep(part: str, row):
        kept[part].append(row)
        if file:
            file.write_text(json.dumps(kept, indent=1) + "\n")

    for pairs in range(len(kept["traced"]) + 1, 3):
        keep("traced", products_of(in_precision(config, "bfloat16"), pairs))
    for layout in LAYOUTS[len(kept["compiled"]):]:
        report(f"compiling for {layout[0]} x {layout[1]}, {layout[2]} pairs on each")
        keep("compiled", dataclasses.asdict(compiled(in_precision(config, "float32"), *layout)))
    flops, moved = (Line.from_points((1, few), (2, more)) for few, more in zip(*kept["traced"], strict=True))
    rows = tuple(Compiled(**row) for row in kept["compiled"])
    return Costs(flops, moved, cost.state_bytes(config), config.data.seconds, rows)


def in_precision(config: Config, precision: str) -> Config:
    """The config with all products of training in this precision."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, precision=precision))


# --- predictions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """Predicted seconds and bytes of a training step with `pairs` pairs of clips on each of `chips` chips."""

    chip: Chip
    chips: int
    pairs: int
    micro_batches: int
    computing: float  # products at the assumed share of the peak
    moving: float  # memory traffic, if all else were fused into products
    reducing: float  # all-reduces, each gradient once
    as_compiled: float  # all-reduces of the compiled step, including every turn of its loops
    memory: float  # on each chip, parameters replicated
    audio: float  # seconds of clips in a host's batch

    @property
    def step(self) -> float:
        return max(self.computing, self.moving) + self.reducing

    @property
    def efficiency(self) -> tuple[float, float]:
        """The share of the step that is not communication: with each gradient reduced once, and as compiled."""
        alone = max(self.computing, self.moving)
        return alone / (alone + self.reducing), alone / (alone + self.as_compiled)

    @property
    def per_host(self) -> float:
        """Audio-seconds that a host consumes per second."""
        return self.audio / self.step


def predict(costs: Costs, chip: Chip, chips: int, pairs: int, assumed: Assumed = Assumed()) -> Prediction:
    """Predict a step, assuming that products overlap with memory traffic and nothing else overlaps.

    There are as many micro-batches as memory requires, each with its own all-reduce.
    """
    fitting = max(1, largest(costs, chip, 1, assumed))
    micro_batches = next((n for n in range(1, pairs + 1) if pairs % n == 0 and pairs // n <= fitting), pairs)
    each = pairs // micro_batches
    once, as_compiled = (
        micro_batches * all_reduce_seconds(size, chips, chip, assumed.links)
        for size in (costs.reduced, costs.compiled[0].reduced)
    )
    return Prediction(
        chip, chips, pairs, micro_batches,
        micro_batches * costs.flops(each) / (assumed.products * chip.flops),
        micro_batches * costs.fused_bytes(each) / (assumed.memory_rate * chip.memory_rate),
        once, as_compiled, costs.memory(each), 2 * pairs * costs.seconds * min(chips, chip.host),
    )  # fmt: skip


def largest(costs: Costs, chip: Chip, chips: int, assumed: Assumed = Assumed()) -> int:
    """Pairs of clips that fit on a chip in one micro-batch, float32, with the state sharded over all `chips`."""
    room = assumed.memory * chip.memory - costs.memory(0, chips)
    return max(0, math.floor(room / costs.temporary.each))


# --- tables ---------------------------------------------------------------------------------------------------------


def table(head: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def cost_table(costs: Costs) -> str:
    """The costs of a step, which do not depend on the chip."""
    plain, pieces = costs.compiled[:2]
    rows = [
        ["products, GFLOP", *_g(costs.flops)],
        ["memory traffic if all else were fused into products of bfloat16, GB", *_g(costs.fused_bytes)],
        ["the same as compiled for CPUs, float32, loops once, GB", *_g(costs.accessed)],
        ["memory beside state and teacher, float32, GB", *_g(costs.temporary)],
        ["training state, GB", f"{costs.state / 1e9:.2f}", ""],
        ["gradients, GB", f"{(costs.reduced - costs.parts['codebook']) / 1e9:.2f}", ""],
        ["codebooks, GB", f"{costs.parts['codebook'] / 1e9:.2f}", ""],
        ["teacher, GB", f"{costs.unsharded / 1e9:.2f}", ""],
        ["all-reduced, GB", f"{plain.reduced / 1e9:.2f}", ""],
        ["of which within loops, GB", f"{plain.reduced_in_loops / 1e9:.2f}", ""],
        ["all-gathered with fsdp, GB", f"{pieces.gathered / 1e9:.2f}", ""],
    ]
    return table(["a step on one device", "fixed", "and for each pair of clips"], rows)


def compiled_table(costs: Costs) -> str:
    """Memory and all-reduces expected from the state's shapes, next to the compiler's figures."""
    rows = []
    for c in costs.compiled:
        arguments = costs.state / (c.devices if c.axis == "fsdp" else 1) + costs.unsharded
        rows.append([
            f"{c.devices} x {c.axis}, {c.pairs} on each", f"{arguments / 1e9:.2f}", f"{c.arguments / 1e9:.2f}",
            f"{c.temporary / 1e9:.2f}", f"{(costs.reduced if c.devices > 1 else 0) / 1e9:.2f}",
            f"{c.reduced / 1e9:.2f}", f"{c.reduced_in_loops / 1e9:.2f}", c.reductions,
            f"{c.gathered / 1e9:.2f}",
        ])  # fmt: skip
    return table(["devices, pairs", "state and teacher expected, GB", "compiled, GB", "temporary, GB",
                  "all-reduced expected, GB", "compiled, GB", "of it in loops, GB", "all-reduces", "gathered, GB"],
                 rows)  # fmt: skip


def prediction_table(costs: Costs, least: int, batch: int, per_core: float | None = None) -> str:
    """Predictions for every chip and chip count, with `batch` pairs in all but at least `least` on each chip.

    per_core: finished audio-seconds per second that the data pipeline makes on one core.
    """
    head = ["chip", "chips", "pairs on each", "micro-batches", "batch", "products, ms", "memory, ms", "all-reduce, ms",
            "step, ms", "efficiency", "as compiled", "memory, GB", "audio-s/s a host"]  # fmt: skip
    rows = []
    for chip in CHIPS:
        for chips in COUNTS:
            p = predict(costs, chip, chips, max(least, batch // chips))
            times = (p.computing, p.moving, p.reducing, p.step)
            rows.append([
                chip.name, chips, p.pairs, p.micro_batches, p.pairs * chips, *(f"{1e3 * s:.0f}" for s in times),
                *(f"{share:.0%}" for share in p.efficiency), f"{p.memory / 1e9:.1f}", f"{p.per_host:.0f}",
            ])  # fmt: skip
            if per_core:
                rows[-1].append(f"{p.per_host / per_core:.1f}")
    return table(head + ["cores a host"] * bool(per_core), rows)


def largest_table(costs: Costs) -> str:
    """The largest number of pairs that fits on each chip, replicated and with fsdp."""
    rows = [[chip.name, f"{chip.memory / 1e9:.0f}", *(largest(costs, chip, n) for n in (1, 8, 64))] for chip in CHIPS]
    return table(["chip", "memory, GB", "replicated", "fsdp over 8", "fsdp over 64"], rows)


def _g(line: Line) -> list[str]:
    return [f"{line.fixed / 1e9:.2f}", f"{line.each / 1e9:.2f}"]


# --- this machine ---------------------------------------------------------------------------------------------------


def memory_rate() -> float:
    """Bytes/s that one device reads and writes when it adds 1 to an array too large for its caches."""
    array, add = jnp.zeros(2**26), jax.jit(lambda array: array + 1)
    add(array).block_until_ready()
    return 2 * array.nbytes / min(timed(lambda: add(array).block_until_ready()) for _ in range(5))


def measured(config: Config, steps: int) -> str:
    """A table of the config's step on one device of this machine: predicted as for chips, and the median of `steps`."""
    run = SyntheticRun(on(trainable(config), 1, "data", config.data.batch), config.train.continuous_steps)
    run.step()
    taken = f"{np.median([timed(run.step) for _ in range(steps)]):.3f}"
    work, compiled = products_of(run.config, config.data.batch), run.compiled.cost_analysis()
    computing, rate = work.flops / matmul_rate(resolve(config.train.precision)), memory_rate()
    expected = sum(cost.state_bytes(run.config).values())
    rows = [
        ["step, s: products, or their memory traffic if that takes longer",
         f"{max(computing, work.bytes / rate):.3f}", taken],
        ["step, s: products, then all memory traffic as compiled",
         f"{computing + compiled['bytes accessed'] / rate:.3f}", taken],
        ["products, GFLOP: traced, and by the compiler, loops once",
         f"{work.flops / 1e9:.2f}", f"{compiled['flops'] / 1e9:.2f}"],
        ["state, MB: from shapes, and compiled with batch and teacher", f"{expected / 1e6:.1f}",
         f"{run.compiled.memory_analysis().argument_size_in_bytes / 1e6:.1f}"],
    ]  # fmt: skip
    return table([config.variant, "predicted", "measured"], rows)
