"""Where the command keeps what is compiled: the first call on a machine compiles, and those after it read."""

import os
import tempfile
import warnings
from pathlib import Path

SWITCH = "DECODEC_CACHE"  # an environment variable; "off": nothing is kept
LIMIT = 2**29  # bytes; what was used longest ago goes first


def keep() -> None:
    """Have JAX keep what it compiles in the user's cache folder. JAX must not have been imported yet.

    Nothing changes where DECODEC_CACHE is off, where JAX's own variables name a folder, and where none can be written.
    """
    if os.environ.get(SWITCH) == "off" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decodec_jax/compiled"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for entry in folder.glob("*-cache"):  # one that was cut short has no time beside it, and stops JAX for good
            if not entry.with_name(entry.name.removesuffix("cache") + "atime").exists():
                entry.unlink(missing_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where home is
        return
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(LIMIT),  # with a limit, processes lock the folder
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")  # a full disk
