"""Bundles: folders with `config.json` and `model.safetensors`, which the JAX package reads and writes too."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .config import from_dict
from .model import DeCodec

VERSION = 2
DECODER_SETTINGS = (("waveform", "decoder_channels"), ("waveform", "decoder_lstm"), ("spectral", "decoder_blocks"))

# For each tensor of the state dict: its name in a bundle, and the view that has the bundle's layout (features last,
# gains flat). Apart from these, only ".blocks.0" is renamed, to ".block0". Views share memory, so the same table serves
# reading and writing. The first matching pattern is used.
_NAMES: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    (r"(.*\.up)\.parametrizations\.weight\.original1", r"\1.direction", lambda w: w.permute(2, 0, 1)),
    (r"(.*)\.parametrizations\.weight\.original1", r"\1.direction", lambda w: w.permute(2, 1, 0)),
    (r"(.*)\.parametrizations\.weight\.original0", r"\1.gain", torch.flatten),
    (r"(.*)\.weight_ih_l(\d+)", r"\1.forward\2_kernel", torch.t),
    (r"(.*)\.weight_hh_l(\d+)", r"\1.forward\2_recurrent", torch.t),
    (r"(.*)\.bias_ih_l(\d+)", r"\1.forward\2_bias", torch.flatten),
    (r"(.*)\.weight_ih_l(\d+)_reverse", r"\1.backward\2_kernel", torch.t),
    (r"(.*)\.weight_hh_l(\d+)_reverse", r"\1.backward\2_recurrent", torch.t),
    (r"(.*)\.bias_ih_l(\d+)_reverse", r"\1.backward\2_bias", torch.flatten),
    (r"(.*)\.depthwise\.weight", r"\1.kernel", lambda w: w[:, 0].t()),
    (r"(.*)\.depthwise\.bias", r"\1.bias", torch.flatten),
    (r"(.*norm)\.weight", r"\1.scale", torch.flatten),
    (r"projection\.(speech|background)\.weight", r"projection.\1", torch.t),
    (r"(.*)\.weight", r"\1.kernel", torch.t),
)
_ALWAYS_ZERO = r".*\.lstm\.bias_hh_l\d+(_reverse)?"


def load(cls: type[DeCodec], folder: str | Path) -> DeCodec:
    """A model of this class with the weights of a bundle. Raises the errors of `DeCodec.from_pretrained`."""
    for name in ("config.json", "model.safetensors"):
        if not (Path(folder) / name).is_file():
            raise FileNotFoundError(f"{folder} is not a bundle: {name} is missing; `decodec export` writes bundles")
    described = json.loads((Path(folder) / "config.json").read_text())
    if described.get("version") not in (1, VERSION) or "model" not in described:
        raise ValueError(f"{folder} is a bundle of version {described.get('version')}; this file reads up to {VERSION}")
    config = from_dict(described["model"])
    tensors = load_file(Path(folder) / "model.safetensors")
    name = "fingerprint" if described["version"] == 1 else "checksum"
    found = checksum_of(described["model"], tensors)
    if found != described.get(name):
        raise ValueError(f"the bundle {folder} has changed since it was written: its {name} is {found}, "
                         f"not {described.get(name)}")  # fmt: skip
    model = cls(config, described["step"])
    views = _as_in_bundle(model.state_dict())
    _check(tensors, views, f"{folder}/model.safetensors")
    for name, view in views.items():
        view.copy_(tensors[name])
    return model


def save(model: DeCodec, folder: str | Path) -> str:
    """Write a bundle and return its fingerprint, see `DeCodec.save_pretrained`."""
    state = model.state_dict()
    second = [name for name, tensor in state.items() if re.fullmatch(_ALWAYS_ZERO, name) and tensor.any()]
    if second:
        raise ValueError(f"a bundle has one LSTM bias; add {', '.join(second)} to bias_ih and set it to zero")
    views = _as_in_bundle(state)
    with torch.device("meta"):  # shapes only, no memory
        _check(views, _as_in_bundle(DeCodec(model.config).state_dict()), "the model")
    tensors = {name: view.to("cpu", torch.float32).contiguous() for name, view in views.items()}
    settings = dataclasses.asdict(model.config)
    fingerprint = fingerprint_of(settings, tensors)
    described = {
        "format": "decodec_jax bundle", "version": VERSION, "fingerprint": fingerprint,
        "checksum": checksum_of(settings, tensors), "step": model.step, "model": settings,
    }  # fmt: skip
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    return fingerprint


def fingerprint_of(settings: dict, tensors: dict[str, Tensor]) -> str:
    """Sixteen hex digits that change with any value and any setting that gives tokens their meaning.

    The decoder's are left out, and so is `beam`: tokens mean the same however they were searched for.
    """
    parts = {name: {**settings[name]} for name, _ in DECODER_SETTINGS}
    for part, name in DECODER_SETTINGS:
        parts[part].pop(name, None)
    return _digest(settings | parts, {name: t for name, t in tensors.items() if not name.startswith("decoder.")})


def checksum_of(settings: dict, tensors: dict[str, Tensor]) -> str:
    """Sixteen hex digits that change with any value of the tensors and any setting of the model but `beam`."""
    return _digest(settings, tensors)


def _digest(settings: dict, tensors: dict[str, Tensor]) -> str:
    streams = {name: {**settings[name]} for name in ("speech", "background")}
    for stream in streams.values():
        stream.pop("beam", None)
    digest = hashlib.blake2b(json.dumps(settings | streams, sort_keys=True).encode(), digest_size=8)
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].float().contiguous().numpy())
    return digest.hexdigest()


def _as_in_bundle(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict with a bundle's names and layout, as views that share memory."""
    views = {}
    for name, tensor in state.items():
        if re.fullmatch(_ALWAYS_ZERO, name):
            continue
        name = name.replace(".blocks.", ".block")
        for pattern, renamed, view in _NAMES:
            if match := re.fullmatch(pattern, name):
                name, tensor = match.expand(renamed), view(tensor)
                break
        views[name] = tensor
    return views


def _check(tensors: dict[str, Tensor], expected: dict[str, Tensor], source: str) -> None:
    problems = {
        "missing": set(expected) - set(tensors),
        "unknown": set(tensors) - set(expected),
        "of another shape": {n for n in set(expected) & set(tensors) if expected[n].shape != tensors[n].shape},
    }
    if any(problems.values()):
        named = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in problems.items() if names)
        raise ValueError(f"{source} does not fit its config; {named}")
