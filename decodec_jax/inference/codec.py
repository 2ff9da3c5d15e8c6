"""`DeCodec`, the codec a user holds: recordings in, recordings out, numpy on both sides."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from decodec_jax import audio
from decodec_jax import config as settings
from decodec_jax.codec.model import DeCodecNetwork, Halves, TakenApart
from decodec_jax.config import Model
from decodec_jax.errors import UserError
from decodec_jax.inference import bundle

WINDOW_SECONDS = 12.0  # longer recordings are processed in windows of this length,
CONTEXT_SECONDS = 1.0  # which overlap by twice this: what lies in it is heard by both and kept from neither


class DeCodec:
    """A trained model and its weights.

    Waveforms are float32 `[t]` or `[channels, t]` in [-1, 1] at any sample rate. Channels are processed one by one;
    other rates are resampled to the model's (16 kHz: nothing above 8 kHz survives) and back. What comes out has the
    shape and rate of what went in, to the sample.
    """

    def __init__(self, config: Model, params: dict, codebook: dict, quantized: bool = True):
        self.config = config
        self.quantized = quantized
        self._variables = {"params": params, "codebook": codebook}
        self._take_apart = jax.jit(self._apply, static_argnames="part")

    @classmethod
    def load(cls, path: str | Path) -> "DeCodec":
        """A model from a bundle, or from the averaged weights of the newest checkpoint in a run folder.

        Raises UserError where there is none. A run whose codebooks have not started yet loads with `quantized` False.
        """
        folder = Path(path)
        if bundle.is_bundle(folder):
            return cls(*bundle.load(folder)[:3])
        from decodec_jax.training.checkpoint import load_weights  # needs Orbax, which a bundle does not

        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} is neither a bundle nor a run folder: it has no config.json")
        config = settings.load(folder / "config.json")
        step, params, codebook = load_weights(config, folder / "checkpoints")
        return cls(config.model, params, codebook, quantized=step > config.train.continuous_steps)

    def reconstruct(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """The whole recording through the codec: Dec(Zs(y) + Zn(y))."""
        return self._run("mixture", wave, sample_rate)

    def enhance(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """The speech alone: Dec(Zs(y) + Zn(blank)), blank being silence of the same length."""
        return self._run("speech", wave, sample_rate)

    def background(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """The background alone: Dec(Zs(blank) + Zn(y))."""
        return self._run("background", wave, sample_rate)

    def _apply(self, variables: dict, wave: jax.Array, part: str) -> jax.Array:
        active = None
        if not self.quantized:
            active = Halves(*[jnp.zeros(wave.shape[0] + 1, jnp.int32)] * 2)
        outcome: TakenApart = DeCodecNetwork(self.config).apply(variables, wave, active, method="take_apart")
        return getattr(outcome, part)

    def _run(self, part: str, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        wave = np.asarray(wave, np.float32)
        check_wave(wave)
        rate = self.config.sample_rate
        channels = audio.resample(np.atleast_2d(wave), sample_rate, rate)
        out = in_windows(
            lambda x: np.asarray(self._take_apart(self._variables, x, part)),
            channels, round(WINDOW_SECONDS * rate), round(CONTEXT_SECONDS * rate),
        )  # fmt: skip
        return audio.resample(out, rate, sample_rate)[:, : wave.shape[-1]].reshape(wave.shape)


def check_wave(wave: np.ndarray) -> None:
    """Raise UserError for what is not a waveform."""
    if wave.ndim not in (1, 2):
        raise UserError(f"a waveform is [t] or [channels, t]; this has shape {wave.shape}")
    if wave.size == 0:
        raise UserError("the recording has no samples")
    if not np.isfinite(wave).all():
        raise UserError(f"the recording has {np.count_nonzero(~np.isfinite(wave))} samples that are NaN or infinite")


def in_windows(process, wave: np.ndarray, window: int, context: int) -> np.ndarray:
    """`process` (`[c, n] -> [c, n]`) on `[c, t]`: whole if t <= window, else in equal windows, cross-faded.

    Windows overlap by 2 `context`: the outer half of each context is dropped, the inner half fades.
    """
    t = wave.shape[-1]
    if t <= window:
        return process(wave)
    starts = [*range(0, t - window, window - 2 * context), t - window]
    edge = np.minimum(np.arange(window) + 1, np.arange(window, 0, -1))
    weight = np.clip((edge - context / 2) / (context / 2), 1e-6, 1).astype(np.float32)
    summed, weights = np.zeros_like(wave), np.zeros(t, np.float32)
    for start in starts:
        here = slice(start, start + window)
        summed[:, here] += weight * process(wave[:, here])
        weights[here] += weight
    return summed / weights
