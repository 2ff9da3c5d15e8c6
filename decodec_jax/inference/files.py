"""Processes one recording from file to file, in pieces; `-` is standard input or output.

`transform`, `encode` and `decode` need constant memory for any length (except tokens, 12 MB an hour); they measure the
loudness of a file in a separate pass. A file appears under its name only when it is complete. Any problem with a file
raises a UserError that names it.
"""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decodec_jax import arrays, audio
from decodec_jax.errors import UserError
from decodec_jax.inference import container, pipes
from decodec_jax.inference.codec import DeCodec, Levels
from decodec_jax.inference.live import Stopwatch, warm
from decodec_jax.inference.loudness import gain_of_pieces
from decodec_jax.inference.pipes import PIPE
from decodec_jax.inference.tokens import STREAMS, Tokens

LIVE_FRAMES = 4  # maximum number of frames processed together when a causal model reads a pipe

Advance = Callable[[float], None]  # called with the number of seconds that have been finished since the last call
Convert = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]  # of source and reference, and their rates


class Opened(NamedTuple):
    """A recording opened for reading."""

    form: pipes.Form
    pieces: Iterator[np.ndarray]  # [channels, n]


def transform(
    codec: DeCodec, source: str, target: str, advance: Advance, keep: str = "both", levels: Levels = None,
    raw: int | None = None, gain: float | None = None,
) -> Stopwatch | None:  # fmt: skip
    """Process a recording as `DeCodec.stream` does with this `keep`. The length is preserved to the sample.

    If a causal model reads a pipe, it writes each frame at once, and the result is a Stopwatch with its delays.

    raw: pipes carry 16-bit samples of one channel at this rate (Hz) without a header, in and out. gain: how much louder
    to code it (dB); None: the gain that `loudness` measures for a file, and 0 for a pipe, which can be read only once.
    """
    to_raw = raw is not None and target == PIPE and source != PIPE
    gain = _measured(source, mixed=to_raw) if gain is None else gain
    live = source == PIPE and codec.config.causal
    hop, rate = codec.config.hop, codec.config.sample_rate
    with _opened(source, raw, most=LIVE_FRAMES * hop if live else 5 * rate) as (form, pieces):
        if to_raw:
            form, pieces = pipes.raw(raw), audio.resampled(_mono(pieces), form.rate, raw)
        watch = Stopwatch(codec.config, form.rate) if live else None
        if live:
            warm(codec, form, keep, levels, LIVE_FRAMES)
            pieces = watch.started(pieces)
        with _created(target, form, raw) as write:
            counted = _counted(pieces, form.rate, advance, 0.5)
            for wave in codec.stream(counted, form.rate, keep, levels, gain, at_once=live):
                write(wave)
                if watch:
                    watch.stop()
                advance(0.5 * wave.shape[1] / form.rate)
    return watch


def encode(
    codec: DeCodec, source: str, target: str, advance: Advance, levels: Levels = None, gain: float | None = None
) -> None:
    """Encode a recording, mixed down to one channel, to a .dcc file. gain: as in `transform`."""
    gain = _measured(source, mixed=True) if gain is None else gain
    with _opened(source) as (form, pieces):
        length = None if form.frames is None else -(-form.frames * codec.config.sample_rate // form.rate)
        mono = _mono(_counted(pieces, form.rate, advance))
        with container.Writer(sys.stdout.buffer if target == PIPE else target, length=length) as writer:
            for tokens in codec.encode_stream(mono, form.rate, levels, gain, at_once=source == PIPE):
                writer.write(tokens)


def decode(
    codec: DeCodec, source: str, target: str, advance: Advance, keep: str = "both", rate: int | None = None,
    recover: bool = False,
) -> list[container.Damage]:  # fmt: skip
    """Decode a .dcc file to a recording at `rate` (Hz; None: the model's), and return the damage found.

    recover: replace damaged parts by silence. Without it, damage raises UserError.
    """
    file, damaged = sys.stdin.buffer if source == PIPE else source, []
    if recover:
        tokens, damaged = container.recover(file, codec.fingerprint)
        tokens = silenced(codec, tokens, damaged)
    else:
        streams = [keep] if keep in STREAMS else STREAMS[:1] if keep == "semantic" else STREAMS
        tokens = container.read(file, streams=streams, fingerprint=codec.fingerprint)
    rate = arrays.checked_rate(rate or tokens.sample_rate)
    form = pipes.Form(rate, 1, "<i2", -(-tokens.length * rate // tokens.sample_rate))
    with _created(target, form) as write:
        for wave in codec.decode_stream(tokens, keep, rate):
            write(wave)
            advance(wave.shape[1] / rate)
    return damaged


def embed(codec: DeCodec, source: str, target: str, advance: Advance) -> None:
    """Write the embeddings of a recording that fits in memory, mixed down to one channel, to an .npz file.

    The file holds `speech` and `background`, float32 `[f, d]`, `frames_per_second` and the model's `fingerprint`.
    """
    wave, form = _whole(source, advance, 1.0)
    halves = codec.embed(audio.mono(wave), form.rate)
    rate = codec.config.sample_rate / codec.config.hop
    content = io.BytesIO()
    np.savez(content, **halves._asdict(), frames_per_second=rate, fingerprint=codec.fingerprint)
    if target == PIPE:
        pipes.write_bytes(sys.stdout.buffer, content.getvalue(), "standard output")
        return
    with audio.replacing(Path(target)) as part:
        part.write_bytes(content.getvalue())


def convert(
    convert: Convert, source: str, target: str, advance: Advance, reference: tuple[np.ndarray, int]
) -> None:
    """Convert the voice of a recording that fits in memory; the reference is a waveform and its rate (Hz)."""
    wave, form = _whole(source, advance)
    with _created(target, form) as write:
        write(convert(wave, reference[0], form.rate, reference[1]))
    advance(0.5 * wave.shape[1] / form.rate)


def recombine(codec: DeCodec, source: str, target: str, advance: Advance, background: tuple[np.ndarray, int]) -> None:
    """Put the speech of a recording that fits in memory over another background, a waveform and its rate (Hz)."""
    wave, form = _whole(source, advance)
    with _created(target, form) as write:
        write(codec.recombine(wave, background[0], form.rate, background[1]))
    advance(0.5 * wave.shape[1] / form.rate)


def silenced(codec: DeCodec, tokens: Tokens, damaged: list[container.Damage]) -> Tokens:
    """Recovered tokens, with the codes of silence in place of damaged parts."""
    codes = {stream: getattr(tokens, stream).copy() for stream in STREAMS}
    for damage in damaged:
        held = codes[damage.stream][:, damage.frames]
        blank = getattr(codec.blank(tokens.length), damage.stream)
        held[:] = blank[: len(held), damage.frames]
    return replace(tokens, **codes)


def _measured(source: str, mixed: bool = False) -> float:
    """The gain (dB) at which to code a file; 0 for a pipe. mixed: measure the mix of its channels."""
    if source == PIPE:
        return 0.0
    with audio.reading(source) as (info, pieces):
        return gain_of_pieces(_mono(pieces) if mixed else pieces, info.rate)


def _whole(source: str, advance: Advance, share: float = 0.5) -> tuple[np.ndarray, pipes.Form]:
    """A whole recording `[channels, t]` and its format. Raises UserError if a pipe has no samples."""
    with _opened(source) as (form, pieces):
        wave = list(_counted(pieces, form.rate, advance, share))
    if not wave:
        raise UserError("standard input has no samples in it")
    return np.concatenate(wave, axis=1), form._replace(frames=sum(piece.shape[1] for piece in wave))


def _mono(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    return (audio.mono(piece)[None] for piece in pieces)


@contextlib.contextmanager
def _opened(source: str, raw: int | None = None, most: int = 1 << 16) -> Iterator[Opened]:
    if source == PIPE:
        file, name = sys.stdin.buffer, "standard input"
        form = pipes.raw(raw) if raw else pipes.read_header(file, name)
        yield Opened(form, pipes.read_pieces(file, form, name, most))
        return
    with audio.reading(source) as (info, pieces):
        yield Opened(pipes.Form(info.rate, info.channels, "<i2", info.frames), pieces)


@contextlib.contextmanager
def _created(target: str, form: pipes.Form, raw: int | None = None) -> Iterator[Callable[[np.ndarray], None]]:
    if target == PIPE:
        yield pipes.writer(sys.stdout.buffer, form, "standard output", header=raw is None)
        return
    with audio.writing(target, form.rate, form.channels) as write:
        yield write


def _counted(pieces: Iterator[np.ndarray], rate: int, advance: Advance, share: float = 1.0) -> Iterator[np.ndarray]:
    for piece in pieces:
        yield piece
        advance(share * piece.shape[1] / rate)
