"""A teacher's targets, computed once for whole clips and from then on cropped in step with the audio.

A cache is a folder that launch/cache_targets.py writes: `targets.json` says what the targets are of, and
`targets.array_record` holds, in the order of its names, a clip in each record: of each feature the lowest and the
highest value, float16 [2, width], and then the frames in 4 bits a feature, as one of 16 values evenly between the two.
Their cosine with the exact ones is 0.994, measured on Whisper's features of speech. Frame k is that of the samples
k * hop to (k + 1) * hop. Whisper tiny's 384 features take 35 MB an hour of speech, HuBERT's 768 take 70 MB.
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
# One record a chunk: a crop then reads nothing but its own clip's. Features hardly shrink, so nothing is compressed.
OPTIONS = "group_size:1,uncompressed"

PIECE = 1500  # frames; clips above 30 s are taken in equal pieces


@dataclass(frozen=True)
class About:
    """What the targets of a cache are of."""

    teacher: str  # its fingerprint
    width: int  # features per frame
    hop: int  # samples per frame
    sample_rate: int  # Hz


@dataclass(frozen=True, repr=False)
class TargetCache:
    """An open cache. It holds no file: a worker process opens its own."""

    folder: Path
    about: About
    clips: Mapping[str, tuple[int, int]]  # name -> record and number of frames

    def require(self, clips: Iterable[Clip]) -> None:
        """Raise UserError unless there are targets of all speech among `clips`."""
        speech = [clip.name for clip in clips if clip.kind == "speech"]
        missing = [name for name in speech if name not in self.clips]
        if missing:
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            raise UserError(f"{self.folder} has no targets of {len(missing)} of {len(speech)} speech clips: "
                            f"{', '.join(missing[:NAMED])}{more}; make the cache anew with launch/cache_targets.py")

    def crop(self, name: str, first: int, count: int) -> np.ndarray:
        """Frames `first` to `first + count` of a clip: float32 [count, width].

        Raises UserError where its record is damaged or ends earlier.
        """
        record, frames = self.clips[name]
        if first + count > frames:
            raise UserError(f"{name} has changed: {self.folder} has targets of {frames} frames of it, and "
                            f"{first + count} are needed; make the cache anew with launch/cache_targets.py")
        data = records.read_record(str(self.folder / RECORDS), record)
        if len(data) != record_bytes(frames, self.about.width):
            raise UserError(f"{self.folder / RECORDS}#{record} is damaged: it has {len(data)} bytes")
        return unpacked(data, self.about.width, first, count)


def open_cache(folder: Path, sample_rate: int, hop: int) -> TargetCache:
    """Open a cache for a codec of `hop` samples a frame at `sample_rate` Hz.

    Raises UserError for one made for another hop or rate, and for a folder that holds no cache or a damaged one.
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
        records.read_record(str(folder / RECORDS), len(clips) - 1)  # a file that was cut off has none at all
    return TargetCache(folder, about, clips)


def at_speed(features: np.ndarray, speed: float, count: int) -> np.ndarray:
    """Features [frames, width] of a clip as `count` frames of it played at a speed: [count, width]."""
    at = np.clip((np.arange(count) + 0.5) * speed - 0.5, 0, len(features) - 1)
    before = at.astype(int)
    share = np.float32(at - before)[:, None]
    return (1 - share) * features[before] + share * features[np.minimum(before + 1, len(features) - 1)]


# Records --------------------------------------------------------------------------------------------------------------


def packed(features: np.ndarray) -> bytes:
    """The record of a clip's features [frames, width]; two share a byte, the first has its low half.

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
    """How long a record is."""
    return 4 * width + frames * -(-width // 2) if frames else 0


def _scale(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest values and steps, float32 [width] each, of float16 [2, width]."""
    low, high = np.float32(ends)
    return low, (high - low) / np.float32(STEPS)


# Making one -----------------------------------------------------------------------------------------------------------


def write_cache(folder: Path, about: About, targets: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write `targets`, the name of each clip and its [frames, width], as the cache `folder`.

    It appears under its name only when complete; whatever ends the work earlier leaves nothing. Raises UserError where
    `folder` is there already, where it cannot be written, and for features that float16 cannot hold.
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
    """How many frames each clip has, by name, in the order of the records."""
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
            raise UserError(f"{name}: float16 [frames, {width}] does not hold this teacher's features") from None
        attempt(writer.write, record)
        frames[name] = len(features)
    attempt(writer.close)
    return frames


def speech_targets(
    sources: Iterable[ClipSource], about: About, of_clip: Callable[[np.ndarray], np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and targets of each speech clip of the sources, in turn; a clip of several sources only once.

    of_clip: of a whole clip, [t] -> [ceil(t / hop), width].

    A clip that cannot be read has no frames, and is named in a warning: training skips it, too.
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
                log.warning("a clip is left without targets: %s", error)
                yield clip.name, np.zeros((0, about.width), np.float32)
            else:
                yield clip.name, of_clip(wave)


def clip_features(wave: np.ndarray, hop: int, window: int, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The features of a whole clip: [t] with t >= 1 -> [ceil(t / hop), width].

    `compute` is [1, t] -> [1, ceil(t / hop), width]. Every t is a compilation, so a clip is followed by silence up to
    whole windows of so many frames: `compute` sees no more than PIECE / window different t.
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
