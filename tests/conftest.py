"""Every test: on the CPU unless JAX_PLATFORMS says otherwise, full-precision products, eight devices to split over."""

import os
import tempfile
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.codec.model import DeCodecNetwork

# Most of the tests' time is compilation, and many compile the same thing: within one session, all its workers and the
# processes that tests start included, little is compiled twice, and nothing is optimised. What is compiled must not
# outlive the session, which would test yesterday's code, and has a limit, as only then do processes lock it.
if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker inherits what its controller made
    _QUICK = "--xla_backend_optimization_level=0"
    if jax.__version_info__ < (0, 11):  # a third of the time; later versions do not know the flag, and stop at it
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

# the first example of a property compiles, and no run of the tests may differ from the next
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("tests")


_LONG = {"training", "launch", "test_journey.py", "test_notebooks.py", "test_configs.py", "test_torch_model.py"}


def pytest_collection_modifyitems(items):
    """The longest files first: what comes last is one worker's alone."""
    items.sort(key=lambda item: _LONG.isdisjoint((item.path.parent.name, item.path.name)))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def tiny_model():
    """`testing.tiny_model()`, to be changed at will."""
    return testing.tiny_model()


@pytest.fixture
def tiny_config():
    """`testing.tiny_config()`, to be changed at will."""
    return testing.tiny_config()


@pytest.fixture(scope="session")
def tiny_network():
    """`(network, variables)` of `testing.tiny_model()`, the variables at random."""
    network = DeCodecNetwork(testing.tiny_model())
    return network, testing.random_variables(network, np.zeros((1, network.config.hop), np.float32))


@pytest.fixture(scope="session")
def golden():
    """`golden("conv_dilation3")`: the arrays PyTorch gave for one case, by name; made by tests/golden/make.py."""
    with np.load(Path(__file__).parent / "golden" / "layers.npz") as file:
        arrays = dict(file)

    def case(name: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}

    return case
