"""Everything that training changes, as one pytree, and the optimizers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array
from jax.sharding import Mesh

from decodec_jax.codec.model import initialise
from decodec_jax.config import Config, Optim
from decodec_jax.objective import balancer
from decodec_jax.objective.discriminators import Discriminators, shortest
from decodec_jax.objective.losses import is_adversarial, output_names
from decodec_jax.training.muon import kinds, muon
from decodec_jax.training.sharding import put_together


@struct.dataclass
class State:
    """The contents of a checkpoint. All randomness comes from the config's seed and `step`."""

    step: Array  # [] int32, number of updates
    params: dict
    codebook: dict  # moving-average codebooks
    averaged: dict  # exponential average of `params`, for validation, samples and inference
    optimizer: optax.OptState
    discriminators: dict  # their parameters; empty without adversarial terms
    discriminator_optimizer: optax.OptState
    gradient_norms: dict  # averages of `objective.balancer`; empty without it

    @property
    def variables(self) -> dict:
        """The variables to apply the network with."""
        return {"params": self.params, "codebook": self.codebook}


def learned(config: Config, params: dict) -> dict:
    """The part of the parameters that training changes: all of them, or the decoder's (`train.decoder_only`)."""
    return {"decoder": params["decoder"]} if config.train.decoder_only else params


def learning_rate(config: Optim, peak: float) -> optax.Schedule:
    """Linear warm-up, constant to `decay_from`, cosine to `final` of the peak at `decay_steps`, then constant."""
    warm_up = optax.linear_schedule(0.0, peak, max(1, config.warmup))
    begins = max(config.warmup, config.decay_from)
    decay = optax.cosine_decay_schedule(peak, max(1, config.decay_steps - begins), config.final)
    return optax.join_schedules([warm_up, decay], [begins])


def make_optimizer(
    config: Optim, peak: float, clip: float, precision: str = "float32"
) -> optax.GradientTransformation:
    """The optimizer of `optim.kind`, after clipping by the global norm. precision: of Muon's products."""
    rate = learning_rate(config, peak)
    optimizer = optax.adamw(rate, *config.betas, weight_decay=config.weight_decay)
    if config.kind == "muon":
        matrices = muon(rate, config.momentum, config.weight_decay, precision)
        optimizer = optax.partition({"muon": matrices, "adamw": optimizer}, kinds)
    return optax.chain(optax.clip_by_global_norm(clip), optimizer)


def make_optimizers(
    config: Config, precision: str = "float32"
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The optimizers of the generator and of the discriminators; the latter is always AdamW."""
    return (
        make_optimizer(config.optim, config.optim.lr, config.optim.clip, precision),
        make_optimizer(replace(config.optim, kind="adamw"), config.discriminator.lr, config.discriminator.clip),
    )


def scheduled(optimizer: optax.OptState, step: Array) -> optax.OptState:
    """The optimizer's state with its schedules at this step of the run.

    Optax counts an optimizer's own updates, but those of discriminators begin late, and steps that are not finite have
    none.
    """

    def is_schedule(node) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def counted(node):
        return node._replace(count=jnp.asarray(step, node.count.dtype)) if is_schedule(node) else node

    return jax.tree.map(counted, optimizer, is_leaf=is_schedule)


def create(config: Config) -> State:
    """A fresh state, a function of `train.seed` alone."""
    key = jax.random.key(config.train.seed)
    params, codebook = initialise(config.model, key)
    discriminators = {}
    if is_adversarial(config.loss):
        wave = jnp.zeros((1, shortest(config.discriminator)))
        discriminators = Discriminators(config.discriminator).init(jax.random.fold_in(key, 1), wave)["params"]
    generator, discriminator = make_optimizers(config)
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        codebook=codebook,
        averaged=jax.tree.map(jnp.copy, params),
        optimizer=generator.init(learned(config, params)),
        discriminators=discriminators,
        discriminator_optimizer=discriminator.init(discriminators),
        gradient_norms=balancer.fresh(output_names(config.loss)) if config.loss.balance else {},
    )


def fresh(config: Config) -> State:
    """`create`, compiled. Without optimisation on CPUs, because optimising its many small draws takes long."""
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    options = quick if jax.default_backend() == "cpu" else None
    return jax.jit(lambda: create(config)).lower().compile(compiler_options=options)()


def moved(average: dict, params: dict, ema: float, step: Array) -> dict:
    """The average of the parameters after this update; a faster one at first, when it is mostly its random start."""
    decay = jnp.minimum(ema, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, params)


def computed_with(state: State, mesh: Mesh) -> State:
    """The state with all arrays gathered that a pass over a batch reads."""
    read = put_together((state.params, state.codebook, state.discriminators), mesh)
    return state.replace(**dict(zip(("params", "codebook", "discriminators"), read, strict=True)))
