"""List, read and write files in folders and buckets, by a path or by a URL such as gs://bucket/folder.

URLs go through fsspec, which needs a package for each kind of bucket: gcsfs for gs://, s3fs for s3://. All failures are
a UserError of one line.
"""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from decodec_jax.errors import UserError

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub"}


def is_url(path: str) -> bool:
    return "://" in path


def listed(pattern: str) -> list[tuple[str, int]]:
    """The files in a folder of a bucket or that match a pattern, with their sizes in bytes, sorted by name."""
    with _one_line(pattern, "listed"):
        fs, path = _filesystem(pattern)
        kind = pattern.split("://")[0]
        if any(letter in path for letter in "*?["):
            found = fs.glob(path, detail=True)
        else:
            found = fs.find(path, detail=True)
        files = [(f"{kind}://{name.lstrip('/')}", int(facts["size"])) for name, facts in found.items()
                 if facts["type"] == "file"]  # fmt: skip
    if not files:
        raise UserError(f"{pattern} holds no files")
    return sorted(files)


def opened(path: str) -> BinaryIO:
    """Open a file or an object of a bucket for reading and seeking."""
    with _one_line(path, "read"):
        if not is_url(path):
            return open(path, "rb")
        fs, inside = _filesystem(path)
        return fs.open(inside, "rb")


def read(path: str) -> bytes:
    """The bytes of a file or of an object."""
    with _one_line(path, "read"), opened(path) as file:
        return file.read()


def names(folder: str) -> set[str]:
    """The names in a folder; none if it does not exist."""
    with _one_line(folder, "listed"):
        if not is_url(folder):
            return set(os.listdir(folder)) if os.path.isdir(folder) else set()
        fs, path = _filesystem(folder)
        fs.invalidate_cache()  # other processes write there, too
        return {name.rsplit("/", 1)[-1] for name in fs.find(path, maxdepth=1)} if fs.exists(path) else set()


@contextlib.contextmanager
def writing(folder: str, name: str) -> Iterator[Path]:
    """Give a local file to write, which becomes `name` in the folder or bucket at the end of the block.

    Raises UserError if it cannot be written. Then nothing appears under its name.
    """
    with _one_line(f"{folder}/{name}", "written"):
        if is_url(folder):
            with tempfile.TemporaryDirectory() as local:
                part = Path(local) / name
                yield part
                fs, path = _filesystem(folder)
                fs.put_file(str(part), f"{path}/{name}")
            return
        os.makedirs(folder, exist_ok=True)
        part = Path(folder) / f".{name}.{socket.gethostname()}-{os.getpid()}.part"
        try:
            yield part
            os.replace(part, Path(folder) / name)
        finally:
            part.unlink(missing_ok=True)


def write(folder: str, name: str, text: str) -> None:
    """Write a text file, whole or not at all."""
    with writing(folder, name) as part:
        part.write_text(text, encoding="utf-8")


def remove_leftovers(folder: str) -> None:
    """Delete the unfinished files of killed processes. Call it only when nobody is writing to the folder."""
    if not is_url(folder):
        for part in Path(folder).glob(".*.part"):
            part.unlink(missing_ok=True)


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. Raises UserError if a package is missing."""
    kind = url.split("://")[0]
    package = PACKAGES.get(kind, "fsspec")
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except ImportError:
        raise UserError(f"{kind}:// needs a package: pip install {package}") from None
    except ValueError as error:
        raise UserError(f"{url} cannot be opened ({_first_line(error)})") from None


@contextlib.contextmanager
def _one_line(path: str, done: str) -> Iterator[None]:
    """Turn errors of the system or of a bucket's package into a UserError that names the path."""
    try:
        yield
    except UserError:
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be {done} ({error.strerror or _first_line(error)})") from None
    except Exception as error:
        if not is_url(path):
            raise
        raise UserError(f"{path} cannot be {done} ({_first_line(error)})") from None  # no network, no rights, ...


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
