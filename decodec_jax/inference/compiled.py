"""The cache of compiled code: the first call of the command on a machine compiles, and later calls reuse the result."""

import os
import tempfile
import warnings
from pathlib import Path

SWITCH = "DECODEC_CACHE"  # environment variable; "off" disables the cache
LIMIT = 2**29  # bytes; the least recently used entries are removed first


def keep() -> None:
    """Tell JAX to keep compiled code in the user's cache folder. Call it before JAX is imported.

    It does nothing if DECODEC_CACHE is off, if JAX's own variable names a folder, or if the folder cannot be written.
    """
    if os.environ.get(SWITCH) == "off" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decodec_jax/compiled"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for entry in folder.glob("*-cache"):  # an incomplete entry lacks its "-atime" file, and makes JAX fail
            if not entry.with_name(entry.name.removesuffix("cache") + "atime").exists():
                entry.unlink(missing_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        return
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(LIMIT),  # with a limit, processes lock the folder
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")  # a full disk
