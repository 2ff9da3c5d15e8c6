"""Measure speed, latency and memory on this machine: `python launch/benchmark.py --config configs/decodec.py:VARIANT`.

Weights are random: they do not matter. Prints one table; `--json FILE` saves it too.
"""

import argparse
import importlib.util
import json
from pathlib import Path

import jax

from decodec_jax.errors import UserError
from decodec_jax.evaluation import speed
from decodec_jax.launching import one_line

PARTS = ("inference", "streaming", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    variant = "configs/decodec.py:small_causal"
    parser.add_argument("--config", default=variant, help="FILE:VARIANT (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts of the table (default: all the model can do)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio for inference and streaming (default 10)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of audio for memory (default 60)")
    parser.add_argument("--json", type=Path, help="file to save the figures in, by name")
    arguments = parser.parse_args()
    config = model_of(arguments.config)
    codec = speed.random_codec(config)
    measures = {
        "inference": lambda: speed.inference(codec, arguments.seconds),
        "streaming": lambda: speed.streaming(codec, arguments.seconds),
        "memory": lambda: speed.memory(config, arguments.minutes),
    }
    wanted = arguments.only or [part for part in PARTS if config.causal or part != "streaming"]
    rows = [row for part in wanted for row in measures[part]()]
    print(f"{arguments.config} on {jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print(speed.table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({row.name: row.value for row in rows}, indent=1) + "\n")


def model_of(named: str):
    """The model's settings of FILE:VARIANT. Raises UserError where there is none."""
    path, _, variant = named.partition(":")
    spec = importlib.util.spec_from_file_location("variants", path)
    if spec is None or not Path(path).is_file():
        raise UserError(f"{path} is not a file of variants, such as configs/decodec.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.get_config(*([variant] if variant else [])).model
    except ValueError as error:
        raise UserError(str(error)) from None


if __name__ == "__main__":
    with one_line("benchmark.py"):
        main()
