import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.errors import UserError
from decodec_jax.evaluation.metrics import judges
from decodec_jax.evaluation.metrics.judges import Phone
from decodec_jax.evaluation.suites import probe
from decodec_jax.evaluation.systems.base import Item
from decodec_jax.objective.teacher import Teacher

RATE = 16_000


def made(rng, informed):
    """Frames of ten utterances by five speakers, and [16, 4] vectors. informed: whether codes determine the phone."""
    n = 1000
    phones = rng.integers(4, size=n)
    codes = phones + 4 * rng.integers(4, size=n) if informed else rng.integers(16, size=n)
    clips = np.arange(n) // 100
    vectors = np.eye(4)[np.arange(16) % 4] + 0.1 * rng.standard_normal((16, 4))
    return probe.Frames(codes, phones, np.array(["a", "b", "c", "d", "e"])[clips // 2], clips), vectors


def test_phones_are_predicted_from_informative_codes_only(rng):
    told, untold = (probe.accuracies(*made(rng, informed)) for informed in (True, False))
    assert all(scores[name].shape == (10,) for scores in (told, untold) for name in scores)
    for name in ("phones/codes", "phones/vectors"):
        assert told[name].mean() == 1 and untold[name].mean() == pytest.approx(0.25, abs=0.06)
    assert told["phones/chance"].mean() == pytest.approx(0.25, abs=0.06)


def test_no_speaker_is_both_fitted_on_and_tested(rng):
    frames, _ = made(rng, True)
    frames = frames._replace(codes=np.unique(frames.speakers, return_inverse=True)[1])
    fitted = []

    def fit(codes, phones):
        fitted.append(set(codes))
        return np.zeros(5)

    probe.cross_validated(frames, fit)
    assert sorted(map(len, fitted)) == [4] * 5 and set.union(*fitted) == set(range(5))


def test_an_unseen_code_predicts_the_most_common_phone():
    codes, phones = np.array([0, 0, 0, 2, 2]), np.array([1, 1, 2, 2, 2])
    np.testing.assert_array_equal(probe.most_frequent_phones(codes, phones, 4), [1, 2, 2, 2])


def test_regression_on_weighted_pairs_equals_regression_on_all_frames(rng):
    from sklearn.linear_model import LogisticRegression

    frames, vectors = made(rng, True)
    phones = np.where(rng.random(1000) < 0.2, 0, frames.phones)
    scaled = (vectors - vectors[frames.codes].mean(0)) / vectors[frames.codes].std(0)
    expected = LogisticRegression(C=probe.INVERSE_REGULARISATION).fit(scaled[frames.codes], phones).predict(scaled)
    np.testing.assert_array_equal(probe.predicted_phones(frames.codes, phones, vectors), expected)


def test_a_frame_is_labelled_with_the_phone_at_its_centre():
    phones = [Phone("SIL", 0.0, 0.03), Phone("AH", 0.03, 0.05), Phone("T", 0.05, 0.08)]
    assert probe.labels(phones, 6, 0.02) == ["SIL", "AH", "T", "T", "T", "T"]  # the last phone continues


def test_phones_are_predicted_from_a_teachers_targets(rng):
    @jax.tree_util.register_static
    class Knows(Teacher):
        """A teacher whose targets are the phone in one-hot form; the samples encode the phone's number."""

        def features(self, wave):
            return jnp.eye(3)[jnp.round(100 * wave[:, ::320]).astype(int)]

        def finished(self, features):
            return features

    def spoken(n):
        said = rng.integers(3, size=40)
        phones = [Phone("ABC"[number], 0.02 * i, 0.02 * (i + 1)) for i, number in enumerate(said)]
        return probe.Utterance(np.repeat(said / 100, 320).astype(np.float32), RATE, f"speaker{n % 3}", "", phones)

    read = probe.teacher_accuracy(Knows(), [spoken(n) for n in range(6)])
    np.testing.assert_array_equal(read["phones/vectors"], np.ones(6))


# --- utterances -------------------------------------------------------------------------------------------------------


def clips(*transcripts):
    """Clean clips by two alternating speakers; all samples of a clip encode its number."""
    waves = [np.full(RATE // 10, 0.01 * i, np.float32) for i in range(len(transcripts))]
    return [
        Item(f"clip{i}", RATE, wave, wave, speaker=f"speaker{i % 2}", transcript=said)
        for i, (wave, said) in enumerate(zip(waves, transcripts, strict=True))
    ]


@pytest.fixture
def asked(monkeypatch):
    """A stand-in aligner: the list of transcripts that it has aligned, each to a single phone."""
    transcripts = []

    def phones(wave, rate, transcript):
        transcripts.append(transcript)
        if "zxqv" in transcript:
            raise UserError("the recogniser's dictionary lacks the word 'zxqv'")
        return [Phone("AH", 0.0, len(wave) / rate)]

    monkeypatch.setattr(judges, "phones", phones)
    return transcripts


def test_a_clip_is_aligned_again_only_if_its_transcript_changes(asked, tmp_path):
    first = probe.utterances(clips("one", "two", ""), tmp_path / "phones.json")
    assert asked == ["one", "two"] and [each.phones for each in first] == [[("AH", 0.0, 0.1)]] * 2
    again = probe.utterances(clips("one", "three"), tmp_path / "phones.json")
    assert asked == ["one", "two", "three"] and again[0].phones == first[0].phones
    assert isinstance(again[0].phones[0], Phone) and again[1].transcript == "three"


def test_clips_that_cannot_be_aligned_are_left_out_with_a_warning(asked, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = probe.utterances(clips("one", "two", "zxqv"), tmp_path / "phones.json")
    assert len(found) == 2 and "1 of 3 clips are left out: the recogniser's dictionary lacks" in caplog.text


def test_speech_without_transcripts_is_refused(asked, tmp_path):
    with pytest.raises(UserError, match="transcribed test clips of two speakers or more"):
        probe.utterances(clips("", ""), tmp_path / "phones.json")


def test_codes_are_paired_with_their_phones_and_speakers(asked, tmp_path):
    spoken = probe.utterances(clips("one", "two"), tmp_path / "phones.json")
    spoken[1].phones[:] = [Phone("SIL", 0.0, 0.04), Phone("T", 0.04, 0.1)]
    model = SimpleNamespace(
        config=SimpleNamespace(hop=320, sample_rate=RATE),
        encode=lambda wave, rate: SimpleNamespace(speech=np.arange(10).reshape(2, 5)),
    )
    frames = probe.first_level(model, spoken)
    np.testing.assert_array_equal(frames.codes, [0, 1, 2, 3, 4] * 2)
    np.testing.assert_array_equal(frames.phones, [0] * 5 + [1, 1, 2, 2, 2])  # AH, SIL, T
    np.testing.assert_array_equal(frames.clips, [0] * 5 + [1] * 5)
    assert list(frames.speakers[[0, 5]]) == ["speaker0", "speaker1"]


def test_word_errors_are_counted_in_the_processed_utterances(asked, tmp_path):
    spoken = probe.utterances(clips("one", "two"), tmp_path / "phones.json")
    words = lambda wave, rate, said: {"wer": float(wave[0]) + len(said)}  # noqa: E731
    scores = probe.word_error_rates(spoken, lambda wave, rate: wave + 1, words)
    np.testing.assert_allclose(scores["wer"], [4.0, 4.01])


def test_mixtures_do_not_count_as_clean_speech(asked, tmp_path):
    one, other, *_ = clips("one", "two", "three", "four")
    mixed = one._replace(background=one.speech)
    with pytest.raises(UserError, match="two speakers or more"):
        probe.utterances([mixed, other], tmp_path / "phones.json")
