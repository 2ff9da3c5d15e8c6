"""Every training run by name: `--config configs/decodec.py:VARIANT`, any setting by `--config.SECTION.NAME=VALUE`.

A variant is a size, a recipe, or SIZE_RECIPE: `paper`, `causal` (of the paper's size), `small`, `tiny_ablation2`.

Sizes
    paper   The paper's network (118 M parameters and 17 M in codebooks, non-causal), its data recipe and loss weights
            where printed. Ours, because unstated: codebook kind and width, quantizer dropout and bypass, the continuous
            start, optimizer schedule, batch, crop length, discriminators (DAC's), the weights of all terms but L_RST
            and L_SG, shares of clean, background-only and silent mixtures. Needs HuBERT's weights: teacher.path.
    small   The paper's network scaled down for CPUs: samples folded by 16. Neither adversarial nor guided, unless a
            recipe says so. docs/results.md has what it gave.
    light   Causal, samples folded by 64, wide. The weights that come with the package are of this size: docs/results.md
            has what it gave.
    tiny    Minutes on two cores; what the tests and a first look use. Neither adversarial nor guided, like small.

Recipes, with the paper's row each answers to ("Ablation, noisy set"; "8 kbps" counts both streams)
    causal            DeCodec-c: causal in convolutions and LSTM alike (the paper names the LSTM only).
    ablation1         SOP alone: no swapped reconstruction, no guidance, causal.
    ablation2         RST alone: both halves are the whole embedding, no guidance, causal.
    ablation3         SOP and RST without guidance, causal.
    no_guidance       DeCodec without guidance; the paper has this row for the causal network only (ablation3).
    exact_orthogonal  Ours: the two subspaces orthogonal by construction in place of L_perp.
    kbps4, kbps6      Ours: 4 and 6 levels a stream, 4 and 6 kbps; the paper's 8 levels are 8 kbps.
    speech6_noise2    Ours: 8 kbps, three quarters of them speech: 12 and 4 levels.
    speech3_noise1    Ours: 4 kbps, three quarters of them speech: 6 and 2 levels.
    full              Of small and tiny: adversarial, and guided by a teacher without weights (objective/cepstra.py).
    full_causal       Of small and tiny: the same, causal.
"""

from decodec_jax.config import Config
from decodec_jax.objective import cepstra


def _causal(config: Config):
    config.model.causal = True


def _ablation1(config: Config):
    config.loss.wave_swap = config.loss.mel_swap = config.loss.spectrum_swap = 0.0
    _ablation3(config)


def _ablation2(config: Config):
    config.model.projection = "none"
    config.loss.perp = 0.0
    _ablation3(config)


def _ablation3(config: Config):
    _causal(config)
    _no_guidance(config)


def _no_guidance(config: Config):
    config.loss.guidance = 0.0
    config.model.semantic = 0


def _exact_orthogonal(config: Config):
    config.model.projection = "exact"
    config.loss.perp = 0.0


def _levels(speech: int, background: int):
    def recipe(config: Config):
        config.model.speech.levels, config.model.background.levels = speech, background

    return recipe


def _full(config: Config):
    config.loss.guidance, config.loss.adversarial, config.loss.feature = 150.0, 1.0, 2.0
    config.model.semantic = cepstra.WIDTH
    config.teacher.kind = "cepstra"


def _full_causal(config: Config):
    _full(config)
    _causal(config)


RECIPES = {
    "causal": _causal,
    "ablation1": _ablation1,
    "ablation2": _ablation2,
    "ablation3": _ablation3,
    "no_guidance": _no_guidance,
    "exact_orthogonal": _exact_orthogonal,
    "kbps4": _levels(4, 4),
    "kbps6": _levels(6, 6),
    "speech6_noise2": _levels(12, 4),
    "speech3_noise1": _levels(6, 2),
    "full": _full,
    "full_causal": _full_causal,
}


def get_config(variant: str = "paper") -> Config:
    """The configuration of one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/decodec.py has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    size, recipe = VARIANTS[variant]
    config = SIZES[size]()
    config.variant = variant
    if recipe:
        RECIPES[recipe](config)
    return config


def _paper() -> Config:
    config = Config()
    config.model.semantic = 768
    config.data.batch = 64
    config.data.seconds = 2.0
    config.optim.warmup = 1000
    return config


def _plain() -> Config:
    """What CPUs have time for: no adversarial or semantic terms, small discriminators for the recipes that add them."""
    config = Config()
    config.model.mask = True  # unlike the paper's: of either half, what is the other's can be let go at once
    config.loss.guidance = config.loss.adversarial = config.loss.feature = 0.0
    config.loss.level_free = True
    config.data.level = (-34.0, -22.0)  # recordings are coded at -26, background and all
    config.discriminator.period_channels = (8, 16, 32, 64, 64)
    config.discriminator.band_channels = 4
    config.discriminator.windows = (1024,)  # on CPUs a window costs more than all periods together
    return config


def _small() -> Config:
    config = _plain()
    config.model.patch = 16
    config.model.channels = 64
    config.model.strides = (5, 4)
    config.model.dilations = (1, 3)
    config.model.latent = 256
    config.model.decoder_channels = 256
    config.model.decoder_lstm = False
    for quantizer in (config.model.speech, config.model.background):
        quantizer.decay = 0.995
        quantizer.dropout = 0.2
    config.loss.mel_own = config.loss.mel_swap = 0.5
    config.data.batch = 4
    config.data.snr = (-10.0, 10.0)  # more of what has to be taken apart
    # where a partner lacks one part, the swapped target is the other part alone: what users will ask for
    config.data.clean, config.data.background_only, config.data.silent = 0.25, 0.2, 0.05
    config.optim.lr = 6e-4
    config.optim.clip = 100.0
    config.optim.warmup = 100
    config.optim.decay_steps = 20_000
    config.train.steps = 20_000
    config.train.continuous_steps = 12_000
    config.train.kmeans_batches = 128
    config.train.valid_every = 500
    config.train.save_every = 500
    return config


def _light() -> Config:
    config = _small()
    config.model.causal = True
    config.model.patch = 64
    config.model.channels = 192
    config.model.strides = (5,)
    config.model.dilations = (1,)
    config.model.kernel = 5
    config.model.latent = 640  # as many as samples in a frame, for either half
    config.model.decoder_channels = 384
    config.model.projection = "exact"
    for quantizer in (config.model.speech, config.model.background):
        quantizer.dim = 64
        quantizer.gains = 40
        quantizer.decay = 0.99
        quantizer.bypass = 0.5  # who wants no tokens will leave the quantizers out
    config.loss.perp = 0.0
    config.loss.wave_own = config.loss.wave_swap = 50.0
    config.loss.mel_own = config.loss.mel_swap = 4.0
    config.loss.mel_windows = (128, 512, 1024)
    config.loss.mel_bands = (20, 40, 80)
    config.loss.spectrum_own = config.loss.spectrum_swap = 20.0
    config.data.batch = 8
    config.data.seconds = 1.5
    config.data.snr = (-10.0, 20.0)
    augment = config.data.augment  # two hours of recordings are few
    augment.speed = augment.background_speed = (0.9, 1.1)
    augment.eq, augment.rooms, augment.layers = 6.0, 0.25, 0.3
    config.data.clean, config.data.background_only = 0.2, 0.15
    config.optim.lr = 1.2e-3
    config.optim.decay_steps = 6000
    config.train.steps = 6000
    config.train.continuous_steps = 3800
    config.train.kmeans_batches = 64
    return config


def _tiny() -> Config:
    config = _plain()
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


SIZES = {"paper": _paper, "small": _small, "light": _light, "tiny": _tiny}
VARIANTS = {size: (size, "") for size in SIZES}
VARIANTS |= {recipe: ("paper", recipe) for recipe in RECIPES if not recipe.startswith("full")}
VARIANTS |= {f"{size}_{recipe}": (size, recipe) for size in ("small", "tiny") for recipe in RECIPES}
