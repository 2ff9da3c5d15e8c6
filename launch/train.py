"""Train: `python launch/train.py --config configs/decodec.py:VARIANT --workdir RUN`.

The same command on every host of a pod; run again, it resumes. Exit code 0 only when all steps are done, 75 after
SIGTERM, when it has saved and wants to be run again, 2 for a mistake that one line explains.
"""

import errno
import logging
import os
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from decodec_jax.errors import UserError
from decodec_jax.launching import keep_freed_memory, one_line, parser

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration, as in configs/decodec.py:small.")
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; an existing one is resumed.")
flags.mark_flags_as_required(["config", "workdir"])


def main(_):
    keep_freed_memory()
    import jax  # after the flags: a mistyped one is told at once

    from decodec_jax.training.loop import train

    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.ERROR)
    if "://" in WORKDIR.value:
        raise UserError(f"--workdir {WORKDIR.value} is no folder; mount the bucket as one, see launch/README.md")
    if not jax.config.jax_compilation_cache_dir:  # what one start compiles, the next one reads
        jax.config.update("jax_compilation_cache_dir", str(Path(WORKDIR.value) / "compiled"))
    try:
        jax.distributed.initialize()  # finds the other hosts of a TPU pod, of a Slurm or a Kubernetes job by itself
    except ValueError:
        if "JAX_COORDINATOR_ADDRESS" in os.environ:
            raise
    state = train(CONFIG.value, Path(WORKDIR.value))
    return 0 if int(state.step) >= CONFIG.value.train.steps else os.EX_TEMPFAIL


if __name__ == "__main__":
    with one_line("train.py"):
        try:
            app.run(main, flags_parser=parser(CONFIG))
        except OSError as error:  # a full disk shows at any write; what may pass is worth another attempt
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise UserError(str(error)) from None
            raise
