"""One-shot voice conversion: do the words stay, does the voice change? With and without recogniser and embedder."""

from collections.abc import Sequence

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

GROUP = "converted"


def scores(source: np.ndarray, reference: np.ndarray, converted: np.ndarray, rate: int) -> Scores:
    """Of waveforms `[t]`, the first and last of one length, two figures from -1 to 1.

    words: correlation of the conversion's cepstra with the source's (objective/cepstra.py: no level, no channel, little
           of the voice), which its own words alone bring near 1.
    voice: 1 if its mean spectrum while somebody speaks is the reference's, -1 if it is the source's. Channels and the
           codec colour it too, so it says something beside that of the source "unconverted", see `measure`.
    """
    of_source, of_converted = (np.asarray(cepstra(wave[None])) for wave in (source, converted))
    power = np.sum(of_source**2) * np.sum(of_converted**2)
    *known, made = (_spectrum(wave, rate) for wave in (source, reference, converted))
    away, to = (np.linalg.norm(made - mean) for mean in known)
    words = np.sum(of_source * of_converted) / np.sqrt(power)
    return {"words": float(words), "voice": float((away - to) / (away + to))}


def _spectrum(wave: np.ndarray, rate: int) -> np.ndarray:
    """Mean log mel spectrum of the louder half of the frames, where pauses are not, without its mean: `[40]`."""
    level = amplitude(gain_of(wave, rate))  # the spectrum has a floor
    mel = np.asarray(log_mel((wave * level)[None], rate, 512, 40)[0])
    loudness = mel.mean(axis=1)
    mean = mel[loudness >= np.median(loudness)].mean(axis=0)
    return mean - mean.mean()


def measure(name: str, model: DeCodec, source: Item, reference: Item, tools: Tools) -> list[Row]:
    """A row for each way of aligning.

    "unconverted" is the source's own speech through the codec: what the figures are where no voice is changed.
    """
    made = {"unconverted": model.enhance(source.mixture, source.rate)}
    for alignment in ALIGNMENTS:
        made[alignment] = model.convert(source.mixture, reference.mixture, source.rate, alignment=alignment)
    return [row(f"{name}, {way}", source, reference, wave, tools) for way, wave in made.items()]


def untouched(source: Item, reference: Item, tools: Tools) -> Row:
    """The source as it is."""
    return row("source", source, reference, source.mixture, tools)


def row(column: str, source: Item, reference: Item, wave: np.ndarray, tools: Tools) -> Row:
    """What is made of a source with the voice of a reference."""
    found = scores(source.mixture, reference.mixture, wave, source.rate)
    found |= scoring.words(wave, source, tools)
    if tools.similarity is not None:
        found["similarity"] = float(tools.similarity(wave, reference.mixture, source.rate))
        found["similarity/source"] = float(tools.similarity(wave, source.mixture, source.rate))
    return Row(GROUP, column, source.name, found)


def pairs(items: Sequence[Item]) -> list[tuple[Item, Item]]:
    """Sources and references, which lie among the items by turns (`items.voices`)."""
    return list(zip(items[::2], items[1::2], strict=True))
