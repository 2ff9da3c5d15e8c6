"""Initialises a model from DAC's released weights: `load` reads a checkpoint, `graft` writes it into a fresh DeCodec.

    params, codebook = graft(*initialise(config.model, key), load("weights_16khz.pth"), config.model)

**Files.** Reads descript-audio-codec's own `.pth` (with torch), its state dict as `.safetensors`, and transformers'
DacModel (`model.safetensors`, with `config.json` in the same folder). Kernels may be whole (as transformers publishes
them) or split by weight norm in either of torch's ways.

**What the grafted network shares with DAC.** Encoder and decoder compute the same as DAC's. The LSTM, which DAC lacks,
has a skip connection, y = x + lstm(x). `graft` sets the cell candidates of its last layer to zero, so that it adds
exactly nothing at first but can learn. (If all its weights were zero, two layers would block each other's gradients.)
The projection keeps its initial values, so each quantizer gets half of the dimensions of DAC's embedding, or all of
them with `projection="none"`. Factorised quantizers of DAC's sizes get DAC's levels, level i for level i in both
streams. With "exact", whose halves are half as wide, they get those levels restricted to the half's own dimensions.

**Lengths.** DAC's transposed convolution of odd stride returns one step too few (torch's padding without
output_padding): with strides 2, 4, 5, 8 its decoder returns 320 f - 8 samples for f frames. Ours returns all 320 f, of
which `decode` keeps t. Sample i is the same instant in both, and has the same value up to 320 f - 446. DAC computed its
last 437 samples (27 ms) without the missing step. The encoder's frames are the same.
"""

import json
import logging
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from decodec_jax.codec.model import STREAMS, Halves
from decodec_jax.codec.quantize import Affine, Levels
from decodec_jax.codec.waveform import SCALE
from decodec_jax.config import Model, Quantizer
from decodec_jax.errors import UserError, differing

log = logging.getLogger(__name__)

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class DacWeights:
    """A DAC as float32 numpy arrays."""

    encoder: dict  # parameters of our `Encoder`, without the LSTM
    decoder: dict
    levels: Levels  # all codebooks, stacked: entries [k, n, d], compared by angle
    sizes: dict[str, object]  # the settings of `config.Model` that give this network


# --- names ----------------------------------------------------------------------------------------------------------

# Our names of the layers, in the order in which descript-audio-codec numbers them.
_UNIT = dict.fromkeys(("snake1", "dilated", "snake2", "pointwise"))
_UNITS = {"unit0": _UNIT, "unit1": _UNIT, "unit2": _UNIT}
_BLOCK = {"encoder": {**_UNITS, "snake": None, "down": None}, "decoder": {"snake": None, "up": None, **_UNITS}}
_DILATIONS = (1, 3, 9)  # of the units; the only size that the tensors do not show

_TRANSFORMERS = {
    "first": "conv1", "last": "conv2", "snake": "snake1", "down": "conv1", "up": "conv_t1",
    "unit0": "res_unit1", "unit1": "res_unit2", "unit2": "res_unit3", "dilated": "conv1", "pointwise": "conv2",
}  # fmt: skip

# Suffixes of a kernel: whole, or split into gain and direction by torch.nn.utils.weight_norm or by its successor.
_WHOLE = (".weight",)
_SPLIT = ((".weight_g", ".weight_v"), (".parametrizations.weight.original0", ".parametrizations.weight.original1"))


class _Layer(NamedTuple):
    """The names of a layer with weights."""

    path: tuple[str, ...]  # in our parameters
    descript: str
    transformers: str


def _layers(blocks: int) -> Iterator[_Layer]:
    """Every layer of an encoder and a decoder with this many blocks."""
    for side, descript in (("encoder", "encoder.block"), ("decoder", "decoder.model")):
        order = {"first": None, **{f"block{i}": _BLOCK[side] for i in range(blocks)}, "snake": None, "last": None}
        yield from _nested_layers(_Layer((side,), descript, side), order)


def _nested_layers(outer: _Layer, order: dict) -> Iterator[_Layer]:
    for i, (name, parts) in enumerate(order.items()):
        theirs = _TRANSFORMERS.get(name, name.replace("block", "block."))
        layer = _Layer((*outer.path, name), f"{outer.descript}.{i}", f"{outer.transformers}.{theirs}")
        if parts:
            yield from _nested_layers(layer._replace(descript=f"{layer.descript}.block"), parts)
        else:
            yield layer


def _tensor_names(name: str, tensors: Tensors) -> set[str]:
    """The tensors of the convolution `name`, in the form that the file uses."""
    form = next((form for form in _SPLIT if any(name + end in tensors for end in form)), _WHOLE)
    return {f"{name}.bias", *(name + end for end in form)}


def _count(pattern: str, tensors: Tensors) -> int:
    return len({match[1] for name in tensors if (match := re.fullmatch(pattern, name))})


# --- reading --------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> DacWeights:
    """Read a DAC from `weights*.pth`, a `.safetensors` file, or a folder with `model.safetensors`.

    Raises UserError if it is not a DAC, naming the tensors that are missing or unexpected.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file} does not exist; give a DAC checkpoint: weights_16khz.pth or model.safetensors")
    tensors, sample_rate = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    return from_tensors(tensors, sample_rate, str(file))


def _read_safetensors(file: Path) -> tuple[Tensors, int | None]:
    config = file.with_name("config.json")
    try:
        settings = json.loads(config.read_text()) if config.is_file() else {}
        return load_file(file), settings.get("sampling_rate")
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"{file} or its config.json is damaged: {error}; download it again") from None


def _read_torch(file: Path) -> tuple[Tensors, int | None]:
    try:
        import torch
    except ImportError:
        raise UserError(f"{file} needs PyTorch, which is not installed; install it, or convert the file "
                        "elsewhere: safetensors.torch.save_file(torch.load('weights_16khz.pth', 'cpu', "
                        "weights_only=True)['state_dict'], 'weights_16khz.safetensors')") from None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        tensors, settings = content["state_dict"], content["metadata"]["kwargs"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError):
        # torch's own message is long and suggests running code from the file
        raise UserError(f"{file} does not hold descript-audio-codec's weights: a state_dict and metadata") from None
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}, settings.get("sample_rate")


def from_tensors(tensors: Tensors, sample_rate: int | None = None, source: str = "the state dict") -> DacWeights:
    """A DAC from its state dict, as numpy arrays in either layout. sample_rate: Hz, or None if unknown.

    Raises UserError as `load` does, calling the weights `source`.
    """
    if "encoder.conv1.bias" in tensors:
        layout, block = "transformers", r"encoder\.block\.(\d+)\.conv1\.bias"
    elif "encoder.block.0.bias" in tensors:
        layout, block = "descript", r"encoder\.block\.(\d+)\.block\.4\.bias"
    else:
        raise UserError(f"{source} is not a DAC: it has neither encoder.conv1.bias nor encoder.block.0.bias")
    layers = {layer.path: getattr(layer, layout) for layer in _layers(_count(block, tensors))}
    levels = _count(r"quantizer\.quantizers\.(\d+)\.codebook\.weight", tensors)
    quantizers = [f"quantizer.quantizers.{k}" for k in range(max(levels, 1))]
    _check_names(layers, quantizers, tensors, source)

    params: dict = {}
    for (*outer, last), name in layers.items():
        place = params
        for key in outer:
            place = place.setdefault(key, {})
        if last.startswith("snake"):
            place[last] = {"alpha": _float32(tensors[f"{name}.alpha"]).reshape(-1)}
        else:
            place[last] = _convolution(name, tensors, transposed=last == "up")
    _rescale(**params)
    sizes = _sizes(**params) | ({} if sample_rate is None else {"sample_rate": sample_rate})
    return DacWeights(**params, levels=_levels(quantizers, tensors, source), sizes=sizes)


def _check_names(layers: dict, quantizers: list[str], tensors: Tensors, source: str) -> None:
    convolutions = [f"{name}.{end}" for name in quantizers for end in ("in_proj", "out_proj")]
    convolutions += [name for path, name in layers.items() if not path[-1].startswith("snake")]
    expected = {f"{name}.codebook.weight" for name in quantizers}
    expected |= {f"{name}.alpha" for path, name in layers.items() if path[-1].startswith("snake")}
    expected = expected.union(*(_tensor_names(name, tensors) for name in convolutions))
    problems = differing(dict.fromkeys(expected), dict.fromkeys(tensors))
    if problems:
        raise UserError(f"{source} is not a DAC as released; {problems}")


def _float32(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32)


def _convolution(name: str, tensors: Tensors, transposed: bool = False) -> dict[str, np.ndarray]:
    """Our parameters for a convolution `[d, c, k]` or a transposed one `[c, d, k]`. Gains belong to the first axis.

    The direction of a whole kernel is normalised to length one; `graft` rescales it.
    """
    split = next((form for form in _SPLIT if name + form[0] in tensors), None)
    if split:
        gain, direction = (_float32(tensors[name + end]) for end in split)
    else:
        kernel = _float32(tensors[f"{name}.weight"])
        gain = np.linalg.norm(kernel, axis=(1, 2), keepdims=True)
        direction = kernel / np.maximum(gain, 1e-12)
    return {
        "direction": direction.transpose((2, 0, 1) if transposed else (2, 1, 0)),
        "gain": gain.reshape(-1),
        "bias": _float32(tensors[f"{name}.bias"]),
    }


def _rescale(encoder: dict, decoder: dict) -> None:
    """Compensate in the first and last layers for the factor by which our networks scale waveforms."""
    encoder["first"]["gain"] = encoder["first"]["gain"] * SCALE
    for name in ("gain", "bias"):
        decoder["last"][name] = decoder["last"][name] / SCALE


def _affine(name: str, tensors: Tensors) -> Affine:
    """A convolution of kernel size 1 as a matrix product, with weight norm applied."""
    layer = _convolution(name, tensors)
    direction = layer["direction"][0]
    return Affine(direction * (layer["gain"] / np.maximum(np.linalg.norm(direction, axis=0), 1e-12)), layer["bias"])


def _levels(quantizers: list[str], tensors: Tensors, source: str) -> Levels:
    entries = [_float32(tensors[f"{name}.codebook.weight"]) for name in quantizers]
    shapes = sorted({array.shape for array in entries})
    if len(shapes) > 1:
        raise UserError(f"{source} has codebooks of several shapes, {shapes}; only equal ones can be imported")
    into, out = (
        Affine(*map(np.stack, zip(*(_affine(f"{name}.{side}", tensors) for name in quantizers), strict=True)))
        for side in ("in_proj", "out_proj")
    )
    return Levels(np.stack(entries), into, out)


def _sizes(encoder: dict, decoder: dict) -> dict[str, object]:
    first, last = encoder["first"]["direction"], encoder["last"]["direction"]
    blocks = sum(name.startswith("block") for name in encoder)
    return {
        "family": "waveform",
        "waveform.channels": first.shape[2],
        "waveform.strides": tuple(encoder[f"block{i}"]["down"]["direction"].shape[0] // 2 for i in range(blocks)),
        "waveform.dilations": _DILATIONS,
        "waveform.kernel": first.shape[0],
        "latent": last.shape[2],
        "waveform.decoder_channels": decoder["first"]["direction"].shape[2],
        "causal": False,
    }


# --- writing --------------------------------------------------------------------------------------------------------


def graft(params: dict, codebook: dict, dac: DacWeights, config: Model) -> tuple[dict, dict]:
    """Put DAC's weights into the trees that `model.initialise` returned; anything that DAC lacks stays as it was.

    Returns the same pair as `initialise`. DAC has no moving averages, so `codebook` is unchanged. Warnings name the
    codebooks that cannot be shared. Raises UserError, naming them, if other sizes do not match.
    """
    ours = vars(config) | {f"waveform.{name}": value for name, value in vars(config.waveform).items()}
    sizes = dac.sizes.items()
    others = [f"model.{name} is {ours[name]}, DAC's {value}" for name, value in sizes if ours[name] != value]
    if others:
        raise UserError(f"these DAC weights do not fit the config: {'; '.join(others)}; change the config")
    grafted = dict(params)
    for side in ("encoder", "decoder"):
        grafted[side] = _placed(params[side], getattr(dac, side), side)
        if "lstm" in params[side]:
            grafted[side]["lstm"] = _with_zero_output(params[side]["lstm"], config.waveform.lstm_layers - 1)
    for half, stream in zip(Halves._fields, STREAMS, strict=True):
        quantizer: Quantizer = getattr(config, half)
        if quantizer.kind == "factorised":
            width = config.half
            begin = width if config.projection == "exact" and stream == STREAMS[1] else 0
            coded = slice(begin + quantizer.first_dim, begin + width)  # the first level may have dimensions to itself
            grafted[stream] = _with_levels(params[stream], _restricted(dac.levels, coded), half)
        else:
            log.warning("%s: its codebooks are of kind %r and keep their initial values; DAC's are 'factorised'",
                        half, quantizer.kind)  # fmt: skip
    return grafted, codebook


def _placed(fresh: dict, ours: dict, where: str) -> dict:
    """`fresh` with every array of `ours` in its place.

    Directions are rescaled to the length of those they replace. The length does not affect outputs, but it does affect
    how fast a layer learns.
    """
    placed = dict(fresh)
    for name, value in ours.items():
        if isinstance(value, dict):
            placed[name] = _placed(fresh[name], value, f"{where}.{name}")
        elif value.shape != fresh[name].shape:
            raise UserError(f"{where}.{name} is {value.shape} in these DAC weights, but {fresh[name].shape} here: "
                            "their decoder does not mirror their encoder")  # fmt: skip
        elif name == "direction":
            placed[name] = value * (jnp.linalg.norm(fresh[name]) / np.linalg.norm(value))
        else:
            placed[name] = jnp.asarray(value)
    return placed


def _with_zero_output(lstm: dict, last: int) -> dict:
    """An LSTM stack with zero cell candidates in its layer `last`, the top one: it outputs zeros, but can learn."""

    def without_candidates(array):
        input_, forget, candidate, output = jnp.split(array, 4, axis=-1)
        return jnp.concatenate([input_, forget, jnp.zeros_like(candidate), output], axis=-1)

    fed = [f"{direction}{last}_{name}" for direction in ("forward", "backward") for name in ("kernel", "bias")]
    return lstm | {name: without_candidates(lstm[name]) for name in fed if name in lstm}


def _restricted(levels: Levels, ours: slice) -> Levels:
    """DAC's levels, restricted to some dimensions of the latent."""
    into, out = levels.into, levels.out
    return levels._replace(
        into=into._replace(kernel=into.kernel[:, ours]), out=Affine(out.kernel[:, :, ours], out.bias[:, ours])
    )


def _with_levels(params: dict, levels: Levels, half: str) -> dict:
    """A factorised quantizer's parameters with as many of DAC's levels as there are and as have the same shape."""
    arrays = {
        "entries": levels.entries,
        "into_kernel": levels.into.kernel, "into_bias": levels.into.bias,
        "out_kernel": levels.out.kernel, "out_bias": levels.out.bias,
    }  # fmt: skip
    available, *shape = levels.entries.shape
    placed, first = dict(params), 0
    for run in (name.removesuffix("_entries") for name in sorted(params) if name.endswith("_entries")):
        count, *ours = params[f"{run}_entries"].shape
        after = first + count
        if ours == shape:
            for name, theirs in arrays.items():
                fitting = theirs[first:after]
                placed[f"{run}_{name}"] = jnp.concatenate([fitting, params[f"{run}_{name}"][len(fitting):]])
            if after > available:
                log.warning("%s: levels beyond DAC's %d keep their initial values", half, available)
        else:
            log.warning("%s: levels %d to %d, of %s, keep their initial values; DAC's are of %s", half, first + 1,
                        after, " x ".join(map(str, ours)), " x ".join(map(str, shape)))  # fmt: skip
        first = after
    if available > first:
        log.warning("%s: DAC's levels from %d on are left out", half, first + 1)
    return placed
