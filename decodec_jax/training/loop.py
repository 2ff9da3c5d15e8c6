"""The training loop, top to bottom: `train(config, workdir)`."""

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from decodec_jax import config as settings
from decodec_jax.config import Config
from decodec_jax.data import pipeline, sources, targets
from decodec_jax.errors import UserError
from decodec_jax.interop import hubert, whisper
from decodec_jax.objective.teacher import HUBERT_LAYER, CepstraTeacher, Teacher, require_frames
from decodec_jax.training import codebooks, sharding, step
from decodec_jax.training.checkpoint import Checkpoints, abstract_like
from decodec_jax.training.initial import initial_state
from decodec_jax.training.monitor import Monitor
from decodec_jax.training.preemption import stop_requests
from decodec_jax.training.run_folder import open_run_folder, settled_precision
from decodec_jax.training.state import State, create
from decodec_jax.training.validation import make_take_apart, report, validate


def train(config: Config, workdir: Path) -> State:
    """Train until `train.steps` or SIGTERM. Resumes from the newest checkpoint in `workdir`, if there is one.

    A resumed run has the same data order, random numbers and bits as one that was never interrupted. This depends on
    the order within a step: first validate and save the current state, then draw a batch and update. Raises UserError
    for mistakes that the user can fix.
    """
    settings.check(config)
    run, rate = config.train, config.model.sample_rate
    host, hosts = jax.process_index(), jax.process_count()
    mesh = sharding.make_mesh(config.mesh, config.data.batch, run.accumulate)
    changes = open_run_folder(config, workdir, host)
    precision = settled_precision(run.precision, workdir, host, hosts)
    config = replace(config, train=replace(run, precision=precision))

    cache = open_targets(config)
    clips = sources.open_source(config.data, rate, "train")
    held_out = pipeline.validation(sources.open_source(config.data, rate, "valid"), config.data, run.valid_clips // 2)

    checkpoints = Checkpoints(workdir / "checkpoints", run.keep)
    abstract = jax.eval_shape(lambda: create(config))
    layout = sharding.layout(abstract, mesh, config.mesh.fsdp_from)
    restored = checkpoints.restore(abstract_like(abstract, layout))
    if restored:
        state, position = restored
    else:
        state = sharding.spread(initial_state(config), layout)
        position = int(state.step) * config.data.batch  # do not repeat data that init_from has seen
    first = int(state.step)
    batches = pipeline.batches(clips, config.data, position, host, hosts, cache)

    monitor = Monitor(workdir if host == 0 else None, run.steps, first)
    monitor.say(
        f"{config.variant}: {sum(a.size for a in jax.tree.leaves(state.params)) / 1e6:.1f} M parameters; "
        f"{describe(clips)}; {mesh.size} x {jax.devices()[0].device_kind}; run folder {workdir}"
    )
    monitor.say(f"products in {precision}" + (", the fastest on this machine" if run.precision == "auto" else ""))
    if restored:
        monitor.say(f"resuming from step {first}" + "".join(f"; {change}" for change in changes))
    elif run.init_from:
        monitor.say(f"starting from {run.init_from} at step {first}")
    teacher = open_teacher(config, mesh)
    take_apart = make_take_apart(config, mesh)

    pace, recent, skipped = Pace(first), [], 0
    try:
        with stop_requests() as asked:
            for now in range(first, run.steps + 1):
                last, moved = now == run.steps, now > first
                stopping = asked(now)
                judged = moved and (last or now % run.valid_every == 0)
                if moved and (judged or now % run.log_every == 0):
                    row = {name: np.mean(values) for name, values in transposed(jax.device_get(recent)).items()}
                    row |= pace.report(now, 2 * config.data.batch * config.data.seconds) | {"data/skipped": skipped}
                    if judged:
                        scores, examples = validate(config, state, held_out, take_apart)
                        folder = monitor.samples(now, examples, rate)
                        row |= scores
                    monitor.record(now, {name: float(value) for name, value in row.items()})
                    if judged:
                        monitor.say(f"step {now}: {report(scores)}; listen in {folder}")
                    pace, recent = Pace(now), []
                if moved and (last or stopping or now % run.save_every == 0):
                    monitor.publish()
                    checkpoints.save(state, now, batches.position)
                if stopping and moved and not last:
                    monitor.say(f"asked to stop: saved at step {now}; run the same command again to resume")
                if last or stopping:
                    break
                if now == run.continuous_steps and run.kmeans_batches:
                    state = start_codebooks(config, state, clips, batches.position, mesh, cache)
                if now in (first, config.discriminator.start):
                    adversarial = now >= config.discriminator.start
                    train_step = step.compile_train_step(config, mesh, state, teacher, adversarial)
                    monitor.say(step.cost(train_step))
                with pace.waiting():
                    batch = next(batches)
                skipped += int(np.sum(batch.pop("skipped")))
                state, metrics = train_step(state, sharding.place(batch, mesh), teacher)
                recent.append(metrics)  # left on the device, so that no step waits for its metrics
    finally:
        batches.close()
        checkpoints.close()
        monitor.close()
    return state


def start_codebooks(
    config: Config, state: State, clips: sources.ClipSource, position: int, mesh: Mesh,
    cache: targets.TargetCache | None = None,
) -> State:  # fmt: skip
    """Set the codebooks by k-means from the next batches. Training still sees these batches afterwards."""
    coming = pipeline.batches(clips, config.data, position, jax.process_index(), jax.process_count(), cache)
    try:
        mixtures = [next(coming)["mixture"] for _ in range(config.train.kmeans_batches)]
    finally:
        coming.close()
    placed = [sharding.place({"mixture": mixture}, mesh)["mixture"] for mixture in mixtures]
    return codebooks.start_codebooks(config, mesh, state, placed)


def open_teacher(config: Config, mesh: Mesh) -> Teacher | None:
    """The teacher, with its weights on every device; None without guidance or with cached targets."""
    if not config.loss.guidance or config.data.targets:
        return None
    teacher = load_teacher(config)
    return sharding.spread(teacher, sharding.layout(teacher, mesh))


def at_hand(config: Config) -> bool:
    """Whether the teacher can be loaded: it has a path, needs no weights, or a package brings them."""
    kind = config.teacher.kind
    return bool(config.teacher.path) or kind == "cepstra" or (kind == "whisper" and whisper.packaged() is not None)


def load_teacher(config: Config) -> Teacher:
    """The teacher that the config names. Raises UserError if it names none, or one that does not fit the model."""
    require_frames(config.model.sample_rate, config.model.hop)
    if config.teacher.kind == "cepstra":
        teacher = CepstraTeacher()
    elif config.teacher.kind == "whisper":
        teacher = whisper.load(config.teacher.path, config.teacher.layer)
    elif config.teacher.path:
        teacher = hubert.load(config.teacher.path, config.teacher.layer or HUBERT_LAYER)
    else:
        raise UserError("loss.guidance needs HuBERT's weights: set teacher.path, or data.targets to targets from "
                        "launch/cache_targets.py. Or set teacher.kind=whisper (a package brings it) with "
                        "model.semantic=384, or cepstra (no weights) with model.semantic=39, or loss.guidance=0")
    if teacher.width != config.model.semantic:
        raise UserError(f"model.semantic is {config.model.semantic}; this teacher has {teacher.width} features a frame")
    return teacher


def open_targets(config: Config) -> targets.TargetCache | None:
    """The cache of targets that replaces the teacher; None without guidance or without a cache.

    Raises UserError if the cache has other frames or another width, or another teacher than the config names. The
    teacher is checked only if its weights are available, because cached targets do not need them.
    """
    if not (config.loss.guidance and config.data.targets):
        return None
    cache = targets.open_cache(Path(config.data.targets), config.model.sample_rate, config.model.hop)
    if cache.about.width != config.model.semantic:
        raise UserError(f"model.semantic is {config.model.semantic}; {cache.folder} has {cache.about.width} features a "
                        "frame")
    if at_hand(config):
        teacher = load_teacher(config)
        if teacher.fingerprint != cache.about.teacher:
            raise UserError(f"{cache.folder} was made by the teacher {cache.about.teacher}; the config names "
                            f"{teacher.fingerprint} ({config.teacher.kind}): make the cache again with that teacher")
    return cache


def transposed(rows: list[dict[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """A list of dicts as a dict of lists."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def describe(source: sources.ClipSource) -> str:
    """The amount of training data, in words."""
    minutes = {kind: sum(c.seconds for c in source.clips if c.kind == kind) / 60 for kind in ("speech", "background")}
    speakers = len({c.speaker for c in source.clips if c.kind == "speech"})
    speech, background = minutes.values()
    return f"{speech:.0f} min of speech by {speakers} speakers, {background:.0f} min of background"


@dataclass
class Pace:
    """Speed of the steps since `step`, and the time spent waiting for data."""

    step: int
    begun: float = field(default_factory=time.perf_counter)
    waited: float = 0.0

    @contextmanager
    def waiting(self):
        """Count the time inside as waiting for data."""
        since = time.perf_counter()
        yield
        self.waited += time.perf_counter() - since

    def report(self, now: int, audio_seconds: float) -> dict[str, float]:
        """Means over the steps up to `now`, each of which consumes `audio_seconds` of mixtures."""
        elapsed, steps = time.perf_counter() - self.begun, now - self.step
        return {
            "seconds/step": elapsed / steps,
            "seconds/waiting_for_data": self.waited / steps,
            "audio_seconds_per_second": audio_seconds * steps / elapsed,
        }
