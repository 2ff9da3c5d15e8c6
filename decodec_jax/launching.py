"""What the programs in launch/ share: mistakes in one line with exit code 2, flags, and how memory is kept."""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator

from absl import flags

from decodec_jax.errors import UserError


@contextlib.contextmanager
def one_line(program: str) -> Iterator[None]:
    """A UserError within becomes its line on standard error, behind the program's name, and the process ends with 2."""
    try:
        yield
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)


def parser(config: flags.FlagHolder) -> Callable[[list[str]], list[str]]:
    """absl's parser, for `app.run`, except that a mistake in a flag or in the configuration is a UserError."""

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
            _ = config.value.variant  # a configuration that failed to load says so only now
        except (flags.Error, KeyError, ValueError, AttributeError, TypeError, OSError) as error:
            raise UserError(str(error.args[0]).strip().splitlines()[-1].strip()) from None
        return rest

    return parse


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # of malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, from now on; other C libraries ignore it.

    On CPUs each step frees and takes the same gigabytes, and glibc gives them back to the system in between, which
    clears them anew page by page. Trimming is off altogether, because a run may free more at once than its threshold
    can say: beside the data pipeline, clearing pages took a sixth of the time with 2 GiB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
    for option, value in (
        (_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 2**28),
    ):  # fmt: skip
        mallopt(option, value)
