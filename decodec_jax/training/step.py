"""One update, jitted and donated."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding

from decodec_jax.codec import product
from decodec_jax.codec.model import Halves
from decodec_jax.codec.quantize import Tally, joined
from decodec_jax.config import Config
from decodec_jax.objective import balancer, guidance
from decodec_jax.objective.adversarial import adversarial_loss, discriminator_loss, feature_loss
from decodec_jax.objective.discriminators import Discriminators
from decodec_jax.objective.losses import (
    OUTPUT_TERMS,
    Terms,
    is_adversarial,
    reconstruction_terms,
    weighted_sum,
)
from decodec_jax.objective.perceptual import perceptual_distance
from decodec_jax.objective.teacher import Teacher
from decodec_jax.training.codebooks import Tallies, move_codebooks
from decodec_jax.training.generator import Batch, drawn_kinds, generate, reference
from decodec_jax.training.sharding import BATCH, in_pieces, micro_batches, per_device, put_together, replicated
from decodec_jax.training.state import (
    State,
    computed_with,
    learned,
    learning_rate,
    make_optimizers,
    moved,
    scheduled,
)


def guiding(batch: Batch, teacher: Teacher | None) -> Array | None:
    """Targets of the first speech level, `[2b, f, w]`: the batch's, or else the teacher's; None without both."""
    if "targets" in batch:
        return batch["targets"].reshape(-1, *batch["targets"].shape[2:])
    if teacher is None:
        return None
    return jax.lax.stop_gradient(teacher.targets(batch["speech"].reshape(-1, batch["speech"].shape[-1])))


def judge_output(
    config: Config, mesh: Mesh, adversarial: bool, decoded: Array, kinds: Array, discriminators: dict, norms: dict,
    batch: Batch, phases_known: Array | None = None, teacher: Teacher | None = None,
) -> tuple[Terms, Array, dict, dict]:  # fmt: skip
    """Loss terms and gradients of the decoded waveforms `[b, k, 2, t]`.

    Returns the terms (including "discriminator"), the gradient for the generator's waveforms, the gradient for the
    discriminators' parameters, and the balancer's norms. Reconstruction terms are sums over the k decodings of a
    mixture. Discriminators see waveforms of all kinds. phases_known: `[b, 2]`, see `generate`.
    teacher: for the perceptual term, which is left out without one.
    """
    loss, count, t = config.loss, decoded.shape[1], decoded.shape[-1]
    known = 1.0 if phases_known is None else jnp.broadcast_to(phases_known[:, None], decoded.shape[:3]).reshape(-1)
    target = reference(batch, loss, kinds)
    network = Discriminators(config.discriminator, config.train.precision)

    def judge(params, wave):
        return network.apply({"params": params}, wave.reshape(-1, t))

    def of_generator(decoded: Array, discriminators: dict) -> Terms:
        output, wanted = (wave.reshape(-1, t) for wave in (decoded, target))
        terms = reconstruction_terms(output, wanted, loss, config.model.sample_rate, per_device(mesh), known)
        terms = {name: count * value for name, value in terms.items()}
        if loss.perceptual and teacher is not None:
            # not all waveforms, because the teacher may be larger than the codec
            terms["perceptual"] = jnp.mean(perceptual_distance(decoded[:, -1, 0], target[:, -1, 0], teacher))
        if adversarial:
            real, fake = judge(discriminators, target), judge(discriminators, decoded)
            terms["adversarial"] = jnp.mean(adversarial_loss(fake, loss.game))
            terms["feature"] = jnp.mean(feature_loss(real, fake, loss.relative_features))
        return {name: value for name, value in terms.items() if getattr(loss, name)}

    def of_discriminators(decoded: Array, discriminators: dict) -> Array:
        real, fake = judge(discriminators, target), judge(discriminators, decoded)
        return jnp.mean(discriminator_loss(real, fake, loss.game))

    def total(decoded, discriminators):
        # each side's gradient is of its own loss alone; the compiler merges the repeated passes
        frozen = jax.lax.stop_gradient(discriminators)
        terms = {} if loss.balance else of_generator(decoded, frozen)
        objective = weighted_sum(terms, loss)
        if adversarial:
            terms["discriminator"] = of_discriminators(jax.lax.stop_gradient(decoded), discriminators)
            objective += terms["discriminator"]
        return objective, terms

    (gradient, for_discriminators), terms = jax.grad(total, argnums=(0, 1), has_aux=True)(decoded, discriminators)
    if loss.balance:
        weights = {name: getattr(loss, name) for name in norms}
        # this gradient is of the sum over waveforms, so compensate for the mean over micro-batches
        values, gradient, norms = balancer.balance(
            lambda wave: of_generator(wave, discriminators), decoded, weights, norms,
            loss.balance * config.train.accumulate,
        )  # fmt: skip
        terms |= values
    return terms, gradient, for_discriminators, norms


class Means(NamedTuple):
    """Results that are means over a batch; several micro-batches are averaged."""

    gradient: dict  # for the generator's parameters
    for_discriminators: dict  # for the discriminators' parameters
    metrics: dict[str, Array]


Outcome = tuple[Means, Tallies, dict]  # the last are the balancer's norms


def losses_and_gradients(
    config: Config, mesh: Mesh, adversarial: bool, state: State, teacher: Teacher | None, batch: Batch, key: Array,
    norms: dict,
) -> Outcome:  # fmt: skip
    """One forward and backward pass of generator and discriminators over a batch. Updates nothing."""
    started = state.step >= config.train.continuous_steps
    target = guiding(batch, teacher) if config.loss.guidance else None  # the perceptual term may need the teacher alone
    key, kinds_key = jax.random.split(key)
    kinds = drawn_kinds(config.loss, batch["mixture"].shape[0], kinds_key)
    # the generator runs once: both sides' losses use its output, then the output's gradient is pulled back
    (decoded, latent_loss), pull, (latents, quantized, semantic, phases_known) = jax.vjp(
        lambda params: generate(config, state.params | params, state.codebook, batch, kinds, key, started, target),
        learned(config, state.params), has_aux=True,
    )  # fmt: skip
    terms, for_decoded, for_discriminators, norms = judge_output(
        config, mesh, adversarial, decoded, kinds, state.discriminators, norms, batch, phases_known, teacher
    )
    (gradient,) = pull((for_decoded, jnp.ones_like(latent_loss)))
    metrics = {
        "loss": latent_loss + weighted_sum({name: terms[name] for name in terms if name in OUTPUT_TERMS}, config.loss),
        **{f"loss/{name}": value for name, value in (latents | terms).items()},
    }
    if semantic is not None:
        metrics["cosine"] = jnp.mean(guidance.mean_cosine(*semantic))
    tallies = Halves(*(half.tallies for half in quantized))
    # sum over the devices first, then split: splitting at once might make the compiler move activations
    gradient, for_discriminators, tallies = put_together((gradient, for_discriminators, tallies), mesh)
    return Means(*in_pieces((gradient, for_discriminators), mesh, config.mesh), metrics), tallies, norms


def accumulated(
    function: Callable[[Batch, Array, dict], Outcome], batch: Batch, key: Array, norms: dict, count: int, mesh: Mesh
) -> Outcome:
    """`function(batch, key, norms)` over `count` micro-batches in turn: the result of the batch, with less memory.

    Terms that are divided by a statistic of the batch (relative features) use that of the micro-batch.
    """
    parts = micro_batches(batch, count, mesh)

    def add(carry: Outcome, inputs: tuple[Array, Batch]) -> tuple[Outcome, None]:
        (means, tallies, norms), (part, micro_batch) = carry, inputs
        more, counted, norms = function(micro_batch, jax.random.fold_in(key, part), norms)
        means = jax.tree.map(lambda total, value: total + value / count, means, more)
        tallies = jax.tree.map(
            lambda tally, other: joined(tally, other, part, count), tallies, counted,
            is_leaf=lambda node: isinstance(node, Tally),
        )  # fmt: skip
        return (means, tallies, norms), None

    shapes = jax.eval_shape(function, jax.tree.map(lambda a: a[0], parts), key, norms)
    means, tallies, _ = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    return jax.lax.scan(add, (means, tallies, norms), (jnp.arange(count), parts))[0]


TrainStep = Callable[[State, Batch, Teacher | None], tuple[State, dict[str, Array]]]


def make_train_step(config: Config, mesh: Mesh, adversarial: bool = True) -> TrainStep:
    """The jitted update `(state, batch, teacher) -> (state, metrics)`. The state is donated.

    adversarial: False before the discriminators start. Ignored if the objective has no adversarial terms.
    """
    config = replace(config, train=replace(config.train, precision=product.resolve(config.train.precision)))
    optimizer, discriminator_optimizer = make_optimizers(config, config.train.precision)
    rate = learning_rate(config.optim, config.optim.lr)
    adversarial = adversarial and is_adversarial(config.loss)

    def train_step(state: State, batch: Batch, teacher: Teacher | None = None):
        key = jax.random.fold_in(jax.random.key(config.train.seed + 1), state.step)
        of_batch = partial(losses_and_gradients, config, mesh, adversarial, computed_with(state, mesh), teacher)
        arguments, count = (batch, key, state.gradient_norms), config.train.accumulate
        means, tallies, norms = of_batch(*arguments) if count == 1 else accumulated(of_batch, *arguments, count, mesh)
        codebook, codebook_metrics = state.codebook, {}
        if not config.train.decoder_only:
            codebook, codebook_metrics = move_codebooks(config, state.codebook, tallies, state.step)
        norm = optax.tree.norm(means.gradient)
        metrics = means.metrics | codebook_metrics | {"gradient_norm": norm, "lr": jnp.asarray(rate(state.step))}
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        if adversarial:
            metrics["gradient_norm/discriminator"] = optax.tree.norm(means.for_discriminators)
            finite &= jnp.isfinite(metrics["gradient_norm/discriminator"])
        metrics["not_finite"] = 1 - finite

        def updated(state: State) -> State:
            params = learned(config, state.params)
            updates, optimizer_state = optimizer.update(means.gradient, scheduled(state.optimizer, state.step), params)
            params = optax.apply_updates(params, updates)
            averaged = moved(learned(config, state.averaged), params, config.optim.ema, state.step)
            state = state.replace(
                params=state.params | params, averaged=state.averaged | averaged, codebook=codebook,
                optimizer=optimizer_state, gradient_norms=norms,
            )  # fmt: skip
            if adversarial:
                updates, optimizer_state = discriminator_optimizer.update(
                    means.for_discriminators, scheduled(state.discriminator_optimizer, state.step), state.discriminators
                )
                state = state.replace(
                    discriminators=optax.apply_updates(state.discriminators, updates),
                    discriminator_optimizer=optimizer_state,
                )
            return state

        # One bad batch must not end a long run: a step that is not finite is counted and changes nothing. A branch
        # updates the donated state in place; selecting each array's new or old entries takes twice the time.
        state = jax.lax.cond(finite, updated, lambda state: state, state)
        return in_pieces(state.replace(step=state.step + 1), mesh, config.mesh), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=(None, replicated(mesh)))


def trace_train_step(
    config: Config, mesh: Mesh, state: State, teacher: Teacher | None = None, adversarial: bool = True
) -> jax.stages.Traced:
    """`make_train_step`, traced for this state and teacher (or their shapes) and the config's batches."""
    t = round(config.data.seconds * config.model.sample_rate)
    shapes = dict.fromkeys(("speech", "background", "mixture", "swapped"), (t,))
    if config.loss.guidance and config.data.targets:
        shapes["targets"] = (-(-t // config.model.hop), config.model.semantic)
    placed = NamedSharding(mesh, BATCH)
    batch = {
        name: jax.ShapeDtypeStruct((config.data.batch, 2, *shape), jnp.float32, sharding=placed)
        for name, shape in shapes.items()
    }
    return make_train_step(config, mesh, adversarial).trace(state, batch, teacher)


def compile_train_step(
    config: Config, mesh: Mesh, state: State, teacher: Teacher | None = None, adversarial: bool = True
) -> jax.stages.Compiled:
    """The same, compiled, so that the first step is as fast as the others."""
    return trace_train_step(config, mesh, state, teacher, adversarial).lower().compile()


def cost(compiled: jax.stages.Compiled) -> str:
    """Memory and arithmetic of a compiled step on each device, in words, as far as the backend reports them.

    The arithmetic is a lower bound: XLA counts one iteration of each loop (LSTM, quantizer levels, micro-batches).
    """
    memory, work = compiled.memory_analysis(), compiled.cost_analysis()
    said = []
    if memory is not None:
        kept, working = memory.argument_size_in_bytes, memory.temp_size_in_bytes
        new = memory.output_size_in_bytes - memory.alias_size_in_bytes
        said.append(f"{(kept + new + working) / 2**20:.0f} MiB of memory, {kept / 2**20:.0f} of them state and batch")
    if work and work.get("flops", 0) > 0:
        said.append(f"at least {work['flops'] / 1e9:.2f} GFLOP")
    return f"a step takes, on each device: {'; '.join(said) or 'unknown, this backend does not report it'}"
