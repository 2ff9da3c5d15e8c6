"""Read, write and resample audio: the only file that touches soundfile and soxr, and PyAV through `ffmpeg.py`.

Any problem with a user's file is one UserError that names it.
"""

import contextlib
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike

from decodec_jax import arrays, ffmpeg
from decodec_jax.errors import UserError

Source = str | os.PathLike | io.BytesIO
File: TypeAlias = "soundfile.SoundFile | ffmpeg.SoundFile"

FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
OGG_RATE, OGG_CHANNELS = 200_000, 255
SUFFIXES = (  # of recordings, by which they are found in folders
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", *ffmpeg.SUFFIXES
)  # fmt: skip
MARGIN = 0.05  # s read around a crop that is resampled: longer than soxr's filter, so that its edges do not show
BLOCK = 65536  # frames written at once: libvorbis overflows the stack on much longer ones
UNKNOWN_SIZE = 0x7FFF0000  # programs that write a wav to a pipe declare at least this many bytes


@dataclass(frozen=True)
class AudioInfo:
    """The header of a file. `frames` is the number of samples per channel, at `rate` Hz."""

    rate: int
    channels: int
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def info(source: Source, name: str = "") -> AudioInfo:
    """Read the header of a file, or of its bytes. Raises UserError if it is not usable audio."""
    with _opened(source, name) as (file, _):
        return AudioInfo(file.samplerate, file.channels, file.frames)


def read(
    source: Source, rate: int | None = None, start: float = 0.0, seconds: float | None = None, name: str = ""
) -> tuple[np.ndarray, int]:
    """Read a file, or only `seconds` of it from `start` (s), and resample it to `rate` (Hz; None: the file's own).

    `source` is a path, or a BytesIO with a file's bytes, which errors call `name`. Returns (float32 [channels, n],
    rate): n = ceil(frames * rate / file's rate) for a whole file, round(seconds * rate) for a crop, or less if the file
    ends earlier. A resampled crop equals the same part of the resampled file. Raises UserError if the file is missing,
    not audio or empty, and if the part that is read is truncated or not finite.
    """
    if not (0 <= start < math.inf and (seconds is None or 0 <= seconds < math.inf)):
        raise UserError(f"{seconds} seconds from {start} on is no part of a recording; both must be 0 or more")
    with _opened(source, name) as (file, name):
        rate_in, frames = file.samplerate, file.frames
        rate = rate_in if rate is None else arrays.checked_rate(rate)
        # A segment that begins at a multiple of `block_in` begins exactly on an output sample.
        block_in, block_out = rate_in // math.gcd(rate_in, rate), rate // math.gcd(rate_in, rate)
        margin = 0 if rate == rate_in else math.ceil(MARGIN * rate_in)
        first = round(start * rate)
        last = math.ceil(frames * rate / rate_in) if seconds is None else first + round(seconds * rate)
        blocks = max(0, first // block_out - math.ceil(margin / block_in))
        begin, end = blocks * block_in, min(frames, math.ceil(last * rate_in / rate) + margin)
        if first * rate_in >= frames * rate:
            raise UserError(f"{name} is {frames / rate_in:.3f} s long; nothing can be read at {start:.3f} s")
        wave = _samples(file, name, end - begin, begin)
    wave = resample(wave, rate_in, rate)
    skip = first - blocks * block_out
    return np.ascontiguousarray(wave[:, skip : skip + last - first]), rate


def mono(wave: ArrayLike) -> np.ndarray:
    """Mean of the channels: [channels, t] or [t] to float32 [t]. Raises UserError for other axes."""
    wave = arrays.samples(wave)
    arrays.check_axes(wave)
    return wave if wave.ndim == 1 else wave[0] if len(wave) == 1 else wave.mean(axis=0)


def resample(wave: ArrayLike, rate_in: int, rate_out: int) -> np.ndarray:
    """Band-limited resampling along the last axis: [..., t] to float32 [..., ceil(t * rate_out / rate_in)].

    Rates are in Hz. Raises UserError for what is not a waveform or a rate.
    """
    wave, rate_in, rate_out = arrays.samples(wave), arrays.checked_rate(rate_in), arrays.checked_rate(rate_out)
    if wave.ndim < 3:
        arrays.check_axes(wave)
    if rate_in == rate_out or wave.shape[-1] == 0:
        return wave
    flat = wave.reshape(-1, wave.shape[-1])
    out = np.concatenate(list(resampled([flat], rate_in, rate_out)), axis=1)
    return np.ascontiguousarray(out).reshape(*wave.shape[:-1], -1)


def resampled(pieces: Iterable[np.ndarray], rate_in: int, rate_out: int) -> Iterator[np.ndarray]:
    """`resample` for a recording in pieces [channels, n]: the same samples, each as soon as soxr returns it."""
    if rate_in == rate_out:
        yield from pieces
        return
    stream, heard, given = None, 0, 0
    for piece in pieces:
        stream = stream or soxr.ResampleStream(rate_in, rate_out, len(piece), dtype="float32", quality="HQ")
        heard += piece.shape[1]
        out = stream.resample_chunk(np.ascontiguousarray(piece.T, np.float32)).T
        given += out.shape[1]
        yield out
    if stream and heard:
        # soxr rounds the length down, so add a little silence, and cut to the exact length
        silence = np.zeros((2 * math.ceil(rate_in / rate_out) + 2, len(piece)), np.float32)
        yield stream.resample_chunk(silence, last=True).T[:, : -(-heard * rate_out // rate_in) - given]


def delay(rate_in: int, rate_out: int) -> float:
    """The longest time (s) that `resampled` holds a sample back, for pieces of 10 ms."""
    heard = given = kept = 0.0
    piece = np.zeros((1, max(1, rate_in // 100)), np.float32)

    def silence() -> Iterator[np.ndarray]:
        nonlocal heard, kept
        for _ in range(100):
            kept = max(kept, heard - given)
            heard += piece.shape[1] / rate_in
            yield piece

    for out in resampled(silence(), rate_in, rate_out):
        given += out.shape[1] / rate_out
    return kept


def write(path: str | os.PathLike, wave: ArrayLike, rate: int) -> None:
    """Write a recording [t] or [channels, t] at `rate` (Hz): .wav and .flac with 16 bits, .ogg as Vorbis.

    Floats are clipped to [-1, 1]; integers are scaled by their type (`arrays.py`). The file appears under its name only
    when it is complete. Raises UserError when it cannot be written.

        >>> from decodec_jax import read_audio, write_audio
        >>> write_audio("tone.wav", [0.0, 0.25, 0.5, 0.25], 8000)
        >>> read_audio("tone.wav")
        (array([[0.  , 0.25, 0.5 , 0.25]], dtype=float32), 8000)
    """
    wave = _rows(wave)
    with writing(path, rate, len(wave)) as put:
        put(wave)


@contextlib.contextmanager
def writing(path: str | os.PathLike, rate: int, channels: int) -> Iterator[Callable[[np.ndarray], None]]:
    """`write` for a recording in pieces: yields a function that appends [channels, n]."""
    path = Path(path)
    check_writable(path)
    with replacing(path) as part:
        try:
            with _created(part, path.suffix, rate, channels, str(path)) as put:
                yield put
        except soundfile.SoundFileError as error:
            raise UserError(f"{path} cannot be written ({_reason(error)}; is the disk full?)") from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`. The file written there replaces `path`, unless there is an error.

    Raises UserError if the system refuses.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error})") from None


def check_writable(path: str | os.PathLike) -> None:
    """Raise UserError if no audio can be written under this name. Call it before long work begins."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path} is not written: its suffix must be one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: the folder {path.parent} is read-only")


def encode(wave: ArrayLike, rate: int, suffix: str, name: str = "audio") -> bytes:
    """The bytes of an audio file of the suffix's format; arguments and errors as in `write`."""
    wave = _rows(wave)
    out = io.BytesIO()
    with _created(out, suffix, rate, len(wave), name) as put:
        put(wave)
    return out.getvalue()


def _rows(wave: ArrayLike) -> np.ndarray:
    """[t] or [channels, t] to float32 [channels, t]."""
    wave = arrays.samples(wave)
    arrays.check_axes(wave)
    return np.atleast_2d(wave)


def sixteen_bits(wave: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1], clipped, as int16."""
    return np.clip(np.round(wave * 32768.0), -32768, 32767).astype(np.int16)


@contextlib.contextmanager
def reading(
    source: Source, seconds: float = 5.0, name: str = ""
) -> Iterator[tuple[AudioInfo, Iterator[np.ndarray]]]:
    """`read` for files of any length: yields the header and an iterator over pieces of `seconds`."""
    with _opened(source, name) as (file, name):
        yield AudioInfo(file.samplerate, file.channels, file.frames), _pieces(file, name, seconds)


def _pieces(file: File, name: str, seconds: float) -> Iterator[np.ndarray]:
    left, count = file.frames, max(1, round(seconds * file.samplerate))
    while left > 0:
        wave = _samples(file, name, min(count, left))
        left -= wave.shape[1]
        yield wave


def _samples(file: File, name: str, count: int, begin: int | None = None) -> np.ndarray:
    """The next `count` samples, or those from sample `begin` on: float32 [channels, count].

    Raises UserError if they are damaged, incomplete or not finite.
    """
    try:
        if begin is not None:
            file.seek(begin)
        wave = file.read(count, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{name} is damaged or truncated ({_reason(error)})") from None
    if len(wave) < count:
        raise UserError(f"{name} is truncated: it ends {(file.frames - file.tell()) / file.samplerate:.3f} s early")
    if not np.isfinite(wave).all():
        raise UserError(f"{name} contains samples that are not finite numbers (NaN or inf)")
    return wave.T


@contextlib.contextmanager
def _created(
    target: Path | io.BytesIO, suffix: str, rate: int, channels: int, name: str
) -> Iterator[Callable[[np.ndarray], None]]:
    """A new audio file of the suffix's format: yields a function that appends [channels, n], at least one sample."""
    container, subtype = FORMATS[suffix.lower()]
    rate = arrays.checked_rate(rate)
    if container == "OGG" and (rate > OGG_RATE or channels > OGG_CHANNELS):  # libsndfile crashes
        raise UserError(f"{name}: OGG cannot hold {channels} channel(s) at {rate} Hz (at most {OGG_CHANNELS} at "
                        f"{OGG_RATE} Hz)")
    if isinstance(target, Path):
        target.open("wb").close()  # tells why it cannot be written
    try:
        file = soundfile.SoundFile(target, "w", rate, channels, subtype, format=container)
    except (soundfile.SoundFileError, ValueError) as error:
        raise UserError(
            f"{name}: {container} cannot hold {channels} channel(s) at {rate} Hz ({_reason(error)})"
        ) from None
    empty = True

    def put(wave: np.ndarray) -> None:
        nonlocal empty
        arrays.check_numbers(wave, f"{name} is not written: the recording")
        for begin in range(0, wave.shape[-1], BLOCK):
            piece = wave[:, begin : begin + BLOCK].T
            piece = sixteen_bits(piece) if subtype == "PCM_16" else np.clip(piece, -1.0, 1.0).astype(np.float32)
            file.write(np.ascontiguousarray(piece))
            empty = False

    with file:
        yield put
        if empty:
            raise UserError(f"{name} is not written: there are no samples to write")


@contextlib.contextmanager
def _opened(source: Source, name: str) -> Iterator[tuple[File, str]]:
    """Open a path or BytesIO: yields (file, name for messages). Raises UserError unless it is audio, and not empty."""
    if isinstance(source, io.BytesIO):
        name = name or "the audio"
        source.seek(0)  # whoever read it before may have left it at its end
    else:
        name = name or str(source)
        source = os.fspath(source)
        if not os.path.exists(source):
            raise UserError(f"{name} does not exist")
        if os.path.isdir(source):
            raise UserError(f"{name} is a folder, not an audio file")
        if not os.access(source, os.R_OK):
            raise UserError(f"{name} cannot be read: permission denied")
    try:
        file = soundfile.SoundFile(source)
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        if not ffmpeg.recognises(source):
            raise UserError(f"{name} is not an audio file that can be read ({_reason(error)})") from None
        file = ffmpeg.SoundFile(source, name)
    with file:
        if file.frames <= 0:
            raise UserError(f"{name} has no samples in it")
        # libsndfile opens a truncated wav as a shorter one; only its log shows the lost bytes
        cut = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
        if cut and int(cut[2]) < int(cut[1]) < UNKNOWN_SIZE:
            raise UserError(f"{name} is truncated: it holds {cut[2]} of {cut[1]} bytes of audio")
        yield file, name


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return text.strip().rstrip(".").removeprefix("Error : ")
