"""Train: `python launch/train.py --config configs/decodec.py:VARIANT --workdir RUN`.

The same command on every host of a pod; run again, it resumes. Exit code 0 only when all steps are done, 75 after
SIGTERM, when it has saved and wants to be run again, 2 for a mistake that one line explains.
"""

import errno
import logging
import os
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from decodec_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration, as in configs/decodec.py:small.")
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; an existing one is resumed.")
flags.mark_flags_as_required(["config", "workdir"])


def main(_):
    import jax  # after the flags: a mistyped one is told at once

    from decodec_jax.training.loop import train

    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.ERROR)
    if "://" in WORKDIR.value:
        raise UserError(f"--workdir {WORKDIR.value} is no folder; mount the bucket as one, see launch/README.md")
    try:
        jax.distributed.initialize()  # finds the other hosts of a TPU pod, of a Slurm or a Kubernetes job by itself
    except ValueError:
        if "JAX_COORDINATOR_ADDRESS" in os.environ:
            raise
    state = train(CONFIG.value, Path(WORKDIR.value))
    return 0 if int(state.step) >= CONFIG.value.train.steps else os.EX_TEMPFAIL


def parse(argv: list[str]) -> list[str]:
    """absl's parser, except that a mistake in a flag or in the configuration is one line."""
    try:
        rest = flags.FLAGS(argv)
        _ = CONFIG.value.variant  # a configuration that failed to load says so only now
    except (flags.Error, KeyError, ValueError, AttributeError, TypeError, OSError) as error:
        sys.exit(fail(str(error.args[0]).strip().splitlines()[-1].strip()))
    return rest


def fail(reason: str) -> int:
    """Say why there is nothing to be done, and with which exit code."""
    print(f"train.py: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=parse)
    except UserError as error:
        sys.exit(fail(str(error)))
    except OSError as error:  # a full disk shows wherever something is written; what may pass is worth another attempt
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            sys.exit(fail(str(error)))
        raise
