"""Synthetic speech-like and background-like clips, so that everything runs without data.

Speech comes from a source-filter model: glottal pulses that follow a pitch contour, and noise. Formants that move from
syllable to syllable filter both, frame by frame in the Fourier domain. A clip depends only on its name and the sample
rate.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng

from decodec_jax.data.clips import Clip

SECONDS = 4.0
FRAME = 0.01  # s between the points at which formants and loudness are set
SIZES = {"train": (32, 8, 128), "valid": (8, 2, 16), "test": (8, 2, 16)}  # speakers, clips of each, backgrounds
VOWELS = np.array([  # Hz: the first four formants of an average voice
    (280, 2250, 2890, 3600), (400, 1950, 2550, 3500), (550, 1770, 2490, 3500), (690, 1660, 2490, 3500),
    (710, 1100, 2540, 3400), (590, 880, 2540, 3400), (450, 1030, 2380, 3300), (310, 870, 2250, 3300),
    (500, 1350, 1690, 3300), (620, 1200, 2550, 3500),
])  # fmt: skip
BANDWIDTHS = np.array([70.0, 100.0, 150.0, 220.0])  # Hz


@dataclass(repr=False)
class Synthetic:
    """The built-in source. Clips are made when they are read."""

    sample_rate: int
    clips: Sequence[Clip]

    def read(self, i: int, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
        clip = self.clips[i]
        if clip.kind == "speech":
            wave = speech(zlib.crc32(clip.speaker.encode()), zlib.crc32(clip.name.encode()), self.sample_rate)
        else:
            wave = background(zlib.crc32(clip.name.encode()), self.sample_rate)
        first = round(start * self.sample_rate)
        return wave[first:] if seconds is None else wave[first : first + round(seconds * self.sample_rate)]


def clips(split: str) -> list[Clip]:
    """The clips of "train", "valid" or "test". Splits share no speaker and no background."""
    speakers, each, backgrounds = SIZES[split]
    voices = [f"synthetic-{split}-{s}" for s in range(speakers)]
    spoken = [Clip(f"{voice}-speech-{k}", "speech", voice, SECONDS, split) for voice in voices for k in range(each)]
    return spoken + [Clip(f"synthetic-{split}-noise-{k}", "background", "", SECONDS, split) for k in range(backgrounds)]


def speech(speaker: int, index: int, rate: int, seconds: float = SECONDS) -> np.ndarray:
    """A clip of a speaker, who determines pitch, formant scale, tempo and breathiness: float32 [t], RMS 0.08."""
    voice, rng = default_rng([1, speaker]), default_rng([2, index])
    pitch = voice.uniform(85, 240)  # Hz
    formant_scale = 0.88 + 0.28 * (pitch - 85) / 155 + voice.uniform(-0.05, 0.05)
    tempo, breath = voice.uniform(0.12, 0.2), voice.uniform(0.01, 0.06)
    t, hop = round(seconds * rate), round(FRAME * rate)
    frames = -(-t // hop) + 1
    voiced, noise, centre, formants, accent = _syllables(rng, frames, tempo)

    # A pulse is split between two neighbouring samples, so that the pitch is not quantized to the sample rate.
    contour = pitch * np.exp2(0.25 * accent + 0.04 * np.sin(np.arange(frames) * rng.uniform(0.2, 0.4)))
    phase = np.cumsum(np.interp(np.arange(t), np.arange(frames) * hop, contour)) / rate
    cycle = np.floor(phase)
    at = np.flatnonzero(np.diff(cycle)) + 1
    part = ((phase - cycle)[at] / (phase[at] - phase[at - 1])).astype(np.float32)
    pulses = np.zeros(t, np.float32)
    pulses[at] = 1 - part
    pulses[at - 1] += part
    pulses *= np.float32(np.sqrt(rate / pitch))
    hiss = rng.standard_normal(t, np.float32)

    hertz = np.fft.rfftfreq(4 * hop, 1 / rate).astype(np.float32)
    throat = _formant_filter(hertz, formants * formant_scale, BANDWIDTHS * formant_scale)
    # The glottal spectrum falls by 12 dB per octave, and radiation from the lips raises it by 6.
    tilt = (1 / (1 + hertz / 500)).astype(np.float32)
    teeth = np.exp(-0.5 * ((hertz - centre[:, None]) / (0.35 * centre[:, None])) ** 2).astype(np.float32)
    spectrum = _frames(pulses + breath * hiss, hop) * throat * (voiced[:, None] * tilt)
    spectrum += _frames(hiss, hop) * (noise[:, None] * teeth)
    return _levelled(_overlap_add(spectrum, hop, t))


def _syllables(rng: Generator, frames: int, tempo: float):
    """Voiced and unvoiced loudness [f], centre of the unvoiced band [f] (Hz), formants [f, 4] (Hz), accent [f]."""
    voiced, noise, accent = np.zeros((3, frames), np.float32)
    centre, formants = np.full(frames, 3000.0), np.empty((frames, 4))
    at, left, fall = int(rng.uniform(0, 0.15) / FRAME), 0, 0.0
    formants[:at] = VOWELS[0]
    while at < frames:
        if left == 0:  # a new phrase: draw its number of syllables, and a pause before all but the first
            left = rng.integers(3, 9)
            pause = int(rng.uniform(0.12, 0.45) / FRAME) if fall else 0
            formants[at : at + pause] = formants[max(at - 1, 0)]
            at, fall = at + pause, 0.6
        onset = int(rng.choice([0, 2, 5, 9]))  # frames of no consonant, a plosive, a short and a long fricative
        length = max(4, int(tempo * rng.uniform(0.6, 1.5) / FRAME))
        first, second = VOWELS[rng.integers(len(VOWELS), size=2)]
        glide = np.linspace(0, rng.choice([0.0, 0.5, 1.0]), length)[:, None]
        stop = min(at + onset, frames)
        noise[at:stop] = rng.uniform(0.1, 0.5)
        centre[at:stop] = rng.uniform(2000, 6500)
        formants[at:stop] = first
        end = min(stop + length, frames)
        voiced[stop:end] = rng.uniform(0.5, 1.0)
        formants[stop:end] = (first + glide * (second - first))[: end - stop]
        accent[at:end] = fall + rng.uniform(-0.4, 0.4)
        at, left, fall = end, left - 1, fall - 0.12
    smooth = np.hanning(7)[1:-1] / np.hanning(7).sum()
    for track in (voiced, accent, *formants.T):
        padded = np.pad(track, 2, mode="edge")
        track[:] = np.convolve(padded, smooth, "valid")
    return voiced, noise, centre, formants, accent


def _formant_filter(hertz: np.ndarray, centres: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Response of resonators in series, causal: hertz [k], centres [f, n] and widths [n] in Hz -> complex [f, k]."""
    out = np.ones((len(centres), len(hertz)), np.complex64)
    square = hertz * hertz
    for n, width in enumerate(widths):
        f2 = (centres[:, n : n + 1] ** 2).astype(np.float32)
        below = np.empty_like(out)
        below.real, below.imag = f2 - square, hertz * np.float32(width)
        out *= f2 / below
    return out


def _frames(wave: np.ndarray, hop: int) -> np.ndarray:
    """Spectra of frames of 2 hops, padded by 2 hops for the filter's response: [t] -> [f, 2 * hop + 1]."""
    window = np.hanning(2 * hop + 1)[:-1].astype(np.float32)
    frames = -(-len(wave) // hop) + 1
    padded = np.pad(wave, (hop, (frames + 1) * hop - len(wave) - hop))
    view = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop)[::hop]
    return np.fft.rfft(view * window, 4 * hop).astype(np.complex64)


def _overlap_add(spectrum: np.ndarray, hop: int, t: int) -> np.ndarray:
    parts = np.fft.irfft(spectrum, 4 * hop).astype(np.float32).reshape(len(spectrum), 4, hop)
    out = np.zeros((len(spectrum) + 3, hop), np.float32)
    for k in range(4):
        out[k : k + len(spectrum)] += parts[:, k]
    return out.reshape(-1)[hop : hop + t]


def background(index: int, rate: int, seconds: float = SECONDS) -> np.ndarray:
    """A background of one or two kinds: float32 [t], RMS 0.08."""
    rng = default_rng([3, index])
    t = round(seconds * rate)
    kinds = (_coloured, _hum, _chirps, _clicks, _bursts)
    chosen = rng.choice(len(kinds), size=rng.integers(1, 3), replace=False)
    return _levelled(sum(_levelled(kinds[k](rng, t, rate)) * rng.uniform(0.3, 1) for k in chosen))


def _shaped(rng: Generator, t: int, gain: np.ndarray) -> np.ndarray:
    """Noise with a gain for each frequency of rfft(t)."""
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(t, np.float32)) * gain, t)


def _slow(rng: Generator, t: int, points: int) -> np.ndarray:
    """A positive curve through random points."""
    return np.interp(np.linspace(0, points - 1, t), np.arange(points), rng.uniform(0.15, 1, points))


def _coloured(rng, t, rate):
    """Wind, water, traffic: noise whose spectrum has a slope and a broad hump, and which swells and fades."""
    hertz = np.fft.rfftfreq(t, 1 / rate)
    slope = (1 + hertz / 100) ** -rng.uniform(0, 1.5)
    hump = 1 + rng.uniform(0, 4) * np.exp(-0.5 * ((hertz - rng.uniform(200, 5000)) / rng.uniform(100, 1500)) ** 2)
    return _shaped(rng, t, slope * hump) * _slow(rng, t, rng.integers(2, 12))


def _hum(rng, t, rate):
    """Mains hum or an engine: a low tone with harmonics, which drifts a little."""
    drift = np.cumsum(_slow(rng, t, 6)) / t
    phase = 2 * np.pi * (np.arange(t) / rate * rng.uniform(45, 180) + rng.uniform(0, 2) * drift)
    steep = rng.uniform(0.3, 1.5)
    return sum(np.sin(k * phase + rng.uniform(0, 6.3)) * k**-steep * rng.uniform(0.2, 1) for k in range(1, 12))


def _chirps(rng, t, rate):
    """Birds and alarms: short tones that glide."""
    out = np.zeros(t)
    for _ in range(rng.integers(4, 14)):
        n = int(rng.uniform(0.04, 0.35) * rate)
        low, high = rng.uniform(800, 0.4 * rate, 2)
        at = rng.integers(0, max(1, t - n))
        tone = np.sin(2 * np.pi * np.cumsum(np.linspace(low, high, n)) / rate) * np.hanning(n) * rng.uniform(0.3, 1)
        out[at : at + n] += tone[: t - at]
    return out


def _clicks(rng, t, rate):
    """Keys, cutlery, rain: clicks that ring at a few frequencies."""
    blows = np.zeros(t)
    count = int(rng.uniform(2, 60) * t / rate)
    blows[rng.integers(0, t, count)] = rng.normal(size=count)
    n = int(0.2 * rate)
    time = np.arange(n) / rate
    ring = sum(np.sin(2 * np.pi * f * time) * np.exp(-time * rng.uniform(30, 400)) for f in rng.uniform(300, 6000, 3))
    return np.fft.irfft(np.fft.rfft(blows, t + n) * np.fft.rfft(ring, t + n), t + n)[:t]


def _bursts(rng, t, rate):
    """Steps, sawing, machines: a band of noise that comes and goes regularly."""
    hertz = np.fft.rfftfreq(t, 1 / rate)
    centre = rng.uniform(150, 4000)
    band = np.exp(-0.5 * ((hertz - centre) / (centre * rng.uniform(0.2, 0.8))) ** 2)
    beat = np.arange(t) / rate * rng.uniform(1, 14) + rng.uniform(0, 1)
    return _shaped(rng, t, band) * (0.02 + np.exp(-(beat % 1) * rng.uniform(2, 12)))


def _levelled(wave: np.ndarray, rms: float = 0.08) -> np.ndarray:
    """Scaled to an RMS, or to a peak of 0.9 if that is quieter."""
    gain = min(rms / max(np.sqrt(np.mean(wave * wave)), 1e-9), 0.9 / max(np.abs(wave).max(), 1e-9))
    return (wave * gain).astype(np.float32)
