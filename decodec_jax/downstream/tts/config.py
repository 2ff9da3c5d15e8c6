"""Every setting of speech synthesis and its default. `configs/tts.py` states how each variant differs from these."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from decodec_jax.downstream import config as shared
from decodec_jax.errors import UserError

if TYPE_CHECKING:
    from decodec_jax.downstream.tts.task import Synthesis

FIRST = ("ar", "parallel")  # stages that write the first speech level
STAGES = (*FIRST, "nar")
VECTORS = ("codebook", "learned")


@dataclass
class Model:
    """A transformer over the text and the frames of an utterance."""

    # "ar": text to the first speech level, frame by frame (ar.py); "parallel": all frames at once (parallel.py); "nar":
    # the other levels from the first (nar.py)
    stage: str = "ar"
    text: str = "characters"  # or "phones", which needs espeak-ng
    language: str = "en-us"  # of phones, as espeak-ng names it
    vectors: str = "codebook"  # of codes: "codebook": the codec's own, frozen; "learned": its own
    learned: int = 128  # width of learned vectors
    levels: int = 8  # of the speech stream, that the NAR model completes
    width: int = 256
    layers: int = 6
    heads: int = 4
    expansion: int = 4  # factor by which feed-forward layers are wider inside
    dropout: float = 0.1
    corrupted: float = 0.1  # AR: share of the codes before a frame that training replaces by random ones
    hidden: float = 0.3  # NAR: share of utterances whose text training hides; conversion does not know the text
    prompt: float = 3.0  # s, NAR: the longest prompt in training


@dataclass
class Data(shared.Data):
    """Which tokens, and how they become batches."""

    aligner: str = ""  # run folder of a recogniser that writes the same symbols; tells "parallel" how long each lasts


@dataclass
class Config:
    """One training run of one of the models."""

    variant: str = "paper_ar"
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: shared.Optim = field(default_factory=shared.Optim)
    mesh: shared.Mesh = field(default_factory=shared.Mesh)
    train: shared.Train = field(default_factory=shared.Train)

    def check(self) -> None:
        """Raise a UserError that names the setting, if no run can use its value."""
        check(self)

    def task(self, run: Path | None = None) -> "Synthesis":
        """What `downstream.loop.train` trains; the same in every run folder."""
        from decodec_jax.downstream.tts.task import Synthesis  # importing JAX takes seconds

        return Synthesis(self)


def check(config: Config) -> None:
    """Raise a UserError that names the setting, if no run can use its value."""
    shared.check(config.data, config.optim, config.train)
    model = config.model
    choices = {"stage": STAGES, "text": ("characters", "phones"), "vectors": VECTORS}
    for name, allowed in choices.items():
        if getattr(model, name) not in allowed:
            raise UserError(f"model.{name} is {getattr(model, name)!r}; it must be {' or '.join(allowed)}")
    shared.above_zero(model, "model", ("learned", "width", "layers", "heads", "expansion", "prompt"))
    if model.stage == "parallel" and not config.data.aligner:
        raise UserError("data.aligner is empty; the parallel model learns durations from a recogniser, a run of "
                        "configs/asr.py: --config.data.aligner=RUN")  # fmt: skip
    if model.stage == "nar" and model.levels < 2:
        raise UserError(f"model.levels is {model.levels}; the NAR model needs two levels or more")
    if model.width % (2 * model.heads):
        raise UserError(f"model.width is {model.width}; it must be a multiple of 2 x model.heads, {2 * model.heads}")
    for name in ("dropout", "corrupted"):
        if not 0 <= getattr(model, name) < 1:
            raise UserError(f"model.{name} is {getattr(model, name):g}; it must be from 0 to below 1")
    if not 0 <= model.hidden <= 1:
        raise UserError(f"model.hidden is {model.hidden:g}; it must be from 0 to 1")
