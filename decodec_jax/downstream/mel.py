"""Log mel spectra of waveforms at a codec's frame rate, for the comparison with tokens only."""

import numpy as np

from decodec_jax.objective.spectral import mel_filters

_FLOOR = 1e-5  # of magnitudes; -100 dB of full scale


def log_mel(wave: np.ndarray, rate: int, hop: int, bands: int) -> np.ndarray:
    """Natural log of mel magnitudes, `[t] -> [ceil(t / hop), bands]` float32, by Hann windows of two hops."""
    window = 2 * hop
    frames = -(-len(wave) // hop)
    around = np.pad(wave, (hop // 2, frames * hop - len(wave) + window))
    pieces = np.lib.stride_tricks.sliding_window_view(around, window)[::hop][:frames]
    spectrum = np.abs(np.fft.rfft(pieces * np.hanning(window + 1)[:-1]))
    return np.log(spectrum @ mel_filters(rate, window, bands) + _FLOOR).astype(np.float32)
