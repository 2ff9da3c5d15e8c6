"""What a model does, as ONNX graphs: the PyTorch twin, traced.

The older of torch's two exporters is used. It keeps an LSTM as one operator for any number of frames, where the newer
one unrolls it, and it needs no package but onnx.
"""

import io
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn

from decodec_jax.errors import UserError
from decodec_jax.interop.torch_model import DeCodec
from decodec_jax.interop.torch_model.layers import Stream

OPSET = 17  # the first with layer normalisation as one operator
HALVES = "speech", "background"
SAMPLES, CODES = {0: "batch", 1: "samples"}, {0: "batch", 2: "frames"}  # axes of any size, by their names
TRACED = 2, 7  # batch and frames of the example; a size of 1 would be taken for a constant


class Encode(nn.Module):
    """`[b, t]` to speech and background codes `[b, k, f]`."""

    def __init__(self, model: DeCodec):
        super().__init__()
        self.model = model

    def forward(self, wave: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode(wave)


class Decode(Encode):
    """Codes `[b, k, f]` twice to samples `[b, f hop]`; a code of -1 leaves its level out, for a lower bitrate."""

    def forward(self, speech: Tensor, background: Tensor) -> Tensor:
        return self.model.decoder(vectors(self.model, speech, background))


class Enhance(Encode):
    """`[b, t]` to its speech and its background, `[b, t]` each."""

    def forward(self, wave: Tensor) -> tuple[Tensor, ...]:
        return self.model.take_apart(wave)[1:3]


class EncodeStep(Encode):
    """The next frames `[b, n hop]` and the state before to their codes `[b, k, n]` and the state after."""

    def forward(self, wave: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        state, codes = self.model.encode_step(state, wave)
        return (*codes, *state)


class DecodeStep(Encode):
    """The next codes `[b, k, n]` and the state before to their samples `[b, n hop]` and the state after."""

    def forward(self, speech: Tensor, background: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        stream = Stream(state)
        wave = self.model.decoder(vectors(self.model, speech, background), stream)
        return (wave, *stream.after)


def vectors(model: DeCodec, speech: Tensor, background: Tensor) -> Tensor:
    """`DeCodec.vectors` with all levels at hand, where -1 stands for those that are left out."""
    halves = []
    for codes, quantizer in ((speech, model.speech_quantizer), (background, model.background_quantizer)):
        there = (codes >= 0).unsqueeze(-1)
        levels = range(len(quantizer.levels()))
        found = [quantizer.of_level(codes[:, k].clamp(min=0), k) * there[:, k] for k in levels]
        halves.append(sum(found))
    return model.projection.joined(*halves)


def whole(model: DeCodec) -> dict[str, onnx.ModelProto]:
    """The graphs for whole recordings, of any batch and length: encode, decode, enhance."""
    wave, codes = _example(model)
    halves, parts = dict.fromkeys(HALVES, CODES), dict.fromkeys(HALVES, SAMPLES)
    graphs = {
        "encode": _traced(Encode(model), [wave], {"wave": SAMPLES}, halves),
        "decode": _traced(Decode(model), codes, halves, {"wave": SAMPLES}),
        "enhance": _traced(Enhance(model), [wave], {"wave": SAMPLES}, parts),
    }
    for graph in graphs.values():
        for node in graph.graph.node:
            if node.op_type == "LSTM":  # begins with zeros unless told otherwise; traced zeros have the example's batch
                del node.input[5:]
        _without_unused(graph.graph)
    return graphs


def stream(model: DeCodec) -> dict[str, onnx.ModelProto]:
    """The graphs for the next frames of a stream, of any batch: encode_step and decode_step.

    Raises UserError for a model that is not causal.
    """
    if not model.config.causal:
        raise UserError("this model is not causal, so it codes no stream; only its graphs for whole recordings exist")
    wave, codes = _example(model)
    halves = dict.fromkeys(HALVES, CODES)
    one, several = states(model), states(model, TRACED[0])
    return {
        "encode_step": _step(EncodeStep(model), one[0], several[0], [wave], {"wave": SAMPLES}, halves),
        "decode_step": _step(DecodeStep(model), one[1], several[1], codes, halves, {"wave": SAMPLES}),
    }


def states(model: DeCodec, batch: int = 1) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The zeros with which `encode_step` and `decode_step` begin a stream."""
    with torch.inference_mode():
        heard, codes = model.encode_step((), torch.zeros(batch, model.config.hop))
        said, _ = model.decode_step((), *codes)
    return tuple(map(torch.zeros_like, heard)), tuple(map(torch.zeros_like, said))


def _example(model: DeCodec) -> tuple[Tensor, list[Tensor]]:
    batch, frames = TRACED
    halves = model.config.speech, model.config.background
    codes = [torch.zeros(batch, half.levels, frames, dtype=torch.int64) for half in halves]
    return torch.zeros(batch, frames * model.config.hop), codes


def _step(module: nn.Module, one, several, inputs: Sequence[Tensor], named: dict, made: dict) -> onnx.ModelProto:
    """A step, its state in the inputs `state_0` and so on, and after the other outputs as `next_0` and so on.

    one, several: the state for a batch of one and for that of the example, which shows where the batch is.
    """
    shapes = [zip(x.shape, y.shape, strict=True) for x, y in zip(one, several, strict=True)]
    axes = [[a == b for a, b in pairs].index(False) for pairs in shapes]
    before = {f"state_{i}": {axis: "batch"} for i, axis in enumerate(axes)}
    after = {f"next_{i}": {axis: "batch"} for i, axis in enumerate(axes)}
    return _traced(module, [*inputs, *several], named | before, made | after)


def _traced(module: nn.Module, inputs: Sequence[Tensor], named: dict, made: dict) -> onnx.ModelProto:
    """`named` and `made`: names of inputs and outputs, and the axes of each that may have any size."""
    written = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age, and of values that tracing takes for constants
        torch.onnx.export(
            module.eval(), tuple(inputs), written, dynamo=False, opset_version=OPSET, do_constant_folding=False,
            input_names=list(named), output_names=list(made), dynamic_axes=named | made,
        )  # fmt: skip
    return onnx.load_from_string(written.getvalue())


def _without_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes that no output needs."""
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):  # which stand in the order in which they run
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
