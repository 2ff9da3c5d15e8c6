"""DeCodec in JAX: a neural audio codec that splits a recording into speech and background."""

__version__ = "0.1.0"
