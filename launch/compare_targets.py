"""Measure how good Whisper's features are as targets: `python launch/compare_targets.py --data FOLDER`.

Prints Markdown tables for clean test speech. The first has, for each layer of the encoder, the accuracy of a linear
phone classifier on the targets of whole clips, and the cosine similarity between targets of crops and of whole clips.
The second is for the last layer and clips played at other speeds: the cosine similarity between the targets of the
played clip and those of the original clip, with and without interpolation to that speed.

With `--model RUN ...`, prints instead how well phones are predicted from the first-level codes of these codecs.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from decodec_jax import audio
from decodec_jax.config import Data
from decodec_jax.data import sources
from decodec_jax.data.targets import at_speed
from decodec_jax.evaluation.speed.scaling import table
from decodec_jax.evaluation.suites import items, probe
from decodec_jax.inference.codec import DeCodec
from decodec_jax.interop import whisper
from decodec_jax.launching import one_line
from decodec_jax.objective.cepstra import HOP, SAMPLE_RATE
from decodec_jax.objective.teacher import CepstraTeacher, Teacher, of_whole_clips

CROPS = (1.28, 3.0)  # s
SPEEDS = (0.9, 0.95, 1.05, 1.1)

Targets = Callable[[np.ndarray], np.ndarray]  # of a clip [t]: [ceil(t / HOP), width]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder with a test split of transcribed speech")
    parser.add_argument("--clips", type=int, default=100, help="test clips for the phones; a tenth for the cosines")
    parser.add_argument("--whisper", default="", help="folder with a Whisper model (default: the installed package's)")
    parser.add_argument("--phones", type=Path, default=Path("phones.json"), help="file that caches the aligned phones")
    parser.add_argument("--model", nargs="+", action="extend",
                        help="bundles or run folders: measure their first-level codes instead")  # fmt: skip
    arguments = parser.parse_args()
    source = sources.open_source(Data(root=arguments.data, cache_mb=0), SAMPLE_RATE, "test")
    spoken = probe.utterances(items.clean(source, arguments.clips), arguments.phones)
    if arguments.model:
        accuracies = [[name, f"{of_codes(DeCodec.load(name), spoken):.3f}"] for name in arguments.model]
        print(table(["first level of", "phones"], accuracies))
        return

    few = [each.wave for each in spoken[::10]]
    count = whisper.load(arguments.whisper).sizes.layers
    rows, targets = [], None
    for layer in range(1, count + 1):
        teacher = whisper.load(arguments.whisper, layer)
        targets = of_whole_clips(teacher)
        crops = [np.mean([cosine(*of_crops(teacher, targets, wave, seconds)) for wave in few]) for seconds in CROPS]
        rows.append([f"layer {layer}", *(f"{value:.3f}" for value in (phones(targets, spoken), *crops))])
    rows.append(["cepstra", f"{phones(of_whole_clips(CepstraTeacher()), spoken):.3f}", *("" for _ in CROPS)])
    print(f"{len(spoken)} clips, {len({each.speaker for each in spoken})} speakers; {len(few)} clips for the cosines\n")
    print(table(["", "phones", *(f"cosine, crops of {seconds:g} s" for seconds in CROPS)], rows), end="\n\n")

    means = np.mean([[cosines_at(targets, wave, speed) for speed in SPEEDS] for wave in few], axis=0).T
    names = ("interpolated to the speed", "not interpolated")
    rows = [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(names, means, strict=True)]
    print(table(["speed", *map(str, SPEEDS)], rows))


def of_codes(model: DeCodec, spoken: list[probe.Utterance]) -> float:
    """Accuracy of the most frequent phone of each first-level code, averaged over clips."""
    predict = partial(probe.most_frequent_phones, entries=model.config.speech.entries)
    return float(np.mean(probe.cross_validated(probe.first_level(model, spoken), predict)))


def of_crops(teacher: Teacher, whole: Targets, wave: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Targets of consecutive crops, as a training step computes them, and the whole clip's targets at the same frames.

    Both are `[frames, width]`; `whole` computes the targets of the whole clip.
    """
    size = round(seconds * SAMPLE_RATE / HOP)
    count = len(wave) // (size * HOP)
    crops = wave[: count * size * HOP].reshape(count, size * HOP)
    return np.asarray(teacher.targets(crops)).reshape(count * size, -1), whole(wave)[: count * size]


def phones(targets: Targets, spoken: list[probe.Utterance]) -> float:
    """Phone accuracy of a linear classifier on the targets, averaged over clips."""
    return float(np.mean(probe.phone_accuracy([targets(each.wave) for each in spoken], spoken, HOP)))


def cosines_at(targets: Targets, wave: np.ndarray, speed: float) -> tuple[float, float]:
    """Cosines of the original clip's targets with those of the clip played at `speed`.

    Returns the cosine for targets interpolated to that speed, and for unchanged targets.
    """
    played = targets(audio.resample(wave, round(SAMPLE_RATE * speed), SAMPLE_RATE))
    own = targets(wave)
    frames = min(len(own), len(played))
    return cosine(at_speed(own, speed, len(played)), played), cosine(own[:frames], played[:frames])


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine similarity over the features, averaged over the frames `[f, width]`."""
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return float(np.mean(np.sum(one * other, axis=-1) / (norms + 1e-6)))


if __name__ == "__main__":
    with one_line("compare_targets.py"):
        main()
