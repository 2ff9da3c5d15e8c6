"""The listening page: a static folder for comparing a model with other systems by ear, task by task, offline.

`templates/` holds the page's text and design. This module makes the recordings and pictures.
"""

import hashlib
import logging
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from decodec_jax import audio
from decodec_jax.errors import UserError
from decodec_jax.evaluation import figures
from decodec_jax.evaluation.reports import latents
from decodec_jax.evaluation.reports.spoken import Reading
from decodec_jax.evaluation.systems.base import Item, System
from decodec_jax.inference.alignment import ALIGNMENTS
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.tokens import bitrate

if TYPE_CHECKING:
    from decodec_jax.downstream.tts.converter import Converter

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
SOUNDS, PICTURES = "sounds", "pictures"  # folders next to index.html
TRUTHS = {  # for each task, the true signals to play along with the recording: field of `Item` and label
    "reconstruct": {},
    "enhance": {"speech": "clean speech"},
    "background": {"background": "true background"},
    "semantic": {"speech": "clean speech"},
}
GIVEN = "#6b7280"  # colour of signals that no system produced


class Player(NamedTuple):
    """One playable version of a recording. File paths are relative to the page."""

    label: str
    note: str  # shown next to the label, such as the bitrate
    row: str  # the recording that this is a version of
    sound: str
    picture: str
    seconds: float
    colour: str


class Row(NamedTuple):
    """All versions of one recording."""

    title: str
    about: str
    transcript: str
    players: list[Player]
    missing: list[tuple[str, str]]  # systems that failed, each with the reason


class Chart(NamedTuple):
    """A picture (path relative to the page) and its description, which also serves as alternative text."""

    title: str
    picture: str
    about: str
    lines: bool  # dark lines on white, which the dark theme inverts


class MediaFolder:
    """Writes sounds and spectrograms to a folder. A recording that is played several times is written once."""

    def __init__(self, out: Path):
        self.out = out
        self.written: dict[bytes, tuple[str, str]] = {}
        for folder in (SOUNDS, PICTURES):
            (out / folder).mkdir(parents=True, exist_ok=True)

    def add(self, wave: np.ndarray, rate: int, *name: str) -> tuple[str, str]:
        """Write a waveform `[t]` and its spectrogram, and return both paths, relative to the folder.

        The parts of `name` form the file name. Raises UserError if samples are not finite.
        """
        if not np.isfinite(wave).all():
            raise UserError("it made samples that are not finite numbers (NaN or inf)")
        key = hashlib.sha256(audio.sixteen_bits(wave).tobytes() + str(rate).encode()).digest()
        if key not in self.written:
            stem = _slug(*name)  # deterministic, so that building the page again overwrites all its files
            if any(stem == Path(sound).stem for sound, _ in self.written.values()):
                stem += f"-{len(self.written)}"
            files = f"{SOUNDS}/{stem}.wav", f"{PICTURES}/{stem}.png"  # not FLAC: Chromium cannot seek in short ones
            audio.write(self.out / files[0], wave, rate)
            figures.spectrogram(self.out / files[1], wave)
            self.written[key] = files
        return self.written[key]


def build(
    model: DeCodec,
    systems: Sequence[System],
    items: Sequence[Item],
    out: Path,
    tables: Mapping[str, str] | None = None,
    charts: Mapping[str, Path] | None = None,
    converter: "Converter | None" = None,
    spoken: Sequence[Reading] = (),
) -> Path:
    """Write the listening page of a model to the folder `out`, and return the path of its index.html.

    model: converts voices, and is the subject of the figures.
    systems: the systems to compare, each in every task that it can do; include `model` to hear it there. If a system
             fails on a recording, the page gives the reason instead.
    tables: markdown by title; charts: png files by title. converter: converts voices too, by a model on tokens. spoken:
             what the suite "synthesis" said.
    Raises UserError if there are no items or the folder cannot be written.
    """
    if not items:
        raise UserError("the listening page has no recordings to play; give it at least one")
    try:
        media = MediaFolder(out)
        chosen = figures.colours([system.name for system in systems])
        rows = {}
        for task in TRUTHS:
            able = [system for system in systems if task in system.tasks]
            rows[task] = [_versions(task, item, able, chosen, media) for item in items if able]
        rows["convert"] = _conversions(model, items, media, converter)
        for reading in spoken:
            rows.setdefault(reading.task, []).append(_spoken(reading, media))
        drawn = [*_model_figures(model, items, out), *_copied(charts or {}, out)]
        for file in TEMPLATES.iterdir():
            if file.suffix != ".html":
                shutil.copy(file, out)
        (out / "index.html").write_text(_rendered(rows, drawn, tables or {}, _facts(model)), encoding="utf-8")
    except OSError as error:
        raise UserError(f"the listening page cannot be written to {out} ({error.strerror or error})") from None
    return out / "index.html"


def _versions(
    task: str, item: Item, systems: Iterable[System], colours: Mapping[str, str], media: MediaFolder
) -> Row:
    """The row of one recording: itself, its true signals, and each system's output. Identical sounds appear once."""
    known = {"as recorded": item.mixture} | {label: getattr(item, field) for field, label in TRUTHS[task].items()}
    players: dict[str, Player] = {}
    missing = []

    def add(label: str, note: str, wave: np.ndarray, colour: str, *name: str) -> None:
        files = media.add(wave, item.rate, item.name, *name, label)
        players.setdefault(files[0], Player(label, note, item.name, *files, _seconds(wave, item.rate), colour))

    for label, wave in known.items():
        if wave is not None:
            add(label, "", wave, GIVEN)
    for system in systems:
        try:
            wave, bits = system.tasks[task](item)
            if wave is None:  # an oracle may lack this signal
                continue
            note = "" if bits is None else f"{bits / _seconds(wave, item.rate) / 1000:.1f} kbps"
            add(system.name, note, wave, colours[system.name], task)
        except Exception as error:  # third-party systems can raise anything; the page shows the rest
            missing.append((system.name, _reason(error)))
            log.warning("%s of %s by %s: %s", task, item.name, *missing[-1])
    return Row(item.name, _about(item), item.transcript, list(players.values()), missing)


def _conversions(
    model: DeCodec, items: Sequence[Item], media: MediaFolder, converter: "Converter | None"
) -> list[Row]:
    """A row for each item, converted to the voice of the next item by another speaker."""
    ways = {alignment: partial(model.convert, alignment=alignment) for alignment in ALIGNMENTS}
    if converter is not None:
        ways["the NAR model"] = converter.convert
    rows = []
    for i, source in enumerate(items):
        others = [item for item in (*items[i + 1 :], *items[:i]) if "" != item.speaker != source.speaker != ""]
        if not others:
            continue
        reference, title = others[0], f"{source.name} in the voice of {others[0].speaker}"
        players, missing = [], []
        for label, item in (("source", source), ("reference", reference)):
            files = media.add(item.mixture, item.rate, item.name, "as recorded")
            players.append(Player(label, item.speaker, title, *files, _seconds(item.mixture, item.rate), GIVEN))
        for way, convert in ways.items():
            try:
                wave = convert(source.mixture, reference.mixture, source.rate, reference.rate)
            except UserError as error:
                missing.append((f"converted by {way}", _reason(error)))
                continue
            files = media.add(wave, source.rate, source.name, "as", reference.speaker, way)
            seconds, colour = _seconds(wave, source.rate), figures.IN_TURN[0]
            players.append(Player("converted", f"by {way}", title, *files, seconds, colour))
        rows.append(Row(title, "", source.transcript, players, missing))
    return rows


def _spoken(reading: Reading, media: MediaFolder) -> Row:
    """The row of a sentence that was spoken, or of a recording that was converted."""
    players = []
    for sounds, colour in ((reading.known, GIVEN), (reading.made, figures.IN_TURN[0])):
        for label, note, wave in sounds:
            files = media.add(wave, reading.rate, reading.task, reading.title, label, note)
            players.append(Player(label, note, reading.title, *files, _seconds(wave, reading.rate), colour))
    return Row(reading.title, reading.about, reading.transcript, players, [])


def _model_figures(model: DeCodec, items: Sequence[Item], out: Path) -> list[Chart]:
    """Figures of the model: its two subspaces and, given several speakers, which latents separate their voices."""
    rate = model.config.sample_rate
    embedded = [latents.in_one_space(model, model.embed(item.mixture, item.rate)) for item in items]
    latent = (np.concatenate(half) for half in zip(*embedded, strict=True))
    figures.projections(out / PICTURES / "projections.png", *latent, latents.projections(model))
    charts = [Chart("Two subspaces", f"{PICTURES}/projections.png", "Cosines of the speech and the background latents, "
                    "and singular values of the two projections and of their product.", True)]  # fmt: skip
    spoken = [item for item in items if item.speaker]
    try:
        waves = [item.mixture if item.speech is None else item.speech for item in spoken]
        waves = [audio.resample(wave, item.rate, rate) for wave, item in zip(waves, spoken, strict=True)]
        parts = latents.content_and_rest(model, waves, rate) if waves else ([], [])
        scores = figures.speakers(out / PICTURES / "speakers.png", *parts, [item.speaker for item in spoken])
    except UserError as error:
        log.info("no figure of the speakers: %s", error)
        return charts
    figured = " and ".join(f"{score:+.2f} of {symbol}" for symbol, score in scores.items())
    about = f"{len(spoken)} utterances by speaker, drawn by t-SNE. Silhouettes of the speakers: {figured}."
    return [*charts, Chart("Words and voice", f"{PICTURES}/speakers.png", about, True)]


def _copied(charts: Mapping[str, Path], out: Path) -> list[Chart]:
    from PIL import Image

    copied = []
    for n, (title, path) in enumerate(charts.items(), 1):
        name = f"{PICTURES}/chart{n}-{_slug(title)}.png"
        shutil.copy(path, out / name)
        with Image.open(path) as picture:
            white = np.mean(np.asarray(picture.convert("L")) > 250)
        copied.append(Chart(title, name, "", bool(white > 0.5)))
    return copied


def _facts(model: DeCodec) -> dict[str, str]:
    """The model's key facts, by name, as the page shows them."""
    config, frames = model.config, model.config.sample_rate / model.config.hop
    levels = config.speech.levels, config.background.levels
    entries = config.speech.entries, config.background.entries
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(model.params))
    facts = {"training steps": f"{model.step:,}", "parameters": f"{size:,}"}
    if model.quantized:
        each = [bitrate((levels[0], 0), entries, frames), bitrate((0, levels[1]), entries, frames)]
        facts["speech + background"] = " + ".join(f"{bits / 1000:.1f}" for bits in each) + " kbps"
    else:
        facts["codebooks"] = "not started: nothing is quantized yet"
    facts["sample rate"], facts["frames"] = f"{config.sample_rate / 1000:g} kHz", f"{frames:g} a second"
    facts["delay"] = "a frame (causal)" if config.causal else "the whole recording (not causal)"
    return facts | {"fingerprint": model.fingerprint}


def _rendered(
    rows: Mapping[str, list[Row]], charts: list[Chart], tables: Mapping[str, str], facts: Mapping[str, str]
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    markdown = MarkdownIt("js-default")  # the preset that escapes HTML and supports tables
    texts = {title: Markup(markdown.render(text)) for title, text in tables.items()}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("index.html").render(rows=rows, charts=charts, tables=texts, facts=facts)


def _seconds(wave: np.ndarray, rate: int) -> float:
    return round(len(wave) / rate, 3)


def _about(item: Item) -> str:
    """The speaker and SNR of a recording, where known, in one line."""
    snr = None if item.snr is None else f"{item.snr:g} dB SNR"
    return ", ".join(part for part in (item.speaker and f"speaker {item.speaker}", snr) if part)


def _reason(error: Exception) -> str:
    """The first line of an error; an unexpected one is prefixed with its type."""
    line = (str(error).strip().splitlines() or ["no reason given"])[0]
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"


def _slug(*words: str) -> str:
    """Words as part of a file name, in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")[:80]
