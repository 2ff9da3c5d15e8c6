import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.decodec import get_config
from decodec_jax.codec.model import DeCodecNetwork, Halves, initialise, recombine, swap
from decodec_jax.objective.losses import weighted_sum
from decodec_jax.testing import random_variables, speech_clips, tiny_config, tiny_model, tiny_quantizer, training_batch
from decodec_jax.training.sharding import make_mesh
from decodec_jax.training.step import generate, judge_output


def make_network(model=None, seed=0):
    """`(network, apply)`, apply being compiled: `apply("method", *arrays)`, and `apply("decode", halves, length)`."""
    network = DeCodecNetwork(model or tiny_model())
    variables = random_variables(network, jnp.zeros((1, network.config.hop)), seed=seed)
    compiled = jax.jit(network.apply, static_argnames=("method", "length"))
    return network, lambda method, *arrays, **static: compiled(variables, *arrays, method=method, **static)


@pytest.fixture(scope="module")
def tiny():
    return make_network()


@pytest.fixture
def waves(rng):
    return jnp.float32(0.5 * rng.standard_normal((4, 95)))


def vectors_of(quantized):
    return Halves(quantized.speech.vectors, quantized.background.vectors)


# --- lengths ----------------------------------------------------------------------------------------------------------


def bare(**changes):
    """A network of convolutions alone, quick to trace: lengths are decided by them."""
    return tiny_model(**{"dilations": (1,), "lstm_layers": 0} | changes)


def lengths_of(model, t):
    """(frames, samples) that `t` samples become, and come back as."""
    network = DeCodecNetwork(model)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, model.hop)))

    def there_and_back(variables, wave):
        halves = network.apply(variables, wave, method="embed")
        return halves.speech, network.apply(variables, halves, t, method="decode")

    halves, wave = jax.eval_shape(there_and_back, variables, jax.ShapeDtypeStruct((1, t), jnp.float32))
    return halves.shape[1], wave.shape[1]


@settings(max_examples=15)
@given(
    strides=st.lists(st.integers(2, 9), min_size=1, max_size=3), patch=st.sampled_from([1, 2, 3, 8, 16]),
    causal=st.booleans(), t=st.integers(1, 2000),
)  # fmt: skip
def test_any_strides_give_back_exactly_the_samples_that_went_in(strides, patch, causal, t):
    model = bare(strides=tuple(strides), patch=patch, causal=causal, decoder_channels=16)
    assert lengths_of(model, t) == (-(-t // model.hop), t)


@pytest.mark.parametrize(("strides", "patch", "causal"), [((5, 2), 1, False), ((3,), 2, True)])
def test_every_length_to_two_hops_and_one_comes_back_exactly(strides, patch, causal):
    model = bare(strides=strides, patch=patch, causal=causal)
    for t in range(1, 2 * model.hop + 2):
        assert lengths_of(model, t) == (-(-t // model.hop), t)


@pytest.mark.parametrize("t", [1, 21])
def test_real_runs_have_the_exact_length_and_whole_frames(tiny, t):
    _, apply = tiny
    wave = jnp.float32(speech_clips(2, t))
    taken = apply("take_apart", wave)
    assert taken.mixture.shape == taken.speech.shape == taken.background.shape == (2, t)
    for codes in taken.codes:
        assert codes.shape == (2, 2, -(-t // 20)) and codes.dtype == jnp.int32
    assert np.all(np.abs(taken.mixture) <= 1) and taken.mixture.dtype == jnp.float32


# --- what it computes -------------------------------------------------------------------------------------------------


def test_a_batch_gives_what_its_clips_give_one_by_one(tiny, waves):
    _, apply = tiny
    together, apart = apply("take_apart", waves), [apply("take_apart", wave[None]) for wave in waves]
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, jnp.concatenate(b), atol=1e-5), together, *apart)


def test_codes_reproduce_the_quantized_vectors_and_the_reconstruction(tiny, waves):
    _, apply = tiny
    quantized = apply("quantize", apply("embed", waves))
    vectors = apply("vectors", apply("encode", waves))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), vectors, vectors_of(quantized))
    np.testing.assert_allclose(apply("decode", vectors, length=95), apply(None, waves), atol=1e-5)


def test_vectors_of_the_first_levels_are_those_of_that_many_levels_in_use(tiny, waves):
    _, apply = tiny
    first = apply("vectors", jax.tree.map(lambda codes: codes[:, :1], apply("encode", waves)))
    one_level = apply("quantize", apply("embed", waves), Halves(jnp.ones(4, int), jnp.ones(4, int)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), first, vectors_of(one_level))


def test_the_halves_may_have_different_quantizers(waves):
    model = tiny_model(
        speech=tiny_quantizer(kind="factorised", levels=3, dim=2, first_dim=8),
        background=tiny_quantizer(levels=1, entries=8),
    )
    _, apply = make_network(model)
    codes = apply("encode", waves)
    assert codes.speech.shape == (4, 3, 5) and codes.background.shape == (4, 1, 5)
    assert np.max(codes.background) < 8
    vectors = vectors_of(apply("quantize", apply("embed", waves)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), apply("vectors", codes), vectors)


def test_recombine_is_the_sum_and_swap_exchanges_neighbours(rng):
    speech, background = rng.standard_normal((2, 6, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(recombine(Halves(speech, background)), speech + background)
    np.testing.assert_array_equal(swap(background), background[[1, 0, 3, 2, 5, 4]])
    np.testing.assert_array_equal(swap(swap(background)), background)


def test_one_clips_speech_decodes_with_anothers_background_as_done_by_hand(tiny, waves):
    _, apply = tiny
    halves = vectors_of(apply("quantize", apply("embed", waves)))
    converted = apply("decode", halves._replace(background=swap(halves.background)), length=95)
    for here, there in ((0, 1), (1, 0), (2, 3), (3, 2)):
        alone = Halves(halves.speech[here, None], halves.background[there, None])
        np.testing.assert_allclose(converted[here], apply("decode", alone, length=95)[0], atol=1e-5)
    assert not np.allclose(converted, apply("decode", halves, length=95), atol=0.1)


def test_take_apart_replaces_the_other_half_by_the_code_of_silence(tiny, waves):
    _, apply = tiny
    taken = apply("take_apart", waves)
    vectors = apply("vectors", apply("encode", waves))
    blank = jax.tree.map(lambda v: jnp.repeat(v, 4, 0), apply("vectors", apply("encode", jnp.zeros((1, 95)))))
    parts = {
        "mixture": vectors,
        "speech": Halves(vectors.speech, blank.background),
        "background": Halves(blank.speech, vectors.background),
    }
    for name, halves in parts.items():
        np.testing.assert_allclose(getattr(taken, name), apply("decode", halves, length=95), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, taken.codes, apply("encode", waves))


def test_take_apart_of_silence_is_one_clip_three_times(tiny):
    _, apply = tiny
    taken = apply("take_apart", jnp.zeros((1, 95)))
    assert np.all(np.isfinite(taken.mixture))
    np.testing.assert_allclose(taken.speech, taken.mixture, atol=1e-6)
    np.testing.assert_allclose(taken.background, taken.mixture, atol=1e-6)


# --- later input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 8])
@pytest.mark.parametrize("causal", [True, False])
def test_no_output_sample_of_the_causal_network_depends_on_a_later_frame(rng, patch, causal):
    model = tiny_model(patch=patch, causal=causal, lstm_layers=2)
    _, apply = make_network(model)
    wave = 0.5 * rng.standard_normal((1, 6 * model.hop)).astype(np.float32)
    there, codes_there = apply(None, wave), apply("encode", wave)
    for frame in range(1, 6):
        start, other = frame * model.hop, wave.copy()
        other[:, start:] = 0.5 * rng.standard_normal(other[:, start:].shape)
        unchanged = np.array_equal(apply(None, other)[:, :start], there[:, :start])
        assert unchanged == causal
        if causal:
            for a, b in zip(apply("encode", other), codes_there, strict=True):
                np.testing.assert_array_equal(a[:, :, :frame], b[:, :, :frame])


# --- silence, sizes, types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_mask_is_made_of_how_loud_things_are_whatever_their_phase(waves, bidirectional):
    network = DeCodecNetwork(bare(causal=not bidirectional, lstm_layers=1))
    variables = random_variables(network, jnp.zeros((1, network.config.hop)))

    def mask(network, wave):
        encoder = network.encoder
        made = jnp.split(encoder.lstm(encoder.front(wave)), 2, axis=-1)[1]
        return encoder.mask(made)

    waves = waves[:, : 4 * network.config.hop]
    heard = jax.jit(lambda wave: network.apply(variables, wave, method=mask))
    np.testing.assert_array_equal(heard(-waves), heard(waves))
    assert np.abs(heard(0.5 * waves) - heard(waves)).max() > 1e-3


def test_a_mask_that_is_closed_lets_nothing_through(waves):
    network = DeCodecNetwork(bare())
    params = random_variables(network, jnp.zeros((1, network.config.hop)))["params"]
    embed = jax.jit(lambda params: network.apply({"params": params}, waves, method="embed"))
    mask = params["encoder"]["mask"]
    assert all(np.std(half) > 0 for half in embed(params))
    params["encoder"]["mask"] = mask | {"bias": np.full_like(mask["bias"], -1e3)}
    assert all(np.all(half == 0) for half in embed(params))


def test_silence_everywhere_gives_a_finite_objective_and_finite_gradients():
    factorised = tiny_quantizer(kind="factorised", dim=4)
    config = tiny_config(dilations=(1,), strides=(5,), decoder_lstm=False, background=factorised)
    config.loss.mel_windows, config.loss.mel_bands = (64,), (10,)
    mesh = make_mesh(config.mesh, config.data.batch)
    variables = random_variables(DeCodecNetwork(config.model), jnp.zeros((1, 10)))
    silence = jax.tree.map(jnp.zeros_like, training_batch(config))

    @jax.jit
    def objective(started):
        def latents(params):
            return generate(config, params, variables["codebook"], silence, jax.random.key(0), started, None)

        (decoded, loss), pull, (of_latents, quantized, _) = jax.vjp(latents, variables["params"], has_aux=True)
        of_decoded, gradient, _, _ = judge_output(config, mesh, False, decoded, {}, {}, silence)
        return loss, of_latents, of_decoded, quantized, pull((gradient, jnp.ones_like(loss)))

    for started in (False, True):
        loss, of_latents, of_decoded, *rest = objective(started)
        assert set(of_latents) == {"perp", "commitment", "codebook"}
        assert set(of_decoded) == {"wave_own", "wave_swap", "mel_own", "mel_swap"}
        np.testing.assert_allclose(loss, weighted_sum(of_latents, config.loss), rtol=1e-6)
        assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves((loss, of_latents, of_decoded, rest)))


@pytest.mark.parametrize("variant", ["paper", "causal", "small", "small_causal", "tiny", "tiny_causal"])
def test_every_variant_builds_and_reconstructs_one_second(variant):
    model = get_config(variant).model
    params, codebook = jax.eval_shape(lambda key: initialise(model, key), jax.random.key(0))
    wave = jax.ShapeDtypeStruct((1, model.sample_rate), jnp.float32)
    variables = {"params": params, "codebook": codebook}
    assert jax.eval_shape(DeCodecNetwork(model).apply, variables, wave).shape == (1, model.sample_rate)


@pytest.mark.parametrize(("variant", "millions"), [("paper", 117.7), ("causal", 131.3)])
def test_full_size_has_its_widths_and_number_of_parameters(variant, millions):
    model = get_config(variant).model
    assert (model.channels, model.strides, model.latent, model.decoder_channels) == (64, (2, 4, 5, 8), 1024, 1536)
    assert model.hop == 320 and model.lstm_layers == 2
    params, codebook = jax.eval_shape(lambda key: initialise(model, key), jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(params)) / 1e6 == pytest.approx(millions, abs=0.1)
    assert codebook["speech_quantizer"]["levels"].entries.shape == (8, 1024, 1024)
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_tiny_testing_model_has_a_few_thousand_parameters(tiny_network):
    _, variables = tiny_network
    assert 2000 < sum(p.size for p in jax.tree.leaves(variables["params"])) < 20_000


def test_bfloat16_keeps_parameters_latents_and_waveforms_in_float32(waves):
    network, apply = make_network(tiny_model(dtype="bfloat16"))
    _, exact = make_network(tiny_model())
    halves, halves_exact = apply("embed", waves), exact("embed", waves)
    assert {h.dtype for h in halves} == {jnp.dtype("float32")}
    for half, half_exact in zip(halves, halves_exact, strict=True):
        error = np.linalg.norm(half - half_exact) / np.linalg.norm(half_exact)
        assert 1e-5 < error < 0.1  # it does compute in bfloat16, and not worse than that
    output = apply("decode", halves, length=95)
    assert output.dtype == jnp.float32 and np.all(np.isfinite(output))
    params = jax.eval_shape(network.init, jax.random.key(0), waves)["params"]
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}
