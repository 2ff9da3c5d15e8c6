"""The start of a new run: from its seed, or from the weights of another run, a bundle or a DAC checkpoint."""

from pathlib import Path

import jax
import jax.numpy as jnp

from decodec_jax import config as settings
from decodec_jax.codec.model import STREAMS
from decodec_jax.config import Config
from decodec_jax.errors import UserError
from decodec_jax.inference import bundle
from decodec_jax.interop import dac
from decodec_jax.training import checkpoint
from decodec_jax.training.checkpoint import check_fits, shapes
from decodec_jax.training.state import State, fresh

SEMANTIC = "semantic_projection"  # the only module of the network that exists just for guidance


def initial_state(config: Config) -> State:
    """A state at step 0, from `train.init_from` if set; with `train.carry_on`, at the step of that source.

    A run gives its averaged parameters, codebooks, discriminators and the optimizers' moments. A bundle (the package's
    for "built-in") gives its parameters and codebooks. A DAC checkpoint (descript's or transformers' layout) gives
    encoder, decoder and the codebooks that fit. Everything else starts as usual. Quantizers that k-means will set
    (`train.kmeans_batches`) need not fit. Raises UserError if the source does not exist or does not fit, or if
    `train.decoder_only` has none to go on from.
    """
    if config.train.decoder_only and not (config.train.init_from and config.train.carry_on):
        raise UserError("train.decoder_only needs train.init_from, and train.carry_on=True")
    state = fresh(config)
    if not config.train.init_from:
        return state
    path = bundle.located(config.train.init_from)
    if not path.exists():
        raise UserError(f"train.init_from: {path} does not exist")
    if (path / "checkpoints").is_dir():
        return _from_run(config, state, path)
    if bundle.is_bundle(path) and "decodec_jax" in (path / bundle.SETTINGS).read_text():
        source = bundle.load(path)
        step = source.step if config.train.carry_on else 0
        return _with_weights(config, state, source.params, source.codebook, path, step)
    if config.train.carry_on:
        raise UserError(f"train.carry_on: {path} is no run or bundle of decodec_jax, so it has no steps; leave it out")
    params, codebook = dac.graft(state.params, state.codebook, dac.load(path), config.model)
    return _with_weights(config, state, params, codebook, path)


def _from_run(config: Config, state: State, path: Path) -> State:
    theirs = checkpoint.load(settings.load(path / "config.json"), path / "checkpoints").state
    step = int(theirs.step) if config.train.carry_on else 0
    state = _with_weights(config, state, theirs.averaged, theirs.codebook, path, step)
    for part in ("optimizer", "discriminators", "discriminator_optimizer"):
        if shapes(getattr(state, part)) == shapes(getattr(theirs, part)):
            state = state.replace(**{part: getattr(theirs, part)})
    return state


def _with_quantizers_that_fit(state: State, params: dict, codebook: dict) -> tuple[dict, dict]:
    """Parameters and codebooks, with the state's own quantizer where theirs has another kind or size."""
    for name in STREAMS:
        pairs = (state.params, params), (state.codebook, codebook)
        if any(shapes(ours.get(name, {})) != shapes(theirs.get(name, {})) for ours, theirs in pairs):
            params, codebook = (
                {k: v for k, v in theirs.items() if k != name} | {k: v for k, v in ours.items() if k == name}
                for ours, theirs in pairs
            )
    return params, codebook


def _with_weights(config: Config, state: State, params: dict, codebook: dict, path: Path, step: int = 0) -> State:
    """The state of a run that begins at `step` with these weights. All must fit, but either side may lack guidance."""
    params = {name: part for name, part in params.items() if name != SEMANTIC or name in state.params}
    if SEMANTIC in state.params:
        params = {SEMANTIC: state.params[SEMANTIC]} | params
    if config.train.kmeans_batches and step <= config.train.continuous_steps:  # k-means is still to come
        params, codebook = _with_quantizers_that_fit(state, params, codebook)
    for ours, theirs in ((state.params, params), (state.codebook, codebook)):
        check_fits(shapes(ours), shapes(theirs), f"train.init_from: {path}")
    copied = jax.tree.map(jnp.array, params)  # the state is donated, so it must not hold a buffer twice
    return state.replace(step=jnp.asarray(step, jnp.int32), params=params, averaged=copied, codebook=codebook)
