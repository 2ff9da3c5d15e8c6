"""A model's graphs as files that share their weights: `encode.onnx` and so on, `weights.bin`, `model.json`.

All graphs name the same tensors of `weights.bin` as their external data, so each weight is stored once. A tensor takes
the fewest bytes that lose nothing: float16 where that holds every value, and with `int8` eight bits and a scale a row.
Standard operators of the graphs turn it into float32, which a runtime does once, when it loads the file. So the
size of the files changes neither the speed nor the arithmetic.
"""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from decodec_jax import audio
from decodec_jax.inference.loudness import LEVEL
from decodec_jax.interop.onnx_model import graphs
from decodec_jax.interop.torch_model import DeCodec
from decodec_jax.interop.torch_model.spectrum import analysis_matrix, hann, synthesis_matrix, waves

FORMS = ("whole", "stream")
WEIGHTS, DESCRIPTION = "weights.bin", "model.json"
SMALL = 1024  # elements; what is smaller stays in the graph
SHORTEST_ROW = 16  # elements that share a scale
LARGEST = 127  # of the eight bits
ALIGNED = 64  # bytes: where tensors begin, so that a runtime can use them where they lie

Moved = tuple[list[onnx.NodeProto], list[TensorProto]]


def write(model: DeCodec, folder: Path, fingerprint: str, licence: str, int8: bool = False, forms=FORMS) -> dict:
    """Write the graphs of a model into a folder; returns what `model.json` says of them.

    forms: "whole" and, for a causal model, "stream".

    int8: the weights of encoder and decoder take eight bits; round them first, with `rounded`. Codebooks are never
    rounded: tokens keep their meaning, and so their fingerprint.
    """
    made = graphs.whole(model) if "whole" in forms else {}
    made |= graphs.stream(model) if "stream" in forms and model.config.causal else {}
    store = Store(model, int8)
    described = describe(model, fingerprint, licence, int8)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    for name, graph in made.items():
        store.move_weights(graph.graph)
        helper.set_model_props(graph, {name: _text(value) for name, value in described.items()})
        graph.producer_name = "decodec_jax"
        contents[f"{name}.onnx"] = graph.SerializeToString()
    contents[WEIGHTS] = bytes(store.data)
    described["files"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()
    }
    contents[DESCRIPTION] = (json.dumps(described, indent=2) + "\n").encode()
    for name, data in contents.items():
        with audio.replacing(folder / name) as part:
            part.write_bytes(data)
    return described


def describe(model: DeCodec, fingerprint: str, licence: str, int8: bool) -> dict:
    """What a program needs to know of a model: sizes in samples, and the shapes of the zeros that begin a stream."""
    config = model.config
    description = {
        "format": "decodec_jax onnx", "version": 1, "fingerprint": fingerprint, "licence": licence,
        "weights": "int8" if int8 else "float", "sample_rate": config.sample_rate, "hop": config.hop,
        "levels": [config.speech.levels, config.background.levels],
        "entries": [config.speech.entries, config.background.entries],
        "coded_at_db": LEVEL, "causal": config.causal,
    }  # fmt: skip
    if config.causal:
        heard, said = graphs.states(model)
        description |= {
            "lookahead": model.lookahead, "latency": (1 + model.lookahead) * config.hop,
            "zero_state": {
                "encode_step": {f"state_{i}": list(zeros.shape) for i, zeros in enumerate(heard)},
                "decode_step": {f"state_{i}": list(zeros.shape) for i, zeros in enumerate(said)},
            },
        }  # fmt: skip
    return description


def rounded(model: DeCodec) -> DeCodec:
    """The model, each row of its encoder's and decoder's matrices rounded to 255 equal steps about zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if takes_eight_bits(name, parameter.shape):
                steps, scale = in_steps(parameter.detach().numpy())
                parameter.copy_(torch.from_numpy(steps * scale))
    return model


class Store:
    """Tensors on their way into `weights.bin`; what several graphs share goes there once."""

    def __init__(self, model: DeCodec, int8: bool):
        self.data = bytearray()
        self.int8 = int8
        self._places: dict[bytes, int] = {}  # by a digest of what is there
        self._window = 2 * model.config.hop
        self._matrices: dict[str, np.ndarray] = {}
        if model.config.family == "spectral":
            made = {"analysis": analysis_matrix, "synthesis": synthesis_matrix}
            self._matrices = {form: matrix(self._window).numpy() for form, matrix in made.items()}

    def move_weights(self, graph: onnx.GraphProto) -> None:
        """Put the large tensors of a graph into the store, and nodes first that turn them into float32 again."""
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        tensors |= {node.output[0]: node.attribute[0].t for node in graph.node if _is_constant(node)}
        moved = {
            name: self._moved(name, numpy_helper.to_array(tensor))
            for name, tensor in tensors.items()
            if tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= SMALL
        }
        nodes = [node for node in graph.node if moved.keys().isdisjoint(node.output)]
        stay = [tensor for tensor in graph.initializer if tensor.name not in moved]
        new = [tensor for _, added in moved.values() for tensor in added]
        del graph.node[:], graph.initializer[:]
        graph.node.extend([*(node for made, _ in moved.values() for node in made), *nodes])
        graph.initializer.extend([*stay, *new])

    def _moved(self, name: str, values: np.ndarray) -> Moved:
        """What gives a tensor of float32 under its name: nodes, and the tensors that they begin with."""
        for form, matrix in self._matrices.items():
            if np.array_equal(values, matrix):
                return _transform(name, self._window, form)
        if self.int8 and takes_eight_bits(name, values.shape):
            steps, scale = in_steps(values)
            whole, size = self._put(f"{name}/steps", steps), self._put(f"{name}/scale", scale)
            nodes = [
                helper.make_node("Cast", [whole.name], [f"{name}/whole"], to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"{name}/whole", size.name], [name]),
            ]
            return nodes, [whole, size]
        with np.errstate(over="ignore"):  # what float16 cannot hold is not taken for it
            half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            stored = self._put(f"{name}/half", half)
            return [helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT)], [stored]
        return [], [self._put(name, values)]

    def _put(self, name: str, values: np.ndarray) -> TensorProto:
        """A tensor that names its place in the store."""
        content = np.ascontiguousarray(values).tobytes()
        digest = hashlib.sha256(content).digest()
        if digest not in self._places:
            self.data.extend(bytes(-len(self.data) % ALIGNED))
            self._places[digest] = len(self.data)
            self.data.extend(content)
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=values.shape, data_location=TensorProto.EXTERNAL)
        place = {"location": WEIGHTS, "offset": self._places[digest], "length": len(content)}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def takes_eight_bits(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is a matrix of the encoder or decoder, with rows long enough to be worth a scale each."""
    inside = name.removeprefix("model.").startswith(("encoder.", "decoder."))
    return inside and len(shape) > 1 and math.prod(shape) >= SMALL and math.prod(shape[1:]) >= SHORTEST_ROW


def in_steps(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A tensor as int8 steps and the size of a step in each row, with as many axes; their product is about it."""
    largest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    scale = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def _transform(name: str, window: int, form: str) -> Moved:
    """The matrix of an STFT, or of its inverse, from tables: a megabyte less to store, and the same to some 1e-7."""
    bins, turn = window // 2 + 1, waves(window)[:, 1]  # one turn of cosine and negative sine
    share = np.full(bins, 2 / window)
    share[[0, -1]] /= 2  # the lowest and the highest frequency have no mirror image
    share = share if form == "synthesis" else np.ones(bins)
    tables = {
        "row": np.arange(bins)[:, None], "column": np.arange(window)[None], "window": np.array(window),
        "cosine": turn[0].numpy().astype(np.float32), "sine": turn[1].numpy().astype(np.float32),
        "hann": hann(window).numpy().astype(np.float32), "share": np.tile(share, 2)[:, None].astype(np.float32),
    }  # fmt: skip

    def node(kind: str, inputs: str, output: str, **attributes) -> onnx.NodeProto:
        given = [f"{name}/{each}" for each in inputs.split()]
        return helper.make_node(kind, given, [f"{name}/{output}" if output else name], **attributes)

    nodes = [
        node("Mul", "row column", "turned"), node("Mod", "turned window", "place"),
        node("Gather", "cosine place", "real"), node("Gather", "sine place", "imaginary"),
        node("Concat", "real imaginary", "waves", axis=0), node("Mul", "waves hann", "windowed"),
        node("Mul", "windowed share", "" if form == "synthesis" else "scaled"),
    ]  # fmt: skip
    if form == "analysis":
        nodes.append(node("Transpose", "scaled", ""))
    return nodes, [numpy_helper.from_array(values, f"{name}/{key}") for key, values in tables.items()]


def _is_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and node.attribute[0].name == "value"


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)
