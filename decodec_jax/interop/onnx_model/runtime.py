"""The graphs in onnxruntime, with the methods of the PyTorch twin, so that whatever measures one measures the other."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import torch
from torch import Tensor

State = tuple[Tensor, ...]


class Runtime:
    """What `files.write` has written. Waveforms are `[b, t]` and codes int64 `[b, k, f]`, as in the twin."""

    def __init__(self, folder: str | Path, threads: int = 1):
        self.description = json.loads((Path(folder) / "model.json").read_text())
        named = ("sample_rate", "hop", "causal")
        self.config = SimpleNamespace(**{name: self.description[name] for name in named})
        self.lookahead = self.description.get("lookahead", 0)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        graphs = sorted(Path(folder).glob("*.onnx"))
        self.sessions = {path.stem: onnxruntime.InferenceSession(str(path), options) for path in graphs}

    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        speech, background = self._run("encode", wave)
        return speech, background

    def decode(self, speech: Tensor, background: Tensor, length: int) -> Tensor:
        return self._run("decode", speech, background)[0][:, :length]

    def parts(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """The speech and the background of a recording, `[b, t]` each, in one graph."""
        speech, background = self._run("enhance", wave)
        return speech, background

    def encode_step(self, state: State, wave: Tensor) -> tuple[State, tuple[Tensor, Tensor]]:
        speech, background, *state = self._run("encode_step", wave, *(state or self._zeros("encode_step", len(wave))))
        return tuple(state), (speech, background)

    def decode_step(self, state: State, speech: Tensor, background: Tensor) -> tuple[State, Tensor]:
        before = state or self._zeros("decode_step", len(speech))
        wave, *state = self._run("decode_step", speech, background, *before)
        return tuple(state), wave

    def _run(self, graph: str, *inputs: Tensor) -> list[Tensor]:
        """The outputs of a graph for all its inputs, in their order."""
        session = self.sessions[graph]
        feeds = {each.name: value.numpy() for each, value in zip(session.get_inputs(), inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feeds)]

    def _zeros(self, graph: str, batch: int) -> State:
        """The state in which a stream begins."""
        shapes = {each.name: each.shape for each in self.sessions[graph].get_inputs()}
        states = self.description["zero_state"][graph]  # for a batch of one
        sizes = {name: [batch if isinstance(n, str) else n for n in shapes[name]] for name in states}
        return tuple(torch.from_numpy(np.zeros(size, np.float32)) for size in sizes.values())
