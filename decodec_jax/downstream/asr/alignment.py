"""Forced alignment: which frames of an utterance a CTC network hears each symbol of its known text in."""

from collections.abc import Sequence

import numpy as np

from decodec_jax.downstream.asr.decoding import NEVER


def best_path(logs: np.ndarray, symbols: Sequence[int]) -> np.ndarray:
    """The likeliest alignment of a text: for each frame the number of its symbol in the text, or -1 for a blank.

    logs: log probabilities `[g, n]`; symbols: of the text, from 1 up. By Viterbi's algorithm over the states of CTC:
    the symbols, with a blank before, between and behind them. Raises ValueError if the text does not fit.
    """
    frames = np.arange(len(logs))
    states = np.zeros(2 * len(symbols) + 1, int)
    states[1::2] = symbols
    of_states = logs[:, states]
    # a blank may only be left out between two different symbols
    skips = np.zeros(len(states), bool)
    skips[3::2] = states[3::2] != states[1:-2:2]
    score, came = np.full(len(states), NEVER), np.zeros(of_states.shape, int)
    score[:2] = of_states[0, :2]
    for frame in frames[1:]:
        moves = np.stack([score, np.append(NEVER, score)[:-1],
                          np.where(skips, np.append([NEVER, NEVER], score)[:-2], NEVER)])  # fmt: skip
        came[frame] = np.argmax(moves, axis=0)
        score = np.max(moves, axis=0) + of_states[frame]
    state = len(states) - 1 - int(len(states) > 1 and score[-2] > score[-1])
    if not np.isfinite(score[state]):
        raise ValueError(f"{len(symbols)} symbols do not fit into {len(logs)} frames")
    path = np.zeros(len(logs), int)
    for frame in frames[::-1]:
        path[frame] = state // 2 if state % 2 else -1
        state -= came[frame, state]
    return path


def durations(path: np.ndarray, stack: int, frames: int) -> np.ndarray:
    """How many of the codec's frames each symbol of an alignment lasts; together they are `frames`.

    CTC networks tell a symbol in a frame or two and blanks around it, so a boundary is half-way between the middles of
    two symbols. Silence at the ends belongs to the first and the last symbol. stack: codec frames of a network's frame.
    """
    middles = np.array([np.mean(np.flatnonzero(path == symbol)) for symbol in range(path.max() + 1)]) + 0.5
    between = np.floor(stack * (middles[1:] + middles[:-1]) / 2 + 0.5).astype(int)
    return np.diff(np.concatenate([[0], between, [frames]]))
