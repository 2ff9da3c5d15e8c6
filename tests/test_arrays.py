import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax import arrays
from decodec_jax.errors import UserError


def test_integers_are_scaled_by_their_type():
    for dtype, least, silence, most in (("i2", -(2**15), 0, 2**14), ("<i4", -(2**31), 0, 2**30), ("u1", 0, 128, 192)):
        stored = np.array([[least, silence, most]], dtype)
        np.testing.assert_array_equal(arrays.waveform(stored), np.float32([[-1, 0, 0.5]]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f4", np.float64, np.longdouble, jnp.bfloat16])
def test_floats_keep_their_values(dtype):
    wave = np.array([0.5, -0.25], dtype)
    taken = arrays.waveform(wave)
    assert taken.dtype == np.float32 and taken.tolist() == [0.5, -0.25]


@pytest.mark.parametrize(
    ("wave", "words"),
    [
        (np.zeros(3, np.int64), "samples are int64"), ([0, 1], "int64"), (np.zeros(3, np.int8), "int8"),
        (np.zeros(3, np.uint16), "uint16"), (np.zeros(3, bool), "bool"), (["a"], "samples are <U1"),
        (np.zeros(3, complex), r"pass x\.real"), (None, "object"), ([[0.0], [0.0, 1.0]], "not an array of numbers"),
        (np.zeros((24_000, 2)), r"shape \(24000, 2\), would have more channels.*pass x\.T"),
        (np.zeros((48_000, 1), np.int16), r"x\.T"), (0.5, r"shape \(\)"),
        (np.full(3, 1e300), "3 samples that are NaN or inf"),
        ([32_767.0, 0.0], "reaches 32767; floats must be about"),
    ],
)  # fmt: skip
def test_what_is_not_a_waveform_is_one_line(wave, words):
    with pytest.raises(UserError, match=words) as caught:
        arrays.waveform(wave)
    assert "\n" not in str(caught.value)


def test_many_channels_are_a_waveform():
    assert arrays.waveform(np.zeros((64, 64))).shape == (64, 64)
    assert arrays.waveform(np.zeros((32, 2))).shape == (32, 2)


def test_tensors_of_any_kind():
    torch = pytest.importorskip("torch")
    for tensor in (torch.ones(4, requires_grad=True), torch.ones(4, dtype=torch.bfloat16), torch.ones(4).double()):
        np.testing.assert_array_equal(arrays.waveform(tensor / 4), np.full(4, 0.25, np.float32))
    assert arrays.waveform(torch.full((4,), 2**14, dtype=torch.int16)).tolist() == [0.5] * 4


@pytest.mark.parametrize("hz", [16_000, 16_000.0, np.int32(16_000), np.array(16_000), jnp.float32(16_000)])
def test_a_rate_is_a_whole_number(hz):
    assert type(arrays.checked_rate(hz)) is int and arrays.checked_rate(hz) == 16_000
