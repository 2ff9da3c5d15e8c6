"""Predict training on 1 to 1,024 chips: `python launch/scaling.py --config configs/decodec.py:paper`.

Prints the tables of docs/scaling.md. Compiles the step for eight devices that need not be there, three times, minutes
each at paper size; with --costs what was compiled is kept in a file. With --measure it takes steps on this machine
instead, and prints what was predicted of them beside it.
"""

import logging
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from decodec_jax.launching import keep_freed_memory, one_line, parser

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration, as in configs/decodec.py:paper.")
COSTS = flags.DEFINE_string("costs", None, "File of compiled costs: made, or read where it is there.")
LEAST = flags.DEFINE_integer("least", 8, "Pairs on each chip that the second table has at least.", lower_bound=1)
PER_CORE = flags.DEFINE_float("per_core", None, "Audio-seconds per second of the data pipeline on one core.")
MEASURE = flags.DEFINE_integer("measure", 0, "Steps to take on this machine, in place of all else.", lower_bound=0)
flags.mark_flags_as_required(["config"])


def main(_):
    import jax  # after the flags: a mistyped one is told at once

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
