"""Recovers the intact parts of a damaged .dcc file and reports the damage."""

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
from decodec_jax.inference.container.opening import File, opened, read_bytes
from decodec_jax.inference.tokens import STREAMS, Tokens


class Damage(NamedTuple):
    """A damaged stretch of a stream in a recovered file."""

    stream: str
    start: float  # s
    end: float  # s; infinite if the rest is missing and its length is unknown
    frames: slice  # frames of the recovered tokens; empty if the tokens end before the damage


class Recovered(NamedTuple):
    """The result of `recover`."""

    tokens: Tokens
    damaged: list[Damage]


def recover(file: File, fingerprint: str | None = None) -> Recovered:
    """Recover everything that is intact in a damaged or truncated file, and list the damage.

    A damaged stretch of a stream repeats its last intact frame (at the start of a stream, the next one). These codes
    are valid, but the recording never sounded like that, so mute the stretch or replace its `frames` by the codes of
    silence. A stream without any intact block is left out. If the end of the file is missing, the tokens end with the
    last block that is at least partly intact. If the header is damaged, its copy at the end of the file is used. Bytes
    lost or added in the middle shift all later blocks and so damage them. Raises UserError if nothing is intact, or if
    the file was made with other weights than `fingerprint`.
    """
    with opened(file) as (file, name):
        data = b"".join(iter(lambda: read_bytes(file, MAX_BLOCK_BYTES), b""))
    size = len(data) - HEADER_BYTES
    header, copy = (header_or_none(data[at]) for at in (slice(HEADER_BYTES), slice(max(size, 0), None)))
    if header is None and copy is None:
        Header.unpack(data[:HEADER_BYTES], name)  # raises an error that says what is wrong
    header = header or copy
    if header.length is None and copy is not None and copy.form == header.form:
        header = copy
    check_fingerprint(header, fingerprint, name)

    blocks = _surviving_blocks(data, header)
    if not any(map(_has_intact_part, blocks)):
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
            held = np.maximum(np.cumsum(intact) - 1, 0)  # index, among intact frames, of the one that each frame uses
            codes[i] = np.concatenate([part for part in parts if part is not None], axis=1)[:, held]
        lost = [False, *~intact, header.length != total, False]  # everything missing at the end counts as one frame
        for first, last in np.flatnonzero(np.diff(lost)).reshape(-1, 2).tolist():
            until = end if last >= frames else last / second
            damaged.append(Damage(STREAMS[i], first / second, until, slice(first, min(last, frames))))
    return Recovered(to_tokens(header, total, codes), damaged)


def _surviving_blocks(data: bytes, header: Header) -> list[Block]:
    """All blocks in the data; if the file ends early, up to the last block that is at least partly intact."""
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
        while blocks and not _has_intact_part(blocks[-1]):
            blocks.pop()
    return blocks


def _has_intact_part(block: Block) -> bool:
    """Whether either stream of a block is intact."""
    return any(codes is not None for codes in block[2])
