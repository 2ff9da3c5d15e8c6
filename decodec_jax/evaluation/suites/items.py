"""Test items: clean clips, pairs of clean and noisy recordings, mixtures made from a seed; and their files."""

import csv
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from decodec_jax import audio
from decodec_jax.data.mixing import example, fitted, scaled
from decodec_jax.data.sources import ClipSource, Files, list_clips
from decodec_jax.errors import UserError
from decodec_jax.evaluation.systems.base import Item

SNRS = (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0)  # dB
LEVEL = -26.0  # dB of full scale, RMS of the speech
PARTS = ("mixture", "speech", "background")
PAIRED = 1000  # clips of which pairs are drawn, at the most: their number grows with the square
PAIRS = "paired_test"  # PAIRS/clean is a split of the manifest; the folder PAIRS/noisy has files of the same names

T = TypeVar("T")


def spread(found: Sequence[T], count: int) -> Sequence[T]:
    """At most `count` of them, every n-th from the first on. The last ones may be left out, up to half of all."""
    return found[:: max(1, len(found) // count)][:count]


def mixtures(source: ClipSource, count: int, seconds: float | None = None, seed: int = 0) -> list[Item]:
    """`count` mixtures at each of `SNRS`, the same at every call: shuffled clips, each from its start.

    seconds: their length; None: each is as long as its speech and keeps its transcript.
    """
    rng, rate = np.random.default_rng(seed), source.sample_rate
    order = {kind: rng.permutation(_of_kind(source, kind)) for kind in ("speech", "background")}
    made = []
    for n in range(count * len(SNRS)):
        snr = SNRS[n % len(SNRS)]
        spoken, around = (int(order[kind][n % len(order[kind])]) for kind in order)
        speech = source.read(spoken, 0.0, seconds)
        t = len(speech) if seconds is None else round(seconds * rate)
        parts = mixed(fitted(speech, t, "speech", 0.0), source.read(around, 0.0, t / rate), snr)
        clip = source.clips[spoken]
        said = clip.transcript if seconds is None else ""
        made.append(Item(f"{n:03d}_{snr:+.0f}dB", rate, *parts, snr, clip.speaker, said))
    return made


def mixed(speech: np.ndarray, background: np.ndarray, snr: float) -> list[np.ndarray]:
    """`PARTS`, `[t]` each, of speech `[t]` at `LEVEL` over a background `snr` dB below it, repeated or cut to fit."""
    around = fitted(background, len(speech), "background", 0.0)
    sides = scaled(speech, LEVEL, "speech"), scaled(around, LEVEL - snr, "background")
    both = example(*(np.stack([side, side]) for side in sides))
    return [both[part][0] for part in PARTS]


def clean(source: ClipSource, count: int | None = None) -> list[Item]:
    """`count` unchanged clips of speech, spread over all speakers (None: every clip): items without a background."""
    spoken = _of_kind(source, "speech")
    if count is not None:
        spoken = spread(spoken, count)
    return [_clip(source, i) for i in spoken]


def without_speech(source: ClipSource, count: int, seconds: float) -> list[Item]:
    """Silence, then `count` backgrounds without speech, each of `seconds`; shorter ones are looped."""
    t = round(seconds * source.sample_rate)
    around = spread(_of_kind(source, "background"), count)
    nothing = np.zeros(t, np.float32)
    waves = {"silence": nothing}
    for i in around:
        name = f"alone_{i:03d}_{Path(source.clips[i].name).stem}"
        waves[name] = fitted(source.read(i, 0.0, seconds), t, "background", 0.0)
    return [Item(name, source.sample_rate, wave, nothing, wave) for name, wave in waves.items()]


def paired(folder: str, rate: int, count: int) -> list[Item]:
    """`count` recordings of a folder in a clean and a noisy version; none if its manifest has no such split."""
    root = Path(folder)
    if not folder or not (root / "manifest.csv").is_file():
        return []
    clips = spread([clip for clip in list_clips(root) if clip.split == f"{PAIRS}/clean"], count)
    noisy = [replace(clip, name=clip.name.replace("/clean/", "/noisy/", 1)) for clip in clips]
    made = []
    for n, clip in enumerate(clips):
        speech, mixture = (Files(root, rate, each).read(n) for each in (clips, noisy))
        t = min(len(speech), len(mixture))
        speech, mixture = speech[:t], mixture[:t]
        name = f"{n:03d}_paired_{Path(clip.name).stem}"
        made.append(Item(name, rate, mixture, speech, mixture - speech, None, clip.speaker, clip.transcript))
    return made


def voices(source: ClipSource, count: int, seconds: float | None = None, seed: int = 0) -> list[Item]:
    """`count` pairs of clean clips by different speakers: source and reference alternate, `[2 count]`.

    Raises UserError if there are no two speakers.
    """
    clips = source.clips
    every = itertools.permutations(spread(_of_kind(source, "speech"), PAIRED), 2)
    pairs = [(a, b) for a, b in every if clips[a].speaker != clips[b].speaker]
    if not pairs:
        raise UserError("conversion needs test clips by two speakers or more, which manifest.csv names")
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:count]
    made = [_clip(source, i, seconds) for n in chosen for i in pairs[n]]
    return [item._replace(name=f"{n // 2:03d}_{('source', 'reference')[n % 2]}") for n, item in enumerate(made)]


def group(item: Item) -> str:
    """The group that an item is reported in: "clean", "paired", or its SNR."""
    if item.background is None:
        return "clean"
    return "paired" if item.snr is None else f"{item.snr:.0f} dB"


def save(items: Sequence[Item], folder: Path) -> None:
    """Write every waveform as NAME_PART.wav in 16 bits, and a manifest.csv that describes them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["name", "group", *PARTS, "snr_db", "seconds", "speaker", "transcript"])
        for item in items:
            names = []
            for part in PARTS:
                wave = getattr(item, part)
                known = wave is not None and (part == "mixture" or item.background is not None)
                names.append(f"{item.name}_{part}.wav" if known else "")
                if known:
                    audio.write(folder / names[-1], wave, item.rate)
            snr = "" if item.snr is None else f"{item.snr:g}"
            seconds = f"{len(item.mixture) / item.rate:.3f}"
            table.writerow([item.name, group(item), *names, snr, seconds, item.speaker, item.transcript])


def _of_kind(source: ClipSource, kind: str) -> list[int]:
    return [i for i, clip in enumerate(source.clips) if clip.kind == kind]


def _clip(source: ClipSource, i: int, seconds: float | None = None) -> Item:
    clip, wave = source.clips[i], source.read(i, 0.0, seconds)
    said = clip.transcript if seconds is None else ""
    return Item(f"clean_{i:03d}_{Path(clip.name).stem}", source.sample_rate, wave, wave, None, None, clip.speaker, said)
