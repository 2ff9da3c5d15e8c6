"""Writes dac.npz beside this file: what the public implementations of DAC give, for the tests of the import to match.

Run once, in an environment of its own, as no test needs torch:

    python3.11 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==5.23.0 numpy einops tqdm
    venv/bin/pip install --no-deps descript-audio-codec==1.0.0 && venv/bin/python tests/golden/make_dac.py

Two public implementations, transformers' DacModel and descript-audio-codec, run with the same weights and must agree.
`tensors`, JSON, has for the released 16 kHz model ("full") and for a small one with the same strides ("small") a list
of [descript-audio-codec's name, transformers' name with weight norm, shape]. The small one's weights are not stored:
`drawn` makes them of their names. Of each clip of t samples, padded with zeros to whole frames:

    T/embedding [64, f], T/codes [k, f]
    T/audio     what DAC gives, which the odd stride leaves 8 samples short of the frames
    T/whole     the same with `output_padding` 1 where the stride is odd, which loses nothing
    T/length    how many samples DAC's own forward pass returns
"""

import json
import sys
import zlib
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import nn
from transformers import DacConfig, DacModel

# descript-audio-codec's network takes one base class from this package; the rest of it serves training and files
sys.modules |= {"audiotools": MagicMock(), "audiotools.ml": MagicMock(BaseModel=nn.Module), "argbind": MagicMock()}
from dac.model.dac import DAC  # noqa: E402

FULL = {"channels": 64, "decoder_channels": 1536, "levels": 12, "entries": 1024, "dim": 8}
SMALL = {"channels": 4, "decoder_channels": 32, "levels": 3, "entries": 16, "dim": 4}
STRIDES = [2, 4, 5, 8]
LENGTHS = (1, 312, 320, 1281, 1595, 1600)


def models(channels: int, decoder_channels: int, levels: int, entries: int, dim: int) -> tuple[DAC, DacModel]:
    """Both implementations, weight-normalised."""
    upwards = STRIDES[::-1]
    descript = DAC(channels, STRIDES, None, decoder_channels, upwards, levels, entries, dim, 0.5, 16_000)
    transformers = DacModel(DacConfig(
        encoder_hidden_size=channels, downsampling_ratios=STRIDES, decoder_hidden_size=decoder_channels,
        upsampling_ratios=upwards, n_codebooks=levels, codebook_size=entries, codebook_dim=dim, sampling_rate=16_000,
    ))  # fmt: skip
    transformers.apply_weight_norm()
    return descript.eval(), transformers.eval()


def paired(descript: DAC, transformers: DacModel) -> list[tuple[str, str, list[int]]]:
    """Both names and the shape of each tensor. Within each part both implementations create them in the same order."""
    pairs = []
    for part in ("encoder", "decoder", "quantizer"):
        sides = (getattr(model, part).state_dict().items() for model in (descript, transformers))
        for (one, tensor), (other, same) in zip(*sides, strict=True):
            assert tensor.shape == same.shape
            pairs.append((f"{part}.{one}", f"{part}.{other}", list(tensor.shape)))
    assert len(pairs) == len(descript.state_dict()) == len(transformers.state_dict())
    return pairs


def drawn(name: str, shape: list[int]) -> np.ndarray:
    """The small model's tensor of this name (descript-audio-codec's)."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith(("alpha", "weight_g")):
        return rng.uniform(0.4, 1.0, shape).astype(np.float32)
    return ((0.03 if name.endswith("bias") else 1.0) * rng.standard_normal(shape)).astype(np.float32)


def clip(t: int) -> np.ndarray:
    """`[t]` samples of noise."""
    return (0.3 * np.random.default_rng(t).standard_normal(t)).astype(np.float32)


def run(descript: DAC, transformers: DacModel, t: int) -> dict[str, np.ndarray]:
    """The arrays of one clip, on which both implementations agree."""
    wave = torch.from_numpy(clip(t))[None, None]
    padded = descript.preprocess(wave, 16_000)
    embedding = transformers.encoder(padded)
    quantized, codes, *_ = transformers.quantizer(embedding)
    audio = transformers.decoder(quantized)

    theirs = descript(wave)
    torch.testing.assert_close(theirs["audio"], audio[..., :t], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(descript.encoder(padded), embedding, atol=1e-5, rtol=1e-5)
    assert torch.equal(theirs["codes"], codes)
    assert torch.equal(transformers(padded).audio_values, audio[:, 0])

    transposed = [block.conv_t1 for block in transformers.decoder.block]
    for layer in transposed:
        layer.output_padding = (layer.stride[0] % 2,)
    whole = transformers.decoder(quantized)
    for layer in transposed:
        layer.output_padding = (0,)
    arrays = {"embedding": embedding[0], "codes": codes[0].int(), "audio": audio[0, 0], "whole": whole[0, 0]}
    return {key: value.numpy() for key, value in arrays.items()} | {"length": np.int32(theirs["audio"].shape[-1])}


@torch.no_grad()
def main() -> None:
    with torch.device("meta"):
        full = paired(*models(**FULL))
    descript, transformers = models(**SMALL)
    small = paired(descript, transformers)
    weights = [torch.from_numpy(drawn(name, shape)) for name, _, shape in small]
    descript.load_state_dict(dict(zip((name for name, _, _ in small), weights, strict=True)))
    transformers.load_state_dict(dict(zip((name for _, name, _ in small), weights, strict=True)))

    arrays = {"tensors": np.array(json.dumps({"full": full, "small": small}))}
    for t in LENGTHS:
        outcome = run(descript, transformers, t)
        arrays |= {f"{t}/{key}": value for key, value in outcome.items()}
        print(t, {key: (value.shape, round(float(np.abs(value).mean()), 3)) for key, value in outcome.items()})
    np.savez_compressed(Path(__file__).parent / "dac.npz", **arrays)


if __name__ == "__main__":
    main()
