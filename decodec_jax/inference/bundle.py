"""Bundles: folders with `config.json` and `model.safetensors`, which is all that you need to use a trained model.

config.json holds the model's settings under "model" and the step under "step". Its "fingerprint" says which tokens the
model understands, and "checksum" is that of all settings and weights.
Tensors are named by their path in the parameters, such as "encoder.block0.down.gain". Codebooks have the same names
however they were trained, such as "speech_quantizer.levels_entries". Tensors are stored as float32, or as float16 in
half the space, and read as float32. Reading a bundle needs neither Orbax nor torch.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as serialised

from decodec_jax import audio, weights
from decodec_jax import config as settings
from decodec_jax.codec.model import initialise
from decodec_jax.codec.quantize import Averages
from decodec_jax.config import Model
from decodec_jax.errors import UserError, differing

WEIGHTS, SETTINGS = "model.safetensors", "config.json"
VERSION = 2  # version 1 had no checksum, and its fingerprint covered the decoder, too
DECODER_SETTINGS = (("waveform", "decoder_channels"), ("waveform", "decoder_lstm"), ("spectral", "decoder_blocks"))
HALF_MAX = np.finfo(np.float16).max


class Bundle(NamedTuple):
    """A trained model."""

    config: Model
    params: dict
    codebook: dict
    step: int  # training steps behind it
    fingerprint: str  # of whatever gives tokens their meaning, 16 hex digits


def is_bundle(path: Path) -> bool:
    """Whether this folder holds a bundle's weights."""
    return (path / WEIGHTS).is_file()


def located(model: str | Path) -> Path:
    """The folder of a model; for "built-in" the one in the package. Raises UserError if that one is missing."""
    if str(model) != weights.BUILT_IN:
        return Path(model)
    if not is_bundle(weights.FOLDER):
        raise UserError(f"the model that comes with the package is not in {weights.FOLDER}; "
                        "install decodec_jax again, or name a model of your own")  # fmt: skip
    return weights.FOLDER


def save(
    folder: str | Path, config: Model, params: dict, codebook: dict, step: int, half: bool = False,
    fingerprint: str | None = None,
) -> Bundle:  # fmt: skip
    """Write a bundle and return it. The weights are written first, and each file appears only when complete.

    half: round to float16. fingerprint: of a bundle of version 1 with these very weights, to be kept unless rounding
    changes them; None: `fingerprint_of` what is written. Raises UserError if values exceed the range of float16, or if
    the bundle cannot be written.
    """
    folder, tensors = Path(folder), to_tensors(params, codebook)
    if half:
        rounded = _halved(tensors)
        if any(not np.array_equal(rounded[name], tensors[name]) for name in tensors):
            fingerprint = None
        tensors = rounded
        params, codebook = from_tensors(config, tensors, str(folder))
    fingerprint = fingerprint or fingerprint_of(config, tensors)
    described = {
        "format": "decodec_jax bundle", "version": VERSION, "fingerprint": fingerprint,
        "checksum": checksum_of(config, tensors), "step": step, "model": settings.to_dict(config),
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with audio.replacing(folder / WEIGHTS) as part:
            part.write_bytes(serialised(tensors))  # a file made by save_file is readable only by its owner
        with audio.replacing(folder / SETTINGS) as part:
            part.write_text(json.dumps(described, indent=2) + "\n")
    except (OSError, SafetensorError, UserError) as error:
        raise UserError(f"the bundle could not be written to {folder}: {error}") from None
    return Bundle(config, params, codebook, step, fingerprint)


def load(folder: str | Path) -> Bundle:
    """Read a bundle. Raises UserError, naming what is missing, unexpected, of another shape or changed."""
    folder = Path(folder)
    for name in (SETTINGS, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a bundle: {name} is missing")
    try:
        described = json.loads((folder / SETTINGS).read_text())
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: not JSON, or not text
        raise UserError(f"the bundle {folder} is damaged: {error}") from None
    if not isinstance(described, dict) or not {"fingerprint", "step"} <= described.keys():
        raise UserError(f"the bundle {folder} is damaged: {SETTINGS} has no fingerprint or step")
    if described.get("version") not in (1, VERSION) or "model" not in described:
        raise UserError(f"{folder} is a bundle of version {described.get('version')}; "
                        f"this decodec_jax reads up to {VERSION}: use the one that wrote it")  # fmt: skip
    config = settings.from_dict(Model, described["model"], str(folder / SETTINGS))
    name = "fingerprint" if described["version"] == 1 else "checksum"
    checksum = checksum_of(config, tensors)
    if checksum != described.get(name):
        raise UserError(f"the bundle {folder} has changed since it was written: its {name} is {checksum}, "
                        f"not {described.get(name)}")  # fmt: skip
    params, codebook = from_tensors(config, tensors, str(folder / WEIGHTS))
    return Bundle(config, params, codebook, described["step"], described["fingerprint"])


def fingerprint_of(config: Model, tensors: dict[str, np.ndarray]) -> str:
    """Sixteen hex digits that change with any value and any setting that gives tokens their meaning.

    The decoder's are left out, so that one that was trained further decodes older tokens, and so is `beam`: tokens mean
    the same however they were searched for.
    """
    described = settings.to_dict(config)
    for part, name in DECODER_SETTINGS:
        del described[part][name]
    return _digest(described, {name: array for name, array in tensors.items() if not name.startswith("decoder.")})


def checksum_of(config: Model, tensors: dict[str, np.ndarray]) -> str:
    """Sixteen hex digits that change with any value of the tensors and any setting of the model but `beam`."""
    return _digest(settings.to_dict(config), tensors)


def _digest(described: dict, tensors: dict[str, np.ndarray]) -> str:
    for stream in ("speech", "background"):
        del described[stream]["beam"]
    digest = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=8)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name], np.float32))
    return digest.hexdigest()


def to_tensors(params: dict, codebook: dict) -> dict[str, np.ndarray]:
    """Parameters and codebooks as float32, by their names in the file. Only training needs the averages' sums."""
    tensors = dict(_named(params))
    tensors |= {f"{stream}.{run}_entries": a.entries for stream, runs in codebook.items() for run, a in runs.items()}
    return {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}


def from_tensors(config: Model, tensors: dict[str, np.ndarray], source: str) -> tuple[dict, dict]:
    """The inverse of `to_tensors`, also for float16. Moving averages start afresh. Raises UserError as `load` does."""
    params, codebook = jax.eval_shape(lambda: initialise(config, jax.random.key(0)))
    expected = {name: a.shape for name, a in dict(_named(params)).items()}
    expected |= {f"{s}.{run}_entries": a.entries.shape for s, runs in codebook.items() for run, a in runs.items()}
    problems = differing(expected, {name: tensor.shape for name, tensor in tensors.items()})
    if problems:
        raise UserError(f"{source} does not fit its config; {problems}")

    def averages(entries: np.ndarray) -> Averages:
        entries = jnp.asarray(entries, jnp.float32)
        return Averages(entries, jnp.ones(entries.shape[:2]), jnp.copy(entries))

    return (
        jax.tree.map_with_path(lambda path, _: jnp.asarray(tensors[_name(path)], jnp.float32), params),
        {s: {run: averages(tensors[f"{s}.{run}_entries"]) for run in runs} for s, runs in codebook.items()},
    )


def _halved(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name, array in tensors.items():
        largest = np.abs(array).max(initial=0)
        if not largest <= HALF_MAX:  # also catches NaN
            raise UserError(f"{name} reaches {largest:g}, and half precision holds {HALF_MAX:g} at the most; "
                            "save this model in full precision")  # fmt: skip
    return {name: array.astype(np.float16) for name, array in tensors.items()}


def _named(tree: dict) -> Iterator[tuple[str, jax.Array]]:
    return ((_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree))


def _name(path: tuple) -> str:
    return ".".join(key.key for key in path)
