"""onnxruntime-web beside the page: one version, from npm, checked by its hash.

The build of the wheel runs this file as a script, `python runtime.py FOLDER`, so it needs the standard library alone.
Without FOLDER the script fills the user's cache, where `decodec demo` looks too.
"""

import base64
import hashlib
import http.client
import io
import os
import sys
import tarfile
import urllib.request
from pathlib import Path

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # as npm gives it
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TIMEOUT = 60  # s


class RuntimeMissing(Exception):
    """Why the runtime could not be brought, in one line."""


def cache() -> Path:
    """Where the runtime is kept if the package does not carry it."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / f"decodec_jax/onnxruntime-web-{VERSION}"


def is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def bring(folder: Path) -> None:
    """Download the runtime into a folder, unless it is there. Raises RuntimeMissing if it fails or is another file."""
    if is_complete(folder):
        return
    address = f"{registry()}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            data = answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise RuntimeMissing(f"{address} could not be downloaded ({error}); connect to the internet once") from None
    check(data, address)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for name in FILES:
            content = archive.extractfile(f"package/dist/{name}").read()
            part = folder / f".{name}.{os.getpid()}.part"
            part.write_bytes(content)
            os.replace(part, folder / name)


def check(data: bytes, address: str) -> None:
    """Raise RuntimeMissing unless this is the archive that was pinned."""
    found = base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != SHA512:
        raise RuntimeMissing(f"{address} is not the file that this version expects: its SHA-512 is {found}")


def registry() -> str:
    """npm's registry, or the mirror that npm is told to use; the hash holds for either."""
    return (os.environ.get("npm_config_registry") or "https://registry.npmjs.org").rstrip("/")


if __name__ == "__main__":
    try:
        bring(Path(sys.argv[1]) if sys.argv[1:] else cache())
    except RuntimeMissing as error:
        sys.exit(str(error))
