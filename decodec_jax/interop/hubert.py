"""Reads HuBERT's published weights: `facebook/hubert-base-ls960` and other HuBERT models with its architecture."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from decodec_jax.errors import UserError
from decodec_jax.interop.tensors import (
    Shapes,
    Tensors,
    affine,
    dense,
    layer_shapes,
    layers,
    norm,
    read_json,
    read_tensors,
    require_layout,
)
from decodec_jax.objective.hubert import HubertSizes
from decodec_jax.objective.teacher import HUBERT_LAYER, MEAN, HubertTeacher, fingerprint_of

FILES = ("model.safetensors", "pytorch_model.bin")
POSITION = "encoder.pos_conv_embed.conv"
UNUSED = "masked_spec_embed"  # replaces masked frames in HuBERT's own training
LAYER = {  # parts of a transformer layer: our names and the published ones
    "attention": "attention",
    "attention_norm": "layer_norm",
    "expand": "feed_forward.intermediate_dense",
    "contract": "feed_forward.output_dense",
    "feed_forward_norm": "final_layer_norm",
}
ONLY = {  # the only supported values of these settings in config.json, which are also the defaults
    "model_type": "hubert",
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": True,
    "hidden_act": "gelu",
    "conv_bias": False,
    "conv_pos_batch_norm": False,
    "do_stable_layer_norm": False,
    "layer_norm_eps": 1e-5,
}


def load(path: str | os.PathLike, layer: int = HUBERT_LAYER) -> HubertTeacher:
    """Read the teacher in a folder with weights, config.json and preprocessor_config.json.

    path: that folder, or the file of weights in it. layer: 1 for the first layer's output and so on, or `teacher.MEAN`;
    layers above it are left out. Without config.json, the sizes are those of HuBERT base. Without
    preprocessor_config.json, clips are normalised, as with the published one. The weights are numpy arrays: put the
    teacher on the devices once, before the first step. Raises UserError if the file does not hold such a network,
    naming the tensors that are missing, unexpected or of another shape.
    """
    path = Path(path)
    file = _file(path)
    sizes = read_sizes(file.parent)
    if layer != MEAN and not 1 <= layer <= sizes.layers:
        raise UserError(f"layer is {layer}, but this HuBERT has {sizes.layers} layers; give 1 to {sizes.layers}, "
                        f"or {MEAN} for their mean")  # fmt: skip
    return make_teacher(read_tensors(file), sizes, layer, str(file))


def make_teacher(tensors: Tensors, sizes: HubertSizes, layer: int, name: str = "the weights") -> HubertTeacher:
    """A teacher from tensors with their published names. name: how errors call the tensors. See `load`."""
    tensors = plain_names(tensors)
    require_layout(tensors, layout(sizes), f"HuBERT of {sizes.layers} layers of {sizes.width}", name)
    used = sizes if layer == MEAN else replace(sizes, layers=layer)
    params = convert(tensors, used)
    return HubertTeacher(params, used, layer, fingerprint_of("hubert", (used, layer), params))


# --- reading --------------------------------------------------------------------------------------------------------


def _file(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} does not exist; download facebook/hubert-base-ls960 and name its folder")
    if path.is_file():
        return path
    for name in FILES:
        if (path / name).exists():
            return path / name
    raise UserError(f"{path} has no weights of HuBERT: there is neither {' nor '.join(FILES)} in it")


def read_sizes(folder: Path) -> HubertSizes:
    """The sizes from a folder's config.json and preprocessor_config.json; those of HuBERT base for absent files."""
    config, preprocessor = (read_json(folder / name) for name in ("config.json", "preprocessor_config.json"))
    for name, value in ONLY.items():
        if config.get(name, value) != value:
            raise UserError(f"{folder / 'config.json'}: {name} is {config[name]!r}; only {value!r} is supported")
    if preprocessor.get("sampling_rate", 16_000) != 16_000:
        raise UserError(f"{folder}: this HuBERT is for {preprocessor['sampling_rate']} Hz; use one for 16000 Hz")
    base = HubertSizes()
    names = ("conv_dim", "conv_kernel", "conv_stride")
    convs = [config.get(name, default) for name, default in zip(names, zip(*base.convs, strict=True), strict=True)]
    if len({len(values) for values in convs}) > 1:
        raise UserError(f"{folder / 'config.json'}: {', '.join(names)} are not of equal length")
    sizes = HubertSizes(
        convs=tuple(zip(*convs, strict=True)),
        width=config.get("hidden_size", base.width),
        layers=config.get("num_hidden_layers", base.layers),
        heads=config.get("num_attention_heads", base.heads),
        feed_forward=config.get("intermediate_size", base.feed_forward),
        position_kernel=config.get("num_conv_pos_embeddings", base.position_kernel),
        position_groups=config.get("num_conv_pos_embedding_groups", base.position_groups),
        normalise=preprocessor.get("do_normalize", base.normalise),
    )
    if sizes.hop != base.hop:
        raise UserError(f"{folder / 'config.json'}: {sizes.hop} samples a frame; the codec has {base.hop}")
    for name, parts in (("num_attention_heads", sizes.heads), ("num_conv_pos_embedding_groups", sizes.position_groups)):
        if sizes.width % parts:
            raise UserError(f"{folder / 'config.json'}: {name} is {parts}, which does not divide {sizes.width}")
    return sizes


# --- names ----------------------------------------------------------------------------------------------------------


def plain_names(tensors: Tensors) -> Tensors:
    """The encoder's tensors in float32, without the prefix of task models, with the older names of weight norm."""
    if any(name.startswith("hubert.") for name in tensors):
        tensors = {name.removeprefix("hubert."): t for name, t in tensors.items() if name.startswith("hubert.")}
    newer = f"{POSITION}.parametrizations.weight.original"
    older = {f"{newer}0": f"{POSITION}.weight_g", f"{newer}1": f"{POSITION}.weight_v"}
    return {older.get(name, name): np.asarray(t, np.float32) for name, t in tensors.items() if name != UNUSED}


def layout(sizes: HubertSizes) -> Shapes:
    """The published names of all tensors, with their shapes."""
    width, last = sizes.width, sizes.convs[-1][0]
    shapes, channels = {}, 1
    for i, (out, kernel, _) in enumerate(sizes.convs):
        shapes[f"feature_extractor.conv_layers.{i}.conv.weight"] = (out, channels, kernel)
        channels = out
    shapes |= affine("feature_extractor.conv_layers.0.layer_norm", sizes.convs[0][0])
    shapes |= affine("feature_projection.layer_norm", last) | affine("feature_projection.projection", width, last)
    shapes[f"{POSITION}.weight_g"] = (1, 1, sizes.position_kernel)
    shapes[f"{POSITION}.weight_v"] = (width, width // sizes.position_groups, sizes.position_kernel)
    shapes[f"{POSITION}.bias"] = (width,)
    shapes |= affine("encoder.layer_norm", width)
    for i in range(sizes.layers):
        shapes |= layer_shapes(LAYER, f"encoder.layers.{i}", width, sizes.feed_forward)
    return shapes


def convert(tensors: Tensors, sizes: HubertSizes) -> dict:
    """The `params` of `objective.hubert.Hubert` from tensors in the published `layout`."""
    direction = tensors[f"{POSITION}.weight_v"]
    length = np.sqrt(np.sum(direction**2, axis=(0, 1), keepdims=True))  # weight norm over the taps, torch's dim=2
    convs = {
        f"conv{i}": {"kernel": tensors[f"feature_extractor.conv_layers.{i}.conv.weight"].transpose(2, 1, 0)}
        for i in range(len(sizes.convs))
    }
    return convs | {
        "conv_norm": norm(tensors, "feature_extractor.conv_layers.0.layer_norm"),
        "feature_norm": norm(tensors, "feature_projection.layer_norm"),
        "projection": dense(tensors, "feature_projection.projection"),
        "position_kernel": (tensors[f"{POSITION}.weight_g"] * direction / length).transpose(2, 1, 0),
        "position_bias": tensors[f"{POSITION}.bias"],
        "input_norm": norm(tensors, "encoder.layer_norm"),
        "layers": layers(tensors, LAYER, "encoder.layers", sizes.layers, sizes.heads),
    }
