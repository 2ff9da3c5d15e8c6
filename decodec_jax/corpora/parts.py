"""Work in parts, each with a file of its own: what makes a run resumable and lets machines share it.

Parts depend on the recordings of a source and on the settings alone. A part is done when its .json is there, which is
written last. So whoever stops at any moment loses the parts in progress, and the same command does the rest.
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
    """The parts of a source: as many items to each as weigh about `size` bytes as FLAC, at least one."""
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
    """About how many bytes an item takes as FLAC."""
    name = (item.member or item.path).lower()
    return item.size * (4 if name.endswith(LOSSY) else 1)


def digest(items: Iterable[Item]) -> str:
    """16 hexadecimal digits that change with any item."""
    made = hashlib.blake2b(digest_size=8)
    for item in items:
        made.update(repr((item.id, item.member, item.kind, item.speaker, item.split, item.transcript, item.licence,
                          item.size)).encode())  # fmt: skip
    return made.hexdigest()


def begin(out: str, settings: Mapping[str, object], sources: Mapping[str, str]) -> None:
    """Write settings and the digest of each source to the folder, beside those of sources that it holds already.

    Raises UserError if it holds work with other settings, other recordings of a source of this name, or anything else.
    """
    there = storage.names(out)
    known = {"settings": dict(settings), "sources": {}}
    if SETTINGS in there:
        known = json.loads(storage.read(f"{out}/{SETTINGS}"))
    elif any(not name.startswith(".") for name in there):
        raise UserError(f"{out} holds other files; choose a new folder")
    for asked, held in ((dict(settings), known["settings"]), (sources, {**sources, **known["sources"]})):
        for key in asked:
            if asked[key] != held.get(key):
                raise UserError(f"{out} was begun otherwise: {key} is {asked[key]!r} and was {held.get(key)!r}; "
                                "choose another folder, or delete this one")  # fmt: skip
    known["sources"] = {**known["sources"], **sources}
    storage.write(out, SETTINGS, json.dumps(known, indent=2, sort_keys=True) + "\n")


def left(out: str, parts: Iterable[Part]) -> list[Part]:
    """The parts that are not done."""
    there = storage.names(out)
    return [part for part in parts if f"{part.name}.json" not in there]


def finish(out: str, part: Part, facts: dict) -> None:
    """Say that a part is done."""
    storage.write(out, f"{part.name}.json", json.dumps(facts, ensure_ascii=False, sort_keys=True) + "\n")


def facts_of(out: str, part: Part) -> dict:
    """What `finish` was told. Raises UserError if it is damaged."""
    try:
        return json.loads(storage.read(f"{out}/{part.name}.json"))
    except ValueError:
        raise UserError(f"{out}/{part.name}.json is damaged; delete it and run the command again") from None
