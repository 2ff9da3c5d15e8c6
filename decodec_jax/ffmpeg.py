"""m4a, aac, webm, wma and other sound that libsndfile does not know, through PyAV, which brings FFmpeg's libraries.

`audio.py` reads through this file. PyAV is optional: pip install 'decodec_jax[av]'.
"""

import functools
import io
import os
from collections.abc import Generator
from types import TracebackType

import numpy as np

from decodec_jax.errors import UserError

SUFFIXES = (".m4a", ".mp4", ".aac", ".webm", ".mka", ".mkv", ".wma", ".amr", ".3gp")
STARTS = (b"\x1aE\xdf\xa3", b"\x30\x26\xb2\x75", b"#!AMR")  # of Matroska and WebM, of Windows Media, of AMR
SHORTER = 0.25  # s that a file may fall short of its header's duration before it counts as truncated


def recognises(source: str | io.BytesIO) -> bool:
    """Whether the first bytes are those of a format that PyAV reads in place of libsndfile."""
    try:
        if isinstance(source, io.BytesIO):
            head = source.getvalue()[:12]
        else:
            with open(source, "rb") as file:
                head = file.read(12)
    except OSError:
        return False
    adts = len(head) == 12 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0  # the sync word of AAC without a container
    return head[4:8] == b"ftyp" or head.startswith(STARTS) or adts


class SoundFile:
    """A file that is read in order, with the attributes and methods of `soundfile.SoundFile` that `audio.py` uses.

    No header tells how many samples a lossy file gives, so opening it decodes it once. Seeking backwards begins anew
    and seeking forwards decodes what lies between: every read gives exactly the samples of the whole.
    """

    extra_info = ""  # libsndfile's log
    _held: np.ndarray  # decoded and not yet read: float32 [channels, n]
    _position: int  # samples read

    def __init__(self, source: str | io.BytesIO, name: str):
        """Raises UserError, with `name`, without PyAV, and if the file is damaged, truncated or holds no sound."""
        try:
            import av  # noqa: F401
        except ImportError:
            raise UserError(
                f"{name} is in a format that needs PyAV; to read it: pip install 'decodec_jax[av]'"
            ) from None
        self._source = source
        try:
            if isinstance(source, io.BytesIO):
                self.samplerate, self.channels, self.frames, declared = _measured(source)
            else:
                state = os.stat(source)
                self.samplerate, self.channels, self.frames, declared = _remembered(
                    source, state.st_size, state.st_mtime_ns
                )
        except OSError as error:
            raise UserError(f"{name} is damaged or truncated ({error})") from None
        if self.frames < (declared - SHORTER) * self.samplerate:
            raise UserError(f"{name} is truncated: it holds {self.frames / self.samplerate:.2f} s of the "
                            f"{declared:.2f} s that its header promises")  # fmt: skip
        self._begin()

    def __enter__(self) -> "SoundFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._blocks.close()

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        """Go to a sample. Raises OSError for damage on the way."""
        if position < self._position:
            self._begin()
        while self._position < position and self.read(min(position - self._position, 1 << 16)).size:
            pass

    def read(self, count: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next `count` samples, fewer at the end: float32 [n, channels]. Raises OSError for damage."""
        parts, missing = [], count
        while missing:
            if not self._held.shape[1]:
                block = next(self._blocks, None)
                if block is None:
                    break
                self._held = block[0]
            parts.append(self._held[:, :missing])
            self._held = self._held[:, missing:]
            missing -= parts[-1].shape[1]
        self._position += count - missing
        return np.concatenate([np.zeros((self.channels, 0), np.float32), *parts], axis=1).T

    def _begin(self) -> None:
        self._blocks, self._position = _blocks(self._source), 0
        self._held = np.zeros((self.channels, 0), np.float32)


def _blocks(source: str | io.BytesIO) -> Generator[tuple[np.ndarray, int, float], None, None]:
    """All samples as float32 [channels, n], their rate (Hz) and the duration (s) in the header, 0 where there is none.

    Raises OSError if they are damaged or there are none.
    """
    import av

    if isinstance(source, io.BytesIO):
        source.seek(0)
    try:
        with av.open(source, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise OSError("it holds no sound")
            stream = container.streams.audio[0]
            told = container.duration / 1e6 if container.duration else 0.0
            if stream.duration and stream.time_base:
                told = float(stream.duration * stream.time_base)
            if container.format.name == "aac":  # it has no header: FFmpeg guesses from the bit rate
                told = 0.0
            convert = av.AudioResampler(format="fltp")
            for frame in container.decode(stream):
                for block in convert.resample(frame):
                    yield block.to_ndarray(), block.sample_rate, told
    except (av.FFmpegError, ValueError) as error:
        raise OSError(getattr(error, "strerror", None) or str(error)) from None


def _measured(source: str | io.BytesIO) -> tuple[int, int, int, float]:
    """Rate (Hz), channels, samples, and the duration (s) in the header, by decoding everything."""
    form, total = None, 0
    for block, rate, told in _blocks(source):
        form = form or (rate, len(block), told)
        if (rate, len(block)) != form[:2]:
            raise OSError("its rate or number of channels changes on the way")
        total += block.shape[1]
    if form is None:
        raise OSError("no sound in it can be decoded")
    return form[0], form[1], total, form[2]


@functools.lru_cache(maxsize=1024)
def _remembered(path: str, size: int, changed: int) -> tuple[int, int, int, float]:
    """`_measured` of a file, once for as long as it does not change."""
    return _measured(path)
