"""What is left of a damaged .dcc file, and where it is not."""

import math
from typing import NamedTuple

import numpy as np

from decodec_jax.errors import UserError
from decodec_jax.inference.container.format import (
    HEADER_BYTES,
    MAX_BLOCK_BYTES,
    Block,
    Header,
    check_fingerprint,
    header_or_none,
    to_tokens,
    unpack_block,
)
from decodec_jax.inference.container.opening import File, opened, take
from decodec_jax.inference.tokens import STREAMS, Tokens


class Damage(NamedTuple):
    """Where a stream of a recovered file has no codes of its own."""

    stream: str
    start: float  # s
    end: float  # s; infinite where the rest is missing and nothing tells how long it was
    frames: slice  # of the recovered tokens; empty where they end before the damage


class Recovered(NamedTuple):
    """What `recover` finds."""

    tokens: Tokens
    damaged: list[Damage]


def recover(file: File, fingerprint: str | None = None) -> Recovered:
    """All that is intact in a damaged or truncated file, and where it is not.

    A damaged stretch of a stream is filled with its last intact frame, held (the next one, at the start): valid codes,
    but no sound that was ever there, so silence it or replace its `frames` by the codes of silence. A stream without
    one intact block is left out. Where the end is missing, the tokens end with the last block that something is left
    of. If the header is damaged, its copy at the end of the file serves. Bytes lost or added in the middle shift, and
    so damage, all blocks after them. Raises UserError if nothing is left, or the weights are others.
    """
    with opened(file) as (file, name):
        data = b"".join(iter(lambda: take(file, MAX_BLOCK_BYTES), b""))
    size = len(data) - HEADER_BYTES
    header, copy = (header_or_none(data[at]) for at in (slice(HEADER_BYTES), slice(max(size, 0), None)))
    if header is None and copy is None:
        Header.unpack(data[:HEADER_BYTES], name)  # says what is wrong with it
    header = header or copy
    if header.length is None and copy is not None and copy.form == header.form:
        header = copy
    check_fingerprint(header, fingerprint, name)

    blocks = _blocks_left(data, header)
    if not any(map(_anything, blocks)):
        raise UserError(f"nothing can be recovered from {name}: none of its blocks is intact")
    total = sum(samples for _, samples, _ in blocks)
    end = math.inf if header.length is None else header.length / header.sample_rate
    frames, second = header.frames(total), header.sample_rate / header.hop
    codes, damaged = [None, None], []
    for i in range(2):
        if not header.levels[i]:
            continue
        parts = [codes[i] for _, _, codes in blocks]
        intact = np.repeat([part is not None for part in parts], [header.frames(n) for _, n, _ in blocks])
        if intact.any():
            held = np.maximum(np.cumsum(intact) - 1, 0)  # of the intact frames, the one that each frame repeats
            codes[i] = np.concatenate([part for part in parts if part is not None], axis=1)[:, held]
        lost = [False, *~intact, header.length != total, False]  # all that is missing at the end counts as a frame
        for first, last in np.flatnonzero(np.diff(lost)).reshape(-1, 2).tolist():
            until = end if last >= frames else last / second
            damaged.append(Damage(STREAMS[i], first / second, until, slice(first, min(last, frames))))
    return Recovered(to_tokens(header, total, codes), damaged)


def _blocks_left(data: bytes, header: Header) -> list[Block]:
    """The blocks in what is left of a file; where that ends early, they end with the last that is partly intact."""
    size, whole = header.block_bytes, header.block_samples
    count = math.ceil((len(data) - HEADER_BYTES) / size)
    if header.length is not None:
        count = min(count, math.ceil(header.length / whole))
    blocks = []
    for n in range(count):
        samples = whole if header.length is None else min(whole, header.length - n * whole)
        at = HEADER_BYTES + n * size
        block = data[at : at + sum(header.part_bytes(samples))]
        blocks.append((n * whole, samples, unpack_block(header, n * whole, samples, block)))
    if header.length is None or len(data) < header.file_bytes:
        while blocks and not _anything(blocks[-1]):
            blocks.pop()
    return blocks


def _anything(block: Block) -> bool:
    """Is any part of it intact?"""
    return any(codes is not None for codes in block[2])
