"""Checkpoints of a run: the only file that knows Orbax."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from decodec_jax.config import Config
from decodec_jax.errors import UserError
from decodec_jax.training.state import create

log = logging.getLogger(__name__)


S = TypeVar("S")  # a state: the codec's `State`, or one of downstream/


class Restored(NamedTuple, Generic[S]):
    """A checkpoint that was read."""

    state: S
    position: int  # training examples consumed, over all hosts


@dataclasses.dataclass
class Checkpoints:
    """The folder `checkpoints/` of a run. It saves in the background; each save waits for the one before.

    trains: this process trains the run, so it removes what a killed one left unfinished. Without it nothing is removed,
    because what is unfinished may be a save in progress.
    """

    folder: Path
    keep: int = 3
    trains: bool = False

    def __post_init__(self):
        self._orbax = ocp.training.Checkpointer(
            self.folder.absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(self.keep),
            cleanup_tmp_directories=self.trains,
        )
        self._saving = None

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, oldest first."""
        return sorted(checkpoint.step for checkpoint in self._orbax.checkpoints)

    def save(self, state: S, step: int, position: int) -> None:
        """Start to save. Raises UserError if this or the previous save fails; finished checkpoints stay untouched."""
        self.wait()
        with _explained(self.folder, step):
            self._saving = step, self._orbax.save_async(
                step, state, custom_metadata={"position": position}, force=True, overwrite=True
            )

    def wait(self) -> None:
        """Wait until the current save is on disk. Raises UserError if it could not be written."""
        if self._saving is not None:
            (step, response), self._saving = self._saving, None
            with _explained(self.folder, step):
                response.result()

    def restore(self, abstract: S) -> Restored[S] | None:
        """The newest readable checkpoint, or None without any. Skips unreadable ones with a warning.

        abstract: shapes, dtypes and shardings to read into. Raises UserError if the checkpoint has other shapes.
        """
        for step in reversed(self.steps()):
            try:
                written = self._orbax.checkpointables_metadata(step)
                ours, theirs = shapes(abstract), shapes(written.metadata["state"])
                if theirs:  # empty if Orbax could not read them; loading will say why
                    theirs = {name: theirs[name] for name in theirs if name in ours}  # some may not be wanted
                    check_fits(ours, theirs, self.folder / str(step))
                return Restored(self._orbax.load(step, abstract), written.custom_metadata["position"])
            except UserError:
                raise
            except Exception as error:
                log.warning("checkpoint %s is unreadable (%s); trying the one before", self.folder / str(step),
                            _first_line(error))  # fmt: skip
        if self.steps():
            raise UserError(f"no checkpoint in {self.folder} can be read; remove the folder to start over")
        return None

    def close(self) -> None:
        """Finish saving and release Orbax's threads."""
        self.wait()
        self._orbax.close()


def abstract_like(state: S, sharding: jax.sharding.Sharding | S) -> S:
    """Shapes and dtypes of a state (or of `jax.eval_shape` of one), to read into `sharding`: one, or one per array.

    The number of devices that wrote the arrays, and how they were sharded, do not matter.
    """
    shardings = jax.tree.broadcast(sharding, state)
    return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, shardings)


def shapes(tree) -> dict[str, tuple[int, ...]]:
    """The shape of each array, by name."""
    named = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): array.shape for path, array in named
            if array is not ocp.PLACEHOLDER}  # fmt: skip


def check_fits(ours: dict, theirs: dict, path: Path | str) -> None:
    """Raise a UserError that names an array, if arrays of `path` have other shapes than ours."""
    differing = [name for name in (ours | theirs) if ours.get(name) != theirs.get(name)]
    if differing:
        name = differing[0]
        raise UserError(f"{path} does not fit the config: {name} is {theirs.get(name, 'absent')} there and "
                        f"{ours.get(name, 'absent')} here ({len(differing)} arrays differ); it was written with other "
                        "settings or by another version of decodec_jax")


def load(config: Config, folder: Path, fields: Sequence[str] | None = None) -> Restored:
    """The newest readable checkpoint of a codec's run, see `read`."""
    return read(jax.eval_shape(lambda: create(config)), folder, fields)


def read(shape: S, folder: Path, fields: Sequence[str] | None = None) -> Restored[S]:
    """The newest readable checkpoint in `folder`, on the default device; of its state only `fields` (None: all).

    shape: `jax.eval_shape` of a state, a dataclass. Raises UserError if there is no checkpoint.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: this run has no checkpoint yet")
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = abstract_like(shape, here)
    unread = {} if fields is None else {
        field.name: jax.tree.map(lambda _: ocp.PLACEHOLDER, getattr(abstract, field.name))
        for field in dataclasses.fields(abstract) if field.name not in fields
    }  # fmt: skip
    checkpoints = Checkpoints(folder)
    try:
        restored = checkpoints.restore(dataclasses.replace(abstract, **unread))
    finally:
        checkpoints.close()
    if restored is None:
        raise UserError(f"{folder} holds no finished checkpoint yet")
    return restored


def load_weights(config: Config, folder: Path) -> tuple[int, dict, dict]:
    """Step, averaged parameters and codebooks of the checkpoint that `load` reads; skips what only training needs."""
    state = load(config, folder, ("step", "averaged", "codebook")).state
    return int(state.step), state.averaged, state.codebook


@contextlib.contextmanager
def _explained(folder: Path, step: int) -> Iterator[None]:
    """Turn any failure to write into a UserError of one line."""
    try:
        yield
    except Exception as error:
        raise UserError(f"checkpoint of step {step} could not be written to {folder}: {_first_line(error)} "
                        "(is the disk full?); earlier checkpoints are untouched") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
