"""Reads tensors of published models, and converts transformer layers to our parameters."""

import json
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from decodec_jax.errors import UserError, differing

Tensors = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


def read_json(path: Path) -> dict:
    """The content of a JSON file; an empty dict if it does not exist. Raises UserError if it cannot be read."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error})") from None


def read_tensors(file: Path) -> Tensors:
    """All tensors of a .safetensors file or, if PyTorch is installed, of a file saved by PyTorch.

    Raises UserError if the file cannot be read.
    """
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is not a readable safetensors file ({error})") from None
    try:
        import torch
    except ImportError:
        raise UserError(f"{file} can only be read with PyTorch, which is not installed; install it, or use "
                        "model.safetensors") from None
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
        return {name: tensor.float().numpy() for name, tensor in tensors.items()}
    except Exception as error:  # torch passes on all errors of its unpickler, zip reader and tensors
        raise UserError(f"{file} is not a file of tensors that PyTorch can read ({error})") from None


def require_layout(tensors: Tensors, expected: Shapes, what: str, name: str) -> None:
    """Raise UserError, naming the tensors that differ, unless all have the expected names and shapes."""
    problems = differing(expected, {each: tensor.shape for each, tensor in tensors.items()})
    if problems:
        raise UserError(f"{name} does not hold a {what}; {problems}")


def affine(name: str, *shape: int) -> Shapes:
    """The tensor shapes of a layer with a weight and a bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def layer_shapes(names: dict[str, str], name: str, width: int, feed_forward: int) -> Shapes:
    """The tensor shapes of the transformer layer `name`. names: the published name of each part, by our name."""
    shapes = {}
    for part in "qkv":
        shapes |= affine(f"{name}.{names['attention']}.{part}_proj", width, width)
    shapes |= affine(f"{name}.{names['attention']}.out_proj", width, width)
    for part in ("attention_norm", "feed_forward_norm"):
        shapes |= affine(f"{name}.{names[part]}", width)
    return shapes | affine(f"{name}.{names['expand']}", feed_forward, width) | affine(
        f"{name}.{names['contract']}", width, feed_forward
    )


def norm(tensors: Tensors, name: str) -> dict:
    """Our parameters for a layer normalisation."""
    return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}


def dense(tensors: Tensors, name: str, into: tuple[int, ...] = (), out: tuple[int, ...] = ()) -> dict:
    """Our parameters for a dense layer; a missing bias becomes zeros.

    into, out: shapes of the input and output axes, if there are several.
    """
    weight = tensors[f"{name}.weight"].T
    bias = tensors.get(f"{name}.bias", np.zeros(weight.shape[1], np.float32))
    into, out = into or weight.shape[:1], out or weight.shape[1:]
    return {"kernel": weight.reshape(into + out), "bias": bias.reshape(out)}


def layers(tensors: Tensors, names: dict[str, str], prefix: str, count: int, heads: int) -> dict:
    """Our parameters for the transformer layers `prefix`.0 to `prefix`.(count - 1), stacked."""

    def layer(name: str) -> dict:
        attention = f"{name}.{names['attention']}"
        split = (heads, len(tensors[f"{attention}.q_proj.weight"]) // heads)
        parts = {"query": "q", "key": "k", "value": "v"}
        projections = {ours: dense(tensors, f"{attention}.{part}_proj", out=split) for ours, part in parts.items()}
        return {
            "attention": projections | {"out": dense(tensors, f"{attention}.out_proj", split)},
            **{part: norm(tensors, f"{name}.{names[part]}") for part in ("attention_norm", "feed_forward_norm")},
            **{part: dense(tensors, f"{name}.{names[part]}") for part in ("expand", "contract")},
        }

    return jax.tree.map(lambda *each: np.stack(each), *(layer(f"{prefix}.{i}") for i in range(count)))
