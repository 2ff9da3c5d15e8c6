"""Settings of tiny models of speech synthesis, and tokens whose second level says who speaks."""

import numpy as np
import pytest
import token_folders

from decodec_jax.downstream import loop
from decodec_jax.downstream.tts.parallel import spread_out


@pytest.fixture(scope="session")
def spoken(tmp_path_factory, codec):
    """A folder of 160 utterances. A frame's second code is its first, moved on by an amount of the speaker's own."""
    rows = token_folders.utterances(160)
    for row in rows:
        row["speech"][1] = (row["speech"][0] + 3 * int(row["speaker"][1])) % 16
    rows = [row | {"split": "valid" if number % 8 == 0 else "train"} for number, row in enumerate(rows)]
    return token_folders.write(tmp_path_factory.mktemp("spoken") / "made", rows, codec.fingerprint)


@pytest.fixture(scope="session")
def aligner(asr, spoken, codec_folder, tmp_path_factory):
    """The run folder of a recogniser that hears the first level."""
    config = asr.get_config("tiny")
    config.data.tokens, config.data.codec, config.data.buckets = str(spoken), str(codec_folder), 1
    config.model.features.speech, config.model.stack = 1, 1
    config.mesh.data, config.train.precision, config.train.valid_every = 1, "float32", 120
    folder = tmp_path_factory.mktemp("aligners") / "tiny"
    loop.train(config, folder)
    return folder


@pytest.fixture(scope="session")
def config_of(tts, spoken, codec_folder, aligner):
    """`config_of("ar")`: the variant tiny_ar on these tokens, on one device."""
    def made(stage, size="tiny"):
        config = tts.get_config(f"{size}_{stage}")
        config.data.tokens, config.data.codec = str(spoken), str(codec_folder)
        config.data.aligner = str(aligner) if stage == "parallel" else ""
        config.model.levels, config.mesh.data, config.train.precision = 2, 1, "float32"
        return config

    return made


@pytest.fixture(scope="session")
def batch_of():
    """`batch_of(3, ...)`: a batch of so many utterances at random, of different lengths, padded."""
    def made(b, levels, text=7, frames=12, seed=0):
        rng = np.random.default_rng(seed)
        lengths, symbols = rng.integers(frames // 2, frames + 1, b), rng.integers(2, text + 1, b)
        symbols = np.minimum(symbols, lengths)
        durations = [np.full(n, f // n) + (np.arange(n) < f % n) for n, f in zip(symbols, lengths, strict=True)]
        owners, within = zip(*(spread_out(each, frames) for each in durations), strict=True)
        return {
            "owners": np.stack(owners), "within": np.stack(within), "known": rng.random((b, frames)) < 0.5,
            "text": rng.integers(1, 9, (b, text)).astype(np.int32), "symbols": symbols.astype(np.int32),
            "places": np.sort(rng.uniform(0, frames, (b, text))).astype(np.float32),
            "codes": rng.integers(0, 16, (b, levels, frames)).astype(np.int32), "frames": lengths.astype(np.int32),
            "prompt": (lengths // 3).astype(np.int32), "level": 1 + np.arange(b, dtype=np.int32) % max(1, levels - 1),
        }  # fmt: skip

    return made
