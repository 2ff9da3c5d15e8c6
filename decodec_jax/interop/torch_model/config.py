"""All settings of a model, in the order in which `config.json` has them under "model".

Settings that only training uses are included because the fingerprint covers them.
"""

import dataclasses
import math
from dataclasses import dataclass


@dataclass
class Quantizer:
    """One residual vector quantizer."""

    kind: str  # "ema": nearest entry by distance; "factorised": by angle
    levels: int
    entries: int
    dim: int  # width of a codebook vector; 0: the latent's own width, without projections
    first_dim: int  # dimensions that only the first level codes, and it alone; 0: all levels code all
    decay: float  # only for training
    revive: float  # only for training
    dropout: float  # only for training
    bypass: float  # only for training
    beam: int = 1  # sequences of codes that the search keeps from level to level; older bundles do not name it


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
    bands: int  # bands of the log mel spectrum, the encoder's input in addition to the STFT
    width: int  # channels of a frame between blocks
    expansion: int  # how many times wider a block is inside
    kernel: int  # frames that a block's depthwise convolution sees
    encoder_blocks: int
    decoder_blocks: int
    lstm_layers: int  # after the encoder's blocks and before the decoder's


@dataclass
class Model:
    """The network."""

    family: str  # "waveform" or "spectral": the encoder and decoder to use, with the settings below
    waveform: Waveform
    spectral: Spectral
    sample_rate: int
    latent: int
    causal: bool
    projection: str  # "learned", "exact" or "none"
    speech: Quantizer
    background: Quantizer
    semantic: int  # width of the teacher's features, to which the first speech level is projected; 0: no projection

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.spectral.hop if self.family == "spectral" else math.prod(self.waveform.strides)

    @property
    def half(self) -> int:
        """Width of each half of the embedding, speech and background, at the quantizers."""
        return self.latent // 2 if self.projection == "exact" else self.latent


def from_dict(values: dict, cls: type = Model):
    """The settings from a dict, as in JSON. Raises ValueError, naming the settings that are unknown or missing."""
    types = {field.name: field.type for field in dataclasses.fields(cls)}
    optional = {field.name for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING}
    differing = (set(types) ^ set(values)) - (optional - set(values))
    if differing:
        raise ValueError(f"unknown or missing settings: {', '.join(sorted(differing))}; "
                         "the bundle was written by another version of decodec_jax")  # fmt: skip
    nested = {name for name, kind in types.items() if dataclasses.is_dataclass(kind)}
    return cls(**{name: from_dict(v, types[name]) if name in nested else v for name, v in values.items()})
