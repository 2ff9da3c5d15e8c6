"""Every training run by name: `--config configs/decodec.py:VARIANT`, any setting by `--config.SECTION.NAME=VALUE`.

paper   The paper's network at full size (117 M parameters and 17 M in codebooks, non-causal), its data recipe and
        loss weights where printed. Ours, because unstated: codebook kind and width, quantizer dropout and bypass, the
        continuous start, optimizer schedule, batch, crop length, shares of clean, background-only and silent mixtures.
causal  DeCodec-c: the same, causal in convolutions and LSTM alike (131 M parameters).
small   `paper` scaled down for CPUs: samples folded by 8, and few enough steps for a first look; give it more where
        there is time. What it gave so far: docs/results.md.
tiny    Minutes on two cores; what the tests and a first look use.
Each of the small sizes exists causal as well: small_causal, tiny_causal.
"""

from decodec_jax.config import Config

VARIANTS = ("paper", "causal", "small", "small_causal", "tiny", "tiny_causal")


def get_config(variant: str = "paper") -> Config:
    """The configuration of one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/decodec.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    size = variant.removesuffix("causal").rstrip("_")
    config = {"": _paper, "paper": _paper, "small": _small, "tiny": _tiny}[size]()
    config.variant = variant
    config.model.causal = variant.endswith("causal")
    return config


def _paper() -> Config:
    config = Config()
    config.data.batch = 64
    config.data.seconds = 2.0
    config.optim.warmup = 1000
    return config


def _small() -> Config:
    config = Config()
    config.model.patch = 8
    config.model.channels = 48
    config.model.strides = (5, 4, 2)
    config.model.latent = 192
    config.model.decoder_channels = 384
    config.model.decoder_lstm = False
    config.loss.commitment = 5.0
    config.data.batch = 4
    config.data.snr = (-10.0, 20.0)  # more of what has to be taken apart
    config.data.clean = config.data.background_only = 0.05
    config.data.silent = 0.2  # three pairs in ten then train enhancement or background extraction as they are used
    config.optim.lr = 8e-4
    config.optim.warmup = 200
    config.optim.decay_steps = 1500
    config.train.steps = 1500
    config.train.continuous_steps = 900
    config.train.kmeans_batches = 64
    config.train.valid_every = 300
    config.train.save_every = 300
    return config


def _tiny() -> Config:
    config = Config()
    config.model.patch = 16
    config.model.channels = 32
    config.model.strides = (5, 4)
    config.model.dilations = (1, 3)
    config.model.latent = 64
    config.model.decoder_channels = 128
    config.model.lstm_layers = 1
    config.model.decoder_lstm = False
    for quantizer in (config.model.speech, config.model.background):
        quantizer.entries = 256
    config.loss.mel_windows = (128, 512, 1024)
    config.loss.mel_bands = (20, 40, 80)
    config.data.batch = 4
    config.optim.lr = 1e-3
    config.optim.warmup = 50
    config.optim.decay_steps = 1000
    config.train.steps = 1000
    config.train.continuous_steps = 400
    config.train.kmeans_batches = 32
    config.train.valid_every = 250
    config.train.save_every = 250
    return config
