"""Writes whisper.npz beside this file: what transformers' WhisperEncoder gives with random weights, at every layer.

Run once, in an environment of its own, as no test needs torch or transformers:

    python3.11 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==5.24.0 numpy
    venv/bin/python tests/golden/make_whisper.py

The tests draw the same weights and inputs again from the functions here and in make_hubert.py. `names` and `shapes`
(filled up with zeros) of the encoder's layout, `states` [layers + 1, b, f, width] of `spectra`, and `mel` [2, 80, 100],
what WhisperFeatureExtractor makes of a second of `make_hubert.waves`.
"""

import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.golden import make_hubert

TINY = {"num_mel_bins": 5, "d_model": 12, "encoder_layers": 3, "encoder_attention_heads": 3, "encoder_ffn_dim": 16,
        "max_source_positions": 9}  # fmt: skip


def spectra() -> np.ndarray:
    """Of as many frames as there are positions: `[2, 18, 5]`."""
    return np.random.default_rng(0).standard_normal((2, 18, 5), np.float32)


def main() -> None:
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    encoder = WhisperEncoder(WhisperConfig(**TINY)).eval()
    state = encoder.state_dict()
    names = list(state)
    shapes = [list(state[name].shape) + [0] * (3 - state[name].ndim) for name in names]
    encoder.load_state_dict({name: torch.from_numpy(t) for name, t in make_hubert.weights(names, shapes).items()})
    each = []
    for layer in encoder.layers:
        layer.register_forward_pre_hook(lambda layer, inputs: each.append(inputs[0]))
    with torch.no_grad():
        last = encoder(torch.from_numpy(spectra().transpose(0, 2, 1))).last_hidden_state
    extract = WhisperFeatureExtractor(chunk_length=1)
    mel = extract(list(make_hubert.waves(16_000)), sampling_rate=16_000, return_tensors="np").input_features
    states = torch.stack([*each, last]).numpy()
    np.savez_compressed(Path(__file__).parent / "whisper.npz", names=names, shapes=shapes, states=states, mel=mel)


if __name__ == "__main__":
    main()
