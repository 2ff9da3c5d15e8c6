"""Training speed on this machine: the config's real training step, on a batch of noise."""

import copy
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from decodec_jax.codec.product import resolve
from decodec_jax.config import Config
from decodec_jax.evaluation.speed import cost
from decodec_jax.evaluation.speed.timing import Row, matmul_rate, most_memory, noise, print_progress, timed
from decodec_jax.training import sharding, step
from decodec_jax.training.loop import at_hand, open_teacher
from decodec_jax.training.state import create, fresh


def trainable(config: Config, plain: bool = False) -> Config:
    """The config without what is unavailable here: cached targets, and a teacher whose weights are missing.

    plain: also drop every teacher and the discriminators, which leaves the generator with its reconstruction losses.
    """
    config = copy.deepcopy(config)
    config.data.targets = ""
    taught = config.loss.guidance or config.loss.perceptual
    adversarial = config.loss.adversarial or config.loss.feature
    if taught and (plain or not at_hand(config)):
        config.loss.guidance = config.loss.perceptual = 0.0
        reason = "as --plain asks" if plain else "as its weights are not at hand"
        print_progress(f"train: without the teacher, {reason}")
    if plain and adversarial:
        config.loss.adversarial = config.loss.feature = 0.0
        print_progress("train: without discriminators, as --plain asks")
    return config


class SyntheticRun:
    """A training run whose steps all use the same batch of noise, unless `step` is given another batch.

    from_step: the step number to start from. From `train.continuous_steps` on, the quantizers take part.
    """

    def __init__(self, config: Config, from_step: int):
        self.config = config
        self.mesh = sharding.make_mesh(config.mesh, config.data.batch, config.train.accumulate)
        layout = sharding.layout(jax.eval_shape(lambda: create(config)), self.mesh, config.mesh.fsdp_from)
        state = fresh(config).replace(step=jnp.asarray(from_step, jnp.int32))
        self._state = sharding.spread(state, layout)
        del state
        self._teacher = open_teacher(config, self.mesh)
        self._batch = sharding.place(_noise_batch(config), self.mesh)
        began = time.perf_counter()
        self.compiled = step.compile_train_step(config, self.mesh, self._state, self._teacher)
        self.compile_time = time.perf_counter() - began  # s

    def step(self, batch: Mapping[str, np.ndarray] | None = None) -> dict[str, jax.Array]:
        """Run one update, wait for it, and return its metrics. batch: this host's share, as the pipeline gives it."""
        placed = self._batch if batch is None else sharding.place(
            {name: batch[name] for name in self._batch}, self.mesh
        )  # fmt: skip
        self._state, metrics = self.compiled(self._state, placed, self._teacher)
        return jax.block_until_ready((self._state, metrics))[1]


def train(run: SyntheticRun, rounds: int) -> list[Row]:
    """Measure the training step of `run`, median of `rounds`. Its batch holds 2 * `data.batch` mixtures.

    The rows give memory twice: what the compiler plans for each device, and the peak actually used. The peak is that of
    the device if its backend reports it, otherwise that of this process, including earlier parts of the benchmark.
    """
    config, devices = run.config, run.mesh.size
    print_progress(f"train: compiled in {run.compile_time:.0f} s; {step.cost(run.compiled)}")
    run.step()
    seconds = np.median([timed(run.step) for _ in range(rounds)])
    taken = memory(run.compiled)  # before `matmul_rate` below allocates its matrices
    flops = cost.products(cost.traced_step(config, run.mesh).jaxpr.jaxpr).flops / devices
    precision = resolve(config.train.precision)
    peak = matmul_rate(precision)
    audio = 2 * config.data.batch * config.data.seconds
    rows = [
        Row("audio_seconds_per_second", audio / seconds / devices, "a device"),
        Row("step_time", seconds, "s"),
        Row("compile_time", run.compile_time, "s"),
        Row("work", flops / 1e9, "GFLOP a step and device"),
        Row("matmul_rate", peak / 1e9, f"GFLOP/s in {precision}"),
        Row("of_matmul_rate", 100 * flops / seconds / peak, "%"),
        *taken,
    ]
    return [row._replace(name=f"train/{config.variant}/{row.name}") for row in rows]


def memory(compiled: jax.stages.Compiled) -> list[Row]:
    """Planned memory of a compiled program per device, if the backend reports it, and peak memory used, in MB."""
    rows, planned, used = [], compiled.memory_analysis(), jax.local_devices()[0].memory_stats()
    if planned is not None:
        new = planned.output_size_in_bytes - planned.alias_size_in_bytes
        rows.append(Row("memory/planned", (planned.argument_size_in_bytes + planned.temp_size_in_bytes + new) / 1e6,
                        "MB a device"))  # fmt: skip
    most = used["peak_bytes_in_use"] / 1e6 if used else most_memory()
    return [*rows, Row("memory/most", most, "MB on the device" if used else "MB of the process")]


def _noise_batch(config: Config) -> dict[str, np.ndarray]:
    """This host's share of a batch, `[b, 2, t]` each."""
    pairs, rate = config.data.batch // jax.process_count(), config.model.sample_rate
    t = round(config.data.seconds * rate)
    speech, background = (noise(2 * pairs * t / rate, rate, seed).reshape(pairs, 2, t) for seed in range(2))
    swapped = speech + background[:, ::-1]
    return {"speech": speech, "background": background, "mixture": speech + background, "swapped": swapped}
