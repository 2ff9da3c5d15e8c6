"""One-shot voice conversion: do the words stay the same, and does the voice change?

The first two scores need no other models. Further ones come from a speech recogniser and a speaker embedder, if there
are any.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from decodec_jax.evaluation.reports.tables import Row
from decodec_jax.evaluation.suites import scoring
from decodec_jax.evaluation.suites.scoring import Scores, Tools
from decodec_jax.evaluation.systems.base import Item
from decodec_jax.inference.alignment import ALIGNMENTS
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.loudness import amplitude, gain_of
from decodec_jax.objective.cepstra import cepstra
from decodec_jax.objective.spectral import log_mel

if TYPE_CHECKING:
    from decodec_jax.downstream.tts.converter import Converter

GROUP = "converted"


def scores(source: np.ndarray, reference: np.ndarray, converted: np.ndarray, rate: int) -> Scores:
    """Two scores from -1 to 1 of waveforms `[t]`; `source` and `converted` have the same length.

    words: correlation of the cepstra of the conversion and the source (objective/cepstra.py: free of level and channel,
           with little of the voice). Only the same words bring it near 1.
    voice: 1 if the mean spectrum during speech equals the reference's, -1 if it equals the source's. The channel and
           the codec change the spectrum too, so compare it with the score of "unconverted", see `measure`.
    """
    of_source, of_converted = (np.asarray(cepstra(wave[None])) for wave in (source, converted))
    power = np.sum(of_source**2) * np.sum(of_converted**2)
    *known, made = (_spectrum(wave, rate) for wave in (source, reference, converted))
    away, to = (np.linalg.norm(made - mean) for mean in known)
    words = np.sum(of_source * of_converted) / np.sqrt(power)
    return {"words": float(words), "voice": float((away - to) / (away + to))}


def _spectrum(wave: np.ndarray, rate: int) -> np.ndarray:
    """Mean log mel spectrum of the louder half of the frames, to skip pauses, with its mean removed: `[40]`."""
    level = amplitude(gain_of(wave, rate))  # `log_mel` has a floor
    mel = np.asarray(log_mel((wave * level)[None], rate, 512, 40)[0])
    loudness = mel.mean(axis=1)
    mean = mel[loudness >= np.median(loudness)].mean(axis=0)
    return mean - mean.mean()


def load(nar: str, codecs: Sequence[DeCodec]) -> "Converter":
    """The NAR model in a run folder, with the one of these codecs that it was trained on.

    Raises UserError if there is no such model, or if it is of another codec.
    """
    from decodec_jax.downstream.tts.converter import Converter  # here, as it is optional and takes time to import

    return Converter.load(nar, codec_of(nar, codecs))


def codec_of(run: str, codecs: Sequence[DeCodec]) -> DeCodec:
    """The one of these codecs that a run on tokens was trained on; the first, if it is none of them."""
    from decodec_jax.downstream.loop import read_card

    trained_on = read_card(Path(run)).get("codec")
    return next((each for each in codecs if each.fingerprint == trained_on), codecs[0])


def measure(
    name: str, model: DeCodec, source: Item, reference: Item, tools: Tools, converter: "Converter | None" = None
) -> list[Row]:
    """A row for each alignment, one for "unconverted", and one for the NAR model if it is of this model's tokens.

    "unconverted" is the source's own speech through the codec: the scores if the voice does not change.
    """
    outputs = {"unconverted": model.enhance(source.mixture, source.rate)}
    for alignment in ALIGNMENTS:
        outputs[alignment] = model.convert(source.mixture, reference.mixture, source.rate, alignment=alignment)
    if converter is not None and converter.codec is model:
        outputs["NAR"] = converter.convert(source.mixture, reference.mixture, source.rate)
    return [row(f"{name}, {way}", source, reference, wave, tools) for way, wave in outputs.items()]


def untouched(source: Item, reference: Item, tools: Tools) -> Row:
    """The scores of the unprocessed source."""
    return row("source", source, reference, source.mixture, tools)


def row(column: str, source: Item, reference: Item, wave: np.ndarray, tools: Tools) -> Row:
    """The scores of `wave`: the source, converted to the voice of the reference."""
    found = scores(source.mixture, reference.mixture, wave, source.rate)
    found |= scoring.word_scores(wave, source, tools)
    if tools.similarity is not None:
        found["similarity"] = float(tools.similarity(wave, reference.mixture, source.rate))
        found["similarity/source"] = float(tools.similarity(wave, source.mixture, source.rate))
    return Row(GROUP, column, source.name, found)


def pairs(items: Sequence[Item]) -> list[tuple[Item, Item]]:
    """Pairs of source and reference, which alternate among the items (`items.voices`)."""
    return list(zip(items[::2], items[1::2], strict=True))
