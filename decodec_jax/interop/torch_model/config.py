"""The settings of a model, as `config.json` has them under "model": all of them, in that order.

What training alone uses is kept because the fingerprint covers it.
"""

import dataclasses
import math
from dataclasses import dataclass


@dataclass
class Quantizer:
    """One residual vector quantizer."""

    kind: str  # "ema": nearest by distance; "factorised": by angle
    levels: int
    entries: int
    dim: int  # width of a codebook vector; 0: the latent's own width, without projections
    first_dim: int  # width of the first level's vectors, where it differs; 0: as `dim`
    decay: float  # training
    revive: float  # training
    dropout: float  # training
    bypass: float  # training


@dataclass
class Waveform:
    """Strided convolutions between samples and frames."""

    channels: int  # after the first convolution; doubled by every block
    strides: list[int]
    dilations: list[int]  # of the residual units in a block
    kernel: int
    decoder_channels: int  # after the decoder's first convolution; halved by every block
    lstm_layers: int
    decoder_lstm: bool


@dataclass
class Spectral:
    """ConvNeXt blocks between STFT and inverse STFT."""

    hop: int  # samples per frame; the window of the STFT is twice that
    bands: int  # of the log mel spectrum that the encoder hears beside the STFT
    width: int  # channels of a frame between blocks
    expansion: int  # how many times wider a block is inside
    kernel: int  # frames that a block's depthwise convolution hears
    encoder_blocks: int
    decoder_blocks: int
    lstm_layers: int  # after the encoder's blocks and before the decoder's


@dataclass
class Model:
    """The network."""

    family: str  # "waveform" or "spectral": which encoder and decoder, of the settings below
    waveform: Waveform
    spectral: Spectral
    sample_rate: int
    latent: int
    causal: bool
    projection: str  # "learned", "exact" or "none"
    speech: Quantizer
    background: Quantizer
    semantic: int  # width of the teacher's features, which the first speech level is projected to; 0 without

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.spectral.hop if self.family == "spectral" else math.prod(self.waveform.strides)

    @property
    def half(self) -> int:
        """Width of the speech half and of the background half of the embedding, which quantizers see."""
        return self.latent // 2 if self.projection == "exact" else self.latent


def from_dict(values: dict, cls: type = Model):
    """The settings in `values`, as JSON has them. Raises ValueError naming those that are unknown or missing."""
    types = {field.name: field.type for field in dataclasses.fields(cls)}
    differing = set(types) ^ set(values)
    if differing:
        raise ValueError(f"unknown or missing settings: {', '.join(sorted(differing))}; "
                         "the bundle was written by another version of decodec_jax")  # fmt: skip
    nested = {name for name, kind in types.items() if dataclasses.is_dataclass(kind)}
    return cls(**{name: from_dict(v, types[name]) if name in nested else v for name, v in values.items()})
