import io
import json
from pathlib import Path

import pytest

from decodec_jax.training import monitor
from decodec_jax.training.monitor import Monitor

ROW = {"loss": 1.0, "seconds/step": 0.1}


def steps(workdir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder where, as through gcsfuse, a file has what was written to it only once it is closed."""
    opened = Path.open

    class ShownWhenClosed(io.StringIO):
        def __init__(self, path):
            super().__init__()
            self.path = path
            path.touch()

        def close(self):
            if not self.closed:
                with opened(self.path, "a") as file:
                    file.write(self.getvalue())
            super().close()

    def open_(path, *mode, **options):
        return ShownWhenClosed(path) if mode == ("a",) else opened(path, *mode, **options)

    monkeypatch.setattr(Path, "open", open_)
    return tmp_path


def test_metrics_are_in_the_bucket_while_training_goes_on(bucket, monkeypatch):
    run = Monitor(bucket, steps=9, start=0)
    run.record(1, ROW)
    assert steps(bucket) == []  # a bucket would not take every row
    run.publish()
    assert steps(bucket) == [1]
    run.record(2, ROW)
    monkeypatch.setattr(monitor, "_PUBLISH_SECONDS", 0)  # a minute has passed
    run.record(3, ROW)
    assert steps(bucket) == [1, 2, 3]
    run.close()
    resumed = Monitor(bucket, steps=9, start=2)
    resumed.record(3, ROW)
    resumed.close()
    assert steps(bucket) == [1, 2, 3]


def test_on_a_disk_every_row_is_there_at_once(tmp_path):
    run = Monitor(tmp_path, steps=9, start=0)
    run.record(1, ROW)
    assert steps(tmp_path) == [1]
    run.close()


def test_other_hosts_record_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Monitor(None, steps=9, start=0)
    run.record(1, ROW)
    run.publish()
    run.say("nothing")
    run.close()
    assert not list(tmp_path.iterdir())
