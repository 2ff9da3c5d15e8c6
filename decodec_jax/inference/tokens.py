"""`Tokens`: the codes of a recording, with everything that decoding needs."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from decodec_jax import arrays
from decodec_jax.errors import UserError
from decodec_jax.inference.loudness import checked_gain

STREAMS = ("speech", "background")
MAX_ENTRIES = 65536  # of a codebook; its codes take 16 bits


@dataclass(frozen=True, eq=False)
class Tokens:
    """The codes of one channel of a recording.

    Codes are int32 `[k, f]`, coarse levels first, with f = ceil(length / hop) frames. Arrays, lists and tensors of any
    integer type are converted. The streams may have different numbers of levels; a stream that is left out has none,
    `[0, f]`. Raises UserError, naming the field, for anything else.
    """

    speech: np.ndarray
    background: np.ndarray
    length: int  # samples
    sample_rate: int  # Hz
    hop: int  # samples a frame
    entries: tuple[int, int]  # of the codebooks of speech and background
    fingerprint: str  # of the weights that the codes belong to: 16 hexadecimal digits
    gain: float = 0.0  # dB: how much louder the recording was when it was coded; in single precision, as in a file

    def __post_init__(self):
        for name in ("length", "sample_rate", "hop"):
            value = getattr(self, name)
            if not _whole(value) or value < 1:
                raise UserError(f"tokens: {name} is {value!r}; it must be a whole number of at least 1")
            object.__setattr__(self, name, int(value))
        if len(self.entries) != 2 or not all(_whole(n) and 2 <= n <= MAX_ENTRIES for n in self.entries):
            raise UserError(f"tokens: entries is {self.entries!r}; it must be two numbers from 2 to {MAX_ENTRIES}")
        object.__setattr__(self, "entries", tuple(int(n) for n in self.entries))
        if not re.fullmatch("[0-9a-f]{16}", self.fingerprint):
            raise UserError(f"tokens: fingerprint is {self.fingerprint!r}; it must be 16 digits 0-9, a-f")
        object.__setattr__(self, "gain", float(np.float32(checked_gain(self.gain))))
        for stream, entries in zip(STREAMS, self.entries, strict=True):
            object.__setattr__(self, stream, self._checked(stream, entries))
        if self.levels == (0, 0):
            raise UserError("tokens: both streams are left out; keep at least one level of one of them")

    def _checked(self, stream: str, entries: int) -> np.ndarray:
        codes = arrays.as_numpy(getattr(self, stream))
        if codes.ndim != 2 or codes.shape[1] != self.frames:
            raise UserError(f"tokens: {stream} has shape {codes.shape}; {self.length} samples at {self.hop} a frame "
                            f"need [levels, {self.frames}]")  # fmt: skip
        if codes.dtype.kind not in "iu":
            raise UserError(f"tokens: {stream} is {codes.dtype}; codes are whole numbers")
        if codes.size and not 0 <= codes.min() <= codes.max() < entries:
            raise UserError(f"tokens: {stream} has codes from {codes.min()} to {codes.max()}; its codebooks have "
                            f"entries 0 to {entries - 1}")  # fmt: skip
        return codes.astype(np.int32, copy=False)

    @property
    def frames(self) -> int:
        return math.ceil(self.length / self.hop)

    @property
    def levels(self) -> tuple[int, int]:
        """The numbers of levels of speech and background."""
        return self.speech.shape[0], self.background.shape[0]

    @property
    def seconds(self) -> float:
        return self.length / self.sample_rate

    @property
    def bitrate(self) -> float:
        """Bits of codes per second."""
        return bitrate(self.levels, self.entries, self.sample_rate / self.hop)

    @property
    def form(self) -> tuple:
        """All fields except the codes and the length. Tokens can be joined if their forms are equal."""
        return self.sample_rate, self.hop, self.levels, self.entries, self.fingerprint, self.gain

    def cut(self, first: int, last: int) -> "Tokens":
        """Frames first to last - 1. Raises UserError if there are none."""
        speech, background = self.speech[:, first:last], self.background[:, first:last]
        length = min(last * self.hop, self.length) - first * self.hop
        return replace(self, speech=speech, background=background, length=length)

    def with_levels(self, speech: int, background: int) -> "Tokens":
        """Keep that many coarse levels of each stream; 0 leaves a stream out. Raises UserError for too many."""
        for stream, wanted, there in zip(STREAMS, (speech, background), self.levels, strict=True):
            if not 0 <= wanted <= there:
                raise UserError(f"{stream} cannot have {wanted} levels; these tokens have {there}, and 0 leaves it out")
        return replace(self, speech=self.speech[:speech], background=self.background[:background])

    def __eq__(self, other) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        return (
            (self.form, self.length) == (other.form, other.length)
            and np.array_equal(self.speech, other.speech)
            and np.array_equal(self.background, other.background)
        )


def code_bits(entries: int) -> int:
    """The number of bits of one code from a codebook with `entries` entries."""
    return (entries - 1).bit_length()


def bitrate(levels: tuple[int, int], entries: tuple[int, int], frames_per_second: float) -> float:
    """Bits of codes per second. Pairs are of speech and background."""
    return sum(k * code_bits(n) for k, n in zip(levels, entries, strict=True)) * frames_per_second


def join(parts: Sequence[Tokens]) -> Tokens:
    """Join consecutive pieces of a recording. Raises UserError unless all but the last end at whole frames."""
    for piece, following in itertools.pairwise(parts):
        check_following(piece, following)
    speech = np.concatenate([piece.speech for piece in parts], axis=1)
    background = np.concatenate([piece.background for piece in parts], axis=1)
    return replace(parts[0], speech=speech, background=background, length=sum(piece.length for piece in parts))


def check_following(piece: Tokens, following: Tokens) -> None:
    """Raise UserError if `following` cannot continue where `piece` ends."""
    if following.form != piece.form:
        raise UserError(f"tokens of {following.form} cannot follow those of {piece.form}: "
                        "sample rate, hop, levels, entries, fingerprint and gain must be the same")  # fmt: skip
    if piece.length % piece.hop:
        raise UserError(f"only the last tokens may end within a frame; these have {piece.length} samples, "
                        f"{piece.hop} a frame")


def _whole(value) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
