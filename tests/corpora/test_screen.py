"""What is unfit is called by its name, and a long recording is cut at its pauses."""

import numpy as np
import pytest
from scipy.signal import firwin, oaconvolve

from decodec_jax import testing
from decodec_jax.corpora import screen
from decodec_jax.inference.loudness import level_of_pieces

RATE = 16_000


def clip(seconds=2.0):
    t = round(seconds * RATE)
    return (testing.speech_clips(1, t) + 0.1 * testing.background_clips(1, t))[0]


def fault(wave, kind="speech"):
    return screen.fault(wave, RATE, kind, level_of_pieces([wave[None]], RATE), screen.Limits())


@pytest.mark.parametrize(
    ("change", "kind", "name"),
    [
        (lambda x: x, "speech", ""), (lambda x: x[:1000], "speech", "too short"),
        (lambda x: 0 * x, "speech", "too quiet"), (lambda x: 1e-3 * x, "speech", "too quiet"),
        (lambda x: np.clip(8 * x, -1, 1), "speech", "clipped"), (lambda x: np.clip(8 * x, -1, 1), "room", ""),
        (lambda x: np.clip(8 * x, -0.7, 0.7), "background", "clipped"),
        (lambda x: x * 0.99 / abs(x).max(), "speech", ""),
        (lambda x: oaconvolve(x, firwin(801, 3400, fs=RATE))[400:-400], "speech", "band-limited"),
        (lambda x: oaconvolve(x, firwin(801, 3400, fs=RATE))[400:-400], "background", ""),
    ],
)  # fmt: skip
def test_faults_have_names(change, kind, name):
    assert fault(change(clip()).astype(np.float32), kind) == name


def test_a_sine_at_full_scale_is_not_clipped():
    assert screen.clipped(np.sin(np.arange(RATE) * 0.3).astype(np.float32)) == 0
    assert screen.clipped(np.zeros(0, np.float32)) == 0


def test_bandwidth_is_where_the_spectrum_ends():
    tone = np.sin(2 * np.pi * 3000 * np.arange(RATE) / RATE)
    assert 3000 <= screen.bandwidth(tone.astype(np.float32), RATE) < 3400
    assert screen.bandwidth(np.zeros(10, np.float32), RATE) == 0


def test_long_recordings_are_cut_at_pauses_and_nothing_is_lost():
    wave = clip(7.0)
    for begin in (1.6, 3.3, 5.0):  # pauses of 0.3 s
        wave[round(begin * RATE) : round((begin + 0.3) * RATE)] *= 1e-3
    cuts = list(screen.split(np.split(wave, range(999, len(wave), 999)), RATE, 2.5))
    np.testing.assert_array_equal(np.concatenate(cuts), wave)
    ends = np.cumsum([len(each) for each in cuts])[:-1] / RATE
    np.testing.assert_allclose(ends, [1.75, 3.45, 5.15], atol=0.1)
    assert [len(each) for each in screen.split([wave], RATE, 2.5)] == [len(each) for each in cuts]
    assert len(list(screen.split([wave], RATE, 7.0))) == 1 and not list(screen.split([], RATE, 7.0))
