"""All that training changes, as one pytree; and the optimizer."""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from decodec_jax.codec.model import initialise
from decodec_jax.config import Config, Optim


@struct.dataclass
class State:
    """What a checkpoint holds. Everything random is drawn from the config's seed and `step`."""

    step: Array  # [] int32 updates made
    params: dict
    codebook: dict  # moving-average codebooks
    averaged: dict  # exponential average of `params`: what validation, samples and inference use
    optimizer: optax.OptState


def learning_rate(config: Optim) -> optax.Schedule:
    """Linear warm-up, cosine to `final` of the peak at `decay_steps`, then constant; free of the run's length."""
    return optax.warmup_cosine_decay_schedule(
        0.0, config.lr, config.warmup, max(config.decay_steps, config.warmup + 1), config.final * config.lr
    )


def make_optimizer(config: Optim) -> optax.GradientTransformation:
    """AdamW after clipping by the global norm."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(learning_rate(config), *config.betas, weight_decay=config.weight_decay),
    )


def create(config: Config) -> State:
    """A fresh state, a function of `train.seed` alone."""
    params, codebook = initialise(config.model, jax.random.key(config.train.seed))
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        codebook=codebook,
        averaged=jax.tree.map(jnp.copy, params),
        optimizer=make_optimizer(config.optim).init(params),
    )
