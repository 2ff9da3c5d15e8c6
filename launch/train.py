"""Train: `python launch/train.py --config configs/decodec.py:VARIANT --workdir RUN`.

The same command on every host of a pod; run again, it resumes. Exit code 0 only when all steps are done, 2 for a mistake
that one line explains.
"""

import logging
import os
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

import decodec_jax
from decodec_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration, as in configs/decodec.py:small.")
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; an existing one is resumed.")
flags.mark_flags_as_required(["config", "workdir"])


def main(_):
    import jax  # after the flags: a mistyped one is told at once

    from decodec_jax.training.loop import train

    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.ERROR)
    if "JAX_COORDINATOR_ADDRESS" in os.environ or "SLURM_JOB_ID" in os.environ or "TPU_WORKER_HOSTNAMES" in os.environ:
        jax.distributed.initialize()
    train(CONFIG.value, Path(WORKDIR.value))


def flags_or_one_line(argv):
    """absl's parser, but the config's own errors too end in one line."""
    try:
        return app.parse_flags_with_usage(argv)
    except (KeyError, ValueError, AttributeError, TypeError, OSError, UserError) as error:
        sys.exit(fail(error))


def fail(error) -> int:
    print(f"train.py: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=flags_or_one_line)
    except UserError as error:
        sys.exit(fail(error))
