import pytest

from decodec_jax.errors import UserError
from decodec_jax.evaluation import speed
from decodec_jax.testing import tiny_model


def values(rows):
    return {row.name: row.value for row in rows}


def test_figures_of_a_causal_model(monkeypatch):
    monkeypatch.setattr(speed, "matmul_rate", lambda dtype: 1e9)
    codec = speed.random_codec(tiny_model(causal=True, dilations=()))
    figures = values(speed.inference(codec, 0.1, repeats=1)) | values(speed.streaming(codec, 0.1))
    assert figures["streaming/algorithmic"] == pytest.approx(1.25)  # 20 samples at 16 kHz
    assert {f"streaming/enhance/p{percent}" for percent in (50, 99)} < figures.keys()
    assert all(value > 0 for value in figures.values())
    assert "| streaming/algorithmic | 1.25 ms |" in speed.table(speed.streaming(codec, 0.1))
    for task in ("encode", "decode", "encode+decode"):
        work, time = figures[f"inference/{task}/work"], figures[f"inference/{task}/real_time_factor"]
        assert figures[f"inference/{task}/of_matmul_rate"] == pytest.approx(100 * work / time)


def test_work_is_that_of_the_products():
    # 2 x 2 multiplications a sample to 2 channels, 4 by 4 x 4 for the two halves of a frame of 2 samples, and so on
    model = tiny_model(
        patch=1, channels=2, strides=(2,), dilations=(), kernel=1, latent=4, decoder_channels=4, lstm_layers=0,
        mask=False, projection="exact",
    )  # fmt: skip
    quantizers = 2 * 2 * 16 * 4  # two of two levels: a distance to each of 16 entries, 4 wide
    frame = {"encode": 2 * 2 + (2 * 2) * 4 * 2 + 3 * 4 * 4 + quantizers, "decode": 4 * 4 + 4 * (4 * 2) + 2 * 2}
    measured = speed.arithmetic(model, 0.01)
    assert {name: measured[name] for name in frame} == {name: 2 * 80 * count for name, count in frame.items()}
    assert measured["encode+decode"] == measured["encode"] + measured["decode"]


def test_the_rate_of_products_is_the_best_seen(monkeypatch):
    taken = iter([*[1.0, 0.01, 1.0, 1.0, 1.0], *[0.2] * 5])
    monkeypatch.setattr(speed, "timed", lambda task: next(taken))
    assert speed.matmul_rate("float32") == 2 * 1024**3 / 0.01


def test_other_models_do_not_stream():
    with pytest.raises(UserError, match="only a causal model streams"):
        speed.streaming(speed.random_codec(tiny_model(dilations=(), lstm_layers=0)), 0.1)


def test_memory_of_a_minute_is_measured_in_another_process():
    figures = values(speed.memory(tiny_model(causal=True, dilations=()), 1))
    assert 100 < figures["memory/enhance_1_min/most"] < 1500
