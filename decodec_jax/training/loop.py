"""A training run of the codec, top to bottom: `train(config, workdir)`; steps.py has the steps."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from decodec_jax import config as settings
from decodec_jax.config import Config
from decodec_jax.data import pipeline, sources, targets
from decodec_jax.errors import UserError
from decodec_jax.interop import hubert, whisper
from decodec_jax.objective import discriminators
from decodec_jax.objective.losses import is_adversarial
from decodec_jax.objective.spectral import mel_filters
from decodec_jax.objective.teacher import HUBERT_LAYER, CepstraTeacher, Teacher, require_frames
from decodec_jax.training import codebooks, sharding, step, steps
from decodec_jax.training.checkpoint import Checkpoints, abstract_like
from decodec_jax.training.initial import initial_state
from decodec_jax.training.monitor import Monitor
from decodec_jax.training.run_folder import open_run_folder, settled_precision
from decodec_jax.training.state import State, create
from decodec_jax.training.validation import make_take_apart, report, validate


def train(config: Config, workdir: Path) -> State:
    """Train until `train.steps` or SIGTERM. Resumes from the newest checkpoint in `workdir`, if there is one.

    Raises UserError for mistakes that the user can fix.
    """
    settings.check(config)
    check_objective(config)
    run, rate = config.train, config.model.sample_rate
    host, hosts = jax.process_index(), jax.process_count()
    mesh = sharding.make_mesh(config.mesh, config.data.batch, run.accumulate)
    changes = open_run_folder(config, workdir, host)
    precision = settled_precision(run.precision, workdir, host, hosts)
    config = replace(config, train=replace(run, precision=precision))

    cache, teacher = open_targets(config), open_teacher(config, mesh)
    clips = sources.open_source(config.data, rate, "train")
    held_out = pipeline.validation(sources.open_source(config.data, rate, "valid"), config.data, run.valid_clips // 2)

    checkpoints = Checkpoints(workdir / "checkpoints", run.keep, trains=True)
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
    work = Updates(config, mesh, clips, held_out, batches, monitor, cache, teacher)
    return steps.run(run, first, state, batches, checkpoints, monitor, work)


def check_objective(config: Config) -> None:
    """Raise a UserError that names the setting, if the objective cannot judge clips of this length and rate."""
    loss, rate = config.loss, config.model.sample_rate
    if is_adversarial(loss):
        discriminators.check(config.discriminator, round(config.data.seconds * rate))
    for window, bands in zip(loss.mel_windows, loss.mel_bands, strict=True) if loss.mel else ():
        if not np.all(np.any(mel_filters(rate, window, bands), axis=0)):
            raise UserError(f"loss.mel_bands has {bands} bands for windows of {window} samples at {rate} Hz, and some "
                            "hold no frequency; use fewer bands, or a longer window in loss.mel_windows")


class Updates:
    """What a step of the codec's training does, see `steps.Work`."""

    def __init__(
        self, config: Config, mesh: Mesh, clips: sources.ClipSource, held_out: list[dict[str, np.ndarray]],
        batches: pipeline.Batches, monitor: Monitor, cache: targets.TargetCache | None, teacher: Teacher | None,
    ):  # fmt: skip
        self.seconds = 2 * config.data.batch * config.data.seconds
        self._config, self._mesh, self._clips, self._held_out = config, mesh, clips, held_out
        self._batches, self._monitor, self._cache, self._teacher = batches, monitor, cache, teacher
        self._take_apart = make_take_apart(config, mesh)
        self._train_step, self._skipped = None, 0

    def prepare(self, now: int, state: State) -> State:
        """Start the codebooks at their step; compile for the discriminators at theirs."""
        run, start = self._config.train, self._config.discriminator.start
        if now == run.continuous_steps and run.kmeans_batches:
            position = self._batches.position
            state = start_codebooks(self._config, state, self._clips, position, self._mesh, self._cache)
        if self._train_step is None or now == start:
            self._train_step = step.compile_train_step(self._config, self._mesh, state, self._teacher, now >= start)
            self._monitor.say(step.cost(self._train_step))
        return state

    def update(self, state: State, batch: dict[str, np.ndarray]) -> tuple[State, dict]:
        self._skipped += int(np.sum(batch.pop("skipped")))
        return self._train_step(state, sharding.place(batch, self._mesh), self._teacher)

    def judge(self, now: int, state: State) -> tuple[dict[str, float], str]:
        """Scores of held-out clips; some of them are written to listen to."""
        scores, examples = validate(self._config, state, self._held_out, self._take_apart)
        folder = self._monitor.samples(now, examples, self._config.model.sample_rate)
        return scores, f"{report(scores)}; listen in {folder}"

    def facts(self) -> dict[str, float]:
        return {"data/skipped": self._skipped}


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
    """The teacher, with its weights on every device; None if the step needs none, as with cached targets.

    Its products have the precision of the codec's.
    """
    if not config.loss.perceptual and (not config.loss.guidance or config.data.targets):
        return None
    teacher = load_teacher(config)
    if not isinstance(teacher, CepstraTeacher):
        teacher = replace(teacher, precision=config.train.precision)
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
        raise UserError("guidance needs HuBERT's weights: set teacher.path, or data.targets to targets from "
                        "launch/cache_targets.py. Or set teacher.kind=whisper (a package brings it) with "
                        "model.semantic=384, or cepstra (no weights) with model.semantic=39, or loss.guidance=0")
    if config.loss.guidance and teacher.width != config.model.semantic:
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


def describe(source: sources.ClipSource) -> str:
    """The amount of training data, in words."""
    minutes = {kind: sum(c.seconds for c in source.clips if c.kind == kind) / 60 for kind in ("speech", "background")}
    speakers = len({c.speaker for c in source.clips if c.kind == "speech"})
    speech, background = minutes.values()
    return f"{speech:.0f} min of speech by {speakers} speakers, {background:.0f} min of background"
