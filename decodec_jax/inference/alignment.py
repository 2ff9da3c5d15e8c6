"""One-shot voice conversion: chooses the reference frame that provides the voice for each source frame."""

import numpy as np

from decodec_jax.errors import UserError

ALIGNMENTS = ("content", "tile")
REACH = 2  # context frames on each side: 100 ms tell sounds apart better than 20 ms
ROWS = 512  # source frames compared at a time


def aligned(source: np.ndarray, reference: np.ndarray, vectors: np.ndarray, alignment: str = "content") -> np.ndarray:
    """The index of a reference frame for each source frame: first-level codes `[f]` and `[g]` to int `[f]`, below g.

    content: the reference frame that sounds most similar. The first level carries the words, so this minimises the
             squared distance between its vectors (`[entries, d]`, one for each code), summed over REACH frames on each
             side. The earliest of equals.
    tile:    the reference from its start, repeated as needed, as in the paper.

    Raises UserError for any other alignment.
    """
    if alignment not in ALIGNMENTS:
        raise UserError(f"alignment is {alignment!r}; it must be one of {', '.join(ALIGNMENTS)}")
    if alignment == "tile":
        return np.arange(len(source)) % len(reference)
    power = np.sum(vectors**2, axis=1)
    distance = power[:, None] + power - 2 * vectors @ vectors.T  # [entries, entries]
    said, heard = np.pad(source, REACH, "edge"), np.pad(reference, REACH, "edge")
    chosen = []
    for begin in range(0, len(source), ROWS):
        rows = np.arange(begin, min(begin + ROWS, len(source)))
        cost = sum(distance[said[rows + i, None], heard[i : i + len(reference)]] for i in range(2 * REACH + 1))
        chosen.append(np.argmin(cost, axis=1))
    return np.concatenate(chosen)
