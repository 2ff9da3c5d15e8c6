"""Validation on held-out clips: compares the model's output for unseen mixtures with the true parts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from decodec_jax.codec.model import DeCodecNetwork, Halves, TakenApart
from decodec_jax.config import Config
from decodec_jax.evaluation import metrics
from decodec_jax.training.sharding import replicated
from decodec_jax.training.state import State, computed_with

PARTS = ("mixture", "speech", "background")


def make_take_apart(config: Config, mesh: Mesh) -> Callable[[State, Array], TakenApart]:
    """The compiled validation pass over mixtures `[b, t]`, with the quantizers bypassed until the codebooks start."""
    network = DeCodecNetwork(config.model)

    def take_apart(state: State, mixture: Array) -> TakenApart:
        started = state.step > config.train.continuous_steps
        active = Halves(*(
            jnp.full(mixture.shape[0] + 1, jnp.where(started, q.levels, 0))
            for q in (config.model.speech, config.model.background)
        ))  # fmt: skip
        variables = computed_with(state.replace(params=state.averaged), mesh).variables
        return network.apply(variables, mixture, active, method="take_apart")

    return jax.jit(take_apart, out_shardings=replicated(mesh))


def validate(
    config: Config, state: State, batches: list[dict[str, np.ndarray]],
    take_apart: Callable[[State, jax.Array], TakenApart],
) -> tuple[dict[str, float], list[dict[str, dict[str, np.ndarray]]]]:  # fmt: skip
    """Mean scores under `valid/`, and the first `train.sample_clips` clips, separated, for `Monitor.samples`."""
    scores, clips, codes = [], [], []
    for batch in batches:
        references = {part: batch[part].reshape(-1, batch[part].shape[-1]) for part in PARTS}
        outcome = jax.device_get(take_apart(state, references["mixture"]))
        estimates = {part: getattr(outcome, part) for part in PARTS}
        scores.append(metrics.separation(estimates, references))
        codes.append(outcome.codes)
        for i in range(min(config.train.sample_clips - len(clips), len(references["mixture"]))):
            clips.append({
                "reference": {part: references[part][i] for part in PARTS},
                "decoded": {part: estimates[part][i] for part in PARTS},
            })  # fmt: skip
    result = {f"valid/{name}": float(np.mean(np.concatenate([s[name] for s in scores]))) for name in scores[0]}
    for half in Halves._fields:
        together = np.concatenate([getattr(c, half) for c in codes])
        usage = metrics.perplexity(together, getattr(config.model, half).entries)
        result |= {f"valid/entries_used/{half}{level + 1}": float(n) for level, n in enumerate(usage)}
    return result, clips


def report(scores: dict[str, float]) -> str:
    """Validation in one line: the gain of each part over the untouched mixture."""
    def part(name, measure):
        value, gain = scores[f"valid/{measure}/{name}"], scores[f"valid/{measure}_gain/{name}"]
        return f"{name} {value:+.1f} dB ({gain:+.1f} over the mixture)"

    return (
        f"on held-out clips, whole {scores['valid/sdr/mixture']:+.1f} dB SDR, "
        f"{part('speech', 'si_sdr')} SI-SDR, {part('background', 'sdr')} SDR"
    )
