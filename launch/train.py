"""Train: `python launch/train.py --config configs/decodec.py:VARIANT --workdir RUN`.

Recognisers (configs/asr.py) and voices (configs/tts.py) are trained in the same way.

Run the same command on every host of a pod. Run it again to resume. The exit code is 0 only when all steps are done, 75
after SIGTERM (everything is saved; run it again), and 2 for a mistake, which one line explains.
"""

import errno
import logging
import os
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from decodec_jax.config import Config
from decodec_jax.errors import UserError
from decodec_jax.launching import keep_freed_memory, one_line, parser

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration, for example configs/decodec.py:small.")
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; an existing one is resumed.")
flags.mark_flags_as_required(["config", "workdir"])


def main(_):
    keep_freed_memory()
    import jax  # after the flags, so that a typo in a flag is reported at once

    if isinstance(CONFIG.value, Config):
        from decodec_jax.training.loop import train
    else:
        from decodec_jax.downstream.loop import train

    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.ERROR)
    if "://" in WORKDIR.value:
        raise UserError(f"--workdir {WORKDIR.value} is not a folder; mount the bucket as one, see launch/README.md")
    if not jax.config.jax_compilation_cache_dir:  # the next start reuses what this one compiles
        jax.config.update("jax_compilation_cache_dir", str(Path(WORKDIR.value) / "compiled"))
    try:
        jax.distributed.initialize()  # finds the other hosts of a TPU pod, Slurm job or Kubernetes job by itself
    except ValueError:
        if "JAX_COORDINATOR_ADDRESS" in os.environ:
            raise
    state = train(CONFIG.value, Path(WORKDIR.value))
    return 0 if int(state.step) >= CONFIG.value.train.steps else os.EX_TEMPFAIL


if __name__ == "__main__":
    with one_line("train.py"):
        try:
            app.run(main, flags_parser=parser(CONFIG))
        except OSError as error:  # any write can find the disk full; other errors may pass, so a retry is worthwhile
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise UserError(str(error)) from None
            raise
