"""Speech synthesis on tokens: `--config configs/tts.py:VARIANT`, any setting by `--config.SECTION.NAME=VALUE`.

    python launch/train.py --config configs/tts.py:small_ar --config.data.tokens=TOKENS --workdir AR
    python launch/train.py --config configs/tts.py:small_nar --config.data.tokens=TOKENS --workdir NAR
    python launch/train.py --config configs/tts.py:small_parallel --config.data.tokens=TOKENS \
      --config.data.aligner=RUN_OF_ASR --workdir PARALLEL

A voice needs two models. SIZE_ar or SIZE_parallel writes the first speech level from text, SIZE_nar the other levels
from the first. The parallel model needs a recogniser (configs/asr.py) that aligns the text, and far less speech.
Sizes, with the parameters of each model on tokens of the package's codec:

    paper   152 M to 159 M: VALL-E's 12 layers of width 1024 with 16 heads, for thousands of hours.
    small   5 M each, for an hour or more of one voice, and small machines.
    tiny    for tests.
"""

from decodec_jax.downstream.tts.config import STAGES, Config


def get_config(variant: str = "paper_ar") -> Config:
    """The configuration of one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/tts.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    size, stage = variant.split("_")
    config = SIZES[size](stage)
    config.variant, config.model.stage = variant, stage
    return config


def _paper(stage: str) -> Config:
    config = Config()
    config.model.width, config.model.heads = 1024, 16
    config.model.layers = 8 if stage == "parallel" else 12  # another half as many read its text
    config.data.batch = 64
    optim = config.optim
    optim.lr, optim.betas, optim.weight_decay, optim.clip = 5e-4, (0.9, 0.98), 0.01, 1.0
    optim.warmup, optim.decay_from, optim.decay_steps = 10_000, 10_000, 400_000
    config.train.steps = 400_000
    return config


def _small(stage: str) -> Config:
    config = _paper(stage)
    config.model.width, config.model.heads, config.model.dropout = 256, 4, 0.2
    config.model.layers = 6 if stage == "ar" else 4  # the NAR model has a head for each level
    config.data.batch, config.data.longest = 16, 13.0
    config.optim.lr, config.optim.weight_decay = 1e-3, 0.1
    config.optim.warmup, config.optim.decay_from, config.optim.decay_steps = 300, 300, 3000
    config.optim.ema = 0.995
    config.train.steps, config.train.valid_every, config.train.save_every = 3000, 150, 75
    return config


def _tiny(stage: str) -> Config:
    config = _small(stage)
    config.model.width, config.model.layers, config.model.heads, config.model.expansion = 32, 2, 2, 2
    config.model.dropout = config.model.corrupted = 0.0
    config.data.batch, config.data.buckets = 8, 1
    optim = config.optim
    optim.kind, optim.lr, optim.warmup, optim.ema, optim.weight_decay = "muon", 1e-2, 10, 0.9, 0.01
    optim.decay_from, optim.decay_steps = 80, 120
    config.train.steps, config.train.valid_every, config.train.save_every = 120, 40, 40
    return config


SIZES = {"paper": _paper, "small": _small, "tiny": _tiny}
VARIANTS = [f"{size}_{stage}" for size in SIZES for stage in STAGES]
