"""Recognisers on tokens: `--config configs/asr.py:VARIANT`, any setting by `--config.SECTION.NAME=VALUE`.

    python launch/train.py --config configs/asr.py:small --config.data.tokens=TOKENS --workdir RUN

Sizes, each a conformer with a CTC head. Its products run in parallel and split over a mesh. A BiLSTM goes step by step.

    paper   9 M parameters, for tens of hours and more. Its size is ours: the paper does not describe its recogniser.
    small   2 M parameters, for hours of speech and small machines.
    mini    0.7 M parameters, for the same, trained in minutes: to compare what recognisers hear, and to align text.
    tiny    30,000 parameters, for tests.

What the recogniser sees, `--config.model.features....`
    speech=8              all levels of the speech stream, the default; speech=1: the first level alone
    background=8          both streams
    kind=learned          vectors of its own for each code, in place of the codec's
    kind=latents          the speech before quantization, from shards of `decodec tokenize --latents`
    kind=mel              log mel spectra of the waveforms in data.waves, to compare with
"""

from decodec_jax.downstream.asr.config import Config


def get_config(variant: str = "paper") -> Config:
    """The configuration of one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/asr.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    config = VARIANTS[variant]()
    config.variant = variant
    return config


def _paper() -> Config:
    config = Config()
    config.model.width, config.model.blocks, config.model.kernel = 256, 6, 31
    config.data.batch = 64
    optim = config.optim
    optim.lr, optim.betas, optim.weight_decay, optim.clip = 1e-3, (0.9, 0.98), 0.01, 5.0
    optim.warmup, optim.decay_from, optim.decay_steps = 2000, 2000, 50_000
    return config


def _small() -> Config:
    config = _paper()
    config.model.width, config.model.blocks, config.model.kernel = 144, 4, 15
    config.data.batch = 16
    config.optim.lr = 1.5e-3
    config.optim.warmup, config.optim.decay_from, config.optim.decay_steps = 500, 500, 10_000
    config.optim.ema = 0.995
    config.train.steps, config.train.valid_every, config.train.save_every = 10_000, 500, 250
    return config


def _mini() -> Config:
    config = _small()
    config.model.width, config.model.blocks = 96, 3
    config.optim.lr = 2e-3
    config.optim.warmup, config.optim.decay_from, config.optim.decay_steps = 300, 300, 1300
    config.train.steps, config.train.valid_every = 1300, 325
    return config


def _tiny() -> Config:
    config = _small()
    config.model.width, config.model.blocks, config.model.heads, config.model.kernel = 32, 1, 2, 7
    config.model.expansion, config.model.dropout = 2, 0.0
    config.masks.times = config.masks.channels = 0
    config.data.batch, config.data.buckets = 8, 2
    config.optim.kind, config.optim.lr, config.optim.warmup, config.optim.ema = "muon", 1e-2, 10, 0.9
    config.optim.decay_from, config.optim.decay_steps = 80, 120
    config.train.steps, config.train.valid_every, config.train.save_every = 120, 40, 40
    return config


VARIANTS = {"paper": _paper, "small": _small, "mini": _mini, "tiny": _tiny}
