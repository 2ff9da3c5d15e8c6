"""Random access to clips: in a folder, in ArrayRecord files, in a TFDS dataset, or synthetic.

`open_source` recognises the format of a folder and selects the clips of a split. Everything downstream knows only
`ClipSource`.
"""

import csv
import hashlib
import io
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from decodec_jax import audio
from decodec_jax.config import Data
from decodec_jax.data import records, synthetic, tfds_source
from decodec_jax.data.clips import KINDS, Clip, keep_usable, require_rate
from decodec_jax.errors import UserError

log = logging.getLogger(__name__)

SHORTER = 0.25  # s that a file may fall short of its manifest's duration before it counts as truncated


class ClipSource(Protocol):
    """Random-access clips at one sample rate (Hz)."""

    sample_rate: int
    clips: Sequence[Clip]

    def read(self, i: int, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
        """Read `seconds` of clip i from `start` on (None: up to its end): float32 [n], mono.

        The result is shorter if the clip ends earlier. Raises UserError if this part of the clip cannot be used.
        """
        ...


def open_source(data: Data, sample_rate: int, split: str = "train") -> ClipSource:
    """Open the clips of `data.root` for "train", "valid" or "test", at `sample_rate` Hz. Decodes nothing.

    Clips of split "valid" are for validation. If there are none, a share of the training speakers and backgrounds,
    `data.holdout`, is for validation and not for training. A warning counts and names the clips that cannot be used.
    Raises UserError if no speech or no background is left.
    """
    if not data.root:
        return _cached(synthetic.Synthetic(sample_rate, synthetic.clips(split)), data)
    root = Path(data.root)
    if not root.is_dir():
        raise UserError(f"data.root {data.root!r} is not a folder; give one, or leave it empty for synthetic clips")
    if (root / "dataset_info.json").exists():
        source = tfds_source.open_tfds(root, sample_rate, lambda name: _concerns(name, split, data))
    else:
        source = Files(root, sample_rate, list_clips(root))
        source = replace(source, clips=source.present(
            c for c in source.clips if _concerns(c.split, split, data) or (c.kind == "room" and split == "train")
        ))  # fmt: skip
    chosen = select(source.clips, data, split)
    for kind in ("speech", "background"):
        if not any(clip.kind == kind for clip in chosen):
            given = f"data.train_split is {data.train_split!r}"
            raise UserError(f"{root} has no usable {kind} clips for split {split!r} ({given})")
    return _cached(replace(source, clips=chosen), data)


def select(clips: Sequence[Clip], data: Data, split: str) -> list[Clip]:
    """Select the clips of a split. If a kind has no "valid" clips, some of its training clips are held out.

    Training uses the rooms of all splits.
    """
    chosen = [clip for clip in clips if clip.kind == "room" and split == "train"]
    for kind in ("speech", "background"):
        ours = [clip for clip in clips if clip.kind == kind]
        train = [clip for clip in ours if _in(clip.split, data.train_split)]
        valid = [clip for clip in ours if _in(clip.split, "valid")]
        if split not in ("train", "valid"):
            chosen += [clip for clip in ours if _in(clip.split, split)]
        elif valid:
            chosen += train if split == "train" else valid
        else:
            held = _held_out(train, data.holdout)
            if train and not held and split == "valid":
                log.warning("no %s is held out for validation: it uses the training clips", kind)
            in_split = [clip for clip in train if (clip.group in held) == (split == "valid")]
            chosen += in_split if held else train
    return chosen


def _held_out(clips: Sequence[Clip], share: float) -> set[str]:
    """The groups held out for validation. A hash selects them, so that adding clips does not move the others."""
    groups = sorted({clip.group for clip in clips}, key=_hash)
    if share <= 0 or len(groups) < 2:
        return set()
    held = [group for group in groups if _hash(group) < share] or groups[:1]
    return set(held[: len(groups) - 1])


def _hash(text: str) -> float:
    """Uniform in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48


def _in(split: str, *names: str) -> bool:
    return any(split == name or split.endswith("_" + name) for name in names)


def _concerns(name: str, split: str, data: Data) -> bool:
    """Whether the clips of split `name` are needed to select those of `split`."""
    return _in(name, *((data.train_split, "valid") if split in ("train", "valid") else (split,)))


# Folders --------------------------------------------------------------------------------------------------------------


@dataclass(repr=False)
class Files:
    """Audio files in a folder, or records of ArrayRecord files there (named "file.array_record#17")."""

    root: Path
    sample_rate: int
    clips: Sequence[Clip]

    def read(self, i: int, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
        clip = self.clips[i]
        file, name = self.locate(clip)
        head = audio.info(file, name)
        require_rate(head.rate, self.sample_rate, name)
        if head.seconds < clip.seconds - SHORTER:
            raise UserError(f"{name} is truncated: {head.seconds:.2f} s of the {clip.seconds:.2f} s in its manifest")
        if isinstance(file, io.BytesIO):
            file.seek(0)
        return audio.mono(audio.read(file, self.sample_rate, start, seconds, name)[0])

    def present(self, clips: Iterable[Clip]) -> list[Clip]:
        """The clips whose files exist. Reads the header of a file only if its duration is unknown."""
        listing = cache(_names)

        def checked(clip: Clip) -> Clip:
            file = self.root / (records.address(clip.name) or (clip.name,))[0]
            # Each folder is listed once: on network storage, calling stat for a million files takes minutes.
            if file.name not in listing(file.parent):
                raise UserError(f"{file} does not exist")
            if clip.seconds > 0:
                return clip
            file, name = self.locate(clip)
            head = audio.info(file, name)
            require_rate(head.rate, self.sample_rate, name)
            return replace(clip, seconds=head.seconds)

        return keep_usable(clips, checked)

    def locate(self, clip: Clip) -> tuple[io.BytesIO | Path, str]:
        """The file of a clip, and its name in messages."""
        name = str(self.root / clip.name)
        address = records.address(clip.name)
        if address:
            return io.BytesIO(records.read_record(str(self.root / address[0]), address[1])), name
        return self.root / clip.name, name


def list_clips(root: Path) -> list[Clip]:
    """The clips in manifest.csv, or in the folders speech/ and background/ (or noise/). Unknown durations are 0."""
    if (root / "manifest.csv").exists():
        return _read_manifest(root / "manifest.csv")
    clips = []
    for folder, kind in KINDS.items():
        for path in sorted((root / folder).rglob("*")):
            if path.suffix.lower() in audio.SUFFIXES:
                speaker = path.parent.name if kind == "speech" and path.parent != root / folder else ""
                clips.append(Clip(path.relative_to(root).as_posix(), kind, speaker, 0.0, "train"))
    if not clips:
        raise UserError(f"{root} has no manifest.csv, no dataset_info.json, and no audio in speech/ and background/; "
                        "add one")
    return clips


def _read_manifest(path: Path) -> list[Clip]:
    clips = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = {"path", "split", "kind"} - set(rows.fieldnames or ())
            if missing:
                raise UserError(f"{path} lacks the column {sorted(missing)[0]!r}; its first line must name the columns")
            for row in rows:
                kind = KINDS.get((row["kind"] or "").strip())
                if kind and row["path"]:
                    seconds = _seconds(row.get("duration") or row.get("duration_s"))
                    texts = (row.get(name) or "" for name in ("transcript", "recording"))
                    clips.append(Clip(row["path"], kind, row.get("speaker") or "", seconds, row["split"] or "", *texts))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error})") from None
    return clips


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text or 0)
    except ValueError:
        return 0.0
    return seconds if np.isfinite(seconds) and seconds > 0 else 0.0


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


# Memory ---------------------------------------------------------------------------------------------------------------


@dataclass(repr=False)
class Cached:
    """Reads each clip once, whole, and keeps it in memory as 16-bit integers."""

    source: ClipSource
    kept: dict[int, tuple[np.ndarray, float]] = field(default_factory=dict)

    @property
    def sample_rate(self) -> int:
        return self.source.sample_rate

    @property
    def clips(self) -> Sequence[Clip]:
        return self.source.clips

    def read(self, i: int, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
        if i not in self.kept:
            wave = self.source.read(i)
            scale = max(1.0, float(np.abs(wave).max(initial=0.0))) / 32768
            self.kept[i] = np.clip(np.round(wave / scale), -32768, 32767).astype(np.int16), scale
        wave, scale = self.kept[i]
        first = round(start * self.sample_rate)
        count = len(wave) if seconds is None else round(seconds * self.sample_rate)
        return wave[first : first + count].astype(np.float32) * np.float32(scale)

    def __reduce__(self):
        return Cached, (self.source,)  # each worker fills its own cache, as sending hundreds of MB is slower


def _cached(source: ClipSource, data: Data) -> ClipSource:
    """Cache a source that fits into memory: each clip is then decoded once, and not for every crop."""
    size = 2 * source.sample_rate * sum(clip.seconds for clip in source.clips)
    return Cached(source) if size <= data.cache_mb * 2**20 else source
