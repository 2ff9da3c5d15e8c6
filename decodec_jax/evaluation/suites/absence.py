"""How quiet an output is if its source is absent: for silence, for background without speech, for clean speech."""

import numpy as np

from decodec_jax.data.mixing import rms
from decodec_jax.evaluation import metrics
from decodec_jax.evaluation.suites.scoring import Scores
from decodec_jax.evaluation.systems.base import Item, System

SECONDS = 30.0  # length of silence and of backgrounds
FLOOR = 1e-6  # of full scale, -120 dB: lower levels are reported as this
PARTS = {"reconstruct": "mixture", "enhance": "speech", "background": "background"}


def group(item: Item) -> str:
    """The group that an item is reported in, named after what the item contains."""
    if not item.mixture.any():
        return "silence"
    return "speech alone" if item.background is None else "background alone"


def scores(system: System, item: Item) -> Scores:
    """The level of each output in dB relative to the input, or to full scale if the input is silence.

    For clean speech, also the SI-SDR of the speech output and of the reconstruction, and the difference of the two:
    extracting the speech should cost little.
    """
    made = {part: system.tasks[task](item).wave for task, part in PARTS.items() if task in system.tasks}
    outputs = {part: wave for part, wave in made.items() if wave is not None}  # the oracle knows no part that is absent
    reference = max(rms(item.mixture), FLOOR) if item.mixture.any() else 1.0
    found = {f"level/{part}": float(20 * np.log10(max(rms(wave), FLOOR) / reference)) for part, wave in outputs.items()}
    if group(item) == "speech alone":
        for part in outputs.keys() & {"speech", "mixture"}:
            found[f"si_sdr/{part}"] = float(metrics.si_sdr(outputs[part], item.mixture))
        if {"si_sdr/speech", "si_sdr/mixture"} <= found.keys():
            found["si_sdr_kept"] = found["si_sdr/speech"] - found["si_sdr/mixture"]
    return found
