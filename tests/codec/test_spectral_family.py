from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax

from configs.decodec import get_config
from decodec_jax.codec import spectral
from decodec_jax.codec.model import DeCodecNetwork, initialise
from decodec_jax.codec.spectral import ConvNeXtBlock, Decoder, Encoder, depthwise, features, layer_norm, polar, taps
from decodec_jax.evaluation.speed import cost
from decodec_jax.inference.streaming import latency
from decodec_jax.testing import background_clips, random_variables, speech_clips, tiny_model

RATE = 16_000

# --- functions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_depthwise_and_its_gradients_are_those_of_the_library_s_grouped_convolution(rng, size):
    padded, kernel, pull = (jnp.float32(rng.standard_normal(s)) for s in ((2, 9 + size, 5), (size, 5), (2, 10, 5)))

    def grouped(padded, kernel):
        return lax.conv_general_dilated(
            padded, kernel[:, None], (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=5
        )

    def there_and_back(function):
        output, backward = jax.vjp(function, padded, kernel)
        return output, *backward(pull)

    ours, theirs = there_and_back(depthwise), there_and_back(grouped)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), ours, theirs)


@pytest.mark.parametrize(("size", "causal", "zeros"), [(7, True, (6, 0)), (7, False, (3, 3)), (4, False, (2, 1))])
def test_taps_are_zeros_around_a_whole_and_the_past_of_a_piece(rng, size, causal, zeros):
    x, past = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, size - 1, 3))
    np.testing.assert_array_equal(taps(x, size, causal, None), np.pad(x, ((0, 0), zeros, (0, 0))).astype(np.float32))
    joined = np.concatenate([past, x], axis=1).astype(np.float32)
    np.testing.assert_array_equal(taps(x, size, causal, past), joined)


def test_layer_norm_is_flax_s(rng):
    x, scale, bias = (jnp.float32(rng.standard_normal(shape)) for shape in ((2, 3, 8), (8,), (8,)))
    expected = linen.LayerNorm(epsilon=1e-6).apply({"params": {"scale": scale, "bias": bias}}, 5 * x + 3)
    np.testing.assert_allclose(layer_norm(5 * x + 3, scale, bias), expected, atol=1e-5)
    ones = layer_norm(jnp.ones((1, 8)), scale, bias)
    np.testing.assert_allclose(ones, bias[None], atol=1e-6)  # nothing is left of a constant


def test_features_are_compressed_spectra_and_half_the_log_mel_of_a_waveform():
    wave = speech_clips(2, 1600)
    heard = np.asarray(features(wave, RATE, 320, 80))
    assert heard.shape == (2, 5, 2 * 321 + 80)
    real, imaginary = heard[..., :321], heard[..., 321:642]
    # of a spectrum whose magnitudes are raised to 0.3: ten times as loud is twice as large, whatever the phase
    louder = np.asarray(features(10 * wave, RATE, 320, 80))
    strong = np.hypot(real, imaginary) > 1
    ratio = np.hypot(louder[..., :321], louder[..., 321:642])[strong] / np.hypot(real, imaginary)[strong]
    np.testing.assert_allclose(ratio, 10**0.3, rtol=1e-3)
    np.testing.assert_allclose(features(-wave, RATE, 320, 80)[..., :642], -heard[..., :642], atol=1e-6)
    np.testing.assert_allclose(features(-wave, RATE, 320, 80)[..., 642:], heard[..., 642:], atol=1e-6)
    silence = np.asarray(features(np.zeros((1, 640), np.float32), RATE, 320, 80))
    assert not np.any(silence[..., :642])
    np.testing.assert_allclose(silence[..., 642:], 0.5 * np.log(0.01), atol=0.1)


def test_what_is_heard_of_speech_and_noise_is_of_size_one():
    for clips in (speech_clips(4, 16_000), background_clips(4, 16_000)):
        assert 0.1 < np.std(features(clips, RATE, 320, 80)) < 2


def polar_by_hand(x):
    """`polar`, by jax's own sines."""
    magnitude, phase = jnp.split(x.reshape(x.shape[0], -1, x.shape[-1] // 2), 2, axis=-1)  # first spectrum, then second
    size = jnp.exp(jnp.minimum(magnitude - 1, spectral.LOUDEST))
    return jnp.concatenate([size * jnp.cos(phase), size * jnp.sin(phase)], axis=-1)


def test_polar_takes_log_magnitudes_and_phases_of_two_spectra_a_frame(rng):
    x = jnp.float32(4 * rng.standard_normal((2, 3, 4 * 11)))
    assert jnp.max(x) > 1 + spectral.LOUDEST  # the loudest magnitude has no gradient
    pull = jnp.float32(rng.standard_normal((2, 6, 22)))
    (ours, pulled), (theirs, pulled_by_hand) = (jax.vjp(function, x) for function in (polar, polar_by_hand))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.exp(spectral.LOUDEST))
    np.testing.assert_allclose(pulled(pull)[0], pulled_by_hand(pull)[0], rtol=0, atol=1e-5 * np.exp(spectral.LOUDEST))


# --- in pieces --------------------------------------------------------------------------------------------------------


def in_pieces(module, x, sizes):
    """Outputs of pieces of x, one after the other, joined."""
    variables = random_variables(module, x)
    whole = jax.jit(module.apply)(variables, x)
    run = jax.jit(partial(module.apply, mutable="stream"))
    made, stream = [], {}
    for piece in np.split(x, np.cumsum(sizes)[:-1], axis=1):
        output, stream = run(variables | stream, piece)
        made.append(output)
    return whole, np.concatenate(made, axis=1)


@pytest.mark.parametrize("sizes", [(1,) * 7, (2, 5), (4, 3)])
def test_a_block_in_pieces_gives_what_it_gives_of_the_whole(rng, sizes):
    block = ConvNeXtBlock(expansion=2, kernel=4, causal=True, layer_scale=0.5)
    whole, pieces = in_pieces(block, rng.standard_normal((2, 7, 6)).astype(np.float32), sizes)
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


@pytest.mark.parametrize("side", [Encoder, Decoder])
def test_so_do_encoder_and_decoder(rng, side):
    model = tiny_model(family="spectral", causal=True)
    if side is Encoder:
        x, sizes = speech_clips(2, 7 * model.hop), (model.hop, 4 * model.hop, 2 * model.hop)
    else:
        x, sizes = rng.standard_normal((2, 7, model.latent)).astype(np.float32), (1, 4, 2)
    whole, pieces = in_pieces(side(model), x, sizes)
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
def test_a_block_hears_its_kernel_and_no_more(rng, causal):
    block = ConvNeXtBlock(expansion=2, kernel=5, causal=causal, layer_scale=0.5)
    x = rng.standard_normal((1, 15, 4)).astype(np.float32)
    variables, other = random_variables(block, x), x.copy()
    other[:, 7] += 1
    moved = np.flatnonzero(np.any(block.apply(variables, x) != block.apply(variables, other), axis=(0, 2)))
    assert moved.tolist() == (list(range(7, 12)) if causal else list(range(5, 10)))


def test_new_blocks_add_little_and_their_kernels_begin_with_the_present_frame(rng):
    x = jnp.float32(rng.standard_normal((1, 20, 64)))
    for causal, present in ((True, 6), (False, 3)):
        block = ConvNeXtBlock(expansion=3, kernel=7, causal=causal, layer_scale=0.1)
        variables = jax.jit(block.init)(jax.random.key(0), x)
        means = np.mean(variables["params"]["kernel"], axis=1)
        assert np.argmax(means) == present and means[present] == pytest.approx(0.5, abs=0.1)
        assert 0 < np.std(block.apply(variables, x) - x) < 0.2


# --- what `light` costs -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def light():
    """The model `light`, and its parameters and codebooks by shape."""
    model = get_config("light").model
    return model, *jax.eval_shape(lambda key: initialise(model, key), jax.random.key(0))


def test_light_takes_at_most_two_gflop_for_a_second_of_audio_both_ways(light):
    model, params, codebook = light
    wave = jax.ShapeDtypeStruct((1, model.sample_rate), jnp.float32)
    variables = {"params": params, "codebook": codebook}
    there_and_back = jax.make_jaxpr(DeCodecNetwork(model).apply)(variables, wave)
    assert 0.5e9 < cost.products(there_and_back.jaxpr).flops < 2e9


def test_light_s_bundle_is_at_most_25_megabytes(light):
    _, params, codebook = light
    entries = [averages.entries for half in codebook.values() for averages in half.values()]
    assert 2 * sum(array.size for array in jax.tree.leaves([params, entries])) < 25e6


def test_light_s_latency_is_40_milliseconds(light):
    assert latency(light[0]) / light[0].sample_rate == 0.04
