import csv

import numpy as np
import pytest

from decodec_jax import audio

RATE = 8000


def tone(seconds, seed, rate=RATE):
    """Noise around a tone that no other seed has: float32 [t], 16-bit values."""
    rng = np.random.default_rng(seed)
    t = round(seconds * rate)
    wave = 0.2 * np.sin(np.arange(t) * rng.uniform(0.05, 1)) + 0.05 * rng.standard_normal(t)
    return (np.round(wave * 32768) / 32768).astype(np.float32)


@pytest.fixture
def corpus(tmp_path):
    """A folder of 4 speakers with 3 clips each, 6 noises, and test clips; its manifest can be added to."""
    return make_corpus(tmp_path / "corpus")


def make_corpus(root):
    root.mkdir()
    rows = []
    for speaker in range(4):
        for k in range(3):
            rows.append((f"speech/s{speaker}_{k}.flac", "speech_train", "speech", f"s{speaker}", "a word", "1.5"))
    rows += [(f"noise/n{k}.flac", "noise_train", "noise", "", "", "1.5") for k in range(6)]
    rows += [("t/s.flac", "test", "speech", "t", "", "1.5"), ("t/n.flac", "test", "background", "", "", "1.5")]
    for seed, row in enumerate(rows):
        (root / row[0]).parent.mkdir(exist_ok=True)
        audio.write(root / row[0], tone(1.5, seed), RATE)
    rows.append(("t/mix.flac", "speech_train", "noisy_speech", "", "", "1.5"))
    write_manifest(root, rows)
    return root


def write_manifest(root, rows, columns=("path", "split", "kind", "speaker", "transcript", "duration_s")):
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def add_row():
    def add(root, *row):
        with (root / "manifest.csv").open("a", newline="") as file:
            csv.writer(file).writerow(row)

    return add
