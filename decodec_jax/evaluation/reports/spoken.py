"""What models on tokens said, kept in a folder: the suite "synthesis" writes it, and the listening page plays it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decodec_jax import audio

FILE = "spoken.json"


class Sound(NamedTuple):
    """A waveform, and what to call it."""

    label: str
    note: str
    wave: np.ndarray  # float32 [t]


class Reading(NamedTuple):
    """A sentence that was spoken, or a recording that was converted."""

    task: str  # the section of the page: "speak" or "convert"
    title: str
    about: str
    transcript: str
    rate: int  # Hz
    known: Sequence[Sound]  # to compare with
    made: Sequence[Sound]


def save(folder: Path, readings: Sequence[Reading]) -> None:
    """Write the sounds, and spoken.json about them."""
    folder.mkdir(parents=True, exist_ok=True)
    told = []
    for n, reading in enumerate(readings):
        about = reading._asdict()
        for group in ("known", "made"):
            about[group] = []
            for label, note, wave in getattr(reading, group):
                name = f"{n:03d}_{group}{len(about[group])}.wav"
                audio.write(folder / name, wave, reading.rate)
                about[group].append([label, note, name])
        told.append(about)
    (folder / FILE).write_text(json.dumps(told, indent=1) + "\n")


def read(folder: Path) -> list[Reading]:
    """The readings in a folder and in those within it; none if nothing was spoken."""
    found = []
    for path in sorted(folder.rglob(FILE)):
        for about in json.loads(path.read_text()):
            for group in ("known", "made"):
                about[group] = [Sound(label, note, audio.read(path.parent / name)[0][0])
                                for label, note, name in about[group]]  # fmt: skip
            found.append(Reading(**about))
    return found
