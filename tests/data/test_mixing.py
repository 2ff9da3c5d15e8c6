import logging
from collections import Counter

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from decodec_jax.config import Data
from decodec_jax.data import mixing
from decodec_jax.data.clips import Clip
from decodec_jax.data.mixing import Mixer
from decodec_jax.data.sources import open_source
from decodec_jax.errors import UserError

RATE = 8000
NO_SHARES = {"clean": 0.0, "background_only": 0.0, "silent": 0.0}


class Waves:
    """A source over arrays, which remembers what was read."""

    sample_rate = RATE

    def __init__(self, speech, background, rooms=()):
        """speech: list of (speaker, wave); background: list of waves; a wave may be an exception to raise."""
        self.waves = [wave for _, wave in speech] + background + list(rooms)
        self.clips = [Clip(f"speech{k}", "speech", s, self._seconds(w), "train") for k, (s, w) in enumerate(speech)]
        self.clips += [Clip(f"noise{k}", "background", "", self._seconds(w), "train") for k, w in enumerate(background)]
        self.clips += [Clip(f"room{k}", "room", "", self._seconds(w), "train") for k, w in enumerate(rooms)]
        self.reads = Counter()

    @staticmethod
    def _seconds(wave):
        return 1.0 if isinstance(wave, Exception) else len(wave) / RATE

    def read(self, i, start=0.0, seconds=None):
        self.reads[self.clips[i].name] += 1
        if isinstance(self.waves[i], Exception):
            raise self.waves[i]
        first = round(start * RATE)
        return self.waves[i][first : None if seconds is None else first + round(seconds * RATE)]


def noise(t, seed=0, gain=0.1):
    return (gain * np.random.default_rng(seed).standard_normal(t)).astype(np.float32)


def plain_source():
    return Waves([(f"s{k}", noise(9000 + k, k)) for k in range(3)], [noise(9000, 10 + k) for k in range(3)])


def make(source, index=0, **config):
    return Mixer(source, Data(seconds=0.25, **config))(index, np.random.default_rng(index))


def check_contract(example, t):
    for key in ("speech", "background", "mixture", "swapped"):
        assert example[key].shape == (2, t) and example[key].dtype == np.float32
        assert np.isfinite(example[key]).all() and np.abs(example[key]).max() <= 1
    np.testing.assert_array_equal(example["mixture"], example["speech"] + example["background"])
    np.testing.assert_array_equal(example["swapped"], example["speech"] + example["background"][::-1])


def decibels(a, b):
    return 20 * np.log10(mixing.rms(a) / mixing.rms(b))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 3000), st.integers(0, 2**40),
    st.floats(-30, 60), st.floats(-60, 20), st.floats(0, 1e6),
)  # fmt: skip
def test_every_example_keeps_the_contract(speech, background, t, index, snr, level, gain):
    source = Waves([("s", noise(speech, 1, gain))], [noise(background, 2)])
    data = Data(seconds=t / RATE, snr=(snr, snr), level=(level, level))
    check_contract(Mixer(source, data)(index, np.random.default_rng(index)), t)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.0, 40.0])
def test_snr_and_level_are_those_of_the_crop(snr):
    for index in range(5):
        example = make(plain_source(), index, snr=(snr, snr), level=(-32.0, -30.0), **NO_SHARES)
        for speech, background in zip(example["speech"], example["background"], strict=True):
            np.testing.assert_allclose(decibels(speech, background), snr, atol=1e-3)
            assert -32.01 < 20 * np.log10(mixing.rms(speech)) < -29.99


def test_snr_is_uniform_in_its_range():
    found = []
    for index in range(300):
        example = make(plain_source(), index, snr=(-5.0, 40.0), **NO_SHARES)
        found += [decibels(*pair) for pair in zip(example["speech"], example["background"], strict=True)]
    assert -5.01 < min(found) < -4 and 39 < max(found) < 40.01 and abs(np.mean(found) - 17.5) < 2


def test_loud_pairs_are_scaled_jointly_and_keep_their_snr():
    example = make(plain_source(), snr=(3.0, 3.0), level=(0.0, 0.0), **NO_SHARES)
    check_contract(example, 2000)
    assert max(np.abs(example[key]).max() for key in example if example[key].ndim) > 0.99
    np.testing.assert_allclose(decibels(example["speech"], example["background"]), 3.0, atol=1e-3)


def test_shares_are_drawn_for_each_member_alone():
    config = {"clean": 0.2, "background_only": 0.3, "silent": 0.1}
    found = Counter()
    for index in range(1500):
        example = make(plain_source(), index, **config)
        states = [(example["speech"][m].any(), example["background"][m].any()) for m in range(2)]
        found.update(states)
        found["both silent"] += states == [(False, False)] * 2
    assert abs(found[(True, False)] / 3000 - 0.2) < 0.03
    assert abs(found[(False, True)] / 3000 - 0.3) < 0.03
    assert abs(found[(False, False)] / 3000 - 0.1) < 0.02
    assert 0 < found["both silent"] < 40


def test_background_alone_has_the_level():
    example = make(plain_source(), level=(-20.0, -20.0), clean=0.0, silent=0.0, background_only=1.0)
    assert not example["speech"].any()
    np.testing.assert_allclose(20 * np.log10(mixing.rms(example["background"])), -20.0, atol=1e-3)


def test_silent_clips_stay_silent_and_finite():
    example = make(Waves([("s", np.zeros(4000, np.float32))], [np.zeros(4000, np.float32)]), **NO_SHARES)
    check_contract(example, 2000)
    assert not example["mixture"].any()


def test_a_pause_is_not_raised_to_the_level_of_speech():
    pause = Waves([("s", noise(4000, gain=1e-4))], [noise(4000)])
    example = make(pause, level=(-20.0, -20.0), **NO_SHARES)
    assert mixing.rms(example["speech"]) < 0.1 * 0.05


def test_short_speech_lies_in_silence_and_short_background_is_looped():
    source = Waves([("s", noise(500))], [noise(300, 1)])
    offsets = set()
    for index in range(8):
        example = make(source, index, snr=(0.0, 0.0), **NO_SHARES)
        background, filled = example["background"][0], np.flatnonzero(example["speech"][0])
        np.testing.assert_array_equal(background[300:], background[:-300])
        assert filled[-1] - filled[0] < 500
        offsets.add(filled[0])
    assert len(offsets) > 4


def test_speakers_are_even_however_many_clips_they_have():
    speech = [("busy", noise(4000, k)) for k in range(20)] + [("rare", noise(4000, 30))]
    source = Waves(speech, [noise(4000)])
    for index in range(300):
        make(source, index, **NO_SHARES)
    assert 240 < source.reads["speech20"] < 360


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_speakers_and_backgrounds_are_drawn_by_their_seconds_to_the_power_of_balance(balance):
    seconds = np.array([1, 4, 16])
    long = noise(16 * RATE)
    speech = [(f"s{k}", long[:RATE]) for k, count in enumerate(seconds) for _ in range(count)]  # clips of a second
    source = Waves(speech, [long[: RATE * count] for count in seconds])
    mixer = Mixer(source, Data(seconds=0.01, balance=balance, **NO_SHARES))
    for index in range(1000):
        mixer(index, np.random.default_rng(index))
    speakers = Counter()
    for clip in source.clips[: len(speech)]:
        speakers[clip.speaker] += source.reads[clip.name]
    expected = seconds**balance / np.sum(seconds**balance)
    for reads in ([speakers[f"s{k}"] for k in range(3)], [source.reads[f"noise{k}"] for k in range(3)]):
        np.testing.assert_allclose(np.array(reads) / 2000, expected, atol=0.03)


def test_the_same_index_gives_the_same_example_from_any_mixer():
    first, second = (make(plain_source(), 7) for _ in range(2))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not np.array_equal(first["speech"], make(plain_source(), 8)["speech"])


def test_unusable_clips_are_replaced_counted_and_named_once(caplog):
    bad = [UserError("cut.flac is truncated"), UserError("nan.wav contains samples that are not finite numbers")]
    source = Waves([("a", noise(4000)), ("b", bad[0])], [noise(4000), bad[1]])
    mixer = Mixer(source, Data(seconds=0.25, **NO_SHARES))
    with caplog.at_level(logging.WARNING):
        made = [mixer(index, np.random.default_rng(index)) for index in range(30)]
    for example in made:
        check_contract(example, 2000)
        assert example["speech"].any(axis=1).all() and example["background"].any(axis=1).all()
    skipped = [int(example["skipped"]) for example in made]
    assert sum(skipped) == source.reads["speech1"] + source.reads["noise1"] > 30
    assert caplog.text.count("cut.flac") == 1 and caplog.text.count("nan.wav") == 1
    again = Mixer(source, Data(seconds=0.25, **NO_SHARES))(29, np.random.default_rng(29))
    assert all(np.array_equal(again[key], made[29][key]) for key in again)


def test_when_nothing_can_be_read_it_ends_in_one_line():
    source = Waves([("s", UserError("s.wav is damaged"))], [noise(4000)])
    with pytest.raises(UserError, match=r"20 speech clips in a row could not be used; the last one: s.wav is damaged"):
        make(source, **NO_SHARES)


@pytest.mark.parametrize("cache_mb", [0, 512])
def test_bad_files_among_good_ones_on_disk(corpus, add_row, cache_mb, caplog):
    (corpus / "speech/s0_0.flac").write_bytes((corpus / "speech/s0_0.flac").read_bytes()[:4000])
    soundfile.write(corpus / "nan.wav", np.full(12000, np.nan), RATE, subtype="FLOAT")
    soundfile.write(corpus / "low.wav", np.ones(6000) / 2, RATE // 2)
    soundfile.write(corpus / "short.wav", np.ones(100) / 2, RATE)
    for name, kind, seconds in [
        ("nan.wav", "noise", 1.5),
        ("low.wav", "speech", 1.5),
        ("short.wav", "speech", 100 / RATE),
    ]:
        add_row(corpus, name, "train", kind, name, "", seconds)
    data = Data(root=str(corpus), seconds=0.5, holdout=0.0, cache_mb=cache_mb, **NO_SHARES)
    mixer = Mixer(open_source(data, RATE), data)
    skipped = 0
    for index in range(60):
        example = mixer(index, np.random.default_rng(index))
        check_contract(example, 4000)
        skipped += int(example["skipped"])
    assert skipped > 10
    for name, reason in [("s0_0.flac", "truncated"), ("nan.wav", "not finite"), ("low.wav", "at 4000 Hz")]:
        assert sum(name in line and reason in line for line in caplog.messages) == 1
    assert "short.wav" not in caplog.text


def test_validation_examples_are_fixed_audible_and_spread_over_snr():
    half = noise(9000)
    half[:4500] = 0
    mixer = Mixer(Waves([("s", half)], [half]), Data(seconds=0.25, clean=0.5, silent=0.5))
    snr = []
    for index in range(10):
        example = mixer.valid(index)
        check_contract(example, 2000)
        measured = [decibels(*pair) for pair in zip(example["speech"], example["background"], strict=True)]
        np.testing.assert_allclose(measured, example["snr"], atol=1e-3)
        snr += list(example["snr"])
        again = mixer.valid(index)
        assert all(np.array_equal(example[key], again[key]) for key in example)
    assert Counter(snr) == {value: 4 for value in mixing.VALID_SNR}
