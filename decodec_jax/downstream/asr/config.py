"""Every setting of a recogniser and its default. `configs/asr.py` states how each variant differs from these."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from decodec_jax.downstream import config as shared
from decodec_jax.downstream.text import CHARACTERS
from decodec_jax.errors import UserError

if TYPE_CHECKING:
    from decodec_jax.downstream.asr.task import Recognition

CODES, FRAMES = ("codebook", "learned"), ("latents", "mel")  # kinds of features: vectors of codes, or none
TEXTS = ("characters", "pieces", "phones")


@dataclass
class Features:
    """What the recogniser sees of a frame."""

    # "codebook": the codec's own vectors of codes, frozen; "learned": its own vectors; "latents": the speech embedding
    # before quantization, which `decodec tokenize --latents` writes; "mel": log mel spectra of the waveform
    kind: str = "codebook"
    speech: int = 8  # levels of the speech stream, from the first on; 0: none
    background: int = 0  # levels of the background stream
    width: int = 128  # of learned vectors
    bands: int = 80  # of log mel spectra


@dataclass
class Model:
    """A conformer with a CTC head (asr/model.py)."""

    features: Features = field(default_factory=Features)
    text: str = "characters"  # or "pieces" of words, by SentencePiece; or "phones", which needs espeak-ng
    pieces: int = 256  # in the vocabulary of "pieces", which is trained on the transcripts
    language: str = "en-us"  # of phones, as espeak-ng names it
    stack: int = 2  # frames that are joined to one: 50 a second become 25
    width: int = 144
    blocks: int = 4
    heads: int = 4
    expansion: int = 4  # factor by which feed-forward layers are wider inside
    kernel: int = 15  # joined frames, of the depthwise convolution
    dropout: float = 0.1


@dataclass
class Masks:
    """SpecAugment: parts of the features that a training step does not see."""

    times: int = 6  # stretches of frames
    time: int = 20  # frames, the longest stretch
    channels: int = 2  # ranges of channels
    channel: float = 0.15  # share of the channels, the widest range


@dataclass
class Config:
    """One training run of a recogniser."""

    variant: str = "paper"
    model: Model = field(default_factory=Model)
    data: shared.Data = field(default_factory=shared.Data)
    masks: Masks = field(default_factory=Masks)
    optim: shared.Optim = field(default_factory=shared.Optim)
    mesh: shared.Mesh = field(default_factory=shared.Mesh)
    train: shared.Train = field(default_factory=shared.Train)

    def check(self) -> None:
        """Raise a UserError that names the setting, if no run can use its value."""
        check(self)

    def task(self, run: Path | None = None) -> "Recognition":
        """What `downstream.loop.train` trains. run: a run folder, whose pieces of words it uses if there are any."""
        from decodec_jax.downstream.asr.task import Recognition  # importing JAX takes seconds

        return Recognition(self, run)


def check(config: Config) -> None:
    """Raise a UserError that names the setting, if no run can use its value."""
    shared.check(config.data, config.optim, config.train)
    model, features = config.model, config.model.features
    if features.kind not in CODES + FRAMES:
        raise UserError(f"model.features.kind is {features.kind!r}; it must be one of {', '.join(CODES + FRAMES)}")
    if model.text not in TEXTS:
        raise UserError(f"model.text is {model.text!r}; it must be one of {', '.join(TEXTS)}")
    if model.text == "pieces" and model.pieces < len(CHARACTERS):
        raise UserError(f"model.pieces is {model.pieces}; it must be {len(CHARACTERS)}, the number of characters, or "
                        "more")  # fmt: skip
    if min(features.speech, features.background) < 0 or (features.kind in CODES and not features.speech +
                                                         features.background):  # fmt: skip
        raise UserError(f"model.features takes {features.speech} levels of speech and {features.background} of the "
                        "background; give one level or more")
    if features.kind == "mel" and not config.data.waves:
        raise UserError("log mel spectra are of waveforms; set data.waves to the folder that was tokenized")
    shared.above_zero(model, "model", ("stack", "width", "blocks", "heads", "expansion", "kernel"))
    shared.above_zero(features, "model.features", ("width", "bands"))
    if model.width % (2 * model.heads):
        raise UserError(f"model.width is {model.width}; it must be a multiple of 2 x model.heads, {2 * model.heads}")
    if not 0 <= model.dropout < 1:
        raise UserError(f"model.dropout is {model.dropout:g}; it must be from 0 to below 1")
