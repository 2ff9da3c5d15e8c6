"""Token shards: Parquet for data tools, or ArrayRecord for grain. A row or record is a recording.

Columns of Parquet: `id`; `speech` and `background`, the codes as lists of uint16, [levels][frames], coarse levels
first; `length` in samples at the model's rate; `gain` in dB; `kind`, `speaker`, `split`, `transcript`; and `metadata`,
other facts as JSON.

A record of ArrayRecord is a line of JSON, with the other columns and the shapes of the codes, followed by the codes of
speech and background as little-endian uint16.

settings.json beside the shards, and the schema of Parquet files, hold what all rows share and decoding needs.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decodec_jax.data import records
from decodec_jax.errors import UserError
from decodec_jax.inference.tokens import STREAMS, Tokens

FORMS = {"parquet": ".parquet", "array_record": ".array_record"}
TEXTS = ("id", "kind", "speaker", "split", "transcript", "metadata")

Row = dict[str, Any]  # the columns; codes are uint16 [levels, frames]


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


def _record(row: Row) -> bytes:
    head = {name: value for name, value in row.items() if name not in STREAMS}
    head |= {f"{name}_shape": list(row[name].shape) for name in STREAMS}
    codes = b"".join(np.ascontiguousarray(row[name], "<u2").tobytes() for name in STREAMS)
    return json.dumps(head, ensure_ascii=False, sort_keys=True).encode() + b"\n" + codes


def read(folder: str | Path) -> Iterator[tuple[Row, Tokens]]:
    """All rows of a folder that `decodec tokenize` wrote, with tokens for `codec.decode`.

    Raises UserError if there are none or a shard is damaged.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / "settings.json").read_text())["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no tokens: settings.json cannot be read ({error})") from None
    for path in sorted(folder.glob(f"*{FORMS[about['format']]}")):
        try:
            for row in _parquet_rows(path) if about["format"] == "parquet" else _record_rows(path):
                yield row, tokens_of(row, about)
        except (UserError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{path} is damaged ({reason}); remove it and "
                            f"{path.stem}.json, and run `decodec tokenize` again") from None


def tokens_of(row: Row, about: dict) -> Tokens:
    """The tokens of a row; about: `settings` of settings.json. Raises UserError if they are damaged."""
    return Tokens(row["speech"], row["background"], row["length"], about["sample_rate"], about["hop"],
                  tuple(about["entries"]), about["fingerprint"], row["gain"])  # fmt: skip


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import parquet

    for batch in parquet.ParquetFile(path).iter_batches(64):
        for row in batch.to_pylist():
            frames = max((len(level) for name in STREAMS for level in row[name]), default=0)
            yield row | {name: np.array(row[name], np.uint16).reshape(-1, frames) for name in STREAMS}


def _record_rows(path: Path) -> Iterator[Row]:
    for index in range(records.count(str(path))):
        head, codes = records.read_record(str(path), index).split(b"\n", 1)
        row, values, begin = json.loads(head), np.frombuffer(codes, "<u2"), 0
        for name in STREAMS:
            shape = row.pop(f"{name}_shape")
            row[name] = values[begin : begin + shape[0] * shape[1]].reshape(shape)
            begin += shape[0] * shape[1]
        yield row
