"""Decoding of a CTC network's output. Symbol 0 is the blank."""

import numpy as np

NEVER = -np.inf


def greedy(scores: np.ndarray) -> list[int]:
    """The likeliest symbol of each frame, repetitions joined and blanks left out: `[g, n] -> [m]`."""
    return collapsed(np.argmax(scores, axis=-1))


def collapsed(best: np.ndarray) -> list[int]:
    """The symbols of frames `[g]` to text: repetitions joined, blanks left out."""
    changed = np.concatenate([[True], best[1:] != best[:-1]]) if len(best) else np.zeros(0, bool)
    return [int(symbol) for symbol in best[changed] if symbol]


def beam(logs: np.ndarray, width: int = 16, among: int = 12) -> list[int]:
    """The likeliest text by prefix beam search (Hannun et al. 2014), which adds up all alignments of a prefix.

    logs:  log probabilities `[g, n]`.
    width: number of prefixes kept from frame to frame; among: number of most likely symbols tried in a frame.
    """
    # of each prefix, the log probabilities of its alignments that end with a blank, and of those that do not
    found: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NEVER)}
    for frame in logs:
        grown: dict[tuple[int, ...], tuple[float, float]] = {}

        def add(prefix: tuple[int, ...], blank: float, symbol: float, grown=grown) -> None:
            before = grown.get(prefix, (NEVER, NEVER))
            grown[prefix] = float(np.logaddexp(before[0], blank)), float(np.logaddexp(before[1], symbol))

        likely = [int(i) for i in np.argsort(-frame)[:among] if i]
        for prefix, (blank, symbol) in found.items():
            add(prefix, float(np.logaddexp(blank, symbol)) + frame[0], NEVER)
            if prefix:
                add(prefix, NEVER, symbol + frame[prefix[-1]])  # the same symbol goes on
            for each in likely:
                # after itself, a symbol is a new one only where a blank stands between
                before = blank if prefix and prefix[-1] == each else float(np.logaddexp(blank, symbol))
                add((*prefix, each), NEVER, before + frame[each])
        best = sorted(grown, key=lambda prefix: -np.logaddexp(*grown[prefix]))[:width]
        found = {prefix: grown[prefix] for prefix in best}
    return list(next(iter(found)))
