import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from decodec_jax.objective.cepstra import HOP
from decodec_jax.objective.teacher import CepstraTeacher, of_whole_clips
from decodec_jax.testing import speech_clips, tiny_model, tiny_quantizer


@pytest.fixture(scope="module")
def compare():
    path = Path(__file__).parents[2] / "launch/compare_targets.py"
    spec = importlib.util.spec_from_file_location("compare_targets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_crops_are_paired_with_the_same_frames_of_the_whole_clip(compare):
    (wave,) = speech_clips(1, 10 * HOP + 7)
    whole = of_whole_clips(CepstraTeacher())
    ours, theirs = compare.of_crops(CepstraTeacher(), whole, wave, 4 * HOP / 16_000)
    assert ours.shape == theirs.shape == (8, CepstraTeacher.width)
    np.testing.assert_array_equal(theirs, whole(wave)[:8])
    np.testing.assert_allclose(ours[4:], CepstraTeacher().targets(wave[None, 4 * HOP : 8 * HOP])[0], rtol=0, atol=1e-4)
    assert 0 < compare.cosine(ours, theirs) < compare.cosine(theirs, theirs) == pytest.approx(1, abs=1e-4)


def test_targets_interpolated_to_a_speed_are_nearer_than_unchanged_ones(compare):
    (wave,) = speech_clips(1, 32_000)
    whole = of_whole_clips(CepstraTeacher())
    interpolated, unchanged = compare.cosines_at(whole, wave, 0.9)
    assert interpolated > unchanged
    assert compare.cosines_at(whole, wave, 1.0) == pytest.approx((1, 1), abs=1e-4)


def test_codes_that_name_the_phones_are_always_right(compare, monkeypatch):
    phones = np.arange(12) % 3
    frames = compare.probe.Frames(7 - phones, phones, np.array(list("ab" * 6)), np.arange(12) // 6)
    monkeypatch.setattr(compare.probe, "first_level", lambda model, spoken: frames)
    model = SimpleNamespace(config=tiny_model(speech=tiny_quantizer(entries=8)))
    assert compare.of_codes(model, []) == 1
