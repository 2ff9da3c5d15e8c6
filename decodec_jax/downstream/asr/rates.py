"""Error rates by `jiwer`: of words and characters, or of phones."""

from collections.abc import Sequence

from decodec_jax.evaluation.extras import package


def require() -> None:
    """Raise UserError if jiwer is missing."""
    package("jiwer")


def error_rates(text: str, said: Sequence[str], heard: Sequence[str]) -> dict[str, float]:
    """Errors over all utterances, from 0 up: "wer" and "cer" of characters, "per" of phones that spaces separate."""
    jiwer = package("jiwer")
    if text == "phones":
        return {"per": jiwer.wer(list(said), list(heard))}
    return {"wer": jiwer.wer(list(said), list(heard)), "cer": jiwer.cer(list(said), list(heard))}
