import pytest

from decodec_jax.errors import UserError
from decodec_jax.evaluation.speed import inference_speed, timing
from decodec_jax.testing import tiny_model


def values(rows):
    return {row.name: row.value for row in rows}


@pytest.mark.parametrize("family", ["waveform", "spectral"])
def test_a_causal_model_has_inference_and_streaming_figures(family, monkeypatch):
    monkeypatch.setattr(inference_speed, "matmul_rate", lambda precision: 1e9)
    codec = inference_speed.random_codec(tiny_model(family=family, causal=True, dilations=()))
    figures = values(inference_speed.inference(codec, 0.1, repeats=1)) | values(inference_speed.streaming(codec, 0.1))
    waits = {"waveform": 1.25, "spectral": 2.5}[family]  # one frame of 20 samples at 16 kHz, or two
    assert figures["streaming/algorithmic"] == pytest.approx(waits)
    assert {f"streaming/enhance/p{percent}" for percent in (50, 99)} < figures.keys()
    assert all(value > 0 for value in figures.values())
    assert f"| streaming/algorithmic | {waits} ms |" in timing.table(inference_speed.streaming(codec, 0.1))
    for task in ("encode", "decode", "encode+decode"):
        work, time = figures[f"inference/{task}/work"], figures[f"inference/{task}/real_time_factor"]
        assert figures[f"inference/{task}/of_matmul_rate"] == pytest.approx(100 * work / time)


def test_arithmetic_of_the_waveform_family_equals_the_hand_count():
    # multiply-adds per frame of 2 samples, layer by layer
    model = tiny_model(
        channels=2, strides=(2,), dilations=(), kernel=1, latent=4, decoder_channels=4, lstm_layers=0,
        projection="exact",
    )  # fmt: skip
    quantizers = 2 * 2 * 16 * 2  # two of two levels: a distance to each of 16 entries, half an embedding wide
    frame = {"encode": 2 * 2 + (2 * 2) * 4 * 2 + 3 * 4 * 4 + quantizers, "decode": 4 * 4 + 4 * (4 * 2) + 2 * 2}
    measured = inference_speed.arithmetic(model, 0.01)
    assert {name: measured[name] for name in frame} == {name: 2 * 80 * count for name, count in frame.items()}
    assert measured["encode+decode"] == measured["encode"] + measured["decode"]


def test_arithmetic_of_the_spectral_family_equals_the_hand_count():
    model = tiny_model(family="spectral", causal=True, lstm_layers=0, projection="exact")
    bins, bands, width, block = 21, 6, 8, 2 * 8 * 16
    heard = 40 * 2 * bins + bins * bands + (2 * bins + bands) * width + block + width * 8
    said = 8 * width + 2 * block + width * 4 * bins + 2 * 2 * bins * 40  # two inverse transforms a frame
    measured = inference_speed.arithmetic(model, 0.01)  # eight frames and one frame of lookahead
    assert (measured["encode"], measured["decode"]) == (2 * (9 * heard + 8 * 2 * 2 * 16 * 4), 2 * 8 * said)


def test_matmul_rate_is_the_best_rate_measured(monkeypatch):
    taken = iter([*[1.0, 0.01, 1.0, 1.0, 1.0], *[0.2] * 5])
    monkeypatch.setattr(timing, "timed", lambda task: next(taken))
    assert timing.matmul_rate("float32") == 2 * 1024**3 / 0.01


def test_streaming_needs_a_causal_model():
    with pytest.raises(UserError, match="only a causal model streams"):
        inference_speed.streaming(inference_speed.random_codec(tiny_model(family="spectral", lstm_layers=0)), 0.1)


def test_peak_memory_is_measured_in_a_separate_process():
    figures = values(inference_speed.memory(tiny_model(family="spectral", causal=True), 1))
    assert 100 < figures["memory/enhance_1_min/most"] < 1500
