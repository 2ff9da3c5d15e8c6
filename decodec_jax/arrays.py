"""Arrays and rates as people have them, turned into what the codec works on: float32 samples, whole numbers of Hz.

Every public function takes its arrays through this file. Only the values of an array count: it may be a list, or come
from numpy, JAX or PyTorch, with a gradient or without, on any device. float16, bfloat16 and float64 become float32.
Integers are scaled by their type, as audio files store them: int16 by 2^15, int32 by 2^31, and uint8 (silence is 128)
by 2^7. Other integers, booleans and complex numbers are refused.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from decodec_jax.errors import UserError

SCALES = {"i2": (0, 2**15), "i4": (0, 2**31), "u1": (128, 2**7)}  # by kind and bytes: value of silence, full scale
MOST_CHANNELS = 32  # an array with more channels than this, and even fewer samples, has its axes the wrong way round
LOUDEST = 1000.0  # times full scale: floats beyond it are integers that nobody scaled


def as_numpy(array: ArrayLike) -> np.ndarray:
    """An array or list of numbers, as numpy, in its own type. Raises UserError for anything else."""
    try:
        return np.asarray(_without_torch(array))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"this is not an array of numbers: {str(error).splitlines()[0]}") from None


def _without_torch(array):
    if isinstance(array, (list, tuple)):
        return [_without_torch(each) for each in array]
    if hasattr(array, "detach"):  # numpy cannot read a tensor that needs a gradient, lies on a GPU or is bfloat16
        return (array.float() if array.is_floating_point() else array).numpy(force=True)
    return array


def samples(array: ArrayLike) -> np.ndarray:
    """Samples of any shape as float32, full scale 1. Raises UserError for types that do not say their full scale."""
    array = as_numpy(array)
    kind = array.dtype.kind
    if (scale := SCALES.get(f"{kind}{array.dtype.itemsize}")) is not None:
        return (array.astype(np.float32) - scale[0]) / scale[1]
    if kind == "c":
        raise UserError("the samples are complex numbers; if their real part is the recording, pass x.real")
    if kind == "f" or (kind == "V" and np.can_cast(array.dtype, np.float32)):  # V: bfloat16, which numpy does not know
        with np.errstate(over="ignore"):  # infinite then, and `check_numbers` says so
            return array.astype(np.float32, copy=False)
    raise UserError(f"the samples are {array.dtype}; pass floats in [-1, 1], or int16, int32 or uint8, "
                    "which are scaled by their type")  # fmt: skip


def waveform(wave: ArrayLike) -> np.ndarray:
    """A recording, `[t]` or `[channels, t]`, as float32. Raises UserError for anything else."""
    wave = samples(wave)
    check_axes(wave)
    if wave.size == 0:
        raise UserError("the recording has no samples")
    check_numbers(wave)
    return wave


def pieces(parts: Iterable[ArrayLike], channels: int | None = None) -> Iterator[np.ndarray]:
    """Consecutive pieces of a recording, `[channels, n]`, any n >= 0, as float32. Raises UserError for anything else.

    channels: how many there must be; None: as many as in the first piece.
    """
    for part in parts:
        piece = samples(part)
        if piece.ndim != 2:
            raise UserError(f"a piece of a recording is [channels, n]; this one has shape {piece.shape}")
        check_axes(piece)
        channels = channels or len(piece)
        if len(piece) != channels:
            raise UserError(f"a piece has {len(piece)} channels; this recording must have {channels}")
        check_numbers(piece)
        yield piece


def check_axes(wave: np.ndarray) -> None:
    """Raise UserError unless the axes can be `[t]` or `[channels, t]`."""
    if wave.ndim not in (1, 2):
        raise UserError(f"a waveform is [t] or [channels, t]; this one has shape {wave.shape}")
    if wave.ndim == 2 and len(wave) > MOST_CHANNELS and 0 < wave.shape[1] < len(wave):
        raise UserError(f"a waveform is [channels, t]; this one, of shape {wave.shape}, would have more channels than "
                        "samples. soundfile gives [t, channels]: pass x.T")  # fmt: skip


def check_numbers(wave: np.ndarray, whose: str = "the recording") -> None:
    """Raise UserError, naming `whose` samples they are, unless all are finite and near full scale."""
    peak = np.max(np.abs(wave), initial=0.0)
    if not np.isfinite(peak):
        raise UserError(f"{whose} has {np.count_nonzero(~np.isfinite(wave))} samples that are NaN or infinite")
    if peak > LOUDEST:
        raise UserError(f"{whose} reaches {peak:g}; floats must be about [-1, 1]: divide 16-bit samples by 32768, "
                        "or pass them as int16")  # fmt: skip


def checked_rate(hz: float) -> int:
    """A sample rate in Hz as an int. Raises UserError unless it is a whole number above 0."""
    value: Any = hz
    if getattr(value, "ndim", None) == 0:
        value = value.item()  # a scalar of numpy, JAX or torch
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0 or value != value // 1:
        raise UserError(f"sample_rate is {value!r}; it must be a whole number of Hz above 0")
    return int(value)
