"""`decodec prepare`: from archives to training shards. Decode, resample, split, screen and pack, with a report.

Each part of the sources (`parts.py`) becomes a shard of FLAC files, `NAME-000012.array_record`, and a .json file that
lists its clips and what was dropped. When all parts are done, `finish` writes manifest.csv, which training and
`decodec tokenize` read. `beam.py` runs the parts, on one machine or many.
"""

import csv
import functools
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath

import numpy as np

from decodec_jax import audio
from decodec_jax.corpora import items, parts, recipes, screen, storage
from decodec_jax.corpora.items import Item
from decodec_jax.data import records
from decodec_jax.data.clips import KINDS, NAMED
from decodec_jax.errors import UserError
from decodec_jax.inference.loudness import level_of_pieces

COLUMNS = ("path", "split", "kind", "speaker", "transcript", "duration", "licence", "id", "recording", "level_db")
FORBIDS = re.compile(r"\bNC\b|non-?commercial|LDC", re.IGNORECASE)  # in names of licences
NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Settings:
    """How recordings become clips."""

    rate: int = 16_000  # Hz of the clips; recordings at lower rates are dropped
    shard_mb: float = 200.0  # approximate size of a shard
    limits: screen.Limits = field(default_factory=screen.Limits)


def prepare(
    sources: Sequence[str], out: str, settings: Settings, run: Callable, kind: str = "speech",
    say: Callable[[str], None] = lambda line: None,
) -> dict:  # fmt: skip
    """Make training shards of sources, and return the report.

    sources: what `items.listed` reads, or RECIPE=SOURCE with a name from `recipes.RECIPES`.
    run:     calls a function for each part of a list, in any order and place; `beam.runner` makes one.
    kind:    "speech", "background" or "room": of recordings whose source does not say.
    say:     receives lines: licences, before anything is written, and sources that cannot be read.

    Parts that are done already are kept. Raises UserError if no source can be read, or if `out` holds other work or
    cannot be written.
    """
    found, unreadable = {}, []
    for source in sources:
        name = _name(source, found)
        try:
            found[name] = recipes.listed(source, kind)
        except UserError as error:
            unreadable.append([source, str(error)])
            say(str(error))
    if not found:
        raise UserError(f"none of the sources can be read: {unreadable[0][1]}")
    for line in licences(found):
        say(line)
    every = [part for name, each in found.items() for part in parts.cut(name, each, round(settings.shard_mb * 1e6))]
    parts.begin(out, {"version": 2} | asdict(settings), {name: parts.digest(each) for name, each in found.items()})
    todo = parts.left(out, every)
    say(f"{sum(map(len, found.values()))} recordings in {len(every)} parts, {len(todo)} of them to do")
    if todo:
        run(functools.partial(make, settings=settings, out=out), todo)
    return finish(out, every, settings, unreadable)


def _name(source: str, taken: dict) -> str:
    """A short, unique name for a source."""
    recipe, path = source.split("=", 1)[0], source.split("=", 1)[-1].rstrip("/")
    stem = PurePosixPath(path.split("*")[0].rstrip("/")).name or "source"
    if "=" in source and re.fullmatch(r"\d+\.\d+\.\d+", stem):  # TFDS names its folders after versions
        stem = recipe
    name = re.sub(r"[^\w.-]+", "_", re.sub(r"\.(tar(\.\w+)?|tgz)$", "", stem)).lstrip(".") or "source"
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique


def licences(found: dict[str, Sequence[Item]]) -> Iterator[str]:
    """For each source, a line with its most frequent licences, and one if any of them forbids commercial use."""
    for name, each in found.items():
        counts = Counter(item.licence or NOT_GIVEN for item in each)
        first = counts.most_common(NAMED)
        more = f" and {len(counts) - len(first)} more" if len(counts) > len(first) else ""
        told = ", ".join(f"{licence} ({count})" for licence, count in first)
        yield f"{name}: {len(each)} recordings; licences: {told}{more}"
        forbidden = sorted(licence for licence in counts if FORBIDS.search(licence))
        if forbidden:
            yield f"{name}: NO COMMERCIAL USE under {', '.join(forbidden)}"


# --- a part -----------------------------------------------------------------------------------------------------------


def make(part: parts.Part, settings: Settings, out: str) -> None:
    """Write the shard and the .json file of a part. Raises UserError if they cannot be written.

    Recordings that cannot be used are dropped with a reason, and never end the run.
    """
    clips, dropped = [], []

    def packed() -> Iterator[bytes]:
        for item, source in items.contents(part.items):
            for clip, record in _clips(item, source, settings, dropped):
                clips.append(clip)
                yield record

    with storage.writing(out, f"{part.name}.array_record") as path:
        records.write(path, packed())
    parts.finish(out, part, {"clips": clips, "dropped": dropped})


def _clips(item: Item, source, settings: Settings, dropped: list) -> list[tuple[dict, bytes]]:
    """The clips of a recording with their FLAC files. Appends [id, reason, detail, seconds] of what it drops."""
    if item.kind not in KINDS.values():
        dropped.append([item.id, "other kind", f"its kind is {item.kind!r}", item.seconds])
        return []
    made, unfit = [], []
    try:
        if isinstance(source, UserError):
            raise source
        for number, wave in enumerate(_decoded(source, item, settings)):
            level = level_of_pieces([wave[None]], settings.rate)
            seconds = round(len(wave) / settings.rate, 6)
            fault = screen.fault(wave, settings.rate, item.kind, level, settings.limits)
            if fault:
                unfit.append([number, fault, seconds])
                continue
            facts = {
                "id": number, "recording": item.id, "kind": item.kind, "split": item.split, "speaker": item.speaker,
                "licence": item.licence, "transcript": item.transcript, "seconds": seconds, "level": round(level, 2),
                "digest": hashlib.blake2b(audio.sixteen_bits(wave).tobytes(), digest_size=12).hexdigest(),
            }  # fmt: skip
            made.append((facts, audio.encode(wave, settings.rate, ".flac", item.id)))
    except UserError as error:
        reason = "below the rate" if isinstance(error, _BelowRate) else "broken"
        dropped.append([item.id, reason, str(error), item.seconds])
        return []
    several = len(made) + len(unfit) > 1
    dropped += [[f"{item.id}:{number}" if several else item.id, fault, "", seconds] for number, fault, seconds in unfit]
    for facts, _ in made:
        facts["id"] = f"{item.id}:{facts['id']}" if several else item.id
        facts["transcript"] = "" if several else item.transcript  # which piece holds which words is unknown
    return made


class _BelowRate(UserError):
    """The sample rate of a recording is below that of the clips."""


def _decoded(source: str | io.BytesIO, item: Item, settings: Settings) -> Iterator[np.ndarray]:
    """The clips of a recording, float32 [t] at the rate of the settings, with one clip in memory at a time.

    Raises UserError if the recording cannot be read to its end.
    """
    with audio.reading(source, name=item.id) as (info, pieces):
        if info.rate < settings.rate:
            raise _BelowRate(f"{item.id} is at {info.rate} Hz, below {settings.rate} Hz")
        mono = (audio.mono(piece)[None] for piece in pieces)
        resampled = (piece[0] for piece in audio.resampled(mono, info.rate, settings.rate))
        yield from screen.split(resampled, settings.rate, settings.limits.longest)


# --- all of it --------------------------------------------------------------------------------------------------------


def finish(out: str, every: Sequence[parts.Part], settings: Settings, unreadable: Sequence) -> dict:
    """Write manifest.csv, dropped.csv, report.json and the data card README.md from the .json files of the parts.

    If clips have the same samples or the same id, the manifest lists the first. The others stay in their shards.
    """
    waiting = parts.left(out, every)
    if waiting:
        raise UserError(f"{len(waiting)} of {len(every)} parts are not done; run the same command again")
    rows, dropped = [], []
    digests: dict[str, str] = {}
    ids: set[str] = set()
    for part in every:
        facts = parts.facts_of(out, part)
        source = part.name.rsplit("-", 1)[0]
        dropped += [[f"{source}/{name}", *rest] for name, *rest in facts["dropped"]]
        for index, clip in enumerate(facts["clips"]):
            name = f"{source}/{clip['id']}"
            if name in ids:
                dropped.append([name, "id taken", "another recording has this id", clip["seconds"]])
            elif clip["digest"] in digests:
                dropped.append([name, "duplicate", f"of {digests[clip['digest']]}", clip["seconds"]])
            else:
                ids.add(name)
                digests[clip["digest"]] = name
                rows.append((f"{part.name}.array_record#{index}", clip["split"], clip["kind"], clip["speaker"],
                             clip["transcript"], f"{clip['seconds']:.6f}", clip["licence"], name,
                             clip["recording"], f"{clip['level']:.2f}"))  # fmt: skip
    report = summary(rows, dropped) | {"unreadable": list(unreadable), "shards": len(every)}
    storage.write(out, "dropped.csv", _table([("id", "reason", "detail", "seconds"), *dropped]))
    storage.write(out, "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    storage.write(out, "README.md", card(report, settings))
    storage.write(out, "manifest.csv", _table([COLUMNS, *rows]))  # last, so that only finished folders have one
    storage.remove_leftovers(out)
    return report


def summary(rows: Sequence[tuple], dropped: Sequence[Sequence]) -> dict:
    """Clips, hours and speakers by kind and split, hours by licence, and what was dropped by reason."""
    groups: dict[str, dict] = defaultdict(lambda: {"clips": 0, "hours": 0.0, "speakers": set()})
    by_licence: dict[str, float] = defaultdict(float)
    for _, split, kind, speaker, _, seconds, licence, *_ in rows:
        group = groups[f"{kind}, {split}"]
        group["clips"] += 1
        group["hours"] += float(seconds) / 3600
        group["speakers"] |= {speaker} - {""}
        by_licence[licence or NOT_GIVEN] += float(seconds) / 3600
    reasons: dict[str, dict] = defaultdict(lambda: {"recordings": 0, "hours": 0.0})
    for _, reason, _, seconds in dropped:
        reasons[reason]["recordings"] += 1
        reasons[reason]["hours"] += seconds / 3600
    return {
        "clips": len(rows), "hours": round(sum(by_licence.values()), 6),
        "kinds": {key: group | {"hours": round(group["hours"], 6), "speakers": len(group["speakers"])}
                  for key, group in sorted(groups.items())},
        "licences": {key: round(hours, 6) for key, hours in sorted(by_licence.items())},
        "dropped": {key: each | {"hours": round(each["hours"], 6)} for key, each in sorted(reasons.items())},
    }  # fmt: skip


def card(report: dict, settings: Settings) -> str:
    """The data card: contents, licences, and what was left out."""
    limits = settings.limits
    lines = [
        "# Data card", "",
        f"{report['clips']} clips, {report['hours']:.2f} h, FLAC with 16 bits at {settings.rate} Hz, one channel, in "
        f"{report['shards']} ArrayRecord shards. `manifest.csv` lists them; `dropped.csv` lists what was left out.", "",
        "| kind, split | clips | hours | speakers |", "|---|---|---|---|",
        *(f"| {key} | {group['clips']} | {group['hours']:.2f} | {group['speakers'] or ''} |"
          for key, group in report["kinds"].items()), "",
        "## Licences", "", "| licence | hours | commercial use |", "|---|---|---|",
        *(f"| {licence} | {hours:.2f} | {_commercial(licence)} |" for licence, hours in report["licences"].items()), "",
        "## Left out", "", "| reason | recordings | hours |", "|---|---|---|",
        *(f"| {reason} | {each['recordings']} | {each['hours']:.2f} |" for reason, each in report["dropped"].items()),
        *(f"| source not readable: {source} | | |" for source, _ in report["unreadable"]), "",
        f"Recordings above {limits.longest:g} s are split at pauses. A clip is left out if it is shorter than "
        f"{limits.shortest:g} s, quieter than {limits.quietest:g} dB of full scale, has more than {limits.clipped:.1%} "
        f"of its samples in flat tops, or is speech with nothing above {limits.bandwidth:g} Hz.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _commercial(licence: str) -> str:
    if licence == NOT_GIVEN:
        return "unknown"
    return "**forbidden**" if FORBIDS.search(licence) else "see the licence"


def _table(rows: Sequence[Sequence]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
