"""SOP, the subspace orthogonal projection: one embedding into a speech half and a background half (equations 2-5)."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array


def orthogonality(speech: Array, background: Array) -> Array:
    """L_perp, equation (5): the root mean square over frames of cos(S_f, N_f); `[b, f, d]` twice `-> [b]` in 0..1.

    The paper leaves the axis and the scale of <S, N> open. The product over channels, in each frame, vanishes when the
    two subspaces are orthogonal. With the cosine, the encoder cannot lower the loss just by shrinking its output.
    """
    dot = jnp.sum(speech * background, axis=-1)
    energy = jnp.sum(speech**2, axis=-1) * jnp.sum(background**2, axis=-1)
    return jnp.sqrt(jnp.mean(dot**2 / (energy + 1e-8), axis=-1) + 1e-8)


def _first_half(_: Array, width: int) -> Array:
    """The projection onto the first half of the dimensions, `[width, width]`."""
    return jnp.diag((jnp.arange(width) < width // 2).astype(jnp.float32))


class Projection(nn.Module):
    """`[b, f, d]` embedding to its speech and background parts, and `joined` back to one for the decoder.

    learned: the paper's two linear layers; only the loss `orthogonality` keeps them apart. They start as two
             complementary projections, as equations (2)-(4) ask for: those of the exact form.
             Each part is `[b, f, d]`; `joined` adds them.
    exact:   an orthonormal basis of the embedding, split between the parts, so that P_S + P_N = I and P_S P_N^T = 0.
             The standard basis loses nothing: the encoder ends and the decoder begins with a linear layer, and these
             can learn any rotation. Each part is its coordinates, `[b, f, d / 2]`; `joined` concatenates them.
    none:    both parts are the whole embedding (the paper's Ablation-2); `joined` adds them.
    """

    form: str

    @nn.compact
    def __call__(self, embedding: Array) -> tuple[Array, Array]:
        if self.form == "none":
            return embedding, embedding
        width = embedding.shape[-1]
        if self.form == "exact":
            return embedding[..., : width // 2], embedding[..., width // 2 :]
        speech = self.param("speech", _first_half, width)
        background = self.param("background", lambda _: jnp.eye(width) - speech)
        return embedding @ speech, embedding @ background

    def joined(self, speech: Array, background: Array) -> Array:
        """Zs + Zn, the decoder's input `[b, f, d]`; parts may broadcast against each other."""
        if self.form != "exact":
            return speech + background
        return jnp.concatenate(jnp.broadcast_arrays(speech, background), axis=-1)
