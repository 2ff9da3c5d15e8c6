"""Baselines without weights, and finding systems by name."""

import io
import sys
from types import ModuleType

import numpy as np
import pytest
import soundfile

from decodec_jax.errors import UserError
from decodec_jax.evaluation.systems import baselines
from decodec_jax.evaluation.systems.base import Item, Output, System
from decodec_jax.testing import background_clips, speech_clips

RATE = 16_000


@pytest.fixture(scope="module")
def item():
    speech, background = speech_clips(1, RATE)[0], background_clips(1, RATE)[0]
    return Item("clip", RATE, speech + background, speech, background)


def lag(wave, reference):
    """The delay of `wave` relative to `reference`, in samples."""
    n = len(reference)
    products = np.fft.irfft(np.fft.rfft(wave, 2 * n) * np.fft.rfft(reference, 2 * n).conj())
    return (int(np.argmax(products)) + n) % (2 * n) - n


# --- by name --------------------------------------------------------------------------------------------------------


def test_every_documented_name_can_be_built():
    assert {name.partition(":")[0] for name in baselines.NAMES} == {*baselines.MAKERS, "DENOISER+CODEC"}


@pytest.mark.parametrize("name", ["mixture", "silence", "oracle", "opus:8"])
def test_a_system_keeps_the_name_it_was_found_by(name):
    assert baselines.find(name).name == name


def test_the_name_keeps_only_the_last_part_of_a_path(monkeypatch):
    given = []
    monkeypatch.setitem(baselines.MAKERS, "dac", lambda *values: given.append(values) or System("", {}))
    assert baselines.find("dac:/models/dac_16khz:4.5").name == "dac:dac_16khz:4.5"
    assert baselines.find("dac:C:/models/dac_16khz/:6").name == "dac:dac_16khz:6"
    assert given == [("/models/dac_16khz", "4.5"), ("C:/models/dac_16khz/", "6")]


@pytest.mark.parametrize(("name", "message"), [
    ("speex:8", "'speex:8' is not a baseline; choose from mixture, silence, oracle, opus:KBPS, .*DENOISER.CODEC"),
    ("", "'' is not a baseline"),
    ("DENOISER+CODEC", "'DENOISER.CODEC' is not a baseline"),
    ("opus", "'opus' should be written opus:KBPS"),
    ("opus:", "'opus:' should be written opus:KBPS"),
    ("mixture:8", "'mixture:8' should be written mixture"),
    ("dac:8", "'dac:8' should be written dac:PATH:KBPS"),
    ("opus:much", "'much' is not a bitrate in kbit/s"),
    ("opus:2", "Opus codes at 6 to 256 kbps"),
    ("opus:8+opus:8", "opus:8 cannot enhance"),
    ("mixture+silence:3", "'silence:3' should be written silence"),
])  # fmt: skip
def test_unknown_and_malformed_names_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        baselines.find(name)


# --- Opus -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kbps", [8, 16, 32])
def test_opus_uses_about_the_requested_bitrate(item, kbps):
    wave = np.tile(item.mixture, 4)
    bits = baselines.find(f"opus:{kbps}").tasks["reconstruct"](item._replace(mixture=wave)).bits
    assert bits / len(wave) * RATE / 1000 == pytest.approx(kbps, rel=0.25)


@pytest.mark.parametrize("rate", [16_000, 48_000, 44_100])
def test_opus_output_is_aligned_to_the_sample(item, rate):
    noise = np.random.default_rng(0).standard_normal(8001)
    # low-pass noise, which Opus codes well
    wave = np.float32(0.05) * np.convolve(noise, np.ones(8) / 3, "same").astype(np.float32)
    made = baselines.find("opus:64").tasks["reconstruct"](item._replace(mixture=wave, rate=rate)).wave
    assert made.shape == wave.shape and lag(made, wave) == 0


@pytest.mark.parametrize("t", [1, 321])
def test_opus_preserves_any_length(item, t):
    made = baselines.find("opus:8").tasks["reconstruct"](item._replace(mixture=3 * item.mixture[:t]))
    assert made.wave.shape == (t,) and made.wave.dtype == np.float32 and made.bits > 0


def test_packet_bytes_are_the_file_without_pages_and_headers(item):
    files = []
    for seconds in (1, 2):
        file = io.BytesIO()
        soundfile.write(file, np.resize(item.mixture, seconds * RATE), RATE, format="OGG", subtype="OPUS")
        files.append(file.getvalue())
    for ogg in files:
        pages = ogg.split(b"OggS")[1:]  # each has 23 bytes, a table of lengths, and the packets
        assert baselines.packet_bytes(ogg) == sum(len(page) - 23 - page[22] for page in pages[2:])


# --- denoisers ------------------------------------------------------------------------------------------------------


def test_noisereduce_removes_steady_noise(item, rng):
    tone = np.float32(0.3) * np.sin(0.3 * np.arange(RATE), dtype=np.float32)
    tone[: RATE // 10 * 9] = 0  # noisereduce takes its threshold from the whole recording
    noisy = item._replace(mixture=tone + np.float32(0.02) * rng.standard_normal(RATE, np.float32))
    system = baselines.find("noisereduce")
    kept, background = (system.tasks[task](noisy).wave for task in ("enhance", "background"))
    assert kept.dtype == np.float32 and kept.shape == tone.shape
    pause, sound = slice(2000, 10_000), slice(14_800, 15_700)
    of_noise, of_tone = np.std(kept[pause]) / np.std(noisy.mixture[pause]), np.std(kept[sound]) / np.std(tone[sound])
    assert of_noise < 0.3 < of_tone
    np.testing.assert_allclose(kept + background, noisy.mixture, atol=1e-6)
    assert system.tasks["enhance"](item._replace(mixture=item.mixture[:5])).wave.shape == (5,)


def test_a_cascade_codes_the_denoised_recording(item):
    halved = System("half", {"enhance": lambda item: Output(item.mixture / 2)})
    coded = System("coded", {"reconstruct": lambda item: Output(item.mixture + 1, 7.0)})
    system = baselines.cascade(halved, coded)
    assert system.name == "half+coded" and set(system.tasks) == {"enhance"}
    made = system.tasks["enhance"](item)
    np.testing.assert_array_equal(made.wave, item.mixture / 2 + 1)
    assert made.bits == 7.0
    assert baselines.find("mixture+opus:12").name == "mixture+opus:12"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "noisereduce", None)
    with pytest.raises(UserError, match=r"noisereduce is not installed; pip install 'decodec_jax\[eval\]'"):
        baselines.find("noisereduce")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"torch is not installed; pip install 'decodec_jax\[peers\]'"):
        baselines.find("enhancer:model.pt")


@pytest.mark.parametrize("name", ["encodec:nowhere:6", "dac:nowhere:6", "mimi:nowhere:1.1", "speechtokenizer:nowhere"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(UserError, match="there is no folder nowhere; download the model"):
        baselines.find(name)


def test_speechtokenizer_needs_its_package_and_weights(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "speechtokenizer", None)
    with pytest.raises(UserError, match="speechtokenizer is not installed; pip install speechtokenizer"):
        baselines.find(f"speechtokenizer:{tmp_path}")
    monkeypatch.setitem(sys.modules, "speechtokenizer", ModuleType("speechtokenizer"))
    with pytest.raises(UserError, match=r"has no usable weights: .*No such file"):
        baselines.find(f"speechtokenizer:{tmp_path}")
