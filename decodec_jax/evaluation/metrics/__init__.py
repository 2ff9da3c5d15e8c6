"""Metrics of waveforms, of codes and of words, and pretrained models that judge sound."""

from decodec_jax.evaluation.metrics.codes import bitrate, perplexity, surprisal, usage
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
    "si_sdr", "surprisal", "usage",
]  # fmt: skip
