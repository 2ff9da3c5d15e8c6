"""What only models have, and not other systems: codebooks, and a first level that a teacher guides."""

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

Values = dict[str, np.ndarray]  # by figure: a value for each item [n], or one of all of them [1]


def teacher_of(path: Path) -> Teacher | None:
    """What a run was guided by; None without guidance, for a bundle, and where its weights are not at hand."""
    from decodec_jax.training.loop import at_hand, load_teacher  # needs Orbax, which a bundle does not

    if is_bundle(path):
        return None
    config = settings.load(path / "config.json")
    return load_teacher(config) if config.loss.guidance and at_hand(config) else None


def values(model: DeCodec, mixtures: Sequence[Item], teacher: Teacher | None = None) -> Values:
    """Of equally long mixtures: a model without codes yet has no entropies, one without a teacher no cosine."""
    found = codebooks(model, mixtures) if model.quantized else {}
    return found if teacher is None else found | {"cosine": cosines(model, mixtures, teacher)}


def rows(group: str, name: str, names: Sequence[str], values: Values) -> list[Row]:
    """Values by figure as rows by item; one value of all items is a row of its own."""
    each = {key: value for key, value in values.items() if len(value) == len(names)}
    whole = {key: float(value[0]) for key, value in values.items() if key not in each}
    made = [Row(group, name, item, {key: float(each[key][n]) for key in each}) for n, item in enumerate(names)]
    return [*made, Row(group, name, "every item", whole)] if whole else made


def codebooks(model: DeCodec, mixtures: Sequence[Item]) -> Values:
    """Entropy in bits of each level of both streams, and the share of entries that these mixtures use.

    Both are too small where the frames are not many times the entries: compare them for equally many items alone.
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
    """Mean cosine over time between the projected first level of each mixture and the teacher's of its speech: `[n]`.

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
    return np.array([
        cosine(variables, teacher, coded(mixture.mixture, model.config.sample_rate).wave[None], mixture.speech[None])
        for mixture in mixtures
    ], np.float64)  # fmt: skip


class Coded(NamedTuple):
    """A recording as loud as the codec hears it, and the factor that made it so."""

    wave: np.ndarray  # [t]
    gain: np.float32


def coded(wave: np.ndarray, rate: int) -> Coded:
    """Of `[t]` at a rate in Hz."""
    gain = np.float32(amplitude(gain_of(wave, rate)))
    return Coded(wave * gain, gain)
