"""Set-up for all tests: the CPU (unless JAX_PLATFORMS says otherwise), eight devices, and full-precision products."""

import os
import tempfile
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.codec.model import DeCodecNetwork

# The tests spend most of their time compiling, often the same code. So a session shares a compilation cache with all
# its workers and the processes that tests start, and code is not optimised. The cache must not outlive the session, or
# tests would run outdated code. It has a size limit, because only then do processes lock it.
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the settings of their controller
    _QUICK = "--xla_backend_optimization_level=0"
    if jax.__version_info__ < (0, 11):  # takes a third of the time; later versions reject the flag
        _QUICK += " --xla_cpu_use_fusion_emitters=false"
    _COMPILED = tempfile.TemporaryDirectory(prefix="decodec-compiled-")
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": _COMPILED.name,
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(8 * 2**30),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {_QUICK}",
    }
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_compilation_cache_max_size", int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_platforms", jax.config.jax_platforms or "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")

# no deadline, because the first example of a property compiles; derandomize makes every run of the tests the same
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("tests")


_LONG = {"training", "launch", "test_journey.py", "test_notebooks.py", "test_configs.py", "test_torch_model.py"}


def pytest_collection_modifyitems(items):
    """Run the longest files first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: _LONG.isdisjoint((item.path.parent.name, item.path.name)))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def tiny_model():
    """A fresh `testing.tiny_model()`, which the test may change."""
    return testing.tiny_model()


@pytest.fixture
def tiny_config():
    """A fresh `testing.tiny_config()`, which the test may change."""
    return testing.tiny_config()


@pytest.fixture(scope="session")
def tiny_network():
    """`(network, variables)` of `testing.tiny_model()`, with random variables."""
    network = DeCodecNetwork(testing.tiny_model())
    return network, testing.random_variables(network, np.zeros((1, network.config.hop), np.float32))


@pytest.fixture(scope="session")
def golden():
    """`golden("conv_dilation3")` returns PyTorch's arrays for one case, by name; tests/golden/make.py made them."""
    with np.load(Path(__file__).parent / "golden" / "layers.npz") as file:
        arrays = dict(file)

    def case(name: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}

    return case
