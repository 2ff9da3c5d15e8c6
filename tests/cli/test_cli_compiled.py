"""What is compiled is kept for fresh processes, unless something forbids it, and without a word if it cannot be."""

import os
import subprocess
import sys

import pytest

from decodec_jax import arguments
from decodec_jax.inference import compiled

CACHE = "decodec_jax/compiled"


@pytest.fixture
def fresh(model, folder):
    """Enhances a file in a process that begins with nothing; returns what was not in the cache, and all it said."""
    clean = {name: value for name, value in os.environ.items() if "CACHE" not in name}

    def run(**environment):
        command = [sys.executable, "-m", "decodec_jax.cli", "enhance", folder / "in/mono.wav", folder / "out.wav",
                   "--model", model]  # fmt: skip
        outcome = subprocess.run(command, env=clean | environment, capture_output=True, text=True)
        assert outcome.returncode == 0 and (folder / "out.wav").is_file()
        said = outcome.stderr.splitlines()
        return [line for line in said if "PERSISTENT COMPILATION CACHE MISS" in line], said

    return run


def test_a_second_process_compiles_nothing(fresh, tmp_path):
    telling = {"XDG_CACHE_HOME": str(tmp_path), "JAX_EXPLAIN_CACHE_MISSES": "1"}
    missed, _ = fresh(**telling)
    kept = sorted((tmp_path / CACHE).glob("*-cache"))
    assert len(missed) == len(kept) > 1
    assert not fresh(**telling)[0]
    assert sorted((tmp_path / CACHE).glob("*-cache")) == kept

    for entry in kept:  # as a full disk or Ctrl-C leaves them
        entry.write_bytes(entry.read_bytes()[:100])
        entry.with_name(entry.name.removesuffix("cache") + "atime").unlink()
    assert len(fresh(**telling)[0]) == len(kept) and not fresh(**telling)[0]


def test_a_folder_that_cannot_be_written_is_not_worth_a_word(fresh):
    assert fresh(XDG_CACHE_HOME="/dev/null") == ([], [])


def test_the_folder_is_made_unless_something_speaks_against_it(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in ((compiled.SWITCH, "off"), ("JAX_COMPILATION_CACHE_DIR", "/elsewhere")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            before = dict(os.environ)
            compiled.keep()
            assert os.environ == before and not list(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        compiled.keep()
        assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / CACHE)
    assert (tmp_path / CACHE).is_dir()


def test_the_help_says_so():
    assert f"{compiled.SWITCH}=off" in arguments.PAGE and f"up to {compiled.LIMIT >> 20} MB" in arguments.PAGE


def test_it_lies_at_home_where_there_is_one(monkeypatch, tmp_path):
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(compiled.Path, "home", lambda: tmp_path)
    compiled.keep()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / ".cache" / CACHE)
