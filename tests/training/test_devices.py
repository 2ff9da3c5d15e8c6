"""A run that several devices began and several hosts finish."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.config import Mesh
from decodec_jax.training import sharding
from decodec_jax.training.checkpoint import Checkpoints, abstract_like
from decodec_jax.training.loop import train

ROOT = Path(__file__).parents[2]


def losses(workdir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
    """Config and folder of a run of four steps, saved at the second, and the state it gave. Quickly compiled."""
    one_level = {half: testing.tiny_quantizer(levels=1) for half in ("speech", "background")}
    config = testing.tiny_config(dilations=(1,), strides=(5,), lstm_layers=0, **one_level)
    config.loss.mel_windows, config.loss.mel_bands = (64,), (10,)
    config.data.batch, config.mesh = 8, Mesh(data=2, fsdp=4, fsdp_from=64)
    config.optim.lr = 1e-4  # Adam makes whole steps of gradients that are nothing but rounding
    config.train.steps = config.train.continuous_steps = 4
    config.train.save_every, config.train.valid_every, config.train.sample_clips = 2, 100, 0
    workdir = tmp_path_factory.mktemp("eight")
    return config, workdir, train(config, workdir)


def on_two_hosts(workdir: Path, *flags: str) -> list[str]:
    """`launch/train.py` in two processes of two devices each, as Slurm would start them; what each prints."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    file = workdir.with_suffix(".py")
    file.write_text(f"from pathlib import Path\nfrom decodec_jax import config\n"
                    f"get_config = lambda: config.load(Path({str(workdir.with_suffix('.json'))!r}))\n")
    command = [sys.executable, "launch/train.py", "--config", str(file), "--workdir", str(workdir), *flags]
    processes = []
    for host in range(2):
        slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
                 "SLURM_PROCID": str(host), "SLURM_LOCALID": str(host), "JAX_COORDINATOR_PORT": str(port)}
        cpus = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
        processes.append(subprocess.Popen(
            command, cwd=ROOT, env=os.environ | slurm | cpus, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ))  # fmt: skip
    printed = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
    return printed


def test_what_eight_devices_began_two_hosts_finish_together_in_micro_batches(on_eight, tmp_path):
    """Unquantized nothing is random in a batch: other devices, and smaller batches, make no difference but rounding.

    The fifth step is the first quantized one, from codebooks that the hosts start together.
    """
    config, whole, trained = on_eight
    workdir = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "4")
    shutil.copy(whole / "config.json", tmp_path / "run.json")
    mesh = ["--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.train.accumulate=2"]
    first, second = on_two_hosts(workdir, *mesh, "--config.train.steps=5")
    assert "4 x cpu" in first and "resuming from step 2" in first and "MiB of memory" in first
    assert "resuming" not in second  # one host speaks for all
    np.testing.assert_allclose(losses(workdir)[:4], losses(whole), rtol=1e-4)
    assert np.isfinite(losses(workdir)[4])

    checkpoints = workdir / "checkpoints"
    assert Checkpoints(checkpoints).steps() == [4, 5]
    shutil.rmtree(checkpoints / "5")
    here = sharding.replicated(sharding.make_mesh(Mesh(1), config.data.batch))
    theirs, position = Checkpoints(checkpoints).restore(abstract_like(trained, here))
    assert position == 4 * config.data.batch
    for part in ("params", "optimizer"):  # whose moments tell whether gradients had the same size
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.max(np.abs(a), initial=0)),
            jax.device_get(getattr(trained, part)), jax.device_get(getattr(theirs, part)),
        )  # fmt: skip
