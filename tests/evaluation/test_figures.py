import matplotlib.image
import numpy as np
import pytest

from decodec_jax.errors import UserError
from decodec_jax.evaluation import figures
from decodec_jax.testing import background_clips, speech_clips


def picture(path):
    """The pixels of a png, `[height, width, 4]`; fails if the picture is blank."""
    assert path.read_bytes().startswith(b"\x89PNG")
    pixels = matplotlib.image.imread(path)
    assert pixels.std() > 0.05
    return pixels


@pytest.mark.parametrize("t", [1, 300, 8000])
def test_spectrograms_are_drawn_row_by_row_for_any_length(tmp_path, t):
    parts = {"mixture": speech_clips(1, t)[0], "speech": background_clips(1, t)[0], "background": np.zeros(t)}
    figures.taken_apart(tmp_path / "one.png", {"": parts}, 16_000)
    figures.taken_apart(tmp_path / "two.png", {"target": parts, "output": parts}, 16_000, title="step 7")
    one, two = picture(tmp_path / "one.png"), picture(tmp_path / "two.png")
    assert two.shape[0] > 1.5 * one.shape[0] and two.shape[1] == one.shape[1]


def test_curves_are_drawn_from_the_rows_that_have_the_metric(tmp_path):
    rows = [{"step": step, "loss": 1 / step, **({"valid/sdr": step} if step % 5 == 0 else {})} for step in range(1, 20)]
    figures.curves(tmp_path / "a.png", rows, {"objective": ["loss"], "held-out": ["valid/sdr"]})
    assert picture(tmp_path / "a.png").shape[1] > 1.5 * picture(tmp_path / "a.png").shape[0]


def test_curves_of_a_run_without_validation_give_no_warnings(tmp_path, recwarn):
    figures.curves(tmp_path / "b.png", [{"step": 1, "loss": 1.0}], {"objective": ["loss"], "held-out": ["valid/sdr"]})
    picture(tmp_path / "b.png")
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]


def test_a_spectrogram_has_the_requested_size_and_silence_is_black(tmp_path):
    figures.spectrogram(tmp_path / "tone.png", np.sin(2 * np.pi * 1000 * np.arange(8000) / 16_000), (300, 80))
    pixels = picture(tmp_path / "tone.png")
    assert pixels.shape[:2] == (80, 300)
    brightness = pixels[..., :3].sum(axis=(1, 2))
    assert np.argmax(brightness) == pytest.approx(80 * 7 / 8, abs=1)  # 1 kHz of 8 kHz, from the bottom
    figures.spectrogram(tmp_path / "silence.png", np.zeros(1))
    assert matplotlib.image.imread(tmp_path / "silence.png")[..., :3].max() < 0.05


def test_known_systems_keep_their_colour_and_all_colours_differ():
    names = ["DeCodec", "opus 8 kbps", "causal", "mixture", "DeCodec 4 kbps"]
    chosen = figures.colours(names)
    assert chosen["opus 8 kbps"] == figures.colours(["opus:8"])["opus:8"] == figures.KNOWN["opus"]
    assert len(set(chosen.values())) == len(names) == len(chosen) and list(chosen) == names


def test_projections_are_drawn_for_orthogonal_subspaces_and_for_the_whole_space(tmp_path, rng):
    half = np.diag([1.0] * 4 + [0.0] * 4)
    latent = rng.standard_normal((50, 8))
    figures.projections(tmp_path / "a.png", latent @ half, latent @ (np.eye(8) - half), (half, np.eye(8) - half))
    figures.projections(tmp_path / "b.png", latent, latent, (np.eye(8), np.eye(8)))
    assert not np.array_equal(picture(tmp_path / "a.png"), picture(tmp_path / "b.png"))


def test_silhouettes_are_high_only_for_vectors_that_depend_on_the_speaker(tmp_path, rng):
    names = ["anna", "ben", "carl"] * 4
    own = np.eye(3)[[0, 1, 2] * 4] + 0.01 * rng.standard_normal((12, 3))
    scores = figures.speakers(tmp_path / "speakers.png", rng.standard_normal((12, 3)), own, names)
    assert scores["Zr"] > 0.9 and abs(scores["Zc"]) < 0.5
    picture(tmp_path / "speakers.png")


@pytest.mark.parametrize("names", [[], ["anna"] * 4, ["anna", "ben"]])
def test_speakers_need_two_speakers_and_two_recordings_of_one(tmp_path, names):
    with pytest.raises(UserError, match="needs at least two speakers"):
        figures.speakers(tmp_path / "speakers.png", np.eye(4)[: len(names)], np.eye(4)[: len(names)], names)


@pytest.mark.parametrize("draw", [figures.rate_distortion, figures.per_snr])
def test_lines_are_drawn_with_and_without_intervals_and_bitrates(tmp_path, draw, recwarn):
    points = {
        "DeCodec": [figures.Point(8, 7, 6, 8), figures.Point(4, 5, 4, 6)],
        "opus": [figures.Point(8, 4, 3, 5)],
        "mimi": [figures.Point(1.1, 2), figures.Point(2.2, 3)],
        "mixture": [figures.Point(None, 6.3)],
        "silence": [],
    }
    draw(tmp_path / "lines.png", points, "SI-SDR, dB", "noisy speech")
    picture(tmp_path / "lines.png")
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]
