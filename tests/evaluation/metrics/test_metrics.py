import sys
from types import ModuleType

import librosa
import numpy as np
import pytest

from decodec_jax.errors import UserError
from decodec_jax.evaluation.metrics import (
    bitrate,
    bss_sdr,
    estoi,
    log_mel_distance,
    mel_distance,
    perplexity,
    pesq,
    sdr,
    separation,
    si_sdr,
    surprisal,
    usage,
)
from decodec_jax.testing import background_clips, speech_clips


@pytest.fixture
def clips():
    """Three speech clips, three backgrounds and their mixtures, `[3, 8000]` float32."""
    speech, background = speech_clips(3, 8000), background_clips(3, 8000)
    return {"speech": speech, "background": background, "mixture": speech + background}


def si_sdr_by_angle(estimate, reference):
    """SI-SDR from the correlation coefficient alone: rho^2 / (1 - rho^2)."""
    rho = np.corrcoef(np.float64(estimate), np.float64(reference))[0, 1]
    return 10 * np.log10(rho**2 / (1 - rho**2))


def test_sdr_equals_the_ratio_of_powers(clips):
    for part in ("speech", "background"):
        reference = np.float64(clips[part])
        noise = np.float64(clips["mixture"]) - reference
        expected = 20 * np.log10(np.linalg.norm(reference, axis=1) / np.linalg.norm(noise, axis=1))
        np.testing.assert_allclose(sdr(clips["mixture"], clips[part]), expected, atol=1e-3)


def test_si_sdr_equals_the_formula_of_the_correlation_coefficient(clips):
    for part in ("speech", "background"):
        expected = [si_sdr_by_angle(*pair) for pair in zip(clips["mixture"], clips[part], strict=True)]
        np.testing.assert_allclose(si_sdr(clips["mixture"], clips[part]), expected, atol=1e-3)


@pytest.mark.parametrize("gain", [-2.0, 0.1, 30.0])
def test_si_sdr_is_free_of_scale_and_offset_and_sdr_is_not(clips, gain):
    before = si_sdr(clips["mixture"], clips["speech"])
    np.testing.assert_allclose(si_sdr(gain * clips["mixture"] + 0.1, clips["speech"]), before, atol=1e-2)
    assert np.all(np.abs(sdr(gain * clips["mixture"], clips["speech"]) - sdr(clips["mixture"], clips["speech"])) > 0.5)


def test_a_perfect_estimate_scores_far_above_any_other_and_finitely(clips):
    for measure in (sdr, si_sdr):
        perfect = measure(clips["speech"], clips["speech"])
        assert np.all(np.isfinite(perfect)) and np.all(perfect > 80)


def test_an_estimate_of_silence_has_an_sdr_of_zero(clips):
    np.testing.assert_allclose(sdr(np.zeros_like(clips["speech"]), clips["speech"]), 0, atol=1e-6)


@pytest.mark.parametrize("estimate", ["silence", "speech"])
@pytest.mark.parametrize("reference", ["silence", "speech"])
def test_silence_on_either_side_is_finite(clips, estimate, reference):
    waves = {"silence": np.zeros_like(clips["speech"]), "speech": clips["speech"]}
    for measure in (sdr, si_sdr):
        assert np.all(np.isfinite(measure(waves[estimate], waves[reference])))


def bss_sdr_by_least_squares(estimates, reference, taps=512):
    """BSS-eval's SDR with each delay of the reference a column."""
    delays = np.stack([np.pad(reference, (delay, taps - 1 - delay)) for delay in range(taps)], axis=1)
    estimates = np.pad(estimates, ((0, 0), (0, taps - 1))).T
    target = delays @ np.linalg.lstsq(delays, estimates, rcond=None)[0]
    return 20 * np.log10(np.linalg.norm(target, axis=0) / np.linalg.norm(estimates - target, axis=0))


def test_bss_sdr_equals_that_of_least_squares(clips, rng):
    speech = np.float64(clips["speech"][0, :1200]) + 1e-3 * rng.standard_normal(1200)
    filtered = np.convolve(speech, [0.5, 0.2])[:1200] + clips["background"][1, :1200]
    estimates = np.stack([clips["mixture"][0, :1200], filtered])
    found = [bss_sdr(estimate, speech) for estimate in estimates]
    np.testing.assert_allclose(found, bss_sdr_by_least_squares(estimates, speech), atol=1e-3)


def test_bss_sdr_forgives_a_filter_and_sdr_does_not(clips):
    speech = np.pad(clips["speech"][0], (0, 300))
    filtered = np.convolve(speech, np.r_[np.zeros(200), 0.5, -0.3])[: len(speech)]
    assert bss_sdr(filtered, speech) > 60 > 3 > sdr(filtered, speech)
    assert bss_sdr(speech, speech) > 60


@pytest.mark.parametrize("t", [1, 600])
def test_bss_sdr_of_silence_is_finite_and_zero_where_it_is_the_estimate(clips, t):
    speech, silence = clips["speech"][0, :t] + 0.01, np.zeros(t, np.float32)
    assert bss_sdr(silence, speech) == bss_sdr(silence, silence) == 0
    assert np.isfinite(bss_sdr(speech, silence))


def estoi_by_definition(estimate, reference):
    """ESTOI at 10 kHz from its paper's sections II and III, of waves without pauses."""
    window = np.hanning(258)[1:-1]
    centres = 150 * 2 ** (np.arange(15) / 3)
    bins = np.arange(257) * 10_000 / 512
    edges = [[np.argmin(np.abs(bins - centre * 2**sign)) for sign in (-1 / 6, 1 / 6)] for centre in centres]

    def segments(wave):
        frames = np.stack([wave[n : n + 256] * window for n in range(0, len(wave) - 256, 128)])
        power = np.abs(np.fft.rfft(frames, 512)) ** 2
        bands = np.sqrt(np.stack([power[:, low:high].sum(1) for low, high in edges]))
        pieces = np.stack([bands[:, n - 30 : n] for n in range(30, bands.shape[1] + 1)])
        for axis in (2, 1):
            pieces = pieces - pieces.mean(axis, keepdims=True)
            pieces /= np.linalg.norm(pieces, axis=axis, keepdims=True)
        return pieces

    return np.mean(np.sum(segments(estimate) * segments(reference), axis=1))


def test_estoi_equals_its_definition_and_falls_with_noise(rng):
    speech = 0.1 * np.sin(0.001 * np.cumsum(np.linspace(100, 2000, 10_000))) + 0.01 * rng.standard_normal(10_000)
    noise = rng.standard_normal(10_000)
    scores = [estoi(speech + level * noise, speech, 10_000) for level in (0, 0.01, 0.1)]
    for level, score in zip((0, 0.01, 0.1), scores, strict=True):
        assert score == pytest.approx(estoi_by_definition(speech + level * noise, speech), abs=0.02)
    assert scores[0] == pytest.approx(1) and scores[0] > scores[1] > scores[2]


def test_estoi_knows_silence_and_what_is_too_short(clips):
    speech, silence = clips["speech"][0], np.zeros(8000, np.float32)
    assert estoi(silence, speech, 16_000) == 0
    assert np.isnan(estoi(speech[:3000], speech[:3000], 16_000)) and np.isnan(estoi(speech[:9], speech[:9], 16_000))
    partly = np.r_[speech[:4000], silence[4000:]]
    assert estoi(partly, speech, 16_000) == pytest.approx(estoi(partly, speech, 16_000), rel=1e-6)


def test_pesq_hears_16_khz_in_the_package_s_order(monkeypatch, clips):
    heard = {}

    def stand_in(rate, reference, degraded, mode):
        heard.update(rate=rate, reference=reference, degraded=degraded, mode=mode)
        if len(reference) < 4000:
            raise module.BufferTooShortError
        return np.float32(2.5)

    module = ModuleType("pesq")
    module.pesq, module.NoUtterancesError, module.BufferTooShortError = stand_in, LookupError, RuntimeError
    monkeypatch.setitem(sys.modules, "pesq", module)
    speech, mixture = clips["speech"][0], clips["mixture"][0]
    assert pesq(mixture, speech, 8000) == 2.5
    assert (heard["rate"], heard["mode"], len(heard["reference"])) == (16_000, "wb", 16_000)
    assert pesq(mixture, speech, 16_000) == 2.5
    np.testing.assert_array_equal(heard["reference"], speech)
    np.testing.assert_array_equal(heard["degraded"], mixture)
    assert np.isnan(pesq(speech[:100], speech[:100], 16_000))
    assert np.isnan(pesq(0 * speech, speech, 16_000)) and np.isnan(pesq(speech, 0 * speech, 16_000))


@pytest.mark.parametrize(("measure", "name"), [(estoi, "pystoi"), (pesq, "pesq")])
def test_a_missing_package_is_said(monkeypatch, clips, measure, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=f"{name} is not installed; pip install 'decodec_jax"):
        measure(clips["speech"][0], clips["speech"][0], 16_000)


def test_bitrate_is_in_kbps():
    assert bitrate(12_000, 1.5) == 8


def test_separation_gains_nothing_where_the_estimates_are_the_mixture(clips):
    scores = separation(dict.fromkeys(clips, clips["mixture"]), clips)
    for name in ("sdr", "si_sdr"):
        for part in ("speech", "background"):
            np.testing.assert_array_equal(scores[f"{name}_gain/{part}"], np.zeros(3))


def test_separation_gains_what_the_estimate_is_better_than_the_mixture_by(clips):
    estimates = clips | {"speech": clips["speech"] + 0.1 * clips["background"]}  # 20 dB less background
    scores = separation(estimates, clips)
    np.testing.assert_allclose(scores["sdr_gain/speech"], 20, atol=0.01)
    np.testing.assert_allclose(scores["sdr/speech"], sdr(estimates["speech"], clips["speech"]))
    assert set(scores) == {
        f"{name}/{part}"
        for part in ("mixture", "speech", "background")
        for name in ("sdr", "si_sdr", "sdr_gain", "si_sdr_gain")
        if not (part == "mixture" and name.endswith("gain"))
    }


def test_perplexity_is_one_for_one_entry_and_all_for_an_even_load():
    codes = np.stack([np.full(64, 3), np.arange(64) % 16, np.arange(64) % 2], axis=0)[None]
    np.testing.assert_allclose(perplexity(codes, 16), [1, 16, 2], rtol=1e-5)


def test_perplexity_lies_between_one_and_the_entries_and_pools_the_batch(rng):
    codes = np.minimum(rng.geometric(0.3, (4, 3, 50)) - 1, 15)
    found = perplexity(codes, 16)
    shares = [np.bincount(codes[:, k].ravel(), minlength=16) / 200 for k in range(3)]
    expected = [np.exp(-sum(p * np.log(p) for p in share if p > 0)) for share in shares]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.all(found > 1) and np.all(found < 16)


def test_mel_distance_equals_that_of_librosa_s_spectrograms(clips):
    expected = 0.0
    for window, bands in ((2048, 150), (512, 80)):
        mels = [
            librosa.feature.melspectrogram(
                y=np.float64(clips[part]), sr=16_000, n_fft=window, hop_length=window // 4, n_mels=bands, power=1,
                pad_mode="reflect",
            )
            for part in ("mixture", "speech")
        ]  # fmt: skip
        logs = [np.log10(np.maximum(mel, 1e-5) ** 2) for mel in mels]
        expected += np.abs(mels[0] - mels[1]).mean((1, 2)) + np.abs(logs[0] - logs[1]).mean((1, 2))
    np.testing.assert_allclose(mel_distance(clips["mixture"], clips["speech"], 16_000), expected, rtol=1e-4)


def test_log_mel_distance_equals_that_of_librosa_s_spectrograms(clips):
    each = []
    for window in (512, 1024, 2048):
        mels = [
            librosa.feature.melspectrogram(
                y=np.float64(clips[part]), sr=16_000, n_fft=window, hop_length=window // 4, n_mels=80, power=1,
                pad_mode="reflect",
            )
            for part in ("mixture", "speech")
        ]  # fmt: skip
        each.append(np.abs(np.diff(np.log10(np.maximum(mels, 1e-5)), axis=0)[0]).mean((1, 2)))
    found = log_mel_distance(clips["mixture"], clips["speech"], 16_000)
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-4)
    np.testing.assert_array_equal(log_mel_distance(clips["speech"], clips["speech"], 16_000), np.zeros(3))


@pytest.mark.parametrize("t", [1, 700])
def test_mel_distance_of_any_length_is_zero_for_the_same_and_finite_for_silence(clips, t):
    wave = clips["speech"][:, :t]
    np.testing.assert_array_equal(mel_distance(wave, wave, 16_000), np.zeros(3))
    assert np.all(mel_distance(np.zeros_like(wave), wave + 0.01, 16_000) > 0)


def test_the_mean_surprisal_is_the_entropy(rng):
    codes = np.minimum(rng.geometric(0.3, (4, 3, 50)) - 1, 15)
    bits = surprisal(codes, 16)
    assert bits.shape == (4, 3)
    np.testing.assert_allclose(bits.mean(0), np.log2(perplexity(codes, 16)), rtol=1e-6)


def test_usage_counts_the_entries_that_occur():
    codes = np.stack([np.full(64, 3), np.arange(64) % 16, np.arange(64) % 2], axis=0)[None]
    np.testing.assert_allclose(usage(codes, 16), [1 / 16, 1, 2 / 16])


def test_samples_of_any_type_are_taken_by_value(clips):
    estimate, reference = (np.int16(8000 * clips[name][0]) for name in ("mixture", "speech"))
    floats = np.float32(estimate) / 2**15, np.float32(reference) / 2**15
    for metric, rest in (
        (sdr, ()), (si_sdr, ()), (bss_sdr, ()), (estoi, (16_000,)),
        (mel_distance, (16_000,)), (log_mel_distance, (16_000,)),
    ):  # fmt: skip
        np.testing.assert_allclose(metric(estimate, list(floats[1]), *rest), metric(*floats, *rest), rtol=1e-5)
    with pytest.raises(UserError, match="complex"):
        sdr(floats[0] + 1j, floats[1])
