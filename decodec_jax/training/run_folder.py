"""The run folder: one configuration and all its results."""

import json
from pathlib import Path
from typing import TypeVar

import numpy as np
from jax.experimental import multihost_utils

from decodec_jax import audio
from decodec_jax import config as settings
from decodec_jax.codec.product import PRECISIONS, resolve
from decodec_jax.config import Config
from decodec_jax.errors import UserError

C = TypeVar("C")  # a configuration: the codec's `Config`, or one of downstream/ that has a section `model` too


def open_run_folder(config: C, workdir: Path, host: int = 0) -> list[str]:
    """Create or reopen a run folder; the first host saves the configuration in it.

    Returns the settings that changed since the folder's last run, as "name is new (was old)". Raises UserError if the
    model or the optimizer has changed, because the checkpoints would not fit, and if the codec's codebooks would never
    start.
    """
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        before = settings.load(path, type(config)) if path.exists() else config
        changes = differences(settings.to_dict(before), settings.to_dict(config))
        for kind, prefix in (("model", "model."), ("optimizer", "optim.kind "), ("optimizer", "train.decoder_only ")):
            other = [change for change in changes if change.startswith(prefix)]
            if other and _steps(workdir):  # without a checkpoint, nothing is lost
                raise UserError(f"{workdir} holds a run of another {kind}: {other[0]}; "
                                "give another --workdir, or the settings of that run")
        if isinstance(config, Config):
            _check_start(before, config, workdir)
        if host == 0:
            with audio.replacing(path) as part:
                part.write_text(json.dumps(settings.to_dict(config), indent=2) + "\n")
    except OSError as error:
        raise UserError(f"the run folder {workdir} cannot be written: {error.strerror}") from None
    return changes


def _check_start(before: Config, config: Config, workdir: Path) -> None:
    """Raise UserError if the codebooks are now set to start at a step that the run has passed without starting them."""
    steps, start = _steps(workdir), config.train.continuous_steps
    if start < max(steps, default=0) <= before.train.continuous_steps:
        raise UserError(f"train.continuous_steps is {start}, but {workdir} is at step {max(steps)} and its codebooks "
                        "have not started; give that step or a later one")


def _steps(workdir: Path) -> list[int]:
    """The steps of the checkpoints in a run folder."""
    return [int(folder.name) for folder in (workdir / "checkpoints").glob("*") if folder.name.isdigit()]


def settled_precision(asked: str, workdir: Path, host: int = 0, hosts: int = 1) -> str:
    """The precision of this run's products: the requested one, or for "auto" the one that the first host finds.

    The run folder keeps it, so that a resumed run has the same bits as one that was never interrupted.
    """
    path = workdir / "precision.txt"
    before = path.read_text().strip() if path.exists() else None
    settled = resolve(asked, before if before in PRECISIONS else None)
    if hosts > 1:  # all must compile the same program
        settled = PRECISIONS[int(multihost_utils.broadcast_one_to_all(np.int32(PRECISIONS.index(settled))))]
    if host == 0:
        path.write_text(settled + "\n")
    return settled


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Leaves that differ between two nested dictionaries."""
    found = []
    for name in sorted(set(old) | set(new)):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{name}.")
        elif _plain(a) != _plain(b):
            found.append(f"{prefix}{name} is {_plain(b)} (was {_plain(a)})")
    return found


def _plain(value):
    """JSON has no tuples."""
    return list(value) if isinstance(value, tuple) else value
