"""One update, jitted and donated; the start of the codebooks; and the validation pass."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding

from decodec_jax.codec.model import STREAMS, DeCodecNetwork, Halves, TakenApart, swap
from decodec_jax.codec.quantize import Averages, Quantized, move
from decodec_jax.config import Config, Quantizer
from decodec_jax.objective.losses import latent_terms, reconstruction_terms, weighted_sum
from decodec_jax.training.sharding import BATCH, per_device, replicated
from decodec_jax.training.state import State, learning_rate, make_optimizer

Batch = dict[str, Array]  # speech, background, mixture, swapped: [b, 2, t], b pairs of clips


def levels_in_use(config: Quantizer, bypassed: Array, key: Array) -> Array:
    """How many levels each item is coded with, `[b]`: quantizer dropout, and 0 where `bypassed` `[b]`."""
    dropped_key, number_key = jax.random.split(key)
    dropped = jax.random.bernoulli(dropped_key, config.dropout, bypassed.shape)
    number = jax.random.randint(number_key, bypassed.shape, 1, config.levels + 1)
    return jnp.where(bypassed, 0, jnp.where(dropped, number, config.levels))


def forward(config: Config, mesh: Mesh, params: dict, codebook: dict, batch: Batch, key: Array, started: Array):
    """The objective on a batch: its value, its terms, and what the quantizers saw.

    One encoder pass over the mixtures, one decoder pass over own and swapped recombinations together (RST, paper
    section 2). Clips of a pair stay neighbours on the batch axis, so that no step of it crosses devices.
    """
    network = DeCodecNetwork(config.model)
    variables = {"params": params, "codebook": codebook}
    pairs, _, t = batch["mixture"].shape
    halves = network.apply(variables, batch["mixture"].reshape(2 * pairs, t), method="embed")

    bypass_key, speech_key, background_key, tally_key = jax.random.split(key, 4)
    chance = jax.random.uniform(bypass_key, (2 * pairs,))
    active = Halves(*(
        levels_in_use(quantizer, ~started | (chance < quantizer.bypass), k)
        for quantizer, k in ((config.model.speech, speech_key), (config.model.background, background_key))
    ))  # fmt: skip
    quantized = network.apply(variables, halves, active, tally_key, method="quantize")

    own = Halves(quantized.speech.vectors, quantized.background.vectors)
    loss = config.loss
    kinds = {
        "own": (own, "mixture", loss.wave_own or loss.mel_own),
        "swap": (own._replace(background=swap(own.background)), "swapped", loss.wave_swap or loss.mel_swap),
    }
    kinds = {kind: (parts, target) for kind, (parts, target, wanted) in kinds.items() if wanted}
    stacked = Halves(*(
        jnp.stack([half.reshape(pairs, 2, *half.shape[1:]) for half in same_half], axis=1)
        for same_half in zip(*(parts for parts, _ in kinds.values()), strict=True)
    ))  # fmt: skip
    flat = Halves(*(half.reshape(-1, *half.shape[3:]) for half in stacked))
    decoded = network.apply(variables, flat, t, method="decode").reshape(pairs, len(kinds), 2, t)

    outputs = {kind: decoded[:, i].reshape(2 * pairs, t) for i, kind in enumerate(kinds)}
    targets = {kind: batch[target].reshape(2 * pairs, t) for kind, (_, target) in kinds.items()}
    terms = latent_terms(halves, quantized, loss) | reconstruction_terms(
        outputs, targets, loss, config.model.sample_rate, per_device(mesh)
    )
    return weighted_sum(terms, loss), (terms, quantized)


def move_codebooks(config: Config, codebook: dict, quantized: Halves[Quantized]) -> tuple[dict, dict]:
    """Moving-average codebooks after one batch, and the number of entries replaced per stream."""
    moved, metrics = {}, {}
    for half, name in zip(Halves._fields, STREAMS, strict=True):
        if name not in codebook:
            continue
        quantizer, tallies = getattr(config.model, half), getattr(quantized, half).tallies
        outcome = {run: move(codebook[name][run], tallies[run], quantizer.decay, quantizer.revive) for run in tallies}
        moved[name] = {run: averages for run, (averages, _) in outcome.items()}
        metrics[f"replaced/{half}"] = sum(jnp.sum(replaced) for _, replaced in outcome.values())
    return moved, metrics


def make_train_step(config: Config, mesh: Mesh) -> Callable[[State, Batch], tuple[State, dict[str, Array]]]:
    """The compiled update `(state, batch) -> (state, metrics)`. The state is donated."""
    optimizer, rate = make_optimizer(config.optim), learning_rate(config.optim)

    def train_step(state: State, batch: Batch):
        key = jax.random.fold_in(jax.random.key(config.train.seed + 1), state.step)
        started = state.step >= config.train.continuous_steps

        def objective(params):
            return forward(config, mesh, params, state.codebook, batch, key, started)

        (loss, (terms, quantized)), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        codebook, codebook_metrics = move_codebooks(config, state.codebook, quantized)
        # the average follows closely at first: an early average is mostly its random start
        decay = jnp.minimum(config.optim.ema, (1.0 + state.step) / (10.0 + state.step))
        updated = State(
            step=state.step + 1,
            params=params,
            codebook=codebook,
            averaged=jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.averaged, params),
            optimizer=optimizer_state,
        )
        # one bad batch must not end a long run: a step that is not finite is counted and leaves all as it was
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        unchanged = state.replace(step=state.step + 1)
        metrics = {
            "loss": loss,
            **{f"loss/{name}": value for name, value in terms.items()},
            **codebook_metrics,
            "gradient_norm": norm,
            "not_finite": 1 - finite,
            "lr": jnp.asarray(rate(state.step)),
        }
        return jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, unchanged), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated(mesh))


def compile_train_step(config: Config, mesh: Mesh, state: State) -> Callable[[State, Batch], tuple[State, dict]]:
    """`make_train_step`, compiled for this state and the config's batches: the first step is no slower than others."""
    t = round(config.data.seconds * config.model.sample_rate)
    array = jax.ShapeDtypeStruct((config.data.batch, 2, t), jnp.float32, sharding=NamedSharding(mesh, BATCH))
    batch = dict.fromkeys(("speech", "background", "mixture", "swapped"), array)
    return make_train_step(config, mesh).lower(state, batch).compile()


def start_codebooks(config: Config, state: State, mixtures: list[Array]) -> State:
    """Set both codebooks by k-means from the latents of several batches of mixtures `[b, 2, t]`."""
    network = DeCodecNetwork(config.model)
    embed = jax.jit(lambda state, wave: network.apply(_variables(state.params, state), wave, method="embed"))
    halves = [embed(state, mixture.reshape(-1, mixture.shape[-1])) for mixture in mixtures]
    latents = Halves(*(jnp.concatenate(same_half) for same_half in zip(*halves, strict=True)))
    key = jax.random.fold_in(jax.random.key(config.train.seed + 2), state.step)
    params, codebook = jax.jit(
        lambda state, latents: network.apply(_variables(state.params, state), latents, key, method="started")
    )(state, latents)

    def per_batch(averages: Averages) -> Averages:
        """Counts and sums as the steps to come will add them."""
        return averages._replace(counts=averages.counts / len(mixtures), sums=averages.sums / len(mixtures))

    codebook = jax.tree.map(per_batch, codebook, is_leaf=lambda node: isinstance(node, Averages))

    def with_start(tree):
        # copies, as the state is donated and may hold no buffer twice
        return tree | {name: tree.get(name, {}) | jax.tree.map(jnp.copy, new) for name, new in params.items() if new}

    return state.replace(params=with_start(state.params), averaged=with_start(state.averaged), codebook=codebook)


def make_take_apart(config: Config) -> Callable[[State, Array], TakenApart]:
    """The compiled validation pass over mixtures `[b, t]`, unquantized while the codebooks have not started."""
    network = DeCodecNetwork(config.model)

    def take_apart(state: State, mixture: Array) -> TakenApart:
        started = state.step > config.train.continuous_steps
        active = Halves(*(
            jnp.full(mixture.shape[0] + 1, jnp.where(started, q.levels, 0))
            for q in (config.model.speech, config.model.background)
        ))  # fmt: skip
        return network.apply(_variables(state.averaged, state), mixture, active, method="take_apart")

    return jax.jit(take_apart)


def _variables(params: dict, state: State) -> dict:
    return {"params": params, "codebook": state.codebook}
