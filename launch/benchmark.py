"""Measure speed, latency and memory on this machine: `python launch/benchmark.py --config configs/decodec.py:VARIANT`.

Weights and signals are random, which does not change the speed. Prints one table, and progress on standard error.
`--json FILE` saves the figures by name. The parts:

    inference   real-time factors of whole recordings; arithmetic rate, as a share of this machine's matrix product rate
    streaming   how long a live stream waits for each frame (causal models)
    memory      peak memory for a long recording
    train       the training step: audio per second, time, compilation, arithmetic rate, memory
    data        training audio per core from FLAC, Opus, ArrayRecord and memory; how long a step waits for it

A teacher whose weights are not at hand is left out. `--plain` leaves out every teacher and the discriminators.
`--against torch` also compares inference and training with PyTorch, see decodec_jax/evaluation/speed/against_torch.py.
"""

import argparse
import functools
import importlib.util
import json
from pathlib import Path

import jax

from decodec_jax.config import Config, check
from decodec_jax.errors import UserError
from decodec_jax.evaluation.speed import data_speed, inference_speed, timing, train_speed
from decodec_jax.launching import keep_freed_memory, one_line

PARTS = ("inference", "streaming", "memory", "train", "data")
WAITING_STEPS, WORKERS = 20, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    variant = "configs/decodec.py:light"
    parser.add_argument("--config", default=variant, help="FILE:VARIANT (default: %(default)s)")
    parser.add_argument("--only", nargs="+", action="extend", choices=PARTS,
                        help="parts to measure (default: all that the model has)")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=10.0, help="audio for inference and streaming (default 10 s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="audio for memory (default 60 min)")
    parser.add_argument("--batch", type=int, help="pairs of clips per training step (default: the config's)")
    parser.add_argument("--clip", type=float, help="length of a training clip, seconds (default: the config's)")
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements; the median counts (default 5)")
    parser.add_argument("--plain", action="store_true", help="train without discriminators or a teacher")
    parser.add_argument("--against", choices=["torch"], help="also measure PyTorch in inference and train, alternating")
    parser.add_argument("--json", type=Path, help="file to save the figures in, by name")
    arguments = parser.parse_args()
    config = config_of(arguments.config)
    config.data.batch = arguments.batch or config.data.batch
    config.data.seconds = arguments.clip or config.data.seconds
    check(config)
    wanted = arguments.only or [part for part in PARTS if config.model.causal or part != "streaming"]
    measures = measures_of(config, arguments)
    if arguments.against:
        try:
            from decodec_jax.evaluation.speed import against_torch
        except ImportError as error:
            raise UserError(f"--against torch: {error}; pip install torch transformers") from None
        measures["inference"].append(lambda: against_torch.inference(config, arguments.seconds, arguments.rounds))
        measures["train"].append(lambda: against_torch.training(config, arguments.rounds))
    rows = []
    for part in (part for part in PARTS if part in wanted):
        timing.print_progress(f"{part} of {arguments.config}")
        rows += [row for measure in measures[part] for row in measure()]
    print(f"{arguments.config} on {jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print(timing.table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({row.name: row.value for row in rows}, indent=1) + "\n")


def measures_of(config: Config, arguments: argparse.Namespace) -> dict[str, list]:
    """For each part, the functions that measure it and return rows of the table."""
    seconds, rounds, rate = arguments.seconds, arguments.rounds, config.model.sample_rate
    codec = functools.cache(lambda: inference_speed.random_codec(config.model))

    @functools.cache
    def run() -> train_speed.SyntheticRun:
        keep_freed_memory()  # as launch/train.py does
        trained = train_speed.trainable(config, arguments.plain)
        timing.print_progress(f"train: compiling the step of {config.variant}")
        return train_speed.SyntheticRun(trained, trained.train.continuous_steps)

    return {
        "inference": [lambda: inference_speed.inference(codec(), seconds, rounds)],
        "streaming": [lambda: inference_speed.streaming(codec(), seconds)],
        "memory": [lambda: inference_speed.memory(config.model, arguments.minutes)],
        "train": [lambda: train_speed.train(run(), rounds)],
        "data": [
            lambda: data_speed.throughput(config.data, rate),
            lambda: data_speed.waiting(config, run().step, WAITING_STEPS, WORKERS),
        ],
    }


def config_of(named: str) -> Config:
    """The config that FILE:VARIANT names. Raises UserError if it does not exist."""
    path, _, variant = named.partition(":")
    spec = importlib.util.spec_from_file_location("variants", path)
    if spec is None or not Path(path).is_file():
        raise UserError(f"{path} is not a file of variants; give one such as configs/decodec.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.get_config(*([variant] if variant else []))
    except ValueError as error:
        raise UserError(str(error)) from None


if __name__ == "__main__":
    with one_line("benchmark.py"):
        main()
