"""Folders of token shards that the tests of downstream models learn from, made without a recording."""

import json

import numpy as np

from decodec_jax.corpora import shards

HOP, RATE = 20, 1000  # of the codec in conftest.py: 50 frames a second
PAUSE = 15  # the code that stands between letters
LETTERS = "abcdefghij "


def row(name, text, transcript=None, speaker="s0", split="train", frames=None, seed=0):
    """A letter or space is three frames of its own code in level 1, and two of a pause. The other codes are random."""
    first = np.concatenate([np.r_[[LETTERS.index(letter)] * 3, [PAUSE] * 2] for letter in text])
    first = np.resize(first, frames or len(first))
    others = np.random.default_rng(seed).integers(0, 16, (3, len(first)))
    codes = np.stack([first, *others]).astype(np.uint16)
    return {"id": name, "speech": codes[:2], "background": codes[2:], "length": HOP * len(first), "gain": 0.0,
            "kind": "speech", "speaker": speaker, "split": split, "metadata": "{}",
            "transcript": text if transcript is None else transcript}  # fmt: skip


def utterances(count, seed=0):
    """Rows of made-up words by four speakers, the last of whom is for validation."""
    rng = np.random.default_rng(seed)
    made = []
    for n in range(count):
        text = " ".join("".join(rng.choice(list(LETTERS[:-1]), rng.integers(2, 5))) for _ in range(rng.integers(1, 4)))
        speaker = n % 4
        made.append(row(f"s{speaker}/{n}.flac", text, speaker=f"s{speaker}", split="valid" if speaker == 3 else "train",
                        seed=n))  # fmt: skip
    return made


def write(folder, rows, fingerprint, form="parquet", shard=20):
    """A folder as `decodec tokenize` leaves it, so many rows a shard, with the latents of rows; returns it."""
    about = {"format": form, "fingerprint": fingerprint, "sample_rate": RATE, "hop": HOP, "entries": [16, 16],
             "levels": [2, 2], "shard_mb": 1}  # fmt: skip
    if "latents" in rows[0]:
        about["latents"] = rows[0]["latents"].shape[1]
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"settings": about}))
    for first in range(0, len(rows), shard):
        path = folder / f"tokens-{first // shard:06d}{shards.FORMS[form]}"
        shards.write(path, form, rows[first : first + shard], about)
    (folder / "report.json").write_text("{}")
    return folder
