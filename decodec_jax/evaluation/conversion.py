"""One-shot voice conversion measured without recognisers: do the words stay, does the voice change?"""

import itertools

import numpy as np

from decodec_jax.data.sources import ClipSource
from decodec_jax.inference.alignment import ALIGNMENTS
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.loudness import amplitude, gain_of
from decodec_jax.objective.cepstra import cepstra
from decodec_jax.objective.spectral import log_mel


def scores(source: np.ndarray, reference: np.ndarray, converted: np.ndarray, rate: int) -> dict[str, float]:
    """Of waveforms `[t]`, the first and last of one length, two figures from -1 to 1.

    words: correlation of the conversion's cepstra with the source's (objective/cepstra.py: no level, no channel, little
           of the voice), which its own words alone bring near 1.
    voice: 1 if its mean spectrum while somebody speaks is the reference's, -1 if it is the source's. Channels and the
           codec colour it too, so it says something beside that of the source "unconverted", see `evaluate`.
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


def evaluate(
    model: DeCodec, source: ClipSource, count: int, seconds: float, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Means of `scores` for each way of aligning, over `count` pairs of clips by different speakers.

    "unconverted" is the source's own speech through the codec: what the figures are where no voice is changed.
    """
    clips, rate = source.clips, source.sample_rate
    spoken = [i for i, clip in enumerate(clips) if clip.kind == "speech"]
    pairs = [(a, b) for a, b in itertools.permutations(spoken, 2) if clips[a].speaker != clips[b].speaker]
    rows = {name: [] for name in ("unconverted", *ALIGNMENTS)}
    for n in np.random.default_rng(seed).permutation(len(pairs))[:count]:
        one, other = (source.read(i, 0.0, seconds) for i in pairs[n])
        rows["unconverted"].append(scores(one, other, model.enhance(one, rate), rate))
        for alignment in ALIGNMENTS:
            rows[alignment].append(scores(one, other, model.convert(one, other, rate, alignment=alignment), rate))
    return {name: {key: float(np.mean([each[key] for each in row])) for key in row[0]} for name, row in rows.items()}


def table(means: dict[str, dict[str, float]]) -> str:
    """As markdown."""
    lines = [f"| {name} | {row['words']:+.2f} | {row['voice']:+.2f} |" for name, row in means.items()]
    return "\n".join(["| alignment | words | voice |", "|---|---|---|", *lines])
