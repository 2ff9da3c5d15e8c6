import pytest

from decodec_jax.errors import UserError
from decodec_jax.evaluation import speed
from decodec_jax.testing import tiny_model


def values(rows):
    return {row.name: row.value for row in rows}


def test_figures_of_a_causal_model():
    codec = speed.random_codec(tiny_model(causal=True, dilations=()))
    figures = values(speed.inference(codec, 0.1, repeats=1)) | values(speed.streaming(codec, 0.1))
    assert figures["streaming/algorithmic"] == pytest.approx(1.25)  # 20 samples at 16 kHz
    assert {f"streaming/enhance/p{percent}" for percent in (50, 99)} < figures.keys()
    assert all(value > 0 for value in figures.values())
    assert "| streaming/algorithmic | 1.25 ms |" in speed.table(speed.streaming(codec, 0.1))


def test_other_models_do_not_stream():
    with pytest.raises(UserError, match="only a causal model streams"):
        speed.streaming(speed.random_codec(tiny_model(dilations=(), lstm_layers=0)), 0.1)


def test_memory_of_a_minute_is_measured_in_another_process():
    figures = values(speed.memory(tiny_model(causal=True, dilations=()), 1))
    assert 100 < figures["memory/enhance_1_min/most"] < 1500
