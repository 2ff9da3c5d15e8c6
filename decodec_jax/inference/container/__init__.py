"""The .dcc file format: bit-packed tokens in checksummed blocks of equal size.

Reading can start at any second, and can leave out a stream. docs/container.md specifies every byte. All functions take
a path or a binary file object, which is read from its current position to its end and left open. Pipes work too;
seekable files are read only where needed. Any problem with a file raises one UserError that names it, before memory is
allocated for what its header claims.
"""

from decodec_jax.inference.container.format import Header
from decodec_jax.inference.container.reading import info, read, read_blocks
from decodec_jax.inference.container.recovery import Damage, Recovered, recover
from decodec_jax.inference.container.writing import Writer, write

__all__ = ["Damage", "Header", "Recovered", "Writer", "info", "read", "read_blocks", "recover", "write"]
