"""How the C library keeps memory between steps."""

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # of malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, from now on; other C libraries ignore it.

    On CPUs each step frees and takes the same gigabytes, and glibc gives them back to the system in between, which
    clears them anew page by page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
    for option, value in (
        (_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28),
    ):  # fmt: skip
        mallopt(option, value)
