"""The .dcc file: tokens bit-packed in checksummed blocks of equal size, read from any second, a stream at a time.

docs/container.md has every byte of it. All functions take a path or a binary file object, which is read from where it
stands to its end and is left open. Pipes will do; what can be seeked in is only read where needed. Whatever is wrong
with a file ends as one UserError that names it, before any memory is spent on what its header claims.
"""

from decodec_jax.inference.container.format import Header
from decodec_jax.inference.container.reading import info, read, read_blocks
from decodec_jax.inference.container.recovery import Damage, Recovered, recover
from decodec_jax.inference.container.writing import Writer, write

__all__ = ["Damage", "Header", "Recovered", "Writer", "info", "read", "read_blocks", "recover", "write"]
