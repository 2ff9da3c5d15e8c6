"""How good: figures of merit of waveforms, of codes and words, and other people's models that judge sound."""

from decodec_jax.evaluation.metrics.sequences import bitrate, perplexity, surprise, usage, word_errors
from decodec_jax.evaluation.metrics.waveforms import (
    bss_sdr,
    estoi,
    log_mel_distance,
    mel_distance,
    pesq,
    sdr,
    separation,
    si_sdr,
)

__all__ = [
    "bitrate", "bss_sdr", "estoi", "log_mel_distance", "mel_distance", "perplexity", "pesq", "sdr", "separation",
    "si_sdr", "surprise", "usage", "word_errors",
]  # fmt: skip
