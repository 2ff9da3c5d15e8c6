"""Which frames of a reference lend their voice to which frames of a source, for one-shot voice conversion."""

import numpy as np

from decodec_jax.errors import UserError

ALIGNMENTS = ("content", "tile")
REACH = 2  # frames compared on either side of a frame: sounds are told apart better by 100 ms than by 20
ROWS = 512  # source frames compared at a time


def aligned(source: np.ndarray, reference: np.ndarray, vectors: np.ndarray, alignment: str = "content") -> np.ndarray:
    """For each source frame the number of a reference frame: first-level codes `[f]` and `[g]` to int `[f]`, below g.

    content: the frame where the reference says most nearly the same: the first level carries the words, so its vectors
             (`[entries, d]`, one for each code) are compared, by squared distance summed over REACH frames to either
             side. Of equals, the earliest.
    tile:    the reference from its start, as often as needed, whatever it says (the paper's).

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
