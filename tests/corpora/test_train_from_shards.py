"""Training from the shards of `decodec prepare` is training from the folder that they were made of."""

import csv
import json

import numpy as np
import pytest
from made import RATE, clip

from decodec_jax import audio, testing
from decodec_jax.config import Data
from decodec_jax.corpora import prepare, screen
from decodec_jax.data.mixing import Mixer
from decodec_jax.data.sources import open_source
from decodec_jax.training.loop import train


@pytest.fixture
def recordings(tmp_path):
    """Two clips of each of four speakers, and eight backgrounds."""
    root = tmp_path / "corpus"
    for seed in range(16):
        name = f"speech/s{seed % 4}/{seed}.flac" if seed < 8 else f"background/{seed}.flac"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(root / name, clip(4000 + 300 * seed, seed), RATE)
    return root


def prepared(root, out, longest=30.0):
    settings = prepare.Settings(shard_mb=0.05, limits=screen.Limits(shortest=0.05, longest=longest))
    prepare.prepare([str(root)], str(out), settings, lambda work, parts: [work(part) for part in parts])
    return out


def metrics(root, workdir):
    """The rows of ten steps and three validations, without what the clock says."""
    config = testing.tiny_config()
    config.data.root = str(root)
    config.train.steps, config.train.valid_every, config.train.save_every = 10, 5, 10
    train(config, workdir)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows]


def test_ten_steps_have_the_same_losses(recordings, tmp_path):
    ours = metrics(recordings, tmp_path / "run")
    assert len(ours) >= 10 and np.isfinite([row["loss"] for row in ours]).all()
    assert ours == metrics(prepared(recordings, tmp_path / "shards"), tmp_path / "other")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_example_is_the_same(recordings, tmp_path, split):
    mixers = []
    for root in (recordings, prepared(recordings, tmp_path / "shards")):
        data = Data(root=str(root), seconds=0.25)
        mixers.append(Mixer(open_source(data, RATE, split), data))
    for index in range(10):
        ours, theirs = (mixer.valid(index) if split == "valid" else mixer(index, np.random.default_rng(index))
                        for mixer in mixers)  # fmt: skip
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_the_pieces_of_a_recording_are_held_out_together(recordings, tmp_path):
    shards = prepared(recordings, tmp_path / "shards", longest=0.2)
    with (shards / "manifest.csv").open(newline="") as file:
        recording = {row["path"]: row["recording"] for row in csv.DictReader(file) if row["kind"] == "background"}
    assert len(recording) > 8  # some are in pieces
    data = Data(root=str(shards), holdout=0.4)
    kept, held = ({recording[clip.name] for clip in open_source(data, RATE, split).clips if clip.kind == "background"}
                  for split in ("train", "valid"))  # fmt: skip
    assert kept and held and not kept & held


def test_a_shard_that_is_cut_short_costs_only_its_own_clips(recordings, tmp_path, caplog):
    shards = prepared(recordings, tmp_path / "shards")
    first, *others = sorted(shards.glob("*.array_record"))
    assert others
    first.write_bytes(first.read_bytes()[:-300])
    data = Data(root=str(shards), seconds=0.25, holdout=0.0)
    mixer = Mixer(open_source(data, RATE), data)
    skipped = sum(mixer(index, np.random.default_rng(index))["skipped"] for index in range(20))
    assert skipped > 0 and f"{first.name}#" in caplog.text
