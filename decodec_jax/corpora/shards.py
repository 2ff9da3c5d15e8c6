"""Token shards: Parquet for data tools, or ArrayRecord for grain. A row or record is a recording.

Columns of Parquet: `id`; `speech` and `background`, the codes as lists of uint16, [levels][frames], coarse levels
first; `length` in samples at the model's rate; `gain` in dB; `kind`, `speaker`, `split`, `transcript`; and `metadata`,
other facts as JSON. With `--latents` there is also `latents`, the speech embedding before quantization as lists of
float16, [frames][d].

A record of ArrayRecord is a line of JSON, with the other columns and the shapes of the arrays, followed by the codes of
speech and background as little-endian uint16, and the latents, if there are any, as little-endian float16.

settings.json beside the shards, and the schema of Parquet files, hold what all rows share and decoding needs.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decodec_jax.data import records
from decodec_jax.errors import UserError
from decodec_jax.inference.tokens import STREAMS, Tokens

FORMS = {"parquet": ".parquet", "array_record": ".array_record"}
TEXTS = ("id", "kind", "speaker", "split", "transcript", "metadata")
COLUMNS = (*TEXTS, *STREAMS, "length", "gain")
TYPES = {"speech": "<u2", "background": "<u2", "latents": "<f2"}  # of arrays in a record, in this order

Row = dict[str, Any]  # the columns; codes are uint16 [levels, frames], latents float16 [frames, d]


def require(form: str) -> None:
    """Raise UserError if this form needs a package that is missing."""
    if form == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(
                "Parquet needs a package: pip install 'decodec_jax[parquet]', or choose --format array_record"
            ) from None


def write(path: Path, form: str, rows: Sequence[Row], about: dict) -> None:
    """Write a shard. The same rows give the same bytes. Raises OSError if it cannot be written."""
    if form == "parquet":
        _write_parquet(path, rows, about)
        return
    records.write(path, map(_record, rows))


def _write_parquet(path: Path, rows: Sequence[Row], about: dict) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {name: pyarrow.array([row[name] for row in rows], pyarrow.string()) for name in TEXTS}
    columns |= {name: _lists([row[name] for row in rows]) for name in STREAMS}
    columns["length"] = pyarrow.array([row["length"] for row in rows], pyarrow.int64())
    columns["gain"] = pyarrow.array([row["gain"] for row in rows], pyarrow.float32())
    if "latents" in about:
        columns["latents"] = _vectors([row["latents"] for row in rows], about["latents"])
    table = pyarrow.table(columns).replace_schema_metadata({"decodec_jax": json.dumps(about, sort_keys=True)})
    parquet.write_table(table, path, compression="zstd")


def _lists(codes: Sequence[np.ndarray]):
    """Codes uint16 [levels, frames] of each row as an Arrow array of lists of lists."""
    import pyarrow

    values = np.concatenate([each.reshape(-1) for each in codes] or [np.zeros(0, np.uint16)])
    frames = np.concatenate([np.zeros(1, int), *(np.full(len(each), each.shape[1]) for each in codes)])
    levels = np.concatenate([[0], [len(each) for each in codes]])
    inner = pyarrow.ListArray.from_arrays(pyarrow.array(np.cumsum(frames), pyarrow.int32()), pyarrow.array(values))
    return pyarrow.ListArray.from_arrays(pyarrow.array(np.cumsum(levels), pyarrow.int32()), inner)


def _vectors(latents: Sequence[np.ndarray], width: int):
    """Latents float16 [frames, width] of each row as an Arrow array of lists of vectors."""
    import pyarrow

    values = np.concatenate([np.zeros(0, np.float16), *(each.reshape(-1) for each in latents)])
    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values), width)
    return pyarrow.ListArray.from_arrays(np.cumsum([0, *map(len, latents)], dtype=np.int32), vectors)


def _record(row: Row) -> bytes:
    arrays = {name: np.ascontiguousarray(row[name], kind) for name, kind in TYPES.items() if name in row}
    head = {name: value for name, value in row.items() if name not in arrays}
    head |= {f"{name}_shape": list(each.shape) for name, each in arrays.items()}
    values = b"".join(each.tobytes() for each in arrays.values())
    return json.dumps(head, ensure_ascii=False, sort_keys=True).encode() + b"\n" + values


def read(folder: str | Path, latents: bool = False) -> Iterator[tuple[Row, Tokens]]:
    """All rows of a folder that `decodec tokenize` wrote, with tokens for `codec.decode`.

    latents: give each row its latents, if they were written. Raises UserError if there are no tokens or latents, and
    if a shard is damaged.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / "settings.json").read_text())["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no tokens: settings.json cannot be read ({error})") from None
    if latents and "latents" not in about:
        raise UserError(f"{folder} holds no latents; run `decodec tokenize --latents` with a new folder for the shards")
    rows = _parquet_rows if about["format"] == "parquet" else _record_rows
    for path in sorted(folder.glob(f"*{FORMS[about['format']]}")):
        try:
            for row in rows(path, latents):
                tokens = tokens_of(row, about)
                if latents:
                    _check_latents(row["latents"], tokens.frames, about["latents"])
                yield row, tokens
        except (UserError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{path} is damaged ({reason}); remove it and "
                            f"{path.stem}.json, and run `decodec tokenize` again") from None


def tokens_of(row: Row, about: dict) -> Tokens:
    """The tokens of a row; about: `settings` of settings.json. Raises UserError if they are damaged."""
    return Tokens(row["speech"], row["background"], row["length"], about["sample_rate"], about["hop"],
                  tuple(about["entries"]), about["fingerprint"], row["gain"])  # fmt: skip


def _check_latents(latents: np.ndarray, frames: int, width: int) -> None:
    """Raise UserError if latents do not fit the codes."""
    if latents.shape != (frames, width):
        raise UserError(f"latents have shape {latents.shape}, and the codes need {(frames, width)}")
    if not np.all(np.isfinite(latents)):
        raise UserError("latents are not finite")


def _parquet_rows(path: Path, latents: bool) -> Iterator[Row]:
    from pyarrow import parquet

    wanted = [*COLUMNS, "latents"] if latents else list(COLUMNS)
    for batch in parquet.ParquetFile(path).iter_batches(64, columns=wanted):
        for i, row in enumerate(batch.select(COLUMNS).to_pylist()):  # latents would be lists of floats
            frames = max((len(level) for name in STREAMS for level in row[name]), default=0)
            row |= {name: np.array(row[name], np.uint16).reshape(-1, frames) for name in STREAMS}
            yield row | {"latents": _vectors_of(batch.column("latents")[i])} if latents else row


def _vectors_of(latents) -> np.ndarray:
    """A row of the Arrow array that `_vectors` makes: float16 [frames, d]."""
    vectors = latents.values
    return vectors.flatten().to_numpy().reshape(len(vectors), vectors.type.list_size)


def _record_rows(path: Path, latents: bool) -> Iterator[Row]:
    for index in range(records.count(str(path))):
        head, values = records.read_record(str(path), index).split(b"\n", 1)
        row, begin = json.loads(head), 0
        for name in TYPES if latents else STREAMS:
            shape = row.pop(f"{name}_shape")
            row[name] = np.frombuffer(values, TYPES[name], math.prod(shape), begin).reshape(shape)
            begin += row[name].nbytes
        row.pop("latents_shape", None)
        yield row
