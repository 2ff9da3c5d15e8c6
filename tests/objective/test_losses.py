import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.codec.model import Halves
from decodec_jax.codec.quantize import Quantized
from decodec_jax.config import Loss
from decodec_jax.objective import losses
from decodec_jax.objective.spectral import compressed_distance, mel_distance

RATE = 16_000


def loss(**weights):
    """Weights of which only those named are not 0."""
    zero = dict.fromkeys((*losses.OUTPUT_TERMS, "perp", "commitment", "codebook", "guidance"), 0.0)
    return Loss(**(zero | {"mel_windows": (64,), "mel_bands": (10,)} | weights))


@pytest.fixture
def waves(rng):
    outputs, targets = ({k: jnp.float32(rng.standard_normal((4, 200))) for k in ("own", "swap")} for _ in range(2))
    return outputs, targets


@pytest.fixture
def latents():
    halves = Halves(jnp.array([[[1.0, 0]], [[1, 0]]]), jnp.array([[[1.0, 1]], [[0, 2]]]))  # cosines 1/sqrt(2) and 0
    # the speech's codebooks are moved by averages: they have no loss
    speech = Quantized(halves.speech, halves.speech, None, jnp.array([1.0, 3]), None, {})
    background = Quantized(halves.background, None, None, jnp.array([0.0, 1]), jnp.array([2.0, 6]), {})
    return halves, Halves(speech, background)


def test_waveform_distance_is_the_mean_absolute_difference():
    output, target = jnp.array([[0.0, 1, -1, 2], [1, 1, 1, 1]]), jnp.array([[0.0, 0, 1, 0], [1, 1, 1, 0]])
    np.testing.assert_allclose(losses.waveform_distance(output, target), [5 / 4, 1 / 4])


@pytest.mark.parametrize("kind", ["own", "swap"])
def test_reconstruction_terms_compare_each_output_with_its_own_target(waves, kind):
    outputs, targets = waves
    names = [f"{term}_{kind}" for term in ("wave", "mel", "spectrum")]
    weights = loss(spectrum_windows=(64,), **dict(zip(names, (2.0, 3.0, 4.0), strict=True)))
    terms = losses.reconstruction_terms(outputs, targets, weights, RATE)
    assert set(terms) == set(names)
    spectrum = np.mean(compressed_distance(outputs[kind], targets[kind], (64,)))
    np.testing.assert_allclose(terms[f"spectrum_{kind}"], spectrum, rtol=1e-5)
    np.testing.assert_allclose(terms[f"wave_{kind}"], np.mean(np.abs(outputs[kind] - targets[kind])), rtol=1e-5)
    mel = np.mean(mel_distance(outputs[kind], targets[kind], RATE, (64,), (10,)))
    np.testing.assert_allclose(terms[f"mel_{kind}"], mel, rtol=1e-5)


def test_level_free_waveform_terms_count_quiet_clips_as_much_as_loud_ones(rng):
    target = 0.05 * rng.standard_normal((1, 4000)).astype(np.float32)
    target /= np.sqrt(np.mean(target**2)) / 0.05
    weights = loss(wave_own=1.0, level_free=True)

    def term(level, output):
        terms = losses.reconstruction_terms({"own": level * output}, {"own": level * target}, weights, RATE)
        return float(terms["wave_own"])

    usual = np.mean(np.abs(target))
    for level in (0.5, 1.0, 3.0):
        assert term(level, np.zeros_like(target)) == pytest.approx(usual, rel=1e-4)
    assert term(1e-3, np.zeros_like(target)) == pytest.approx(1e-3 * 2.5 * usual, rel=1e-4)  # near silence, no more
    assert term(0.0, np.zeros_like(target)) == 0


def test_only_waveforms_that_were_decoded_have_terms(waves):
    outputs, targets = ({"own": side["own"]} for side in waves)
    terms = losses.reconstruction_terms(outputs, targets, loss(wave_own=1.0, wave_swap=1.0, mel_swap=1.0), RATE)
    assert set(terms) == {"wave_own"}


def test_latent_terms_by_hand(latents):
    terms = losses.latent_terms(*latents, loss(perp=1.0, commitment=1.0, codebook=1.0))
    assert set(terms) == {"perp", "commitment", "codebook"}
    np.testing.assert_allclose(terms["perp"], (np.sqrt(1 / 2) + 0) / 2, atol=1e-4)
    np.testing.assert_allclose(terms["commitment"], 2 + 0.5)
    np.testing.assert_allclose(terms["codebook"], 4)


def test_codebooks_moved_by_averages_have_no_codebook_term(latents):
    halves, quantized = latents
    both = Halves(quantized.speech, quantized.speech)
    assert set(losses.latent_terms(halves, both, loss(commitment=1.0, codebook=1.0))) == {"commitment"}


@pytest.mark.parametrize("left_out", ["wave_own", "wave_swap", "mel_own", "mel_swap", "perp", "commitment", "codebook"])
def test_a_term_of_weight_zero_is_absent(waves, latents, left_out):
    weights = Loss(mel_windows=(64,), mel_bands=(10,))
    setattr(weights, left_out, 0.0)
    terms = losses.latent_terms(*latents, weights) | losses.reconstruction_terms(*waves, weights, RATE)
    assert len(terms) == 6 and left_out not in terms


def test_mel_of_weight_zero_is_not_computed_on_any_device(waves):
    def refuse(function):
        raise AssertionError("the mel distance was asked for")

    losses.reconstruction_terms(*waves, loss(wave_own=1.0, wave_swap=1.0), RATE, per_device=refuse)


def test_weighted_sum_weighs_each_term_by_the_weight_of_its_name():
    weights = loss(wave_swap=500.0, perp=10.0, codebook=0.5)
    terms = {"wave_swap": jnp.array(0.01), "perp": jnp.array(0.3), "codebook": jnp.array(4.0)}
    np.testing.assert_allclose(losses.weighted_sum(terms, weights), 5 + 3 + 2)
