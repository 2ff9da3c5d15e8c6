"""Whatever happens to a checkpoint, the ones before it can be had."""

import os
import resource
import subprocess
import sys

import jax
import numpy as np
import pytest

from decodec_jax.config import Mesh
from decodec_jax.errors import UserError
from decodec_jax.training import sharding
from decodec_jax.training.checkpoint import Checkpoints, abstract_like, load_weights
from decodec_jax.training.loop import train
from decodec_jax.training.state import fresh


@pytest.fixture
def saved(tmp_path, tiny_config):
    """A folder with checkpoints of steps 1 and 2 by eight devices, the state in them, and its abstract form for one."""
    mesh = sharding.make_mesh(tiny_config.mesh, tiny_config.data.batch)
    eight = Mesh(data=2, fsdp=4, fsdp_from=64)
    current = fresh(tiny_config)
    current = sharding.spread(current, sharding.layout(current, sharding.make_mesh(eight, 8), eight.fsdp_from))
    assert not all(array.is_fully_replicated for array in jax.tree.leaves(current))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        checkpoints.save(current.replace(step=current.step + step), step, 10 * step)
    checkpoints.close()
    return tmp_path / "checkpoints", current, abstract_like(current, sharding.replicated(mesh))


def test_what_eight_devices_wrote_any_number_reads(saved):
    folder, state, abstract = saved
    for config in (Mesh(1), Mesh(1, fsdp=2, fsdp_from=64), Mesh(data=4), Mesh(1, fsdp=2, model=2, fsdp_from=64)):
        layout = sharding.layout(abstract, sharding.make_mesh(config, 8), config.fsdp_from)
        restored = Checkpoints(folder).restore(abstract_like(abstract, layout))
        assert restored.position == 20
        assert jax.tree.map(lambda array: array.sharding, restored.state) == layout
        expected = jax.device_get(state.replace(step=state.step + 2))
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored.state), expected)


def test_only_the_newest_are_kept(tmp_path, tiny_config):
    checkpoints, state = Checkpoints(tmp_path, keep=2), fresh(tiny_config)
    for step in range(4):
        checkpoints.save(state, step, step)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3]


def test_only_training_removes_what_is_unfinished(saved):
    """Whoever reads a run must not disturb a save in progress."""
    folder, _, abstract = saved
    unfinished = folder / "3.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "data").write_bytes(b"half")
    assert Checkpoints(folder).restore(abstract).state.step == 2
    assert (unfinished / "data").exists()
    assert Checkpoints(folder, trains=True).restore(abstract).state.step == 2
    assert not unfinished.exists()


def test_training_goes_on_from_the_one_before_a_damaged_newest_and_says_so(
    tmp_path, tiny_config, whole, caplog, capsys
):
    folder = whole.copied_to(tmp_path / "run")
    for path in (folder / "checkpoints" / "6").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    state = train(tiny_config, folder)
    assert [(record.levelname, record.getMessage().partition(" (")[0]) for record in caplog.records
            if record.name == "decodec_jax.training.checkpoint"] == [
                ("WARNING", f"checkpoint {folder / 'checkpoints' / '6'} is unreadable")]  # fmt: skip
    assert "resuming from step 3" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), whole.state)


def test_nothing_readable_is_an_error_not_a_fresh_start(saved):
    folder, _, abstract = saved
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint"):
        Checkpoints(folder).restore(abstract)


def test_what_does_not_fit_is_named_and_not_taken_for_damaged(saved, tiny_config, caplog):
    tiny_config.model.latent = 10
    with pytest.raises(UserError, match=r"/2 does not fit the config: .* is \(2, 16, 8\) there and \(2, 16, 10\) here"):
        load_weights(tiny_config, saved[0])
    assert not caplog.records


def test_weights_alone(saved, tiny_config):
    folder, state, _ = saved
    step, averaged, codebook = load_weights(tiny_config, folder)
    assert step == 2
    jax.tree.map(np.testing.assert_array_equal, averaged, state.averaged)
    jax.tree.map(np.testing.assert_array_equal, codebook, state.codebook)


def test_a_run_without_checkpoints_says_so(tmp_path, tiny_config):
    with pytest.raises(UserError, match="no checkpoint yet"):
        load_weights(tiny_config, tmp_path / "checkpoints")


FULL_DISK = """
import sys
from pathlib import Path
from decodec_jax import testing
from decodec_jax.errors import UserError
from decodec_jax.training.checkpoint import Checkpoints
from decodec_jax.training.state import fresh
try:
    checkpoints = Checkpoints(Path(sys.argv[1]))
    checkpoints.save(fresh(testing.tiny_config()), 3, 30)
    checkpoints.wait()
except UserError as error:
    print(error)
    sys.exit(2)
"""


def test_a_full_disk_is_one_line_and_harms_nothing(saved):
    """A limit on file size stands in for the full disk: writing fails in the same place.

    The process compiles without the tests' shared cache: half an entry there ends all writing into it.
    """
    folder, _, abstract = saved
    outcome = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder)], capture_output=True, text=True,
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )  # fmt: skip
    assert outcome.returncode == 2, outcome.stderr
    assert "could not be written" in outcome.stdout
    assert len(outcome.stdout.splitlines()) == 1
    assert Checkpoints(folder).restore(abstract).state.step == 2
