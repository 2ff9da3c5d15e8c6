"""A small corpus of clips of several lengths and rates, with damaged files among them where a test asks for it."""

import csv
import functools

import fsspec
import numpy as np
import pytest
from made import RATE, clip

from decodec_jax import audio, testing
from decodec_jax.inference.codec import DeCodec


@pytest.fixture
def folder(tmp_path):
    """speech/s0 and s1 with two clips each, background/ with one, of 0.1 to 0.3 s; one is at 44.1 kHz, one stereo."""
    root = tmp_path / "corpus"
    for seed, (name, rate) in enumerate({
        "speech/s0/a.flac": RATE, "speech/s0/b.wav": 44_100, "speech/s1/a.flac": RATE, "speech/s1/b.flac": RATE,
        "background/n.flac": RATE,
    }.items()):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        wave = clip(int(rate * (0.1 + 0.05 * seed)), seed)
        audio.write(root / name, np.stack([wave, wave / 2]) if seed == 3 else wave, rate)
    return root


@pytest.fixture
def manifest(folder):
    """Writes a manifest.csv of rows (path, kind, speaker, transcript, note) into the folder."""

    def write(*rows):
        with (folder / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "kind", "speaker", "transcript", "note", "split"), *rows])

    return write


@pytest.fixture
def bucket(tmp_path):
    """Copies a folder into a bucket in memory, and returns its URL."""
    memory = fsspec.filesystem("memory")

    def upload(folder):
        url = f"memory://{tmp_path.name}/{folder.name}"
        files = [path for path in folder.rglob("*") if path.is_file()]
        memory.pipe({f"{url}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files})
        return url

    yield upload
    memory.store.clear()


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """A codec at random, causal or not."""

    @functools.cache
    def loaded(causal):
        config = testing.tiny_model(family="spectral", causal=causal, encoder_blocks=1, decoder_blocks=1)
        return DeCodec.load(testing.random_bundle(tmp_path_factory.mktemp("models") / "tiny", config))

    return loaded


@pytest.fixture
def codec(load):
    return load(True)
