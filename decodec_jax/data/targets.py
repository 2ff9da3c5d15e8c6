"""A teacher's targets, computed once for whole clips and from then on cropped in step with the audio.

A cache is a folder that launch/cache_targets.py writes: `targets.json` says what the targets are of, and
`targets.array_record` holds, in the order of its names, the float16 features [frames, width] of a clip in each record.
Frame k is that of the samples k * hop to (k + 1) * hop. HuBERT's 768 features take 276 MB an hour of speech.
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
VERSION = 1
# One record a chunk: a crop then reads nothing but its own clip's. Features hardly shrink, so nothing is compressed.
OPTIONS = "group_size:1,uncompressed"

# Frames. Every length that a teacher is given is a compilation: a clip is filled with silence to a multiple of the
# one, and taken in equal pieces where it is longer than the other. 1 s and 30 s of the codec's.
BUCKET, PIECE = 50, 1500


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
            raise UserError(
                f"{self.folder} has no targets of {len(missing)} of {len(speech)} speech clips: "
                f"{', '.join(missing[:NAMED])}{more}; make the cache anew with launch/cache_targets.py"
            )

    def crop(self, name: str, first: int, count: int) -> np.ndarray:
        """Frames `first` to `first + count` of a clip: float32 [count, width].

        Raises UserError where its record is damaged or ends earlier.
        """
        record, frames = self.clips[name]
        if first + count > frames:
            raise UserError(
                f"{name} has changed: {self.folder} has targets of {frames} frames of it, and {first + count} are "
                "needed; make the cache anew with launch/cache_targets.py"
            )
        data = records.read_record(str(self.folder / RECORDS), record)
        if len(data) != 2 * frames * self.about.width:
            raise UserError(f"{self.folder / RECORDS}#{record} is damaged: it has {len(data)} bytes")
        features = np.frombuffer(data, np.float16).reshape(frames, self.about.width)
        return features[first : first + count].astype(np.float32)


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
        raise UserError(
            f"{folder} is not a cache of targets ({HEAD}: {error.strerror}); make one with launch/cache_targets.py"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; make the cache anew with launch/cache_targets.py") from None
    if version != VERSION:
        raise UserError(f"{path} is of version {version}, and this decodec_jax reads version {VERSION}")
    if (about.hop, about.sample_rate) != (hop, sample_rate):
        raise UserError(
            f"{folder} was made for {about.hop} samples a frame at {about.sample_rate} Hz; "
            f"the model has {hop} at {sample_rate} Hz"
        )
    if clips:
        records.read_record(str(folder / RECORDS), len(clips) - 1)  # a file that was cut off has none at all
    return TargetCache(folder, about, clips)


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
        with np.errstate(over="ignore"):
            half = features.astype(np.float16)
        if half.shape[1:] != (width,) or not np.isfinite(half).all():
            raise UserError(f"{name}: float16 [frames, {width}] does not hold this teacher's features")
        attempt(writer.write, half.tobytes())
        frames[name] = len(half)
    attempt(writer.close)
    return frames


def speech_targets(
    sources: Iterable[ClipSource], about: About, compute: Callable[[np.ndarray], np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and `clip_targets` of each speech clip of the sources, in turn; a clip of several sources only once.

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
                yield clip.name, clip_targets(wave, about.hop, compute)


def clip_targets(wave: np.ndarray, hop: int, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The features of a whole clip: [t] with t >= 1 -> [ceil(t / hop), width].

    `compute` is [1, t] -> [1, ceil(t / hop), width], and sees no more than PIECE / BUCKET different t.
    """
    frames = -(-len(wave) // hop)
    pieces = -(-frames // PIECE)
    size = -(-frames // pieces)
    parts = []
    for first in range(0, frames, size):
        piece = wave[first * hop : (first + size) * hop]
        filled = np.pad(piece, (0, -len(piece) % (BUCKET * hop)))
        parts.append(np.asarray(compute(filled[None]))[0, : -(-len(piece) // hop)])
    return np.concatenate(parts)
