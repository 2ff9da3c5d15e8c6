"""How a step moves the codebooks, and how they start."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from decodec_jax.codec.model import STREAMS, DeCodecNetwork, Halves
from decodec_jax.codec.quantize import Averages, Tally, move
from decodec_jax.config import Config, Optim
from decodec_jax.training.sharding import layout, replicated
from decodec_jax.training.state import State, computed_with, learning_rate

Tallies = Halves[dict[str, Tally]]


def memory(optim: Optim, decay: float, step: Array) -> Array:
    """The decay of the moving averages at this step: `decay`, and nearer to 1 as the learning rate falls.

    An entry follows the few vectors of recent batches that chose it. Near the end, when the latents hardly move, a
    longer memory gives it the mean of many more. How much longer is the learning rate's own ratio of peak to present.
    """
    share = jnp.where(step < optim.warmup, 1.0, learning_rate(optim, 1.0)(step))
    return 1 - (1 - decay) * share


def move_codebooks(config: Config, codebook: dict, tallies: Tallies, step: Array) -> tuple[dict, dict]:
    """Moving-average codebooks after one batch, and the number of entries replaced per level."""
    moved, metrics = {}, {}
    for half, name in zip(Halves._fields, STREAMS, strict=True):
        if name not in codebook:
            continue
        quantizer, tally = getattr(config.model, half), getattr(tallies, half)
        decay = memory(config.optim, quantizer.decay, step)
        outcome = {run: move(codebook[name][run], tally[run], decay, quantizer.revive) for run in tally}
        moved[name] = {run: averages for run, (averages, _) in outcome.items()}
        replaced = jnp.concatenate([replaced for _, replaced in outcome.values()])
        metrics |= {f"replaced/{half}{level + 1}": count for level, count in enumerate(replaced)}
    return moved, metrics


def start_codebooks(config: Config, mesh: Mesh, state: State, mixtures: list[Array]) -> State:
    """Set both codebooks by k-means from the latents of several batches of mixtures `[b, 2, t]`."""
    network = DeCodecNetwork(config.model)
    embed = jax.jit(lambda state, wave: network.apply(computed_with(state, mesh).variables, wave, method="embed"))
    halves = [embed(state, mixture.reshape(-1, mixture.shape[-1])) for mixture in mixtures]
    latents = Halves(*(jnp.concatenate(same_half) for same_half in zip(*halves, strict=True)))
    key = jax.random.fold_in(jax.random.key(config.train.seed + 2), state.step)
    params, codebook = jax.jit(
        lambda state, latents: network.apply(computed_with(state, mesh).variables, latents, key, method="started"),
        out_shardings=replicated(mesh),
    )(state, latents)

    def per_batch(averages: Averages) -> Averages:
        """Counts and sums on the scale of one batch, as later steps add them."""
        return averages._replace(counts=averages.counts / len(mixtures), sums=averages.sums / len(mixtures))

    codebook = jax.tree.map(per_batch, codebook, is_leaf=lambda node: isinstance(node, Averages))

    def with_start(tree):
        # copies, because the state is donated and must not hold a buffer twice
        return tree | {name: tree.get(name, {}) | jax.tree.map(jnp.copy, new) for name, new in params.items() if new}

    state = state.replace(params=with_start(state.params), averaged=with_start(state.averaged), codebook=codebook)
    return jax.device_put(state, layout(state, mesh, config.mesh.fsdp_from))
