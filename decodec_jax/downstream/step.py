"""The state of a run on tokens, and one update of it, jitted and donated."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array, lax
from jax.sharding import Mesh

from decodec_jax.training.sharding import in_pieces, micro_batches, put_together, replicated
from decodec_jax.training.state import learning_rate, make_optimizer, moved

Batch = dict[str, Array]
Metrics = dict[str, Array]
Frozen = Any  # arrays that the loss reads and training does not change, such as a codec's vectors
Loss = Callable[[dict, Frozen, Batch, Array], tuple[Array, Metrics]]  # of parameters, frozen, batch and key; a mean


@struct.dataclass
class State:
    """The contents of a checkpoint. All randomness comes from the config's seed and `step`."""

    step: Array  # [] int32, number of updates
    params: dict
    averaged: dict  # exponential average of `params`, for validation and inference
    optimizer: optax.OptState


def create(config, parameters: Callable[[Array], dict]) -> State:
    """A fresh state, a function of `train.seed` alone. parameters: creates the parameters from a key."""
    params = parameters(jax.random.key(config.train.seed))
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        averaged=jax.tree.map(jnp.copy, params),
        optimizer=make_optimizer(config.optim, config.optim.lr, config.optim.clip).init(params),
    )


def make_train_step(config, mesh: Mesh, loss: Loss) -> Callable[[State, Batch, Frozen], tuple[State, Metrics]]:
    """The jitted update `(state, batch, frozen) -> (state, metrics)`. The state is donated.

    config: sections `optim`, `mesh` and `train`. A step that is not finite is counted and changes nothing.
    """
    optimizer = make_optimizer(config.optim, config.optim.lr, config.optim.clip)
    rate, count = learning_rate(config.optim, config.optim.lr), config.train.accumulate

    def train_step(state: State, batch: Batch, frozen: Frozen) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.train.seed + 1), state.step)
        of_batch = partial(_gradient, loss, put_together(state.params, mesh), frozen)
        gradient, metrics = of_batch(batch, key) if count == 1 else _accumulated(of_batch, batch, key, count, mesh)
        gradient = in_pieces(put_together(gradient, mesh), mesh, config.mesh)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        metrics |= {"gradient_norm": norm, "lr": jnp.asarray(rate(state.step)), "not_finite": 1 - finite}

        def updated(state: State) -> State:
            updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
            params = optax.apply_updates(state.params, updates)
            averaged = moved(state.averaged, params, config.optim.ema, state.step)
            return state.replace(params=params, averaged=averaged, optimizer=optimizer_state)

        state = lax.cond(finite, updated, lambda state: state, state)
        return in_pieces(state.replace(step=state.step + 1), mesh, config.mesh), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=(None, replicated(mesh)))


def _gradient(loss: Loss, params: dict, frozen: Frozen, batch: Batch, key: Array) -> tuple[dict, Metrics]:
    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params, frozen, batch, key)
    return gradient, metrics | {"loss": value}


def _accumulated(of_batch: Callable, batch: Batch, key: Array, count: int, mesh: Mesh) -> tuple[dict, Metrics]:
    """The means over `count` micro-batches in turn, with less memory."""
    parts = micro_batches(batch, count, mesh)

    def add(total, numbered):
        number, part = numbered
        found = of_batch(part, jax.random.fold_in(key, number))
        return jax.tree.map(lambda a, b: a + b / count, total, found), None

    shapes = jax.eval_shape(of_batch, jax.tree.map(lambda a: a[0], parts), key)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    return lax.scan(add, zeros, (jnp.arange(count), parts))[0]
