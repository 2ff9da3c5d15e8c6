"""What a stranger meets first: the import, the names, the types and the examples in docstrings."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import decodec_jax

ROOT = Path(__file__).parents[1]


def test_importing_is_quick_and_starts_nothing():
    code = (
        "import sys, time; began = time.perf_counter(); import decodec_jax; took = time.perf_counter() - began\n"
        "assert took < 0.2, took\n"
        "assert not {'jax', 'numpy', 'soundfile'} & set(sys.modules), 'slow imports'\n"
        "assert decodec_jax.__version__ and {'DeCodec', 'Tokens'} < set(dir(decodec_jax))\n"
        "decodec_jax.read_audio, decodec_jax.Tokens\n"
        "assert 'jax' not in sys.modules\n"
        "assert decodec_jax.DeCodec.load.__doc__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_training_imports_no_torch_and_does_not_keep_others_from_it():
    code = "import sys, decodec_jax.training.loop; assert 'torch' not in sys.modules\n"
    if importlib.util.find_spec("torch"):
        code += "import torch"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_that_are_not_there_say_so():
    with pytest.raises(AttributeError, match="no attribute 'Codec'"):
        _ = decodec_jax.Codec
    assert all(getattr(decodec_jax, name) for name in decodec_jax.__all__)
    assert (Path(decodec_jax.__file__).parent / "py.typed").is_file()
