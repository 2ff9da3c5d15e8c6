"""`decodec tokenize`: from a corpus to token shards, on all devices of all hosts.

Each of n hosts takes every n-th part (`parts.py`). Threads read and resample ahead of the devices. Recordings of about
one length run side by side, and get the codes that `codec.encode` gives. Long recordings are read in pieces, and only
their codes stay in memory.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import grain
import jax
import numpy as np

from decodec_jax import audio
from decodec_jax.corpora import items, parts, shards, storage
from decodec_jax.corpora.items import Item
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import Coded, DeCodec, Heard, Levels
from decodec_jax.inference.loudness import gain_of_pieces
from decodec_jax.inference.recordings import SIDE_BY_SIDE, grouped
from decodec_jax.inference.tokens import join

LONG = 60.0  # s; longer recordings are read in pieces, one at a time
WINDOW = 1800.0  # s of sound that are sorted by length at once: 115 MB at 16 kHz
AHEAD = 32  # recordings, of up to LONG each, that are read in advance: 120 MB
QUIET = 20.0  # s between lines of progress


class Read(NamedTuple):
    """The result of reading an item: sound, or an error, or neither for a long recording."""

    item: Item
    heard: Heard | None = None
    seconds: float = 0.0
    error: str = ""


def tokenize(
    codec: DeCodec, source: str, out: str, form: str = "parquet", levels: Levels = None, shard_mb: float = 256,
    side_by_side: int = SIDE_BY_SIDE, threads: int | None = None, share: tuple[int, int] = (0, 1),
    say: Callable[[str], None] = lambda line: None, latents: bool = False,
) -> dict:  # fmt: skip
    """Code all recordings of a folder, a bucket or the output of `decodec prepare`, mixed down to one channel.

    form:         "parquet" or "array_record"; shards.py describes both.
    levels:       levels of speech and background to keep, as in `DeCodec.encode`.
    shard_mb:     MB of recordings, as FLAC, for each shard; an interrupted run loses one shard of each host.
    side_by_side: recordings in a batch, a power of two; more make accelerators faster.
    threads:      number of reading threads; None: one for each core.
    share:        (i, n): make every n-th shard, from shard i on; `shared` finds it for the hosts of a cluster.
    latents:      write the speech embedding before quantization, too.

    Shards that are done already are kept. Returns the report, which is also written to report.json: recordings,
    seconds, and failed [[id, reason]]. Raises UserError if nothing can be read or written.
    """
    shards.require(form)
    found, twice = unique(items.listed(source))
    if any(item.member and item.path.endswith(items.ARCHIVES) for item in found):
        raise UserError(f"{source} holds archives, which have no random access; run `decodec prepare` on it first")
    every = parts.cut("tokens", found, round(shard_mb * 1e6))
    about = {
        "format": form, "fingerprint": codec.fingerprint, "sample_rate": codec.config.sample_rate,
        "hop": codec.config.hop, "entries": [codec.config.speech.entries, codec.config.background.entries],
        "levels": list(codec.checked_levels(levels)), "shard_mb": shard_mb,
    } | ({"latents": codec.config.half} if latents else {})  # fmt: skip
    parts.begin(out, about, {"recordings": parts.digest(found)})
    codecs = [codec.on(device) for device in jax.local_devices()] if jax.local_device_count() > 1 else [codec]
    todo = parts.left(out, every[share[0] :: share[1]])
    progress = Progress([item for part in todo for item in part.items], say)
    with ThreadPoolExecutor(len(codecs)) as devices:
        for part in todo:
            rows, failed = coded(codecs, devices, part.items, levels, latents, side_by_side, threads, progress)
            with storage.writing(out, part.name + shards.FORMS[form]) as path:
                shards.write(path, form, rows, about)
            seconds = sum(row["length"] for row in rows) / codec.config.sample_rate
            parts.finish(out, part, {"recordings": len(rows), "seconds": seconds, "failed": failed})
    return report(out, every, twice, alone=share[1] == 1)


def unique(found: Sequence[Item]) -> tuple[list[Item], list[list[str]]]:
    """The first item of each id, and [id, reason] for the others."""
    first: dict[str, Item] = {}
    for item in found:
        first.setdefault(item.id, item)
    twice = [[item.id, "another recording has this id"] for item in found if first[item.id] is not item]
    return list(first.values()), twice


def report(out: str, every: Sequence[parts.Part], twice: list[list[str]], alone: bool) -> dict:
    """Sum up the parts that are done, and write report.json if all are. alone: no other process writes to `out`."""
    waiting = {part.name for part in parts.left(out, every)}
    facts = [parts.facts_of(out, part) for part in every if part.name not in waiting]
    summed = {key: sum(each[key] for each in facts) for key in ("recordings", "seconds")}
    summed |= {"failed": twice + [row for each in facts for row in each["failed"]], "shards_left": len(waiting)}
    if not waiting:
        storage.write(out, "report.json", json.dumps(summed, indent=2, ensure_ascii=False) + "\n")
        if alone:
            storage.remove_leftovers(out)
    return summed


def coded(
    codecs: Sequence[DeCodec], devices: ThreadPoolExecutor, chosen: Sequence[Item], levels: Levels, latents: bool,
    side_by_side: int, threads: int | None, progress: "Progress",
) -> tuple[list[shards.Row], list[list[str]]]:  # fmt: skip
    """The rows of items, in their order, and [id, reason] of those that cannot be coded."""
    made: dict[str, Coded] = {}
    failed = []
    for window in _windows(_read(codecs[0], chosen, threads)):
        for read in window:
            if read.error:
                failed.append([read.item.id, read.error])
                progress.advance(read.item, 0.0)
        short = [read for read in window if read.heard]
        groups = grouped((codecs[0].frames_run(read.heard.wave) for read in short), side_by_side)

        def code(number: int, alike: list[int], short=short) -> list[tuple[Item, Coded]]:
            codec = codecs[number % len(codecs)]
            done = codec.code_heard([short[i].heard for i in alike], levels, side_by_side, latents)
            return [(short[i].item, each) for i, each in zip(alike, done, strict=True)]

        for pairs in devices.map(code, range(len(groups)), [alike for _, alike in groups]):
            for item, each in pairs:
                if item.id not in made:  # the last recording of a group is repeated to fill it
                    made[item.id] = each
                    progress.advance(item, each.tokens.seconds)
        for read in window:
            if read.heard is None and not read.error:
                try:
                    made[read.item.id] = _streamed(codecs[0], read.item, levels, latents)
                    progress.advance(read.item, read.seconds)
                except UserError as error:
                    failed.append([read.item.id, str(error)])
                    progress.advance(read.item, 0.0)
    return [_row(item, made[item.id]) for item in chosen if item.id in made], sorted(failed)


def _read(codec: DeCodec, chosen: Sequence[Item], threads: int | None) -> Iterator[Read]:
    """Read all items in threads, in order."""

    def read(item: Item) -> Read:
        try:
            source = _located(item)
            seconds = audio.info(source, item.id).seconds
            if seconds > LONG:
                return Read(item, seconds=seconds)
            wave, rate = audio.read(source, name=item.id)
            return Read(item, codec.hear(audio.mono(wave), rate), seconds)
        except UserError as error:
            return Read(item, error=str(error))

    options = grain.ReadOptions(threads or os.cpu_count() or 1, AHEAD)
    return iter(grain.MapDataset.source(list(chosen)).map(read).to_iter_dataset(options))


def _located(item: Item):
    source = items.located(item)
    if isinstance(source, UserError):
        raise source
    return source


def _windows(reads: Iterator[Read]) -> Iterator[list[Read]]:
    """Lists of reads of about WINDOW seconds in all."""
    window, seconds = [], 0.0
    for read in reads:
        window.append(read)
        seconds += min(read.seconds, LONG)
        if seconds > WINDOW:
            yield window
            window, seconds = [], 0.0
    if window:
        yield window


def _streamed(codec: DeCodec, item: Item, levels: Levels, latents: bool) -> Coded:
    """The codes of a long recording, which is read in pieces: once for its loudness and once for its codes."""
    with audio.reading(_located(item)) as (info, pieces):
        gain = gain_of_pieces(_mono(pieces), info.rate)
    with audio.reading(_located(item)) as (info, pieces):
        done = list(codec.code_stream(_mono(pieces), info.rate, levels, gain, at_once=False, latents=latents))
    tokens = join([each.tokens for each in done])
    return Coded(tokens, np.concatenate([each.latents for each in done]) if latents else None)


def _mono(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    return (audio.mono(piece)[None] for piece in pieces)


def _row(item: Item, coded: Coded) -> shards.Row:
    tokens = coded.tokens
    row = {
        "id": item.id, "speech": tokens.speech.astype(np.uint16), "background": tokens.background.astype(np.uint16),
        "length": tokens.length, "gain": tokens.gain, "kind": item.kind, "speaker": item.speaker, "split": item.split,
        "transcript": item.transcript,
        "metadata": json.dumps(item.more | ({"licence": item.licence} if item.licence else {}), ensure_ascii=False),
    }  # fmt: skip
    return row if coded.latents is None else row | {"latents": coded.latents}


class Progress:
    """Report now and then the speed, and the time left as estimated from bytes."""

    def __init__(self, todo: Sequence[Item], say: Callable[[str], None]):
        self._say, self._total = say, sum(max(1, parts.weight(item)) for item in todo)
        self._count, self._done, self._weight, self._seconds = len(todo), 0, 0, 0.0
        self._begun = self._told = time.monotonic()

    def advance(self, item: Item, seconds: float) -> None:
        """Count one more item, which lasts `seconds`."""
        self._done += 1
        self._weight += max(1, parts.weight(item))
        self._seconds += seconds
        now = time.monotonic()
        if now - self._told > QUIET or self._done == self._count:
            self._told = now
            elapsed = now - self._begun
            left = elapsed * (self._total / self._weight - 1)
            self._say(f"{self._done} of {self._count} recordings, {self._seconds / 3600:.2f} h of sound; "
                      f"{self._seconds / elapsed:.1f} audio-seconds per second; {left / 3600:.2f} h left")  # fmt: skip


def shared() -> tuple[int, int]:
    """The share of this host in a TPU pod, Slurm job or Kubernetes job, where JAX finds the other hosts.

    Raises UserError if JAX does not find them.
    """
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise UserError(f"JAX finds no other hosts ({error}); say --share 0/2 and so on instead") from None
    return jax.process_index(), jax.process_count()
