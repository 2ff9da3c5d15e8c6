"""A training run on tokens, top to bottom: `train(config, workdir)`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from decodec_jax import audio
from decodec_jax.downstream.batches import Batches
from decodec_jax.downstream.step import Batch, Frozen, Metrics, State, create, make_train_step
from decodec_jax.errors import UserError
from decodec_jax.training import sharding, steps
from decodec_jax.training.checkpoint import Checkpoints, abstract_like
from decodec_jax.training.monitor import Monitor
from decodec_jax.training.run_folder import open_run_folder, settled_precision

CARD = "card.json"


class Task(Protocol):
    """A model on tokens and its training data. `config.task(workdir)` makes one, new or as the run folder has it."""

    frozen: Frozen  # numpy arrays that `loss` reads, the same on every host
    seconds: float  # of speech in a batch, on average
    precision: str  # of products, see codec/product.py; `train` sets it before anything is made

    def describe(self) -> str:
        """The training data in words."""
        ...

    def card(self) -> dict[str, Any]:
        """What users of the model need besides its config, such as the codec's fingerprint, as JSON."""
        ...

    def create(self, key: Array) -> dict:
        """Fresh parameters."""
        ...

    def loss(self, params: dict, frozen: Frozen, batch: Batch, key: Array) -> tuple[Array, Metrics]:
        """The mean loss of a batch, and more metrics; traced by JAX."""
        ...

    def batches(self, position: int, host: int, hosts: int) -> Batches:
        """This host's share of the training batches from a position on."""
        ...

    def judge(self, params: dict, frozen: Frozen, mesh: Mesh) -> tuple[steps.Row, str]:
        """Validation of parameters: scores, and a line to print."""
        ...


def train(config, workdir: Path) -> State:
    """Train until `train.steps` or SIGTERM. Resumes from the newest checkpoint in `workdir`, if there is one.

    config: sections `model`, `data`, `optim`, `mesh` and `train`, and the methods `check` and `task`. Raises UserError
    for mistakes that the user can fix.
    """
    config.check()
    host, hosts = jax.process_index(), jax.process_count()
    if config.data.batch % hosts:
        raise UserError(f"data.batch is {config.data.batch}; it must be a multiple of the {hosts} hosts")
    mesh = sharding.make_mesh(config.mesh, config.data.batch, config.train.accumulate)
    task: Task = config.task(workdir)  # reports mistakes in the data before a folder is created
    changes = open_run_folder(config, workdir, host) + keep_card(workdir, task.card(), host)
    precision = settled_precision(config.train.precision, workdir, host, hosts)
    config = replace(config, train=replace(config.train, precision=precision))
    task.precision = precision

    checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep, trains=True)
    abstract = jax.eval_shape(lambda: create(config, task.create))
    layout = sharding.layout(abstract, mesh, config.mesh.fsdp_from)
    restored = checkpoints.restore(abstract_like(abstract, layout))
    if restored:
        state, position = restored
    else:
        state, position = sharding.spread(jax.jit(lambda: create(config, task.create))(), layout), 0
    first = int(state.step)

    monitor = Monitor(workdir if host == 0 else None, config.train.steps, first)
    monitor.say(
        f"{config.variant}: {sum(a.size for a in jax.tree.leaves(state.params)) / 1e6:.2f} M parameters; "
        f"{task.describe()}; {mesh.size} x {jax.devices()[0].device_kind}; products in {precision}; "
        f"run folder {workdir}"
    )
    if restored:
        monitor.say(f"resuming from step {first}" + "".join(f"; {change}" for change in changes))
    work = Updates(config, mesh, task)
    return steps.run(config.train, first, state, task.batches(position, host, hosts), checkpoints, monitor, work)


class Updates:
    """The steps of a run on tokens, see `steps.Work`."""

    def __init__(self, config, mesh: Mesh, task: Task):
        self.seconds = task.seconds
        self._mesh, self._task = mesh, task
        self._frozen = sharding.spread(task.frozen, sharding.layout(task.frozen, mesh))
        self._train_step = make_train_step(config, mesh, task.loss)

    def prepare(self, now: int, state: State) -> State:
        return state

    def update(self, state: State, batch: dict[str, np.ndarray]) -> tuple[State, Metrics]:
        return self._train_step(state, sharding.place(batch, self._mesh), self._frozen)

    def judge(self, now: int, state: State) -> tuple[steps.Row, str]:
        return self._task.judge(state.averaged, self._frozen, self._mesh)

    def facts(self) -> steps.Row:
        return {}


def keep_card(workdir: Path, card: dict[str, Any], host: int = 0) -> list[str]:
    """Write card.json into a run folder. Returns how the data has changed since the run's last start, in words.

    Raises UserError if the run started with another codec or other symbols, which its parameters would not fit.
    """
    path = workdir / CARD
    before = read_card(workdir) if path.exists() else card
    for name in ("codec", "symbols"):
        if before.get(name) != card.get(name):
            raise UserError(f"{workdir} holds a run whose {name} is {before.get(name)}, and these tokens have "
                            f"{card.get(name)}; give another --workdir, or the tokens of that run")  # fmt: skip
    if host == 0:
        with audio.replacing(path) as part:
            part.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    changed = before.get("data") != card.get("data")
    return ["the tokens have changed, and the order of the batches with them"] if changed else []


def read_card(run: Path) -> dict[str, Any]:
    """The card of a run folder. Raises UserError if there is none."""
    try:
        return json.loads((run / CARD).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{run} is not a run on tokens: {CARD} cannot be read ({error})") from None
