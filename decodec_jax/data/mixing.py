"""Make training examples from clips with numpy and a seeded generator: crop, set level and SNR, pair, swap."""

import logging
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from decodec_jax import audio
from decodec_jax.config import Data
from decodec_jax.data import augment, synthetic
from decodec_jax.data.clips import Clip
from decodec_jax.data.sources import ClipSource
from decodec_jax.data.targets import TargetCache, at_speed
from decodec_jax.errors import UserError

log = logging.getLogger(__name__)

Example = dict[str, np.ndarray]

# Crops with an RMS below this are not amplified to full level, so that a pause between words does not become loud room
# noise and digital silence stays finite. Whole clips are rarely this quiet: -50 and -80 dB of full scale.
FLOORS = {"speech": 3e-3, "background": 1e-4}
TRIES = 20  # give up after this many unusable clips in a row, as the data must be at fault
VALID_SNR = (-5.0, 0.0, 5.0, 10.0, 15.0)  # dB


class Drawn(NamedTuple):
    """A crop of a random clip."""

    wave: np.ndarray  # float32 [t]
    failed: int  # unusable clips drawn before it
    targets: np.ndarray | None  # of speech, if there is a cache: float32 [ceil(t / hop), width]


@dataclass(repr=False)  # grain puts the repr into names, and a source may hold a million clips
class Mixer:
    """Draws examples of `data.seconds` from a source. t below is that length in samples.

    With a cache of a teacher's targets, speech starts on a frame boundary of both the clip and the example. Examples
    then have `targets`, float32 [2, ceil(t / hop), width]: the cached frames of their speech, read at the playback
    speed, and zeros for silence. All other random draws stay the same. Raises UserError if the cache lacks one of the
    source's clips.
    """

    source: ClipSource
    data: Data
    cache: TargetCache | None = None
    warned: set[str] = field(default_factory=set)  # unusable clips that this process has warned about

    def __post_init__(self):
        self.samples = round(self.data.seconds * self.source.sample_rate)
        # Clips are grouped by speaker, so that `data.balance` sets how often speakers with much data are drawn.
        groups = {"speech": {}, "background": {}, "room": {}}
        for i, clip in enumerate(self.source.clips):
            groups[clip.kind].setdefault(clip.group, []).append(i)
        self.groups = {kind: list(members.values()) for kind, members in groups.items()}
        self.shares = {kind: np.cumsum(self._weights(members)) for kind, members in self.groups.items()}
        self.silence = None  # targets of silence
        if self.cache is not None:
            self.cache.require(self.source.clips)
            about = self.cache.about
            self.silence = np.zeros((-(-self.samples // about.hop), about.width), np.float32)

    def _weights(self, groups: list[list[int]]) -> np.ndarray:
        """Probability of drawing each group; they add up to 1."""
        seconds = [max(1.0, sum(self.source.clips[i].seconds for i in group)) for group in groups]
        weights = np.power(seconds, self.data.balance)
        return weights / weights.sum()

    def __call__(self, index: int, rng: Generator) -> Example:
        """A training example; all its randomness comes from `rng`, which grain seeds with `index`.

        float32 [2, t]: `speech`, `background`, `mixture` = speech + background, `swapped` = speech + background[::-1];
        int32 []: `skipped`, how many unusable clips were drawn and replaced.
        """
        data, skipped = self.data, 0
        speech, background = np.zeros((2, 2, self.samples), np.float32)
        targets = [self.silence, self.silence]
        # one level for both, so that the swapped mixtures have the requested SNRs too
        level = rng.uniform(*data.level)
        for member in range(2):
            share, snr = rng.random(), rng.uniform(*data.snr)
            silent = share < data.silent
            alone = not silent and share < data.silent + data.background_only
            clean = not (silent or alone) and share < data.silent + data.background_only + data.clean
            if not (silent or alone):
                drawn = self.augmented(rng, "speech")
                speech[member] = scaled(drawn.wave, level, "speech")
                targets[member] = drawn.targets
                skipped += drawn.failed
            if clean and data.augment.noise_floor and rng.random() < data.augment.noise_floor:
                floor = augment.noise_floor(self.samples, self.source.sample_rate, rng)
                speech[member] += np.float32(10 ** (level / 20)) * floor
            if not (silent or clean):
                drawn = self.augmented(rng, "background")
                background[member] = scaled(drawn.wave, level if alone else level - snr, "background")
                skipped += drawn.failed
        return example(speech, background) | stacked(targets) | {"skipped": np.int32(skipped)}

    def valid(self, index: int) -> Example:
        """The validation example of an index: always the same, both sides audible. Adds `snr`, float32 [2], in dB."""
        rng = np.random.default_rng([self.data.seed, index])
        snr = [VALID_SNR[(2 * index + member) % len(VALID_SNR)] for member in range(2)]
        speech, background = np.zeros((2, 2, self.samples), np.float32)
        targets, skipped = [], 0
        for member in range(2):
            level = rng.uniform(*self.data.level)
            for side, kind, target in ((speech, "speech", level), (background, "background", level - snr[member])):
                for _ in range(TRIES):
                    drawn = self.draw(rng, kind)
                    skipped += drawn.failed
                    if rms(drawn.wave) > FLOORS[kind]:
                        break
                side[member] = scaled(drawn.wave, target, kind)
                if kind == "speech":
                    targets.append(drawn.targets)
        counted = {"skipped": np.int32(skipped), "snr": np.array(snr, np.float32)}
        return example(speech, background) | stacked(targets) | counted

    def augmented(self, rng: Generator, kind: str) -> Drawn:
        """A crop of a random clip, augmented as `data.augment` says. Disabled augmentations draw nothing from `rng`."""
        settings = self.data.augment
        drawn = self.at_random_speed(rng, kind)
        wave, failed = drawn.wave, drawn.failed
        if kind == "background" and settings.layers and rng.random() < settings.layers:
            other = self.at_random_speed(rng, kind)
            wave = scaled(wave, 0, kind) + scaled(other.wave, rng.uniform(-10, 0), kind)
            failed += other.failed
        if settings.eq:
            wave = augment.equalised(wave, settings.eq, rng)
        if kind == "speech" and settings.rooms and rng.random() < settings.rooms:
            wave = augment.in_room(wave, self.room(rng))
        return Drawn(wave, failed, drawn.targets)

    def room(self, rng: Generator) -> np.ndarray:
        """The impulse response [n] of a simulated room, or half the time of a measured one, if the source has any."""
        measured = self.groups["room"]
        if measured and rng.random() < 0.5:
            i = measured[rng.integers(len(measured))][0]
            try:
                response = self.source.read(i)
                if not response.any():
                    raise UserError(f"the room {self.source.clips[i].name} is silent")
                return response
            except UserError as error:
                self.warn(self.source.clips[i], error)
        return augment.room(int(rng.integers(augment.ROOMS)), self.source.sample_rate)

    def at_random_speed(self, rng: Generator, kind: str) -> Drawn:
        """A crop of a random clip, played at a random speed; a share of the backgrounds is synthetic."""
        settings = self.data.augment
        if kind == "background" and settings.synthetic and rng.random() < settings.synthetic:
            made = synthetic.background(int(rng.integers(2**32)), self.source.sample_rate, self.data.seconds)
            return Drawn(fitted(made, self.samples, kind, 0.0), 0, None)
        speeds = settings.speed if kind == "speech" else settings.background_speed
        return self.draw(rng, kind, rng.uniform(*speeds) if speeds != (1.0, 1.0) else 1.0)

    def draw(self, rng: Generator, kind: str, speed: float = 1.0) -> Drawn:
        """A crop of a random clip, played at `speed`."""
        rate = self.source.sample_rate
        cached = self.cache is not None and kind == "speech"
        grid = self.cache.about.hop if cached else 1
        played = round(rate * speed)  # Hz, at which the clip is played
        seconds = (self.samples if speed == 1 else math.ceil(self.samples * played / rate) + 1) / rate
        for failed in range(TRIES):
            groups = self.groups[kind]
            group = groups[min(np.searchsorted(self.shares[kind], rng.random(), side="right"), len(groups) - 1)]
            i, place = group[rng.integers(len(group))], rng.random()
            clip = self.source.clips[i]
            first = round(place * max(0.0, clip.seconds - seconds) * rate) // grid * grid
            try:
                wave = self.source.read(i, first / rate, seconds)
                if len(wave) == 0:
                    raise UserError(f"{clip.name} is shorter than the expected {clip.seconds:.2f} s")
                length = len(wave)
                if speed != 1:
                    wave = audio.resample(wave, played, rate)
                targets = self.targets_of(clip, first, length, len(wave), place) if cached else None
                return Drawn(fitted(wave, self.samples, kind, place, grid), failed, targets)
            except UserError as error:
                reason = error
                self.warn(clip, error)
        raise UserError(f"{TRIES} {kind} clips in a row could not be used; the last one: {reason}")

    def warn(self, clip: Clip, error: UserError) -> None:
        """Say once per process why a clip is skipped."""
        if clip.name not in self.warned:
            self.warned.add(clip.name)
            log.warning("a clip is skipped whenever it is drawn: %s", error)

    def targets_of(self, clip: Clip, first: int, length: int, n: int, place: float) -> np.ndarray:
        """The cached frames of `length` samples of a clip, from sample `first` on.

        At the playback speed these last n samples; the frames are placed where `fitted` places those.
        """
        hop, targets = self.cache.about.hop, self.silence.copy()
        crop = self.cache.crop(clip.name, first // hop, -(-length // hop))
        n = min(n, self.samples)
        before, count = silence_before(n, self.samples, place, hop) // hop, -(-n // hop)
        targets[before : before + count] = crop if n == length else at_speed(crop, length / n, count)
        return targets


def fitted(wave: np.ndarray, t: int, kind: str, place: float, grid: int = 1) -> np.ndarray:
    """[n] with n >= 1 -> [t]: short speech is padded with silence, short background is looped, from `place` in 0..1.

    grid: the silence before speech is a multiple of this many samples.
    """
    n = len(wave)
    if n >= t:
        return wave[:t]
    if kind == "background":
        return wave[(int(place * n) + np.arange(t)) % n]
    before = silence_before(n, t, place, grid)
    return np.pad(wave, (before, t - n - before))


def silence_before(n: int, t: int, place: float, grid: int) -> int:
    """Samples of silence before n samples of speech in an example of t."""
    return int(place * max(0, t - n + 1)) // grid * grid


def rms(wave: np.ndarray) -> float:
    """Root mean square over the last axis, in float64."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def scaled(wave: np.ndarray, level: float, kind: str) -> np.ndarray:
    """Bring [t] to an RMS of `level` dB of full scale, or less if it is quieter than the kind's floor."""
    return wave * np.float32(10 ** (level / 20) / max(rms(wave), FLOORS[kind]))


def stacked(targets: list[np.ndarray | None]) -> Example:
    """The targets of a pair as part of its example; nothing without a cache."""
    return {} if targets[0] is None else {"targets": np.stack(targets)}


def example(speech: np.ndarray, background: np.ndarray) -> Example:
    """Mix a pair both ways: float32 [2, t] each, scaled together if any signal would peak above 1."""
    peak = max(np.abs(x).max() for x in (speech, background, speech + background, speech + background[::-1]))
    if peak > 1:
        # A little below 1, because the sums are rounded again. They are formed after scaling, so that they are exact.
        gain = np.float32(0.999 / peak)
        speech, background = speech * gain, background * gain
    return {
        "speech": speech,
        "background": background,
        "mixture": speech + background,
        "swapped": speech + background[::-1],
    }
