import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from decodec_jax.codec import start
from decodec_jax.codec.layers import _QUIET
from decodec_jax.codec.model import DeCodecNetwork, Halves
from decodec_jax.codec.projection import Projection
from decodec_jax.testing import random_variables, speech_clips, tiny_model


def sdr(reference, estimate):
    return 10 * np.log10(np.sum(reference**2) / np.sum((reference - estimate) ** 2))


def drawn(network):
    """Variables as if freshly initialised: most drawn by numpy, as JAX would compile for long."""
    variables = random_variables(network, jnp.zeros((1, network.config.hop)))
    params = traverse_util.flatten_dict(variables["params"])
    for name, array in params.items():
        if name[-1] in ("gain", "alpha"):
            gains = {"dilated": _QUIET, "pointwise": _QUIET, "mask": 0.3, "told": 0.3}
            array = np.full_like(array, gains.get(name[-2], 1))
        else:
            array = (0 if name[-1].endswith("bias") else 0.3) * array
        params[name] = jnp.asarray(array)
    projection = Projection(network.config.projection).init(jax.random.key(0), jnp.ones((1, network.config.latent)))
    return variables | {"params": traverse_util.unflatten_dict(params) | {"projection": projection.get("params", {})}}


def fresh(**changes):
    """`(parts, wave)`: what a new network makes of speech, unquantized, from both halves and from each alone."""
    network = DeCodecNetwork(tiny_model(patch=4, strides=(5, 2), channels=32, decoder_channels=128, **changes))
    variables = drawn(network)
    variables["params"] = start.transform_start(variables["params"], network.config)
    wave = jnp.float32(speech_clips(2, 2000))

    def run(network, wave):
        halves = network.embed(wave)
        blank = jax.tree.map(jnp.zeros_like, halves)
        kinds = halves, Halves(halves.speech, blank.background), Halves(blank.speech, halves.background)
        return [network.decode(kind, wave.shape[1]) for kind in kinds]

    return jax.jit(lambda v, x: network.apply(v, x, method=run))(variables, wave), wave


@pytest.mark.parametrize("changes", [{}, {"causal": True}, {"projection": "exact"}, {"projection": "none"}], ids=str)
def test_a_new_network_gives_back_what_it_hears_and_half_of_it_from_either_half(changes):
    (whole, speech, background), wave = fresh(latent=80, **changes)
    assert sdr(wave, whole) > 6
    for half in (speech, background):
        assert sdr(wave / 2, half) > 4.5


def test_a_narrow_embedding_begins_with_the_low_frequencies():
    (whole, *_), wave = fresh(latent=40)
    low = np.fft.rfft(wave)
    low[:, low.shape[1] // 2 :] = 0
    assert sdr(np.fft.irfft(low), whole) > 7


@pytest.mark.parametrize("widths", [(8, 32), (64, 512), (3, 12)])
def test_transforms_are_orthonormal_and_leave_a_sixth_of_the_channels(widths):
    channels, decoder_channels = widths
    model = tiny_model(patch=4, strides=(5, 2), channels=channels, decoder_channels=decoder_channels, latent=70)
    basis = np.eye(1)
    for rows, stride in zip(start._transforms(model), (4, 5, 2), strict=True):
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-12)
        basis = rows @ np.kron(np.eye(stride), basis)
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-12)
    assert len(basis) == min(35, 4 * channels * 5 // 6, decoder_channels * 5 // 6)


def test_directions_keep_their_length_which_is_their_learning_rate():
    network = DeCodecNetwork(tiny_model())
    params = drawn(network)["params"]
    before, after = (traverse_util.flatten_dict(p) for p in (params, start.transform_start(params, network.config)))
    assert before.keys() == after.keys()
    for name, direction in before.items():
        if name[-1] == "direction":
            kept = 1 if name[-2] == "up" else 2
            axes = tuple(axis for axis in range(3) if axis != kept)
            lengths = [np.sqrt(np.sum(np.square(d), axes)) for d in (direction, after[name])]
            np.testing.assert_allclose(*lengths, rtol=1e-4)
