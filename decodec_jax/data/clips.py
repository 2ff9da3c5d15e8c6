"""Facts about a clip before it is read, and the warning about unusable clips."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from decodec_jax.errors import UserError

log = logging.getLogger(__name__)

# The kinds that a manifest may name, and our names for them. A room is an impulse response, applied to speech.
KINDS = {"speech": "speech", "background": "background", "noise": "background", "room": "room"}
NAMED = 3  # clips that a warning names; the rest are counted


@dataclass(frozen=True)
class Clip:
    """One recording. `name` is also its address within its source."""

    name: str
    kind: str  # "speech", "background" or "room"
    speaker: str  # empty if unknown
    seconds: float
    split: str
    transcript: str = ""
    recording: str = ""  # that it is a piece of; empty: it is a whole recording

    @property
    def group(self) -> str:
        """Clips that are alike share a group: those of a speaker or, where none is known, of a recording."""
        return (self.kind == "speech" and self.speaker) or self.recording or self.name


def keep_usable(clips: Iterable[Clip], checked: Callable[[Clip], Clip]) -> list[Clip]:
    """What `checked` returns for each clip. One warning counts and names the clips that it raises UserError for."""
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
        raise UserError(f"{name} is at {rate} Hz, below the model's {sample_rate} Hz, so its upper band is empty")
