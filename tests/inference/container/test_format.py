"""The bytes of a .dcc file are those of docs/container.md, and no more than it says."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from dcc_files import make, packed

from decodec_jax.errors import UserError
from decodec_jax.inference import container
from decodec_jax.inference.container.format import HEADER_BYTES, pack_codes
from decodec_jax.inference.tokens import Tokens

DOCS = Path(__file__).parents[3] / "docs" / "container.md"


def test_documented_reader_reads():
    scope = {}
    exec(re.search(r"```python\n(import struct.*?)```", DOCS.read_text(), re.DOTALL)[1], scope)
    for tokens in (make(1000, (3, 0), (1000, 5), hop=7), make(1, (1, 16), (65536, 2)), make()):
        for data in (packed(tokens, block_seconds=0.003), packed(tokens)):
            *header, speech, background = scope["read_dcc"](data)
            assert header == [16_000, tokens.hop, tokens.fingerprint, tokens.gain, tokens.length]
            for frames, codes in ((speech, tokens.speech), (background, tokens.background)):
                assert frames == (codes.T.tolist() if codes.size else [])
            with pytest.raises(ValueError):
                scope["read_dcc"](data[:-64] + b"x" + data[-63:])


def test_documented_bytes_do_not_change():
    example = re.search(r"```hex\n(.*?)```", DOCS.read_text(), re.DOTALL)[1]
    example = bytes.fromhex(re.sub(r"#.*", "", example))
    tokens = Tokens([[1, 2, 3], [4, 5, 6]], [[7, 0, 7]], 50, 1000, 20, (1000, 8), "00112233445566ff", 6.5)
    assert packed(tokens, block_seconds=0.04) == example
    assert container.read(io.BytesIO(example)) == tokens


def test_eight_kbit_are_eight_kbit_plus_under_one_percent():
    """1 s takes 1112 bytes, 11.2 % over its 1000 bytes of codes; 60 s take 0.97 %. docs/container.md has the table."""
    sizes = {seconds: len(packed(make(16_000 * seconds))) for seconds in (1, 10, 60)}
    assert sizes == {1: 1112, 10: 10_184, 60: 60_584}
    assert 8 * sizes[60] / 60 < 8000 * 1.01
    for seconds, size in sizes.items():
        assert f"| {seconds} s | {size} | {size / (1000 * seconds) - 1:.2%} |" in DOCS.read_text()
    a_frame_a_block = len(packed(make(16_000 * 60), block_seconds=0.02)) - 2 * HEADER_BYTES
    assert 8 * a_frame_a_block / 60 == 11_200


def test_a_code_beyond_the_codebook_is_damage():
    """No flip makes one, but a careless program may."""
    tokens = make(320, (1, 0), (1000, 2))
    header = container.info(io.BytesIO(packed(tokens)))
    payload = pack_codes(np.array([[1000]]), 10)
    data = header.pack() + payload + header.checksum(0, 320, 0, payload) + header.pack()
    with pytest.raises(UserError, match="is damaged"):
        container.read(io.BytesIO(data))


def test_nothing_is_unpickled():
    code = "".join(path.read_text() for path in Path(container.__file__).parents[1].rglob("*.py"))
    assert not re.search(r"\b(pickle|marshal|shelve|allow_pickle|np\.load)\b", code)
