"""What comes out where something is absent: silence, a background that nobody speaks over, speech in a quiet room."""

import numpy as np

from decodec_jax.data.mixing import rms
from decodec_jax.evaluation import metrics
from decodec_jax.evaluation.suites.scoring import Scores
from decodec_jax.evaluation.systems.base import Item, System

SECONDS = 30.0  # of silence, and of backgrounds
FLOOR = 1e-6  # of full scale, -120 dB: what is quieter is told as that
PARTS = {"reconstruct": "mixture", "enhance": "speech", "background": "background"}


def group(item: Item) -> str:
    """What it is reported with: named by what is there."""
    if not item.mixture.any():
        return "silence"
    return "speech alone" if item.background is None else "background alone"


def scores(system: System, item: Item) -> Scores:
    """How loud each part is that comes out: beside what went in, dB, or of silence beside full scale.

    Of speech alone, too, the SI-SDR of the speech beside that of the whole, which its extraction should cost little of.
    """
    made = {part: system.tasks[task](item).wave for task, part in PARTS.items() if task in system.tasks}
    before = max(rms(item.mixture), FLOOR) if item.mixture.any() else 1.0
    found = {f"level/{part}": float(20 * np.log10(max(rms(wave), FLOOR) / before)) for part, wave in made.items()}
    if group(item) == "speech alone":
        for part in made.keys() & {"speech", "mixture"}:
            found[f"si_sdr/{part}"] = float(metrics.si_sdr(made[part], item.mixture))
        if {"si_sdr/speech", "si_sdr/mixture"} <= found.keys():
            found["si_sdr_kept"] = found["si_sdr/speech"] - found["si_sdr/mixture"]
    return found
