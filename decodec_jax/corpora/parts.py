"""Divide the work into parts with a file each, so that a run can be resumed and machines can share it.

The parts depend only on the recordings of a source and on the settings. A part is done when its .json file exists,
which is written last. A run that is interrupted loses the parts in progress; the same command then does the rest.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from decodec_jax import ffmpeg
from decodec_jax.corpora import storage
from decodec_jax.corpora.items import Item
from decodec_jax.errors import UserError

LOSSY = (".mp3", ".ogg", ".oga", ".opus", *ffmpeg.SUFFIXES)
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Part:
    """Some consecutive recordings of a source."""

    name: str
    items: tuple[Item, ...]


def cut(source: str, items: Sequence[Item], size: int) -> list[Part]:
    """Divide a source into parts of about `size` bytes as FLAC, with at least one item each."""
    found: list[list[Item]] = []
    filled = size
    for item in items:
        if filled >= size:
            found.append([])
            filled = 0
        found[-1].append(item)
        filled += weight(item)
    return [Part(f"{source}-{number:06d}", tuple(each)) for number, each in enumerate(found)]


def weight(item: Item) -> int:
    """The approximate size of an item as FLAC, in bytes."""
    name = (item.member or item.path).lower()
    return item.size * (4 if name.endswith(LOSSY) else 1)


def digest(items: Iterable[Item]) -> str:
    """16 hexadecimal digits that change if any item does."""
    made = hashlib.blake2b(digest_size=8)
    for item in items:
        made.update(repr((item.id, item.member, item.kind, item.speaker, item.split, item.transcript, item.licence,
                          item.size)).encode())  # fmt: skip
    return made.hexdigest()


def begin(out: str, settings: Mapping[str, object], sources: Mapping[str, str]) -> None:
    """Write the settings and the digests of the sources to the folder. Digests of other sources stay there.

    Raises UserError if the folder was begun with other settings or other recordings, or holds other files.
    """
    there = storage.names(out)
    known = {"settings": dict(settings), "sources": {}}
    if SETTINGS in there:
        known = json.loads(storage.read(f"{out}/{SETTINGS}"))
    elif any(not name.startswith(".") for name in there):
        raise UserError(f"{out} holds other files; choose a new folder")
    before = known["settings"]
    other = [f"{key} {before.get(key)!r}, not {settings.get(key)!r}" for key in {**settings, **before}
             if before.get(key) != settings.get(key)]  # fmt: skip
    changed = {name for name, digest in sources.items() if known["sources"].get(name, digest) != digest}
    other += [f"other recordings of {name}" for name in sorted(changed)]
    if other:
        raise UserError(f"{out} was begun with {other[0]}; choose another folder, or delete this one")
    known["sources"] = {**known["sources"], **sources}
    storage.write(out, SETTINGS, json.dumps(known, indent=2, sort_keys=True) + "\n")


def left(out: str, parts: Iterable[Part]) -> list[Part]:
    """The parts that are not done."""
    there = storage.names(out)
    return [part for part in parts if f"{part.name}.json" not in there]


def finish(out: str, part: Part, facts: dict) -> None:
    """Mark a part as done."""
    storage.write(out, f"{part.name}.json", json.dumps(facts, ensure_ascii=False, sort_keys=True) + "\n")


def facts_of(out: str, part: Part) -> dict:
    """The `facts` that `finish` wrote. Raises UserError if they are damaged."""
    try:
        return json.loads(storage.read(f"{out}/{part.name}.json"))
    except ValueError:
        raise UserError(f"{out}/{part.name}.json is damaged; delete it and run the command again") from None
