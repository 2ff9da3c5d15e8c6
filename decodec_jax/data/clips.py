"""What is known about a clip before it is read, and the warning about clips that cannot be used."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from decodec_jax.errors import UserError

log = logging.getLogger(__name__)

# What a manifest may call the kinds that are ours to use. Rooms are impulse responses, which speech is heard in.
KINDS = {"speech": "speech", "background": "background", "noise": "background", "room": "room"}
NAMED = 3  # clips that a warning names; the rest are counted


@dataclass(frozen=True)
class Clip:
    """One recording. `name` is also its address within its source."""

    name: str
    kind: str  # "speech", "background" or "room"
    speaker: str  # empty where not known
    seconds: float
    split: str
    transcript: str = ""


def keep_usable(clips: Iterable[Clip], checked: Callable[[Clip], Clip]) -> list[Clip]:
    """What `checked` returns for each clip; those it raises UserError for are counted and named in one warning."""
    kept, reasons = [], []
    for clip in clips:
        try:
            kept.append(checked(clip))
        except UserError as error:
            reasons.append(str(error))
    if reasons:
        more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
        total = len(kept) + len(reasons)
        log.warning("%d of %d clips are left out: %s%s", len(reasons), total, "; ".join(reasons[:NAMED]), more)
    return kept


def require_rate(rate: int, sample_rate: int, name: str) -> None:
    """Raise UserError for a clip recorded below the model's rate (Hz)."""
    if rate < sample_rate:
        raise UserError(f"{name} is at {rate} Hz, below the model's {sample_rate} Hz: its upper band would be empty")
