"""`decodec tokenize --latents`: the speech embedding of each recording beside its codes."""

import json
import shutil

import numpy as np
import pytest

from decodec_jax import audio, cli
from decodec_jax.corpora import shards, tokenize
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec

FORMS = list(shards.FORMS)


def made(codec, folder, out, form="parquet", **options):
    """Tokenize with latents, and read all back: id -> (row, tokens)."""
    tokenize.tokenize(codec, str(folder), str(out), form, latents=True, **options)
    return {row["id"]: (row, tokens) for row, tokens in shards.read(out, latents=True)}


def assert_as_alone(codec, folder, found):
    """Latents are those of the recording alone but for rounding, of 11 bits and of sums in another order."""
    assert len(found) == 5
    for name, (row, tokens) in found.items():
        wave, rate = audio.read(folder / name)
        wave = audio.mono(wave)
        assert tokens == codec.encode(wave, rate), name
        alone = codec.embed(wave, rate).speech
        assert row["latents"].dtype == np.float16 and row["latents"].shape == alone.shape
        np.testing.assert_allclose(row["latents"], alone, rtol=2**-10, atol=1e-5 * np.max(np.abs(alone)))


@pytest.mark.parametrize(("form", "causal"), [("parquet", True), ("array_record", False)])
def test_side_by_side_is_alone(load, folder, tmp_path, form, causal):
    codec = load(causal)
    assert_as_alone(codec, folder, made(codec, folder, tmp_path / "out", form, shard_mb=0.02))


def test_long_recordings_have_those_of_the_whole(codec, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenize, "LONG", 0.12)
    assert_as_alone(codec, folder, made(codec, folder, tmp_path / "out"))


@pytest.mark.parametrize("form", FORMS)
def test_the_other_columns_stay_as_they_were(codec, folder, tmp_path, form):
    made(codec, folder, tmp_path / "with", form)
    tokenize.tokenize(codec, str(folder), str(tmp_path / "without"), form)
    rows, others = (list(shards.read(tmp_path / name)) for name in ("with", "without"))
    for (row, tokens), (other, theirs) in zip(rows, others, strict=True):
        assert list(row) == list(other) and tokens == theirs


def test_parquet_holds_lists_of_vectors(codec, folder, tmp_path):
    from pyarrow import parquet

    rows = made(codec, folder, tmp_path / "out")
    table = parquet.read_table(tmp_path / "out/tokens-000000.parquet")
    d = codec.config.half
    assert str(table.schema.field("latents").type) == f"list<element: fixed_size_list<element: halffloat>[{d}]>"
    assert json.loads(table.schema.metadata[b"decodec_jax"])["latents"] == d
    for id_, latents in zip(table["id"].to_pylist(), table["latents"].to_pylist(), strict=True):
        np.testing.assert_array_equal(latents, rows[id_][0]["latents"])


def test_a_run_goes_on_with_the_same_bytes_and_never_without_latents(codec, folder, tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    made(codec, folder, whole, shard_mb=0.005)
    shutil.copytree(whole, again)
    (again / "tokens-000001.json").unlink()
    made(codec, folder, again, shard_mb=0.005)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }
    with pytest.raises(UserError, match=f"was begun with latents {codec.config.half}, not None"):
        tokenize.tokenize(codec, str(folder), str(again), shard_mb=0.005)
    tokenize.tokenize(codec, str(folder), str(tmp_path / "codes"))
    with pytest.raises(UserError, match=f"was begun with latents None, not {codec.config.half}"):
        tokenize.tokenize(codec, str(folder), str(tmp_path / "codes"), latents=True)


@pytest.mark.parametrize("form", FORMS)
def test_shards_without_latents_say_what_to_run(codec, folder, tmp_path, form):
    tokenize.tokenize(codec, str(folder), str(tmp_path / "out"), form)
    with pytest.raises(UserError, match=r"out holds no latents; run `decodec tokenize --latents` with a new folder"):
        next(shards.read(tmp_path / "out", latents=True))


def short(row):
    return row | {"latents": row["latents"][:-1]}


def narrow(row):
    return row | {"latents": row["latents"][:, :-1]}


def infinite(row):
    return row | {"latents": np.full_like(row["latents"], np.inf)}


def lost(row):
    return {name: value for name, value in row.items() if name != "latents"}


@pytest.mark.parametrize(("form", "damage", "reason"), [
    ("parquet", short, "latents have shape"), ("array_record", short, "latents have shape"),
    ("array_record", narrow, "latents have shape"), ("parquet", infinite, "not finite"), ("array_record", lost, ""),
    ("parquet", lost, ""),
])  # fmt: skip
def test_latents_that_do_not_fit_are_damage(codec, folder, tmp_path, form, damage, reason):
    rows = [damage(row) for row, _ in made(codec, folder, tmp_path / "out", form).values()]
    about = json.loads((tmp_path / "out/settings.json").read_text())["settings"]
    without = {name: value for name, value in about.items() if damage is not lost or name != "latents"}
    shards.write(tmp_path / f"out/tokens-000000{shards.FORMS[form]}", form, rows, without)
    with pytest.raises(UserError, match=f"tokens-000000.* is damaged .*{reason}") as caught:
        list(shards.read(tmp_path / "out", latents=True))
    assert "\n" not in str(caught.value)


def test_the_command(codec, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(DeCodec, "load", lambda path: codec)
    assert cli.main(["tokenize", str(folder), str(tmp_path / "out"), "--latents"]) == 0
    assert len(list(shards.read(tmp_path / "out", latents=True))) == 5
