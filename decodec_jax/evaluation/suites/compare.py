"""Metrics that only our models have: the use of their codebooks, and how well the first level follows its teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from decodec_jax import config as settings
from decodec_jax.codec.model import DeCodecNetwork, Halves
from decodec_jax.evaluation import metrics
from decodec_jax.evaluation.reports.tables import Row
from decodec_jax.evaluation.systems.base import Item
from decodec_jax.inference.bundle import is_bundle
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.loudness import amplitude, gain_of
from decodec_jax.objective import guidance
from decodec_jax.objective.teacher import Teacher

Values = dict[str, np.ndarray]  # by metric: a value for each item [n], or one for all items [1]


def teacher_of(path: Path) -> Teacher | None:
    """The teacher of a run. None without guidance, for a bundle, or if the teacher's weights are not available."""
    from decodec_jax.training.loop import at_hand, load_teacher  # needs Orbax, which a bundle does not

    if is_bundle(path):
        return None
    config = settings.load(path / "config.json")
    return load_teacher(config) if config.loss.guidance and at_hand(config) else None


def values(model: DeCodec, mixtures: Sequence[Item], teacher: Teacher | None = None) -> Values:
    """Metrics on equally long mixtures. A model without codes has no entropies; one without a teacher has no cosine."""
    found = codebooks(model, mixtures) if model.quantized else {}
    return found if teacher is None else found | {"cosine": cosines(model, mixtures, teacher)}


def rows(group: str, name: str, names: Sequence[str], values: Values) -> list[Row]:
    """Turn values by metric into a row for each item; values for all items are in a row of their own."""
    each = {key: value for key, value in values.items() if len(value) == len(names)}
    whole = {key: float(value[0]) for key, value in values.items() if key not in each}
    made = [Row(group, name, item, {key: float(each[key][n]) for key in each}) for n, item in enumerate(names)]
    return [*made, Row(group, name, "every item", whole)] if whole else made


def codebooks(model: DeCodec, mixtures: Sequence[Item]) -> Values:
    """Entropy in bits of each level of both streams, and the share of entries that these mixtures use.

    Both are too low unless there are many times more frames than entries, so compare them only for equally many items.
    """
    tokens = model.encode_batch([mixture.mixture for mixture in mixtures], model.config.sample_rate)
    scores: Values = {}
    for stream in Halves._fields:
        entries = getattr(model.config, stream).entries
        codes = np.stack([getattr(each, stream) for each in tokens])
        scores |= {f"bits/{stream}/{k + 1}": bits for k, bits in enumerate(metrics.surprisal(codes, entries).T)}
        scores[f"used/{stream}"] = np.mean(metrics.usage(codes, entries), keepdims=True)
    return scores


def cosines(model: DeCodec, mixtures: Sequence[Item], teacher: Teacher) -> np.ndarray:
    """Cosine of each mixture's projected first level with the teacher's targets of its speech, mean over time: `[n]`.

    Training logs the same of its batches as `cosine`. Raises UserError unless the model is guided by such a teacher.
    """
    network = DeCodecNetwork(model.config)
    levels = Halves(model.config.speech.levels, model.config.background.levels) if model.quantized else Halves(0, 0)
    active = Halves(*(jnp.full(1, count) for count in levels))

    @jax.jit
    def cosine(variables, teacher, mixture, speech):
        halves = network.apply(variables, mixture, method="embed")
        first = network.apply(variables, halves, active, method="quantize").speech.first
        projected = network.apply(variables, first, method="semantic")
        return guidance.mean_cosine(projected, teacher.targets(speech))[0]

    variables = {"params": model.params, "codebook": model.codebook}
    waves = [normalised(mixture.mixture, model.config.sample_rate).wave for mixture in mixtures]
    return np.array([
        cosine(variables, teacher, wave[None], mixture.speech[None])
        for wave, mixture in zip(waves, mixtures, strict=True)
    ], np.float64)  # fmt: skip


class Normalised(NamedTuple):
    """A recording at the level at which the codec codes it, and the factor that brought it there."""

    wave: np.ndarray  # [t]
    gain: np.float32


def normalised(wave: np.ndarray, rate: int) -> Normalised:
    """Bring `[t]` at a rate in Hz to the level at which the codec codes it."""
    gain = np.float32(amplitude(gain_of(wave, rate)))
    return Normalised(wave * gain, gain)
