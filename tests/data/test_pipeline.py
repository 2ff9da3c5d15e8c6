import logging
import time

import numpy as np
import pytest

from decodec_jax.config import Data
from decodec_jax.data import mixing, pipeline
from decodec_jax.data.sources import open_source
from decodec_jax.errors import UserError

RATE = 8000


@pytest.fixture
def opened(corpus):
    data = Data(root=str(corpus), seconds=0.25, batch=4, cache_mb=0)
    return open_source(data, RATE), data


def take(count, *args, **kwargs):
    stream = pipeline.batches(*args, **kwargs)
    try:
        return [next(stream) for _ in range(count)]
    finally:
        stream.close()


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_batches_have_the_shapes_and_the_exact_sums(opened):
    (batch,) = take(1, *opened)
    for key in ("speech", "background", "mixture", "swapped"):
        assert batch[key].shape == (4, 2, 2000) and batch[key].dtype == np.float32
    assert batch["skipped"].shape == (4,) and batch["skipped"].dtype == np.int32
    np.testing.assert_array_equal(batch["mixture"], batch["speech"] + batch["background"])
    np.testing.assert_array_equal(batch["swapped"], batch["speech"] + batch["background"][:, ::-1])


def test_restored_at_a_position_it_goes_on_bit_for_bit(opened):
    whole = take(6, *opened)
    stream = pipeline.batches(*opened)
    for _ in range(3):
        next(stream)
    position = stream.position
    stream.close()
    assert position == 12  # batches made ahead do not count
    assert_same(take(3, *opened, start=position), whole[3:])
    data = opened[1]
    wider = take(1, opened[0], Data(**{**vars(data), "batch": 8}), start=position)[0]
    np.testing.assert_array_equal(wider["mixture"][:4], whole[3]["mixture"])  # even with another batch size


def test_hosts_share_out_each_global_batch(opened):
    whole = take(3, *opened)
    hosts = [take(3, *opened, host=host, hosts=2) for host in range(2)]
    for k in range(3):
        joined = np.stack([hosts[host][k]["mixture"] for host in range(2)], axis=1).reshape(whole[k]["mixture"].shape)
        np.testing.assert_array_equal(joined, whole[k]["mixture"])


def test_worker_processes_change_nothing(opened, caplog):
    source, data = opened
    assert_same(take(5, source, Data(**{**vars(data), "workers": 2}), start=4), take(6, *opened)[1:])


def test_a_worker_passes_on_a_user_error(corpus, opened):
    source, data = opened
    for path in (corpus / "noise").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="20 background clips in a row"):
        take(1, source, Data(**{**vars(data), "workers": 1}))


def test_a_truncated_file_among_many_is_skipped_counted_and_named(corpus, opened, caplog):
    name = opened[0].clips[0].name
    (corpus / name).write_bytes((corpus / name).read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        made = take(12, *opened)
    assert sum(batch["skipped"].sum() for batch in made) > 0
    assert [name in line for line in caplog.messages].count(True) == 1
    assert_same(take(2, *opened, start=40), made[10:])


def test_another_seed_is_other_data(opened):
    source, data = opened
    other = take(1, source, Data(**{**vars(data), "seed": 1}))[0]
    assert not np.array_equal(other["mixture"], take(1, *opened)[0]["mixture"])


def test_a_far_position_costs_nothing(opened):
    begin = time.process_time()
    far = take(1, *opened, start=4 * 10**12)[0]
    assert time.process_time() - begin < 2 and np.isfinite(far["mixture"]).all()


def test_batch_must_divide_over_hosts(opened):
    with pytest.raises(UserError, match=r"data\.batch is 4; it must be a multiple of the 3 hosts"):
        pipeline.batches(*opened, hosts=3)


def test_validation_is_a_fixed_list(opened):
    data = opened[1]
    source = open_source(data, RATE, "valid")
    whole = pipeline.validation(source, data, pairs=6)
    assert len(whole) == 2 and whole[0]["mixture"].shape == (4, 2, 2000)
    assert_same(whole, pipeline.validation(source, data, pairs=6))
    assert set(np.concatenate([batch["snr"].ravel() for batch in whole])) == set(mixing.VALID_SNR)


def test_synthetic_data_needs_no_files():
    data = Data(seconds=0.25, batch=2)
    (batch,) = take(1, open_source(data, RATE), data)
    assert batch["mixture"].shape == (2, 2, 2000)
