import soundfile

from decodec_jax.config import Data
from decodec_jax.evaluation.speed import data_speed


def few_clips(monkeypatch):
    for name, value in {"SPEAKERS": 2, "CLIPS": 1, "BACKGROUNDS": 2, "SECONDS": 0.5}.items():
        monkeypatch.setattr(data_speed, name, value)


def test_corpora_are_written_in_the_formats_asked_for(monkeypatch):
    few_clips(monkeypatch)
    with data_speed.corpora(16_000, {"flac", "opus"}) as roots:
        kinds = {kind: {soundfile.info(f).subtype for f in root.rglob("*.*")} for kind, root in roots.items()}
        assert kinds == {"flac": {"PCM_16"}, "opus": {"OPUS"}}
        assert len(list(roots["flac"].rglob("*.flac"))) == 4
    assert not roots["flac"].exists()


def test_every_kind_of_source_is_measured(monkeypatch):
    few_clips(monkeypatch)
    rows = data_speed.throughput(Data(batch=2, seconds=0.1), 16_000, seconds=0.02)
    assert {row.name for row in rows} == {"data/flac", "data/opus", "data/array_record", "data/in_memory"}
    assert all(row.value > 0 for row in rows)


def test_waiting_is_the_time_outside_steps(tiny_config, monkeypatch):
    few_clips(monkeypatch)
    seen = []
    (row,) = data_speed.waiting(tiny_config, lambda batch: seen.append(batch["mixture"].shape), 4, workers=0)
    assert seen == [(2, 2, 1600)] * 7  # three before the clock starts
    assert row.name == "data/testing/waiting" and 50 < row.value <= 100  # these steps take no time
