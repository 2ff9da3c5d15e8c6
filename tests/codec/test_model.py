import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.decodec import get_config
from decodec_jax.codec.model import FAMILIES, DeCodecNetwork, Halves, initialise, lookahead, swap
from decodec_jax.objective.losses import weighted_sum
from decodec_jax.testing import random_variables, speech_clips, tiny_config, tiny_model, tiny_quantizer, training_batch
from decodec_jax.training.generator import drawn_kinds, generate
from decodec_jax.training.sharding import make_mesh
from decodec_jax.training.step import judge_output


def make_network(model=None, seed=0, precision="float32"):
    """`(network, apply)`, apply being compiled: `apply("method", *arrays)`, and `apply("decode", halves, length)`."""
    network = DeCodecNetwork(model or tiny_model(), precision=precision)
    variables = random_variables(network, jnp.zeros((1, network.config.hop)), seed=seed)
    compiled = jax.jit(network.apply, static_argnames=("method", "length"))
    return network, lambda method, *arrays, **static: compiled(variables, *arrays, method=method, **static)


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request):
    return make_network(tiny_model(family=request.param))


@pytest.fixture
def waves(rng):
    return jnp.float32(0.5 * rng.standard_normal((4, 95)))


def vectors_of(quantized):
    return Halves(quantized.speech.vectors, quantized.background.vectors)


# --- lengths ----------------------------------------------------------------------------------------------------------


def bare(**changes):
    """A network without LSTM and with few layers, quick to trace: lengths do not depend on the others."""
    return tiny_model(**{"dilations": (1,), "lstm_layers": 0, "decoder_blocks": 1} | changes)


def lengths_of(model, *lengths):
    """(frames, samples) that each of these numbers of samples becomes, and comes back as."""
    network = DeCodecNetwork(model)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, model.hop)))

    def there_and_back(variables, wave):
        halves = network.apply(variables, wave, method="embed")
        return halves.speech, network.apply(variables, halves, wave.shape[1], method="decode")

    each = (jax.eval_shape(there_and_back, variables, jax.ShapeDtypeStruct((1, t), jnp.float32)) for t in lengths)
    return [(halves.shape[1], wave.shape[1]) for halves, wave in each]


@settings(max_examples=10)
@given(strides=st.lists(st.integers(2, 9), min_size=1, max_size=3), causal=st.booleans(), t=st.integers(1, 2000))
def test_any_strides_give_back_exactly_the_samples_that_went_in(strides, causal, t):
    model = bare(strides=tuple(strides), causal=causal, decoder_channels=16)
    assert lengths_of(model, t) == [(-(-t // model.hop), t)]


@settings(max_examples=10)
@given(hop=st.integers(1, 40), kernel=st.integers(1, 7), causal=st.booleans(), t=st.integers(1, 2000))
def test_any_hop_gives_back_exactly_the_samples_that_went_in(hop, kernel, causal, t):
    model = bare(family="spectral", hop=2 * hop, kernel=kernel, causal=causal)
    assert lengths_of(model, t) == [(-(-t // model.hop), t)]


@pytest.mark.parametrize("changes", [
    {"strides": (5, 2), "causal": False}, {"strides": (3, 2), "causal": True},
    {"family": "spectral", "hop": 10, "causal": False}, {"family": "spectral", "hop": 6, "causal": True},
], ids=str)  # fmt: skip
def test_every_length_to_two_hops_and_one_comes_back_exactly(changes):
    model = bare(**changes)
    lengths = range(1, 2 * model.hop + 2)
    assert lengths_of(model, *lengths) == [(-(-t // model.hop), t) for t in lengths]


@pytest.mark.parametrize("t", [1, 21])
def test_real_runs_have_the_exact_length_and_whole_frames(tiny, t):
    network, apply = tiny
    taken = apply("take_apart", jnp.float32(speech_clips(2, t)))
    assert taken.mixture.shape == taken.speech.shape == taken.background.shape == (2, t)
    for codes in taken.codes:
        assert codes.shape == (2, 2, -(-t // 20)) and codes.dtype == jnp.int32
    assert np.all(np.isfinite(taken.mixture)) and taken.mixture.dtype == jnp.float32
    if network.config.family == "waveform":
        assert np.all(np.abs(taken.mixture) <= 1)


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


@pytest.mark.parametrize("projection", ["learned", "exact"])
def test_the_halves_may_have_different_quantizers(waves, projection):
    model = bare(
        projection=projection,
        speech=tiny_quantizer(kind="factorised", levels=3, dim=2, first_dim=3),
        background=tiny_quantizer(levels=1, entries=8),
    )
    _, apply = make_network(model)
    codes = apply("encode", waves)
    assert codes.speech.shape == (4, 3, 5) and codes.background.shape == (4, 1, 5)
    assert np.max(codes.background) < 8
    vectors = vectors_of(apply("quantize", apply("embed", waves)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), apply("vectors", codes), vectors)


def test_recombine_is_the_projection_s_join_and_swap_exchanges_neighbours(rng):
    speech, background = rng.standard_normal((2, 6, 3, 8)).astype(np.float32)
    _, apply = make_network(bare())
    np.testing.assert_array_equal(apply("recombine", Halves(speech, background)), speech + background)
    _, apply = make_network(bare(projection="exact", latent=16))
    joined = np.concatenate([speech, background], axis=-1)
    np.testing.assert_array_equal(apply("recombine", Halves(speech, background)), joined)
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


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_output_sample_of_a_causal_network_depends_on_samples_beyond_its_latency(rng, family, causal):
    model = bare(family=family, causal=causal, lstm_layers=2, decoder_blocks=2)
    _, apply = make_network(model)
    late, hop = lookahead(model), model.hop
    assert late == (1 if family == "spectral" else 0)
    wave = 0.5 * rng.standard_normal((1, 6 * hop)).astype(np.float32)
    there, codes_there = apply(None, wave), apply("encode", wave)
    for frame in range(1, 6 - late):
        other = wave.copy()
        other[:, (frame + late) * hop :] = 0.5 * rng.standard_normal(other[:, (frame + late) * hop :].shape)
        unchanged = np.array_equal(apply(None, other)[:, : frame * hop], there[:, : frame * hop])
        assert unchanged == causal
        if causal:
            for a, b in zip(apply("encode", other), codes_there, strict=True):
                np.testing.assert_array_equal(a[:, :, :frame], b[:, :, :frame])


def test_the_spectral_family_does_hear_the_next_frame(rng):
    model = bare(family="spectral", causal=True)
    _, apply = make_network(model)
    wave = 0.5 * rng.standard_normal((1, 4 * model.hop)).astype(np.float32)
    other = wave.copy()
    other[:, 2 * model.hop :] *= -1
    heard, otherwise = apply("embed", wave).speech, apply("embed", other).speech
    np.testing.assert_array_equal(heard[:, 0], otherwise[:, 0])
    assert not np.allclose(heard[:, 1], otherwise[:, 1], atol=1e-2)


# --- silence, sizes, types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_silence_everywhere_gives_a_finite_objective_and_finite_gradients(family):
    factorised = tiny_quantizer(kind="factorised", dim=4)
    config = tiny_config(
        family=family, dilations=(1,), strides=(5, 2), hop=10, decoder_lstm=False, background=factorised
    )
    loss = config.loss
    loss.mel_windows, loss.mel_bands, loss.magnitude_windows, loss.magnitude = (64,), (10,), (64,), 1.0
    loss.own = loss.swap = loss.speech = loss.background = 0.5
    mesh = make_mesh(config.mesh, config.data.batch)
    variables = random_variables(DeCodecNetwork(config.model), jnp.zeros((1, 10)))
    silence = jax.tree.map(jnp.zeros_like, training_batch(config))
    kinds = drawn_kinds(loss, config.data.batch, jax.random.key(0))

    @jax.jit
    def objective(started):
        def latents(params):
            key = jax.random.key(0)
            return generate(config, params, variables["codebook"], silence, kinds, key, started, None)

        (decoded, total), pull, (of_latents, quantized, *_) = jax.vjp(latents, variables["params"], has_aux=True)
        of_decoded, gradient, _, _ = judge_output(config, mesh, False, decoded, kinds, {}, {}, silence)
        return total, of_latents, of_decoded, quantized, pull((gradient, jnp.ones_like(total)))

    for started in (False, True):
        total, of_latents, of_decoded, *rest = objective(started)
        assert set(of_latents) == {"perp", "commitment", "codebook"}
        assert set(of_decoded) == {"wave", "mel", "magnitude"}
        np.testing.assert_allclose(total, weighted_sum(of_latents, loss), rtol=1e-6)
        assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves((total, of_latents, of_decoded, rest)))


@pytest.mark.parametrize("variant", ["paper", "causal", "light", "small", "small_ablation2", "tiny", "tiny_causal"])
def test_variants_build_and_reconstruct_one_second(variant):
    model = get_config(variant).model
    params, codebook = jax.eval_shape(lambda key: initialise(model, key), jax.random.key(0))
    wave = jax.ShapeDtypeStruct((1, model.sample_rate), jnp.float32)
    variables = {"params": params, "codebook": codebook}
    assert jax.eval_shape(DeCodecNetwork(model).apply, variables, wave).shape == (1, model.sample_rate)


@pytest.mark.parametrize(("variant", "millions"), [("paper", 117.7), ("causal", 131.3)])
def test_full_size_has_its_widths_and_number_of_parameters(variant, millions):
    model = get_config(variant).model
    stack = model.waveform
    assert (stack.channels, stack.strides, stack.decoder_channels) == (64, (2, 4, 5, 8), 1536)
    assert (model.family, model.latent, model.hop, stack.lstm_layers) == ("waveform", 1024, 320, 2)
    params, codebook = jax.eval_shape(lambda key: initialise(model, key), jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(params)) / 1e6 == pytest.approx(millions, abs=0.1)
    assert codebook["speech_quantizer"]["levels"].entries.shape == (8, 1024, 1024)
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_testing_models_are_small(family):
    network = DeCodecNetwork(tiny_model(family=family))
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, network.config.hop)))["params"]
    assert 2000 < sum(p.size for p in jax.tree.leaves(params)) < 25_000


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_products_keep_parameters_latents_and_waveforms_in_float32(waves, family):
    network, apply = make_network(bare(family=family), precision="bfloat16")
    _, exact = make_network(bare(family=family))
    halves, halves_exact = apply("embed", waves), exact("embed", waves)
    assert {h.dtype for h in halves} == {jnp.dtype("float32")}
    for half, half_exact in zip(halves, halves_exact, strict=True):
        error = np.linalg.norm(half - half_exact) / np.linalg.norm(half_exact)
        assert 1e-5 < error < 0.1  # it does compute in bfloat16, and not worse than that
    output = apply("decode", halves, length=95)
    assert output.dtype == jnp.float32 and np.all(np.isfinite(output))
    params = jax.eval_shape(network.init, jax.random.key(0), waves)["params"]
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}
