"""The command as people type it, with a model that is loaded once."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from sounds import RATE, clips

from decodec_jax import audio, cli, testing
from decodec_jax.inference.codec import DeCodec


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A bundle of a causal model."""
    config = testing.tiny_model(family="spectral", causal=True, encoder_blocks=1, decoder_blocks=1)
    return testing.random_bundle(tmp_path_factory.mktemp("models") / "tiny", config)


@pytest.fixture(scope="module")
def codec(model):
    return DeCodec.load(model)


@pytest.fixture(autouse=True)
def loaded_once(codec, model, monkeypatch):
    """Each command would compile anew."""
    load = DeCodec.load
    monkeypatch.setattr(DeCodec, "load", lambda path: codec if Path(path) == model else load(path))


@pytest.fixture
def decodec(model, capsys):
    """Runs a command; returns its exit code and the lines it wrote to standard output and standard error.

    model=None: no model is named.
    """

    def run(*arguments, model=model):
        named = ["--model", str(model)] if model and arguments[0] not in ("info", "export") else []
        arguments = [*map(str, arguments), *named]
        code = cli.main(arguments)
        written = capsys.readouterr()
        return code, written.out.splitlines(), written.err.splitlines()

    return run


@pytest.fixture
def piped(decodec, monkeypatch):
    """Runs a command with these bytes in; returns its exit code, the bytes that come out, and the lines of errors."""

    def run(data, *arguments, **options):
        out = io.TextIOWrapper(io.BytesIO(), write_through=True)
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
            patch.setattr("sys.stdout", out)
            code, _, errors = decodec(*arguments, **options)
        return code, out.buffer.getvalue(), errors

    return run


@pytest.fixture
def folder(tmp_path):
    """mono.wav, and stereo.flac at 44.1 kHz in deep/."""
    (tmp_path / "in/deep").mkdir(parents=True)
    audio.write(tmp_path / "in/mono.wav", clips(139, 1), RATE)
    audio.write(tmp_path / "in/deep/stereo.flac", clips(383), 44_100)
    return tmp_path
