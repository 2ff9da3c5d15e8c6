"""Test items are reproducible and match their descriptions."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from decodec_jax import audio
from decodec_jax.config import Data
from decodec_jax.data.sources import open_source
from decodec_jax.errors import UserError
from decodec_jax.evaluation.suites import items
from decodec_jax.testing import background_clips, speech_clips

RATE = 16_000


@pytest.fixture(scope="module")
def source():
    return open_source(Data(), RATE, "test")


def test_mixtures_have_their_stated_snr_and_are_reproducible(source):
    made, again = (items.mixtures(source, 2, 0.5) for _ in range(2))
    assert [m.snr for m in made] == [*items.SNRS, *items.SNRS]
    assert len({m.name for m in made}) == 12 and all(m.speaker and len(m.mixture) == 8000 for m in made)
    for one, other in zip(made, again, strict=True):
        np.testing.assert_array_equal(one.mixture, other.mixture)
        np.testing.assert_array_equal(one.mixture, one.speech + one.background)
        snr = 10 * np.log10(np.sum(one.speech**2) / np.sum(one.background**2))
        assert snr == pytest.approx(one.snr, abs=0.01)
    few = items.mixtures(source, 1, 0.5)
    np.testing.assert_array_equal(few[-1].mixture, made[5].mixture)  # more items do not change the first ones


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder whose manifest lists two noisy-clean pairs, a speech clip and a background clip."""
    root = tmp_path_factory.mktemp("data")
    rows = [("path", "split", "kind", "speaker", "transcript")]
    speech, noise = speech_clips(2, 3000), background_clips(2, 3000)
    for n in range(2):
        for side, kind, wave in (("clean", "speech", speech[n]), ("noisy", "noisy_speech", speech[n] + noise[n])):
            rows.append((f"paired_test/{side}/p{n}.wav", f"paired_test/{side}", kind, "p", f"words {n}"))
            (root / "paired_test" / side).mkdir(parents=True, exist_ok=True)
            audio.write(root / rows[-1][0], wave, RATE)
    for name, kind, wave in (("s.wav", "speech", speech[0]), ("n.wav", "noise", noise[0])):
        rows.append((name, f"{kind}_test", kind, "s", "said" if kind == "speech" else ""))
        audio.write(root / name, wave, RATE)
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def test_pairs_hold_the_clean_and_noisy_recordings(folder):
    one, other = items.paired(str(folder), RATE, 5)
    assert (items.group(one), one.snr, one.speaker, other.transcript) == ("paired", None, "p", "words 1")
    np.testing.assert_allclose(one.background, background_clips(2, 3000)[0], atol=1e-4)
    np.testing.assert_array_equal(one.mixture, one.speech + one.background)
    assert len(items.paired(str(folder), RATE, 1)) == 1 and items.paired("", RATE, 1) == []


def test_only_whole_utterances_keep_their_transcript(folder):
    source = open_source(Data(root=str(folder)), RATE, "test")
    whole, cut = items.mixtures(source, 1)[0], items.mixtures(source, 1, 0.1)[0]
    assert (len(whole.mixture), whole.transcript) == (3000, "said")
    assert (len(cut.mixture), cut.transcript) == (1600, "")


def test_source_and_reference_are_by_different_speakers(source):
    voices = items.voices(source, 3, 0.1)
    assert [item.name for item in voices[:3]] == ["000_source", "000_reference", "001_source"]
    assert all(one.speaker != other.speaker for one, other in zip(voices[::2], voices[1::2], strict=True))


def test_conversion_needs_two_speakers(source):
    class OneSpeaker:
        sample_rate, clips = source.sample_rate, [replace(clip, speaker="") for clip in source.clips]

    with pytest.raises(UserError, match="two speakers or more"):
        items.voices(OneSpeaker(), 3)


def test_clean_clips_cover_all_speakers(source):
    some = items.clean(source, 8)
    assert len({item.speaker for item in some}) == len(some) == 8
    assert {items.group(item) for item in some} == {"clean"}


def test_saved_files_equal_the_items(source, tmp_path):
    made = [*items.mixtures(source, 1, 0.1)[:2], *items.clean(source, 1)]
    items.save(made, tmp_path / "a/items")
    rows = list(csv.DictReader((tmp_path / "a/items/manifest.csv").open()))
    assert [row["group"] for row in rows] == ["-5 dB", "0 dB", "clean"] and rows[2]["speech"] == ""
    for row, item in zip(rows, made, strict=True):
        wave, rate = audio.read(tmp_path / "a/items" / row["mixture"])
        assert rate == RATE and float(row["seconds"]) == len(item.mixture) / RATE
        np.testing.assert_allclose(wave[0], item.mixture, atol=0.6 / 32768)
