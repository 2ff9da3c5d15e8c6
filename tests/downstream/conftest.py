"""A codec at random, tokens that could be its own, and a recogniser's settings for them."""

import importlib.util
from pathlib import Path

import pytest
import token_folders

from decodec_jax import testing
from decodec_jax.inference.codec import DeCodec


@pytest.fixture(scope="session")
def codec_folder(tmp_path_factory):
    config = testing.tiny_model(family="spectral", causal=True, encoder_blocks=1, decoder_blocks=1, sample_rate=1000)
    return testing.random_bundle(tmp_path_factory.mktemp("codecs") / "tiny", config)


@pytest.fixture(scope="session")
def codec(codec_folder):
    return DeCodec.load(codec_folder)


@pytest.fixture(scope="session")
def tokens(tmp_path_factory, codec):
    """A folder of 160 utterances."""
    return token_folders.write(tmp_path_factory.mktemp("tokens") / "made", token_folders.utterances(160),
                               codec.fingerprint)  # fmt: skip


def config_file(name: str):
    """The module configs/NAME.py."""
    spec = importlib.util.spec_from_file_location(f"{name}_configs", Path(__file__).parents[2] / f"configs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def asr():
    return config_file("asr")


@pytest.fixture(scope="session")
def tts():
    return config_file("tts")


@pytest.fixture
def config(asr, tokens, codec_folder):
    """The variant `tiny` on these tokens, on one device."""
    config = asr.get_config("tiny")
    config.data.tokens, config.data.codec = str(tokens), str(codec_folder)
    config.model.features.speech, config.model.stack = 2, 1
    config.mesh.data, config.train.precision = 1, "float32"
    return config
