"""The settings that all runs on tokens share. Each task adds its model: asr/config.py."""

from dataclasses import dataclass

from decodec_jax import config as settings
from decodec_jax.errors import UserError
from decodec_jax.weights import BUILT_IN


@dataclass
class Data:
    """Which tokens, and how they become batches."""

    tokens: str = ""  # a folder that `decodec tokenize` wrote; several separated by commas, all by one codec
    codec: str = BUILT_IN  # the codec that wrote them: run folder, bundle or "built-in"
    waves: str = ""  # the folder that was tokenized; only the comparison with log mel spectra opens it
    train_splits: tuple[str, ...] = ("train",)  # use the rows whose split is one of these, or ends in "_" + one
    speakers: tuple[str, ...] = ()  # only these, by their names in the manifest; (): all
    holdout: float = 0.05  # share of training speakers held out for validation, if no row's split is "valid"; of a
    # single speaker, share of utterances
    batch: int = 16  # utterances per step, over all devices
    shortest: float = 0.3  # s; shorter and longer utterances are left out
    longest: float = 20.0
    buckets: int = 4  # groups of about equal length; each has one shape, and is compiled once
    seed: int = 0  # of the order


@dataclass
class Train:
    """How long training runs, how often it logs and saves."""

    steps: int = 50_000
    seed: int = 0  # of parameters, masks and dropout
    accumulate: int = 1  # micro-batches per step, one after the other
    precision: str = "auto"  # of products, see codec/product.py
    log_every: int = 10
    valid_every: int = 1000
    valid_items: int = 128  # utterances to validate on
    save_every: int = 500
    keep: int = 3  # number of newest checkpoints to keep


def check(data: Data, optim: settings.Optim, train: Train) -> None:
    """Raise a UserError that names the setting, if no run can use its value."""
    if not data.tokens:
        raise UserError("data.tokens is empty; name the folder that `decodec tokenize` wrote: "
                        "--config.data.tokens=TOKENS")
    if optim.kind not in settings.OPTIMIZERS:
        raise UserError(f"optim.kind is {optim.kind!r}; it must be one of {', '.join(settings.OPTIMIZERS)}")
    if train.precision not in ("auto", "float32", "bfloat16"):
        raise UserError(f"train.precision is {train.precision!r}; it must be auto, float32 or bfloat16")
    if isinstance(data.train_splits, str) or not data.train_splits:
        raise UserError(f"data.train_splits is {data.train_splits!r}; it must be a tuple such as \"('train',)\"")
    if isinstance(data.speakers, str):
        raise UserError(f"data.speakers is {data.speakers!r}; it must be a tuple such as \"('LJ',)\"")
    if not 0 < data.shortest < data.longest:
        raise UserError(f"data.shortest is {data.shortest:g} s and data.longest {data.longest:g} s; give 0 < shortest "
                        "< longest")
    above_zero(data, "data", ("batch", "buckets"))
    above_zero(train, "train", ("steps", "accumulate", "log_every", "valid_every", "valid_items", "save_every", "keep"))


def above_zero(section: object, name: str, fields: tuple[str, ...]) -> None:
    """Raise a UserError that names the first of these settings that is not above 0."""
    for field in fields:
        if getattr(section, field) <= 0:
            raise UserError(f"{name}.{field} is {getattr(section, field)}; it must be above 0")


Mesh, Optim = settings.Mesh, settings.Optim
