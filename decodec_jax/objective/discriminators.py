"""Discriminators of periods (MPD), scales (MSD), bands of spectrograms (MRD), whole spectrograms (MS-STFT) and frames.

The paper has an adversarial term but does not name its discriminators. MPD, MSD and MRD have DAC's structure, and
MS-STFT has that of EnCodec and SpeechTokenizer. The initialisation is ours. So are the frame discriminators, which cost
a small fraction of the others.

Every layer works on planes `[n, rows, columns, c]`: it strides along columns and dilates along rows. The planes of a
waveform of t samples:

    MPD       rows: phases of the period p   columns: t / p samples, one period apart
    MSD       rows: 1                        columns: t / rate samples
    MRD       rows: frames                   columns: the bins of one band      channels: real, imaginary
    MS-STFT   rows: frames                   columns: all bins                  channels: real, imaginary
    frames    rows: frames                   columns: 1                         channels: all bins, real and imaginary
"""

import math
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

from decodec_jax.codec.layers import weight_norm
from decodec_jax.codec.product import convolution, product
from decodec_jax.codec.spectrum import analysis_matrix, hann_norm
from decodec_jax.config import Discriminator
from decodec_jax.errors import UserError


class Judged(NamedTuple):
    """The output of one sub-discriminator for n waveforms, which are the first axis of every array."""

    logits: Array  # [n, rows, columns], high for real waveforms
    features: list[Array]  # layer outputs, [n, rows, columns, c] each, without the logits


# --- functions ------------------------------------------------------------------------------------------------------


def conv(x: Array, kernel: Array, stride: int = 1, dilation: int = 1, precision: str = "float32") -> Array:
    """Convolution that keeps the rows: `[n, r, m, c] x [h, w, c, d] -> [n, r, ceil(m / stride), d]`, h and w odd.

    The same as torch's with a padding of half the (dilated) kernel; rows are dilated, columns strided. The stride is a
    reshape of columns into channels, because the library's strided convolution takes up to twice as long on CPUs.
    """
    n, rows, columns, c = x.shape
    height, width, _, d = kernel.shape
    if columns == width == stride == 1:
        return conv_rows(x[:, :, 0], kernel[:, 0], dilation, precision)[:, :, None]
    front = -(width // 2) % stride  # zeros that align the blocks with the kernel
    kernel = jnp.pad(kernel, ((0, 0), (front, -(front + width) % stride), (0, 0), (0, 0)))
    kernel = kernel.reshape(height, -1, stride * c, d)
    blocks = jnp.pad(x, ((0, 0), (0, 0), (0, -columns % stride), (0, 0))).reshape(n, rows, -1, stride * c)
    left, above = (width // 2 + front) // stride, height // 2 * dilation
    return convolution(
        blocks, kernel, precision, window_strides=(1, 1),
        padding=[(above, above), (left, kernel.shape[1] - 1 - left)],
        rhs_dilation=(dilation, 1), dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def conv_rows(x: Array, kernel: Array, dilation: int, precision: str) -> Array:
    """`conv` of one column, as one product for all taps: `[n, r, c] x [h, c, d] -> [n, r, d]`, h odd."""
    rows, (height, c, d) = x.shape[1], kernel.shape
    reach = height // 2 * dilation
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    shifted = [padded[:, i * dilation : i * dilation + rows] for i in range(height)]
    return product(jnp.concatenate(shifted, axis=-1), kernel.reshape(height * c, d), precision)


def conv_grouped(x: Array, kernel: Array, stride: int) -> Array:
    """`conv` of one row in groups of channels: `[n, 1, m, c] x [1, w, c / g, d] -> [n, 1, ceil(m / stride), d]`.

    Computed as products of blocks of `stride` samples, because the library's grouped convolution gathers a batch that
    is split over devices, and takes ten times as long on CPUs.
    """
    n, _, columns, c = x.shape
    _, width, size, d = kernel.shape
    groups, count = c // size, -(-columns // stride)
    left, taps = width // 2, -(-width // stride)
    kernel = jnp.pad(kernel[0], ((0, -width % stride), (0, 0), (0, 0)))
    kernel = kernel.reshape(taps, stride, size, groups, d // groups)
    padded = jnp.pad(x[:, 0], ((0, 0), (left, (count + taps) * stride - left - columns), (0, 0)))
    blocks = padded.reshape(n, count + taps, stride, groups, size)
    summed = sum(jnp.einsum("nmsgi,sigo->nmgo", blocks[:, j : j + count], kernel[j]) for j in range(taps))
    return summed.reshape(n, 1, count, d)


_QUIET = 1e-2  # of full scale; lower peaks get no more gain, because silence would have huge gradients


def normalise(wave: Array) -> Array:
    """DAC's preprocessing of `[n, t]`: no DC, and a peak of 0.8. Ours: peaks below -40 dB are raised by only 38 dB."""
    wave = wave - jnp.mean(wave, axis=-1, keepdims=True)
    # not jnp.max: its gradient counts the values that equal the maximum, and where XLA computes these twice, with
    # different rounding, there may be none
    loudest = jnp.argmax(jnp.abs(wave), axis=-1, keepdims=True) == jnp.arange(wave.shape[-1])
    peak = jnp.abs(jnp.sum(jnp.where(loudest, wave, 0), axis=-1, keepdims=True))
    return 0.8 * wave / jnp.maximum(peak, _QUIET)


@lru_cache
def lowpass(rate: int) -> np.ndarray:
    """Filter for decimation by `rate`, with an odd number of taps: a windowed sinc with 24 zero crossings per side.

    Its cutoff is 0.945 of the new Nyquist frequency. This is julius's filter, with which DAC resamples.
    """
    width = math.ceil(24 * rate / 0.945)
    crossings = np.clip(np.arange(-width, width + 1) / rate * 0.945, -24, 24)
    taps = np.sinc(crossings) * np.cos(np.pi / 2 * crossings / 24) ** 2
    return (taps / taps.sum()).astype(np.float32)


def decimate(wave: Array, rate: int) -> Array:
    """Every `rate`-th sample after a low-pass filter, `[n, t] -> [n, t // rate]`; the ends are repeated."""
    if rate == 1:
        return wave
    taps = lowpass(rate)
    reach = -(-(len(taps) // 2) // rate)  # half the filter's length, in kept samples
    start, end = (jnp.repeat(sample, reach * rate, axis=1) for sample in (wave[:, :1], wave[:, -1:]))
    padded = jnp.concatenate([start, wave, end], axis=1)  # the gradient of jnp.pad sends zeros from device to device
    with jax.default_matmul_precision("highest"):
        kept = conv(padded[:, None, :, None], jnp.asarray(taps)[None, :, None, None], rate)
    return kept[:, 0, reach : reach + wave.shape[-1] // rate, 0]


@lru_cache
def fourier(window: int) -> np.ndarray:
    """The windowed DFT as a matrix, `[window, 2 (window / 2 + 1)]`: Hann window, interleaved cosines and sines."""
    return analysis_matrix(window).reshape(window, 2, -1).swapaxes(1, 2).reshape(window, -1)


def spectrogram(wave: Array, window: int) -> Array:
    """Complex STFT `[n, t] -> [n, 1 + floor(4 (t - window) / window), window / 2 + 1, 2]`, a quarter window's hop.

    Frames lie within the wave. A product with a matrix, because an FFT gathers a batch that is split over devices
    (jaxlib < 0.12). Its cost is small compared with the convolutions that follow.
    """
    n, t = wave.shape
    hop = window // 4
    blocks = wave[:, : t - t % hop].reshape(n, -1, hop)
    count = blocks.shape[1] - 3
    frames = jnp.concatenate([blocks[:, i : i + count] for i in range(4)], axis=-1)
    spectra = jnp.matmul(frames, fourier(window), precision=lax.Precision.HIGHEST)
    return spectra.reshape(n, count, window // 2 + 1, 2)


def shortest(config: Discriminator) -> int:
    """The shortest waveform, in samples: a whole window, more than a period, and one sample after decimation."""
    windows = (*config.windows, *config.stft_windows, *config.frame_windows)
    return max(1, *windows, *(p + 1 for p in config.periods), *config.rates)


def check(config: Discriminator, t: int) -> None:
    """Raise a UserError that names the setting, if these discriminators cannot judge waveforms of t samples."""
    if not any((config.periods, config.rates, config.windows, config.stft_windows, config.frame_windows)):
        raise UserError("discriminator has no periods, rates or windows; name some, or set loss.adversarial and "
                        "loss.feature to 0")
    if t < shortest(config):
        raise UserError(f"clips of {t} samples are too short for the discriminators, which need {shortest(config)}; "
                        "raise data.seconds or shorten their windows")
    for name in ("windows", "stft_windows", "frame_windows"):
        for window in getattr(config, name):
            if window % 8:
                raise UserError(f"discriminator.{name} must be multiples of 8; {window} is not")
    for window in config.windows:
        if any(low >= high for low, high in _band_bins(config.bands, window)):
            raise UserError(f"discriminator.bands {config.bands} leave a band of window {window} without a bin; "
                            "make the window longer or the bands wider")
    for c, d in pairwise(config.rate_channels[:-1]):
        if config.rates and (c % _GROUP or d % (c // _GROUP)):
            raise UserError(f"discriminator.rate_channels {config.rate_channels}: {c} channels in groups of {_GROUP} "
                            f"cannot produce {d}")


def _band_bins(bands: tuple[float, ...], window: int) -> list[tuple[int, int]]:
    """First bin of each band and of the one above."""
    return list(pairwise(int(edge * (window // 2 + 1)) for edge in bands))


# --- modules --------------------------------------------------------------------------------------------------------

_SLOPE, _STFT_SLOPE = 0.1, 0.2  # of LeakyReLU below zero, in DAC's and in EnCodec's discriminators
_GROUP = 4  # input channels in a group of MSD's layers
_ENTRY = 0.03  # initial size of a filter's entries, which sets how fast Adam turns it; see codec/layers.py


class Conv(nn.Module):
    """Weight-normalised `conv` (with groups: `conv_grouped`) and a bias.

    Gains start at 1. With torch's 1/sqrt(3), signals fade from layer to layer, and learning is slower.
    """

    features: int
    kernel: tuple[int, int]  # rows, columns
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (*self.kernel, x.shape[-1] // self.groups, self.features)
        direction = self.param("direction", nn.initializers.normal(_ENTRY), shape)
        gain = self.param("gain", nn.initializers.ones, (self.features,))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel = weight_norm(direction, gain, 3)
        if self.groups > 1:
            return conv_grouped(x, kernel, self.stride) + bias
        return conv(x, kernel, self.stride, self.dilation, self.precision) + bias


def _judge(x: Array, layers: list[Conv], last: Conv, slope: float) -> Judged:
    features = []
    for layer in layers:
        x = nn.leaky_relu(layer(x), slope)
        features.append(x)
    logits = last(x)
    return Judged(logits.reshape(*logits.shape[:2], -1), features)


class SubDiscriminator(nn.Module):
    """Base class: settings, size and precision."""

    config: Discriminator
    size: int  # a period, a rate or a window, in samples
    precision: str = "float32"

    def conv(self, *sizes, **options) -> Conv:
        return Conv(*sizes, **options, precision=self.precision)


class PeriodDiscriminator(SubDiscriminator):
    """MPD at one period: columns of samples that lie a period apart, `[n, t]`, t > period."""

    @nn.compact
    def __call__(self, wave: Array) -> Judged:
        (n, t), period = wave.shape, self.size
        # DAC's padding: a whole period if t is a multiple of it
        padded = jnp.pad(wave, ((0, 0), (0, period - t % period)), mode="reflect")
        x = padded.reshape(n, -1, period, 1).swapaxes(1, 2)
        widths = self.config.period_channels
        strides = [3] * (len(widths) - 1) + [1]
        sizes = enumerate(zip(widths, strides, strict=True))
        layers = [self.conv(d, (1, 5), stride, name=f"conv{i}") for i, (d, stride) in sizes]
        return _judge(x, layers, self.conv(1, (1, 3), name="last"), _SLOPE)


class ScaleDiscriminator(SubDiscriminator):
    """MSD at one rate: the waveform `[n, t]` itself, decimated."""

    @nn.compact
    def __call__(self, wave: Array) -> Judged:
        x = decimate(wave, self.size)[:, None, :, None]
        first, *widths, final = self.config.rate_channels
        layers = [self.conv(first, (1, 15), name="conv0")]
        for i, (c, d) in enumerate(pairwise([first, *widths]), start=1):
            layers.append(self.conv(d, (1, 41), 4, groups=c // _GROUP, name=f"conv{i}"))
        layers.append(self.conv(final, (1, 5), name=f"conv{len(layers)}"))
        return _judge(x, layers, self.conv(1, (1, 3), name="last"), _SLOPE)


class BandDiscriminator(SubDiscriminator):
    """MRD at one window: a stack of layers for each band of the complex spectrogram of `[n, t]`, t >= window."""

    @nn.compact
    def __call__(self, wave: Array) -> Judged:
        reach = 3 * self.size // 8  # so that there are ceil(4 t / window) frames
        padding = (reach, reach + -wave.shape[-1] % (self.size // 4))
        x = spectrogram(jnp.pad(wave, ((0, 0), padding), mode="reflect"), self.size)
        d = self.config.band_channels
        features, ends = [], []
        for i, (low, high) in enumerate(_band_bins(self.config.bands, self.size)):
            band = x[:, :, low:high]
            for j, (width, stride) in enumerate(((9, 1), (9, 2), (9, 2), (9, 2), (3, 1))):
                band = nn.leaky_relu(self.conv(d, (3, width), stride, name=f"band{i}_conv{j}")(band), _SLOPE)
                features.append(band)
            ends.append(band)
        logits = self.conv(1, (3, 3), name="last")(jnp.concatenate(ends, axis=2))
        return Judged(logits[..., 0], features)


class STFTDiscriminator(SubDiscriminator):
    """MS-STFT at one window: layers of growing dilation on the whole complex spectrogram of `[n, t]`, t >= window.

    EnCodec has no weight normalisation in the first layer, which does not change what the layer can express.
    """

    @nn.compact
    def __call__(self, wave: Array) -> Judged:
        x = spectrogram(wave, self.size) / hann_norm(self.size)
        d = self.config.stft_channels
        layers = [self.conv(d, (3, 9), name="conv0")]
        layers += [self.conv(d, (3, 9), 2, dilation, name=f"conv{i}") for i, dilation in enumerate((1, 2, 4), start=1)]
        layers += [self.conv(d, (3, 3), name="conv4")]
        return _judge(x, layers, self.conv(1, (3, 3), name="last"), _STFT_SLOPE)


class FrameDiscriminator(SubDiscriminator):
    """At one window: 1-D convolutions over frames of the whole compressed spectrogram of `[n, t]`, t >= window.

    Frequencies are channels, so every layer is a matrix product, at less than a tenth of the cost of the others.
    """

    @nn.compact
    def __call__(self, wave: Array) -> Judged:
        x = spectrogram(wave, self.size) / hann_norm(self.size)
        size = jnp.sum(x**2, axis=-1, keepdims=True) + 1e-6
        x = (x * size**-0.35).reshape(*x.shape[:2], 1, -1)  # magnitudes to the power of 0.3
        d = self.config.frame_channels
        sizes = enumerate(((1, 1), (5, 1), (5, 2), (5, 4)))  # taps, dilation
        layers = [self.conv(d, (taps, 1), dilation=dilation, name=f"conv{i}") for i, (taps, dilation) in sizes]
        return _judge(x, layers, self.conv(8, (1, 1), name="last"), _STFT_SLOPE)


class Discriminators(nn.Module):
    """Every sub-discriminator of the config, on n independent waveforms `[n, t]` in [-1, 1].

    As published, MPD, MSD and MRD see the waveform without its level (`normalise`), and MS-STFT sees it unchanged.
    Frame discriminators see it unchanged too. Raises UserError if `check` does.
    """

    config: Discriminator
    precision: str = "float32"

    @nn.compact
    def __call__(self, wave: Array) -> list[Judged]:
        config, precision = self.config, self.precision
        check(config, wave.shape[-1])
        level = normalise(wave)
        kinds = (
            ("period", PeriodDiscriminator, config.periods, level),
            ("rate", ScaleDiscriminator, config.rates, level),
            ("bands", BandDiscriminator, config.windows, level),
            ("stft", STFTDiscriminator, config.stft_windows, wave),
            ("frames", FrameDiscriminator, config.frame_windows, wave),
        )
        return [kind(config, size, precision, name=f"{name}{size}")(heard) for name, kind, sizes, heard in kinds
                for size in sizes]  # fmt: skip
