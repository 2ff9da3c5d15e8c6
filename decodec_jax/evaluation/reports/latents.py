"""The data behind a model's figures: its two projections, and the content and voice parts of its speech latents."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from decodec_jax.codec.model import DeCodecNetwork, Halves
from decodec_jax.codec.projection import Projection
from decodec_jax.inference.codec import DeCodec


def projections(model: DeCodec) -> Halves[np.ndarray]:
    """P_S and P_N of equations (2) and (3), float32 `[d, d]`: S_f = P_S Y_f."""
    identity = jnp.eye(model.config.latent)
    onto = Projection(model.config.projection).apply({"params": model.params.get("projection", {})}, identity)
    return Halves(*(matrix.T for matrix in in_one_space(model, Halves(*onto))))


def in_one_space(model: DeCodec, halves: Halves[np.ndarray]) -> Halves[np.ndarray]:
    """Embed both halves, `[f, config.half]` each, in the full latent space: `[f, d]` each."""
    zeros = Halves(*map(np.zeros_like, halves))
    parts = (halves.speech, zeros.background), (zeros.speech, halves.background)
    join = Projection(model.config.projection).joined
    return Halves(*(np.asarray(join(*part)) for part in parts))


def content_and_rest(model: DeCodec, waves: Sequence[np.ndarray], sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Zc, the first speech level, and Zr, the sum of the other levels, averaged over each recording `[t]`: `[n, d]`.

    Raises UserError if the codebooks have not started.
    """
    tokens = model.encode_batch(waves, sample_rate)
    codes = np.concatenate([each.speech for each in tokens], axis=1)[None]  # frames are independent, so one call does
    network = DeCodecNetwork(model.config)
    variables = {"params": model.params, "codebook": model.codebook}

    def summed(levels: int) -> np.ndarray:
        some = Halves(codes[:, :levels], np.zeros_like(codes[:, :1]))
        return np.asarray(network.apply(variables, some, method="vectors").speech[0])

    first, every = summed(1), summed(codes.shape[1])
    ends = np.cumsum([each.frames for each in tokens])[:-1]
    means = (np.stack([part.mean(axis=0) for part in np.split(z, ends)]) for z in (first, every - first))
    return tuple(means)
