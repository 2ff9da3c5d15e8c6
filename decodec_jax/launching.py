"""What the programs in launch/ share: a mistake that one line explains is that line, and exit code 2."""

import contextlib
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
