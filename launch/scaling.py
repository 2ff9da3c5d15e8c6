"""Predict training on 1 to 1,024 chips: `python launch/scaling.py --config configs/decodec.py:paper`.

Prints the tables of docs/scaling.md. Compiles the step three times for up to eight devices, which need not exist; each
takes minutes at paper size. --costs saves the compiled costs in a file. --measure runs steps on this machine instead,
and prints the predicted and the measured figures side by side.
"""

import logging
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from decodec_jax.launching import keep_freed_memory, one_line, parser

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration, for example configs/decodec.py:paper.")
COSTS = flags.DEFINE_string("costs", None, "File of compiled costs; read if it exists, written if not.")
LEAST = flags.DEFINE_integer("least", 8, "Minimum pairs on each chip in the second table.", lower_bound=1)
PER_CORE = flags.DEFINE_float("per_core", None, "Audio-seconds per second that the data pipeline makes on one core.")
MEASURE = flags.DEFINE_integer("measure", 0, "Only run and time this many steps on this machine.", lower_bound=0)
flags.mark_flags_as_required(["config"])


def main(_):
    import jax  # after the flags, so that a typo in a flag is reported at once

    from decodec_jax.evaluation.speed import scaling

    logging.getLogger("absl").setLevel(logging.WARNING)
    if MEASURE.value:
        keep_freed_memory()
        print(scaling.measured(CONFIG.value, MEASURE.value))
        return
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", scaling.DEVICES)
    costs = scaling.costs(CONFIG.value, Path(COSTS.value) if COSTS.value else None)
    batch, least, per_core = CONFIG.value.data.batch, LEAST.value, PER_CORE.value
    for title, text in (
        ("Cost", scaling.cost_table(costs)),
        ("Compiled", scaling.compiled_table(costs)),
        (f"Batches of {batch}, or one pair on each chip", scaling.prediction_table(costs, 1, batch, per_core)),
        (f"At least {least} pairs on each chip", scaling.prediction_table(costs, least, batch, per_core)),
        ("Pairs that fit", scaling.largest_table(costs)),
    ):
        print(f"### {title}\n\n{text}\n")


if __name__ == "__main__":
    with one_line("scaling.py"):
        app.run(main, flags_parser=parser(CONFIG))
