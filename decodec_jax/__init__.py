"""DeCodec in JAX: a neural audio codec that splits a recording into speech and background.

    from decodec_jax import DeCodec, read_audio, write_audio

    codec = DeCodec.load()
    wave, rate = read_audio("noisy.wav")
    write_audio("speech.wav", codec.enhance(wave, rate), rate)

Each name is imported when it is first used, so that importing the package is quick and starts no JAX.
"""

import importlib
from typing import TYPE_CHECKING

from decodec_jax.errors import UserError

if TYPE_CHECKING:
    from decodec_jax.audio import read as read_audio
    from decodec_jax.audio import write as write_audio
    from decodec_jax.inference.codec import DeCodec
    from decodec_jax.inference.tokens import Tokens

__version__ = "0.2.0"
__all__ = ["DeCodec", "Tokens", "UserError", "__version__", "read_audio", "write_audio"]

_LAZY = {
    "DeCodec": ("decodec_jax.inference.codec", "DeCodec"),
    "Tokens": ("decodec_jax.inference.tokens", "Tokens"),
    "read_audio": ("decodec_jax.audio", "read"),
    "write_audio": ("decodec_jax.audio", "write"),
}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    globals()[name] = value = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
