"""Describes models and files for `decodec info`, and exports models as bundles with a model card."""

import contextlib
import importlib.metadata
import json
import platform
from dataclasses import replace
from pathlib import Path

import jax

from decodec_jax import __version__, audio
from decodec_jax.config import check_beam
from decodec_jax.errors import UserError
from decodec_jax.inference import bundle, container
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.streaming import latency
from decodec_jax.inference.tokens import bitrate
from decodec_jax.weights import BUILT_IN

SIGNED = "`decodec export` of decodec_jax"
CARD = """\
# A DeCodec model

Splits recordings into speech and background while it codes them (DeCodec, arXiv 2509.09201). Made by {signed}, for the
command `decodec` and for `decodec_jax.DeCodec`:

    decodec enhance noisy.wav clean.wav --model {name}

| | |
|---|---|
{facts}

{measured}

The model was trained to separate speech from the rest. Music, several voices at once, and languages and noises unlike
its training data are untested unless this card says otherwise. One-shot voice conversion can imitate a person: ask
that person first.
"""


def installation() -> dict:
    """Versions, platform and devices, for bug reports."""
    installed = {each.name for each in importlib.metadata.distributions()}
    packages = [name for name in ("jax", "jaxlib", "flax", "numpy", "soundfile", "torch") if name in installed]
    return {
        "decodec_jax": __version__,
        **{name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": ", ".join(sorted({device.device_kind for device in jax.devices()})),
    }


def describe(path: str) -> dict:
    """Facts about a model, a .dcc file or a recording, for `decodec info`. Raises UserError for anything else."""
    if bundle.located(path).is_dir():
        return _of_model(DeCodec.load(path))
    if path.lower().endswith(".dcc"):
        header = container.info(path)
        return {
            "fingerprint": header.fingerprint, "seconds": header.seconds, "sample_rate": header.sample_rate,
            "levels": list(header.levels), "entries": list(header.entries), "kbit_per_second": header.bitrate / 1000,
            "gain_db": header.gain, "bytes": Path(path).stat().st_size,
        }  # fmt: skip
    info = audio.info(path)
    return {"seconds": info.seconds, "sample_rate": info.rate, "channels": info.channels, "samples": info.frames}


def export(run: str | Path, out: str | Path, half: bool = False, beam: tuple[int, int] | None = None) -> dict:
    """Write a run's averaged weights as a bundle with a model card; returns the facts of `describe`.

    half: in float16, see `bundle.save`. beam: how many sequences of codes the search keeps in the levels of speech and
    of the background; None: as trained. A README.md that does not name `decodec export` as its maker is kept, because a
    person wrote it.

    Raises UserError if there is nothing to export, if it has no codes yet, if its quantizers cannot search with such a
    beam, or if it cannot be written.
    """
    codec = DeCodec.load(run)
    if not codec.quantized:
        raise UserError(f"{run} has no codes yet: its codebooks have not started; train it longer")
    config = codec.config
    for stream, width in zip(("speech", "background"), beam or (), strict=False):
        quantizer = replace(getattr(config, stream), beam=width)
        check_beam(stream, quantizer)
        config = replace(config, **{stream: quantizer})
    saved = bundle.save(out, config, codec.params, codec.codebook, codec.step, half, codec.fingerprint)
    facts = _of_model(codec) | {"fingerprint": saved.fingerprint}
    readme = Path(out) / "README.md"
    if readme.is_file() and SIGNED not in readme.read_text(errors="replace"):
        return facts
    lines = "\n".join(f"| {name.replace('_', ' ')} | {shown(value)} |" for name, value in facts.items())
    card = CARD.format(signed=SIGNED, name=Path(out).name, facts=lines, measured=_measured(Path(run)))
    with audio.replacing(readme) as part:
        part.write_text(card)
    return facts


def licence_of(model: str | Path) -> str:
    """The licence of the built-in model; "not stated" for others, whose licence only those who trained them know."""
    return "Apache-2.0" if str(model) == BUILT_IN else "not stated"


def _of_model(codec: DeCodec) -> dict:
    model = codec.config
    levels = model.speech.levels, model.background.levels
    entries = model.speech.entries, model.background.entries
    frames_per_second = model.sample_rate / model.hop
    waits = latency(model)
    return {
        "fingerprint": codec.fingerprint,
        "parameters": sum(a.size for a in jax.tree.leaves(codec.params)),
        "training_steps": codec.step,
        "quantized": codec.quantized,
        "causal": model.causal,
        "latency_ms": None if waits is None else 1000 * waits / model.sample_rate,
        "sample_rate": model.sample_rate,
        "frames_per_second": frames_per_second,
        "levels": list(levels),
        "entries": list(entries),
        "kbit_per_second": bitrate(levels, entries, frames_per_second) / 1000,
    }


def shown(value) -> str:
    """The value of a fact as text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " + ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def history(run: Path) -> list[dict]:
    """The rows of a run's metrics.jsonl, without a line that was cut off when the run died; none for a bundle."""
    rows = []
    with contextlib.suppress(OSError):
        for line in (run / "metrics.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    return rows


def _measured(run: Path) -> str:
    """The run's latest metrics on held-out clips, as a Markdown table."""
    held_out = [row for row in history(run) if any(name.startswith("valid/") for name in row)]
    if not held_out:
        return "Nothing has been measured on held-out clips."
    last = held_out[-1]
    figures = (f"| {name.removeprefix('valid/')} | {'not finite' if value is None else f'{value:.2f}'} |"
               for name, value in last.items() if "valid/" in name)  # fmt: skip
    return "\n".join([f"On held-out clips at step {last['step']}, ratios in dB:", "", "| | |", "|---|---|", *figures])
