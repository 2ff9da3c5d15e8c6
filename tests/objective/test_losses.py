import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.codec.model import Halves
from decodec_jax.codec.quantize import Quantized
from decodec_jax.config import Loss
from decodec_jax.objective import losses
from decodec_jax.objective.spectral import magnitude_distance, mel_distance

RATE = 16_000


def loss(**weights):
    """Weights of which only those named are not 0."""
    zero = dict.fromkeys((*losses.OUTPUT_TERMS, "perp", "commitment", "codebook", "guidance"), 0.0)
    return Loss(**(zero | {"mel_windows": (64,), "mel_bands": (10,)} | weights))


@pytest.fixture
def waves(rng):
    return jnp.float32(rng.standard_normal((2, 4, 200)))  # output and target


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


def test_reconstruction_terms_compare_outputs_with_their_targets(waves):
    output, target = waves
    weights = loss(wave=2.0, mel=3.0, magnitude=4.0, magnitude_windows=(64,), mel_floor=-50.0)
    terms = losses.reconstruction_terms(output, target, weights, RATE)
    assert set(terms) == {"wave", "mel", "magnitude"}  # without their weights
    np.testing.assert_allclose(terms["wave"], np.mean(np.abs(output - target)), rtol=1e-5)
    mel = np.mean(mel_distance(output, target, RATE, (64,), (10,), floor=-50.0))
    np.testing.assert_allclose(terms["mel"], mel, rtol=1e-5)
    magnitude = np.mean(magnitude_distance(output, target, (64,)))
    np.testing.assert_allclose(terms["magnitude"], magnitude, rtol=1e-5)


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


@pytest.mark.parametrize("left_out", ["wave", "mel", "magnitude", "perp", "commitment", "codebook"])
def test_a_term_of_weight_zero_is_absent(waves, latents, left_out):
    weights = Loss(mel_windows=(64,), mel_bands=(10,), magnitude=1.0, magnitude_windows=(64,))
    setattr(weights, left_out, 0.0)
    terms = losses.latent_terms(*latents, weights) | losses.reconstruction_terms(*waves, weights, RATE)
    assert len(terms) == 5 and left_out not in terms


def test_spectra_are_taken_through_per_device_and_only_where_their_terms_have_weight(waves):
    def counted(function):
        def outcome(*arguments):
            asked.append(function)
            return function(*arguments)

        return outcome

    for weights, count in (({"wave": 1.0}, 0), ({"mel": 1.0}, 1), ({"wave": 1.0, "mel": 1.0, "magnitude": 1.0}, 2)):
        asked = []
        losses.reconstruction_terms(*waves, loss(magnitude_windows=(64,), **weights), RATE, per_device=counted)
        assert len(asked) == count


def test_weighted_sum_weighs_each_term_by_the_weight_of_its_name():
    weights = loss(wave=500.0, perp=10.0, codebook=0.5)
    terms = {"wave": jnp.array(0.01), "perp": jnp.array(0.3), "codebook": jnp.array(4.0)}
    np.testing.assert_allclose(losses.weighted_sum(terms, weights), 5 + 3 + 2)
