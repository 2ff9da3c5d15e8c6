"""The codec in use: any length, rate and number of channels come back as they went in."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodec_jax import testing
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec, in_windows


@pytest.fixture(scope="module")
def codec():
    model = testing.tiny_model()
    from decodec_jax.codec.model import initialise

    return DeCodec(model, *initialise(model, jax.random.key(0)))


@pytest.mark.parametrize("shape", [(1,), (19,), (20,), (4000,), (2, 4001)])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_shape_and_rate_are_kept(codec, shape, rate):
    wave = 0.1 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for task in (codec.reconstruct, codec.enhance, codec.background):
        out = task(wave, rate)
        assert out.shape == shape
        assert out.dtype == np.float32
        assert np.isfinite(out).all()


def test_channels_are_processed_one_by_one(codec):
    stereo = testing.speech_clips(2, 3000)
    together = codec.enhance(stereo, 16_000)
    for channel in range(2):
        np.testing.assert_allclose(together[channel], codec.enhance(stereo[channel], 16_000), atol=1e-5)


def test_blank_is_silence_of_the_same_length(codec):
    """Enhancing silence and reconstructing it are the same decoding: both streams are blank."""
    silence = np.zeros(4000, np.float32)
    np.testing.assert_allclose(codec.enhance(silence, 16_000), codec.reconstruct(silence, 16_000), atol=1e-6)
    np.testing.assert_allclose(codec.background(silence, 16_000), codec.reconstruct(silence, 16_000), atol=1e-6)


@pytest.mark.parametrize(
    ("wave", "reason"),
    [(np.zeros(0), "no samples"), (np.array([0.0, np.nan]), "NaN"), (np.array([np.inf]), "infinite"),
     (np.zeros((1, 2, 3)), "shape")],
)  # fmt: skip
def test_what_is_not_a_waveform_is_refused(codec, wave, reason):
    with pytest.raises(UserError, match=reason):
        codec.enhance(wave, 16_000)


@given(t=st.integers(1, 500), window=st.integers(20, 60), context=st.integers(1, 9))
def test_windows_hide_nothing_and_repeat_nothing(t, window, context):
    wave = np.random.default_rng(t).standard_normal((2, t)).astype(np.float32)
    lengths = []

    def process(x):
        lengths.append(x.shape[-1])
        return x

    np.testing.assert_allclose(in_windows(process, wave, window, context), wave, atol=1e-5)
    assert set(lengths) == {min(t, window)}  # one shape, so one compilation


def test_loading_what_is_not_a_run(tmp_path):
    with pytest.raises(UserError, match="neither a bundle nor a run folder"):
        DeCodec.load(tmp_path / "nowhere")
