"""Writes hubert.npz beside this file: what transformers' HubertModel gives with random weights, at every layer.

Run once, in an environment of its own, as no test needs torch or transformers:

    python3.11 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==5.23.0 numpy
    venv/bin/python tests/golden/make_hubert.py

The tests draw the same weights and waveforms again from the functions here. Of each case: `names` and `shapes` (filled
up with zeros) of the published layout, and for waveforms of t samples `states{t}`, the hidden states [layers + 1, b, f,
channels]; of the base architecture every 16th channel.
"""

import zlib
from pathlib import Path

import numpy as np

TINY_CONVS = ((6, 10, 5), (6, 3, 2), (6, 2, 2))  # channels, kernel, stride: 20 samples a frame, each made of 30
TINY = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 16,
        "num_conv_pos_embeddings": 5, "num_conv_pos_embedding_groups": 4}  # fmt: skip
CASES = {  # lengths, samples of padding before the first frame's middle, channels kept, normalised
    "base": ((5000,), 40, slice(None, None, 16), True),
    "tiny": ((1, 333), 5, slice(None), False),
}


def weights(names, shapes) -> dict[str, np.ndarray]:
    """Tensors of these names and shapes, each drawn from a generator that is seeded with its name."""
    tensors = {}
    for name, shape in zip(map(str, names), shapes, strict=True):
        shape = tuple(int(size) for size in shape if size)
        drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
        if name.endswith(("weight_g", "original0")):
            drawn = 2 + 0.3 * drawn
        elif name.endswith("norm.weight"):
            drawn = 1 + 0.1 * drawn
        elif len(shape) > 1:
            drawn *= 1.5 / np.sqrt(np.prod(shape[1:]))
        else:
            drawn *= 0.1
        tensors[name] = drawn.astype(np.float32)
    return tensors


def waves(t: int) -> np.ndarray:
    """Two clips `[2, t]`, one ten times as loud as the other, off zero."""
    noise = np.random.default_rng(t).standard_normal((2, t), np.float32)
    return np.float32([[0.2], [0.02]]) * noise + np.float32(0.05)


def main() -> None:
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    tiny = TINY | dict(zip(("conv_dim", "conv_kernel", "conv_stride"), zip(*TINY_CONVS, strict=True), strict=True))
    models = {"base": HubertModel(HubertConfig()).eval(), "tiny": HubertModel(HubertConfig(**tiny)).eval()}
    arrays = {}
    for case, (lengths, left, channels, normalise) in CASES.items():
        model = models[case]
        state = model.state_dict()
        names = list(state)
        shapes = [list(state[name].shape) + [0] * (3 - state[name].ndim) for name in names]
        model.load_state_dict({name: torch.from_numpy(t) for name, t in weights(names, shapes).items()})
        arrays |= {f"{case}/names": np.array(names), f"{case}/shapes": np.array(shapes)}
        hop = int(np.prod(model.config.conv_stride))
        preprocess = Wav2Vec2FeatureExtractor(do_normalize=normalise)
        for t in lengths:
            heard = preprocess(list(waves(t)), sampling_rate=16_000, return_tensors="np").input_values
            padded = np.pad(heard, ((0, 0), (left, left + -t % hop)))
            with torch.no_grad():
                states = model(torch.from_numpy(padded), output_hidden_states=True).hidden_states
            arrays[f"{case}/states{t}"] = torch.stack(states).numpy()[..., channels]
    np.savez_compressed(Path(__file__).parent / "hubert.npz", **arrays)


if __name__ == "__main__":
    main()
