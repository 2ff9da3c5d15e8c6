import matplotlib.image
import numpy as np
import pytest

from decodec_jax.evaluation import figures
from decodec_jax.testing import background_clips, speech_clips


def picture(path):
    """Pixels of a png `[height, width, 4]`, which must show something."""
    assert path.read_bytes().startswith(b"\x89PNG")
    pixels = matplotlib.image.imread(path)
    assert pixels.std() > 0.05
    return pixels


@pytest.mark.parametrize("t", [1, 300, 8000])
def test_taken_apart_draws_a_row_for_each_row_whatever_the_length(tmp_path, t):
    parts = {"mixture": speech_clips(1, t)[0], "speech": background_clips(1, t)[0], "background": np.zeros(t)}
    figures.taken_apart(tmp_path / "one.png", {"": parts}, 16_000)
    figures.taken_apart(tmp_path / "two.png", {"target": parts, "output": parts}, 16_000, title="step 7")
    one, two = picture(tmp_path / "one.png"), picture(tmp_path / "two.png")
    assert two.shape[0] > 1.5 * one.shape[0] and two.shape[1] == one.shape[1]


def test_curves_are_drawn_where_rows_have_the_metric_and_without_any(tmp_path):
    rows = [{"step": step, "loss": 1 / step, **({"valid/sdr": step} if step % 5 == 0 else {})} for step in range(1, 20)]
    figures.curves(tmp_path / "a.png", rows, {"objective": ["loss"], "held-out": ["valid/sdr"]})
    assert picture(tmp_path / "a.png").shape[1] > 1.5 * picture(tmp_path / "a.png").shape[0]


def test_curves_of_a_run_without_validation_yet_warn_of_nothing(tmp_path, recwarn):
    figures.curves(tmp_path / "b.png", [{"step": 1, "loss": 1.0}], {"objective": ["loss"], "held-out": ["valid/sdr"]})
    picture(tmp_path / "b.png")
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]
