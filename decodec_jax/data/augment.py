"""Augmentation of training clips: speed, frequency response, rooms, noise floors.

Clips are augmented before they are mixed, so that target and mixture change alike: the codec should reproduce the room
too.
"""

from functools import lru_cache

import numpy as np
from numpy.random import Generator

NOISE_FLOOR = (-50.0, -25.0)  # dB, relative to the speech
ROOMS = 200  # simulated rooms; each process computes a room once, at its first use
SOUND = 343.0  # m/s


def equalised(wave: np.ndarray, extent: float, rng: Generator) -> np.ndarray:
    """[t] -> [t] with a smooth random frequency response of ±extent dB, drawn at six frequencies an octave apart."""
    spectrum = np.fft.rfft(wave)
    octaves = np.log2(np.maximum(np.linspace(0, 1, len(spectrum)), 2.0**-5))
    gains = np.interp(octaves, np.arange(-5, 1), rng.uniform(-extent, extent, 6))
    return np.fft.irfft(spectrum * 10 ** (gains / 20), len(wave)).astype(np.float32)


def noise_floor(t: int, rate: int, rng: Generator) -> np.ndarray:
    """Steady noise [t] like that of a microphone and its room, for speech with an RMS of 1.

    White noise whose spectrum falls above 100 Hz by 0 to 9 dB an octave, at a random level within `NOISE_FLOOR`.
    """
    spectrum = np.fft.rfft(rng.standard_normal(t, np.float32))
    spectrum *= (1 + np.fft.rfftfreq(t, 1 / rate) / 100) ** -rng.uniform(0, 1.5)
    noise = np.fft.irfft(spectrum, t)
    return (noise / np.std(noise) * 10 ** (rng.uniform(*NOISE_FLOOR) / 20)).astype(np.float32)


def in_room(wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    """[t] -> [t] in a room with this impulse response; the direct sound keeps its time and level."""
    from scipy.signal import oaconvolve  # takes a second to import, and not every run has rooms

    direct = int(np.argmax(np.abs(response)))
    normalised = response[direct:] / response[direct]
    return oaconvolve(wave, normalised)[: len(wave)].astype(np.float32)


@lru_cache(maxsize=ROOMS)
def room(index: int, rate: int) -> np.ndarray:
    """Impulse response [n] of a random room. It begins with the direct sound.

    It is as long as the reverberation time by Eyring's formula, 0.15 to 0.5 s. In this time the images decay by about
    37 dB, less than the formula predicts.

    This is the image method (Allen and Berkley, 1979): every wall mirrors the source. Each mirror image is attenuated
    by its distance and by the walls on the way, which all have the same reflectivity.
    """
    rng = np.random.default_rng([index, 1979])
    size = rng.uniform((3, 3, 2.4), (9, 7, 3.5))  # m
    source, ear = (rng.uniform(0.5, size - 0.5) for _ in range(2))
    decay = rng.uniform(0.15, 0.5)  # s to -60 dB
    surface = 2 * (size[0] * size[1] + size[1] * size[2] + size[2] * size[0])
    reflection = np.exp(-0.161 * size.prod() / (2 * surface * decay))  # of pressure, the square root of the power's
    axes = [_images(*of_axis, SOUND * decay) for of_axis in zip(size, source, ear, strict=True)]
    distance = np.sqrt(sum(np.square(a) for a, _ in (_along(i, *axis) for i, axis in enumerate(axes))))
    bounces = sum(b for _, b in (_along(i, *axis) for i, axis in enumerate(axes)))
    direct = np.linalg.norm(source - ear)
    delays = np.round((distance - direct) / SOUND * rate).astype(int)
    within = delays < decay * rate
    response = np.bincount(delays[within], (direct / distance * reflection**bounces)[within])
    return response.astype(np.float32)


def _images(size: float, source: float, ear: float, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Images of a source between two walls: distance from the ear along that axis, and number of bounces."""
    k = np.arange(-int(reach / (2 * size)) - 1, int(reach / (2 * size)) + 2)
    away = np.concatenate([2 * k * size + source, 2 * k * size - source]) - ear
    bounces = np.concatenate([2 * np.abs(k), np.abs(2 * k - 1)])
    near = np.abs(away) <= reach
    return away[near], bounces[near]


def _along(axis: int, *arrays: np.ndarray) -> list[np.ndarray]:
    shape = [1, 1, 1]
    shape[axis] = -1
    return [array.reshape(shape) for array in arrays]
