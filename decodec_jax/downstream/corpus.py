"""Token shards as utterances in memory: 5.8 MB an hour for 8 + 8 levels at 50 frames a second, and latents if a model
hears them, 35 MB an hour if they are 96 wide.

All folders of a run must hold tokens of one codec, because the same codes mean other sounds to another codec. A damaged
shard ends the run with one line: `decodec tokenize` makes it again in minutes, and nobody would notice that a run went
on without some of its data.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decodec_jax.config import Data as Selection
from decodec_jax.corpora import shards
from decodec_jax.data import sources
from decodec_jax.data.clips import KINDS, Clip
from decodec_jax.downstream.config import Data
from decodec_jax.errors import UserError

log = logging.getLogger(__name__)

SHARED = ("fingerprint", "sample_rate", "hop", "entries")  # what the shards of a run have in common


class Utterance(NamedTuple):
    """One recording of speech."""

    id: str
    speech: np.ndarray  # uint16 [levels, f]
    background: np.ndarray
    length: int  # samples at the codec's rate
    speaker: str
    split: str
    transcript: str
    latents: np.ndarray | None = None  # float16 [f, d], the speech embedding before quantization, if a model hears it

    @property
    def frames(self) -> int:
        return self.speech.shape[1]


@dataclass(frozen=True)
class Corpus:
    """The speech of some folders of token shards, in a fixed order."""

    utterances: Sequence[Utterance]
    fingerprint: str  # of the codec
    sample_rate: int  # Hz
    hop: int  # samples a frame
    entries: tuple[int, int]  # of the codebooks of speech and background
    levels: tuple[int, int]  # of speech and background, present in every utterance
    width: int = 0  # d of the latents; 0: not read

    def seconds(self, utterance: Utterance) -> float:
        return utterance.length / self.sample_rate

    def split(self, data: Data, split: str) -> list[Utterance]:
        """The utterances of "train" or "valid", see `selected`."""
        clips = [Clip(each.id, "speech", each.speaker, self.seconds(each), each.split) for each in self.utterances]
        chosen = selected(clips, data, split)
        return [each for each in self.utterances if each.id in chosen]


def selected(clips: Sequence[Clip], data: Data, split: str) -> set[str]:
    """The names of the clips of speech that are for "train" or "valid", by the rules of the codec's training.

    Those rules are in data/sources.py. The utterances of a single speaker are held out one by one.
    """
    def role(name: str) -> str:
        ours = any(name == one or name.endswith(f"_{one}") for one in data.train_splits)
        return "train" if ours else name

    ours = [clip for clip in clips if not data.speakers or clip.speaker in data.speakers]
    alone = len({clip.speaker for clip in ours}) == 1
    ours = [Clip(clip.name, "speech", "" if alone else clip.speaker, clip.seconds, role(clip.split)) for clip in ours]
    return {clip.name for clip in sources.select(ours, Selection(holdout=data.holdout), split)}


def read(folders: str, latents: bool = False) -> Corpus:
    """The speech in one folder of shards, or in several whose names are separated by commas.

    latents: read those, too. Raises UserError for folders that hold no tokens, no latents or tokens of different
    codecs, and for damaged shards.
    """
    names = [Path(name) for name in folders.split(",") if name]
    abouts = [about(name) for name in names]
    for name, theirs in zip(names, abouts, strict=True):
        for key in SHARED:
            if theirs[key] != abouts[0][key]:
                raise UserError(f"{names[0]} and {name} hold tokens of different codecs: {key} is {abouts[0][key]} and "
                                f"{theirs[key]}; train on tokens of one codec")  # fmt: skip
    utterances, ids = [], set()
    for name in names:
        for row, _ in shards.read(name, latents):
            if KINDS.get(row["kind"], row["kind"]) != "speech":
                continue
            unique = row["id"] if row["id"] not in ids else f"{name}:{row['id']}"
            ids.add(unique)
            utterances.append(Utterance(unique, row["speech"], row["background"], row["length"], row["speaker"] or "",
                                        row["split"] or "", row["transcript"] or "", row.get("latents")))  # fmt: skip
    if not utterances:
        raise UserError(f"{folders} holds no tokens of speech")
    levels = tuple(min(each["levels"][side] for each in abouts) for side in range(2))
    shared = abouts[0]
    return Corpus(utterances, shared["fingerprint"], shared["sample_rate"], shared["hop"], tuple(shared["entries"]),
                  levels, shared["latents"] if latents else 0)  # fmt: skip


def about(folder: Path) -> dict:
    """The settings of a folder of shards. Raises UserError if it has none, or a shard of another codec."""
    try:
        settings = json.loads((folder / "settings.json").read_text())["settings"]
        missing = [key for key in (*SHARED, "levels", "format") if key not in settings]
    except (OSError, ValueError, KeyError, TypeError):
        missing = ["settings"]
    if missing:
        raise UserError(f"{folder} holds no tokens; name a folder that `decodec tokenize` wrote")
    if not (folder / "report.json").exists():
        log.warning("%s is not finished, and lacks some of its tokens; run `decodec tokenize` again", folder)
    if settings["format"] == "parquet":
        shards.require("parquet")
        for path in sorted(folder.glob("*.parquet")):
            theirs = _fingerprint_of(path)
            if theirs not in ("", settings["fingerprint"]):
                raise UserError(f"{path} holds tokens of the codec {theirs}, and {folder} those of "
                                f"{settings['fingerprint']}; train on tokens of one codec")  # fmt: skip
    return settings


def _fingerprint_of(path: Path) -> str:
    """The fingerprint in a Parquet file; "" without one, or in a damaged file, which reading it will report."""
    from pyarrow import parquet

    try:
        return json.loads(parquet.read_schema(path).metadata[b"decodec_jax"])["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def digest(utterances: Sequence[Utterance]) -> str:
    """Twelve hex digits that change with the utterances or their order, and so with the order of training."""
    told = "\n".join(f"{each.id} {each.length}" for each in utterances)
    return hashlib.blake2b(told.encode(), digest_size=6).hexdigest()


def padded(codes: Sequence[np.ndarray], levels: int, frames: int) -> np.ndarray:
    """The first levels of codes `[k, f]`, zeros behind them: int32 `[b, levels, frames]`."""
    batch = np.zeros((len(codes), levels, frames), np.int32)
    for row, each in zip(batch, codes, strict=True):
        row[:, : each.shape[1]] = each[:levels]
    return batch


def stacked(rows: Sequence[np.ndarray], frames: int) -> np.ndarray:
    """Features `[f, d]` of several utterances, zeros behind them: float32 `[b, frames, d]`."""
    batch = np.zeros((len(rows), frames, rows[0].shape[1]), np.float32)
    for row, each in zip(batch, rows, strict=True):
        row[: len(each)] = each
    return batch


def spaced(chosen: Sequence[Utterance], count: int) -> list[Utterance]:
    """At most `count` of them, evenly spaced."""
    return list(chosen[:: max(1, -(-len(chosen) // count))])
