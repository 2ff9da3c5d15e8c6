"""A teacher's targets, computed once for whole clips and then cropped together with the audio.

A cache is a folder that launch/cache_targets.py writes. `targets.json` describes the targets. `targets.array_record`
holds one record per clip, in the order of the names in `targets.json`: the lowest and the highest value of each
feature, float16 [2, width], then the frames with 4 bits per feature, each one of 16 evenly spaced values between the
two. Their cosine with the exact ones is 0.994, measured on Whisper's features of speech. Frame k covers the samples
k * hop to (k + 1) * hop. Whisper tiny's 384 features take 35 MB per hour of speech, HuBERT's 768 take 70 MB.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from array_record.python import array_record_module

from decodec_jax.data import records
from decodec_jax.data.clips import NAMED, Clip
from decodec_jax.data.sources import ClipSource
from decodec_jax.errors import UserError

log = logging.getLogger(__name__)

HEAD, RECORDS = "targets.json", "targets.array_record"
VERSION = 2
STEPS = 15  # from the lowest value to the highest
# One record per chunk, so that a crop reads only its own clip. Uncompressed, because features hardly shrink.
OPTIONS = "group_size:1,uncompressed"

PIECE = 1500  # frames; longer clips (above 30 s) are split into equal pieces


@dataclass(frozen=True)
class About:
    """Which teacher, rate and frames the targets of a cache are for."""

    teacher: str  # its fingerprint
    width: int  # features per frame
    hop: int  # samples per frame
    sample_rate: int  # Hz


@dataclass(frozen=True, repr=False)
class TargetCache:
    """An open cache. It holds no open file; each worker process opens its own."""

    folder: Path
    about: About
    clips: Mapping[str, tuple[int, int]]  # name -> record and number of frames

    def require(self, clips: Iterable[Clip]) -> None:
        """Raise UserError unless the cache has targets for all speech among `clips`."""
        speech = [clip.name for clip in clips if clip.kind == "speech"]
        missing = [name for name in speech if name not in self.clips]
        if missing:
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            raise UserError(f"{self.folder} has no targets of {len(missing)} of {len(speech)} speech clips: "
                            f"{', '.join(missing[:NAMED])}{more}; make the cache anew with launch/cache_targets.py")

    def crop(self, name: str, first: int, count: int) -> np.ndarray:
        """Frames `first` to `first + count` of a clip: float32 [count, width].

        Raises UserError if its record is damaged or ends earlier.
        """
        record, frames = self.clips[name]
        if first + count > frames:
            raise UserError(f"{name} has changed: {self.folder} has targets for {frames} of its frames, but "
                            f"training needs {first + count}; make the cache anew with launch/cache_targets.py")
        data = records.read_record(str(self.folder / RECORDS), record)
        if len(data) != record_bytes(frames, self.about.width):
            raise UserError(f"{self.folder / RECORDS}#{record} is damaged: it has {len(data)} bytes")
        return unpacked(data, self.about.width, first, count)


def open_cache(folder: Path, sample_rate: int, hop: int) -> TargetCache:
    """Open a cache for a codec with `hop` samples per frame at `sample_rate` Hz.

    Raises UserError if the cache is damaged, missing, or made for another hop or rate.
    """
    path = folder / HEAD
    try:
        head = json.loads(path.read_bytes())
        version = head.pop("version")
        if version == VERSION:
            names, frames = head.pop("names"), head.pop("frames")
            clips = {name: (k, count) for k, (name, count) in enumerate(zip(names, frames, strict=True))}
            about = About(**head)
    except OSError as error:
        raise UserError(f"{folder} is not a cache of targets ({HEAD}: {error.strerror}); make one with "
                        "launch/cache_targets.py") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; make the cache anew with launch/cache_targets.py") from None
    if version != VERSION:
        raise UserError(f"{path} is of version {version}, and this decodec_jax reads version {VERSION}")
    if (about.hop, about.sample_rate) != (hop, sample_rate):
        raise UserError(f"{folder} was made for {about.hop} samples a frame at {about.sample_rate} Hz; the model has "
                        f"{hop} at {sample_rate} Hz")
    if clips:
        records.read_record(str(folder / RECORDS), len(clips) - 1)  # a truncated file has no records at all
    return TargetCache(folder, about, clips)


def at_speed(features: np.ndarray, speed: float, count: int) -> np.ndarray:
    """Features [frames, width] of a clip, interpolated for playback at a speed: [count, width]."""
    at = np.clip((np.arange(count) + 0.5) * speed - 0.5, 0, len(features) - 1)
    before = at.astype(int)
    share = np.float32(at - before)[:, None]
    return (1 - share) * features[before] + share * features[np.minimum(before + 1, len(features) - 1)]


# Records --------------------------------------------------------------------------------------------------------------


def packed(features: np.ndarray) -> bytes:
    """The record of a clip's features [frames, width]. Two features share a byte, the first in the low half.

    Raises ValueError for features that float16 cannot hold.
    """
    if not len(features):
        return b""
    with np.errstate(over="ignore"):
        ends = np.stack([features.min(0), features.max(0)]).astype(np.float16)
    if not np.isfinite(ends).all():
        raise ValueError("beyond float16")
    low, step = _scale(ends)
    codes = np.clip(np.rint((features - low) / np.where(step > 0, step, 1)), 0, STEPS).astype(np.uint8)
    codes = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return ends.tobytes() + (codes[:, ::2] | codes[:, 1::2] << 4).tobytes()


def unpacked(record: bytes, width: int, first: int, count: int) -> np.ndarray:
    """Frames `first` to `first + count` of a record: float32 [count, width]."""
    low, step = _scale(np.frombuffer(record, np.float16, 2 * width).reshape(2, width))
    size = -(-width // 2)
    codes = np.frombuffer(record, np.uint8, count * size, 4 * width + first * size).reshape(count, size)
    codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(count, 2 * size)[:, :width]
    return low + codes * step


def record_bytes(frames: int, width: int) -> int:
    """Length of a record in bytes."""
    return 4 * width + frames * -(-width // 2) if frames else 0


def _scale(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest values and steps, float32 [width] each, of float16 [2, width]."""
    low, high = np.float32(ends)
    return low, (high - low) / np.float32(STEPS)


# Making one -----------------------------------------------------------------------------------------------------------


def write_cache(folder: Path, about: About, targets: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write `targets`, the name of each clip and its [frames, width], as the cache `folder`.

    The folder appears only when complete; an interrupted run leaves nothing. Raises UserError if `folder` exists or
    cannot be written, or if float16 cannot hold the features.
    """
    if folder.exists():
        raise UserError(f"{folder} exists; remove it, or name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / folder.name
        made.mkdir()
        frames = _write_records(made / RECORDS, about.width, targets)
        head = {"version": VERSION, **asdict(about), "names": list(frames), "frames": list(frames.values())}
        (made / HEAD).write_text(json.dumps(head, indent=0) + "\n", encoding="utf-8")
        os.rename(made, folder)


def _write_records(path: Path, width: int, targets: Iterable[tuple[str, np.ndarray]]) -> dict[str, int]:
    """Write the records; returns the number of frames of each clip by name, in the order of the records."""
    writer, frames = array_record_module.ArrayRecordWriter(str(path), OPTIONS), {}

    def attempt(write: Callable, *arguments) -> None:
        try:
            write(*arguments)
        except RuntimeError as error:
            raise UserError(f"{path} cannot be written ({str(error).split(';')[0]})") from None

    for name, features in targets:
        try:
            if features.shape[1:] != (width,):
                raise ValueError
            record = packed(features)
        except ValueError:
            raise UserError(f"{name}: this teacher's features do not fit float16 [frames, {width}]") from None
        attempt(writer.write, record)
        frames[name] = len(features)
    attempt(writer.close)
    return frames


def speech_targets(
    sources: Iterable[ClipSource], about: About, of_clip: Callable[[np.ndarray], np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and targets of each speech clip of the sources; a clip that several sources have comes once.

    of_clip: computes the targets of a whole clip, [t] -> [ceil(t / hop), width].

    A clip that cannot be read gets no frames and a warning; training skips it too.
    """
    done = set()
    for source in sources:
        for i, clip in enumerate(source.clips):
            if clip.kind != "speech" or clip.name in done:
                continue
            done.add(clip.name)
            try:
                wave = source.read(i)
            except UserError as error:
                log.warning("a clip gets no targets: %s", error)
                yield clip.name, np.zeros((0, about.width), np.float32)
            else:
                yield clip.name, of_clip(wave)


def clip_features(wave: np.ndarray, hop: int, window: int, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The features of a whole clip: [t] with t >= 1 -> [ceil(t / hop), width].

    `compute` is [1, t] -> [1, ceil(t / hop), width]. Every new t compiles again, so clips are padded with silence
    to a multiple of `window` frames: `compute` gets at most PIECE / window different t.
    """
    frames = -(-len(wave) // hop)
    pieces = -(-frames // PIECE)
    size = -(-frames // pieces)
    parts = []
    for first in range(0, frames, size):
        piece = wave[first * hop : (first + size) * hop]
        filled = np.pad(piece, (0, -len(piece) % (window * hop)))
        parts.append(np.asarray(compute(filled[None]))[0, : -(-len(piece) // hop)])
    return np.concatenate(parts)
