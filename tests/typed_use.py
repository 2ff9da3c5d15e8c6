"""What a user writes, for mypy: `mypy` in the gate checks that these calls have the types that they promise.

Nothing runs this file.
"""

from typing import assert_type

import numpy as np

from decodec_jax import DeCodec, Tokens, UserError, __version__, read_audio, write_audio


def use() -> str:
    codec = DeCodec.load()
    assert_type(codec, DeCodec)
    wave, rate = read_audio("noisy.wav", seconds=2.0)
    assert_type(rate, int)
    try:
        speech = codec.enhance(wave, rate, levels=(4, 0))
    except UserError as error:
        return str(error)
    assert_type(speech, np.ndarray)
    write_audio("speech.wav", speech, rate)
    assert_type(codec.encode([0.0, 0.1], 16_000), Tokens | list[Tokens])
    tokens = codec.encode_batch([wave[0]], rate)
    assert_type(tokens, list[Tokens])
    assert_type(codec.decode(tokens, "speech"), np.ndarray)
    assert_type(codec.embed(wave, rate).speech, np.ndarray)
    assert_type(codec.continuous().fingerprint, str)
    for piece in codec.stream([wave], rate, keep="speech"):
        assert_type(piece, np.ndarray)
    return __version__
