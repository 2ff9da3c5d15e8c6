import jax
import numpy as np
import pytest

from decodec_jax.codec.product import PRECISIONS
from decodec_jax.objective.perceptual import perceptual_distance
from decodec_jax.objective.teacher import CepstraTeacher, WhisperTeacher
from decodec_jax.objective.whisper import Whisper, WhisperSizes
from decodec_jax.testing import background_clips, random_variables, speech_clips

SIZES = WhisperSizes(bands=8, width=8, layers=2, heads=2, feed_forward=8)

distance = jax.jit(perceptual_distance)
gradient = jax.jit(jax.grad(lambda *arguments: perceptual_distance(*arguments).sum()))


@pytest.fixture(scope="module", params=["cepstra", "whisper"])
def teacher(request):
    if request.param == "cepstra":
        return CepstraTeacher()
    params = random_variables(Whisper(SIZES), np.zeros((1, 2, 8), np.float32))["params"]
    return WhisperTeacher(params, SIZES, "0")


def test_it_is_zero_for_the_reference_and_grows_with_the_noise(teacher):
    speech, noise = speech_clips(2, 6400), background_clips(2, 6400)
    same, little, much = (distance(speech + share * noise, speech, teacher) for share in (0.0, 0.1, 1.0))
    np.testing.assert_allclose(same, 0, atol=1e-6)
    assert same.shape == (2,) and np.all(little > 0) and np.all(much > little)


def test_it_is_the_mean_over_layers_of_differences_in_standard_deviations(teacher):
    output, target = background_clips(2, 3200), speech_clips(2, 3200)
    heard, wanted = np.asarray(teacher.states(output)), np.asarray(teacher.states(target))
    each = [np.abs(h - w) / (w.std(axis=(0, 1)) + 1e-3) for h, w in zip(heard, wanted, strict=True)]
    np.testing.assert_allclose(distance(output, target, teacher), np.mean(each, axis=(0, 2, 3)), rtol=1e-4)


def test_silence_has_a_finite_gradient(teacher):
    speech, silence = speech_clips(2, 3200), np.zeros((2, 3200), np.float32)
    for output, target in ((speech, silence), (silence, speech), (silence, silence)):
        assert np.all(np.isfinite(gradient(output, target, teacher)))


def test_products_in_bfloat16_change_it_by_little():
    sizes = WhisperSizes(bands=8, width=32, layers=2, heads=2, feed_forward=64)
    params = random_variables(Whisper(sizes), np.zeros((1, 2, 8), np.float32))["params"]
    exact, rounded = (WhisperTeacher(params, sizes, "0", precision) for precision in PRECISIONS)
    output, target = background_clips(2, 6400), speech_clips(2, 6400)
    np.testing.assert_allclose(distance(output, target, rounded), distance(output, target, exact), rtol=0.02)
    wanted, found = (np.asarray(gradient(output, target, teacher)).ravel() for teacher in (exact, rounded))
    assert not np.array_equal(wanted, found)
    assert np.dot(wanted, found) > 0.99 * np.linalg.norm(wanted) * np.linalg.norm(found)
