"""What a source holds: recordings in folders, manifests, buckets, tar files, WebDataset shards and TFDS datasets.

Listing decodes nothing. Names are sorted, and members of an archive keep its order, so the same source always gives the
same list.
"""

import csv
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from decodec_jax import audio
from decodec_jax.corpora import storage
from decodec_jax.data import records
from decodec_jax.data.clips import KINDS
from decodec_jax.errors import UserError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TEXTS = (".txt", ".json")  # beside the recording of the same name in a WebDataset shard
KNOWN = {"path", "split", "kind", "speaker", "transcript", "duration", "duration_s", "licence", "license"}


@dataclass(frozen=True)
class Item:
    """A recording that has not been opened yet."""

    id: str  # its name in the source and in messages
    path: str  # a file or a URL; of a recording in an archive, the archive's
    member: str = ""  # its name in the archive; "split#index" in a TFDS dataset
    kind: str = "speech"
    speaker: str = ""
    split: str = "train"
    transcript: str = ""
    licence: str = ""
    seconds: float = 0.0  # 0 where not known
    size: int = 0  # bytes
    more: dict = field(default_factory=dict, hash=False)  # other columns of a manifest


def listed(source: str, kind: str = "speech") -> list[Item]:
    """The recordings of a source: a folder, file, archive, or a URL with or without a pattern.

    kind: of those whose folder or manifest does not tell. Raises UserError if there are none.
    """
    if storage.is_url(source):
        files = storage.listed(source)
        found = [item for path, size in files for item in _of_file(path, PurePosixPath(path).name, size, kind)]
    elif os.path.isdir(source):
        found = _of_folder(Path(source), kind)
    elif os.path.exists(source):
        found = _of_file(source, Path(source).name, os.path.getsize(source), kind)
    else:
        raise UserError(f"{source} does not exist")
    if not found:
        raise UserError(f"{source} holds no recordings ({', '.join(audio.SUFFIXES)}) and no archives of them")
    return found


def _of_folder(root: Path, kind: str) -> list[Item]:
    if (root / "manifest.csv").exists():
        return _of_manifest(root, kind)
    if (root / "dataset_info.json").exists():
        return _of_tfds(root)
    found = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not path.name.startswith("."):
            found += _of_file(str(path), relative.as_posix(), path.stat().st_size, KINDS.get(relative.parts[0], kind))
    return found


def _of_file(path: str, name: str, size: int, kind: str) -> list[Item]:
    """A recording, or those of an archive; nothing for other files."""
    if name.lower().endswith(ARCHIVES):
        return _of_archive(path, name, kind)
    if PurePosixPath(name).suffix.lower() not in audio.SUFFIXES:
        return []
    folders = PurePosixPath(name).parts[:-1]
    speaker = folders[-1] if kind == "speech" and len(folders) > 1 and folders[0] in KINDS else ""
    return [Item(name, path, kind=kind, speaker=speaker, size=size)]


def _of_manifest(root: Path, kind: str) -> list[Item]:
    path = root / "manifest.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if "path" not in (rows.fieldnames or ()):
                raise UserError(f"{path} lacks the column 'path'; its first line must name the columns")
            return [_of_row(root, row, kind) for row in rows if row["path"]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error})") from None


def _of_row(root: Path, row: dict[str, str], kind: str) -> Item:
    seconds = row.get("duration") or row.get("duration_s") or "0"
    try:
        length = max(0.0, float(seconds))
    except ValueError:
        length = 0.0
    told = row.get("kind") or kind
    address = records.address(row["path"])
    file = root / (address[0] if address else row["path"])
    try:
        size = 0 if address else file.stat().st_size
    except OSError:
        size = 0  # it is missing, which whoever reads it finds out
    more = {key: text for key, text in row.items() if key and key not in KNOWN and text}
    return Item(
        row["path"], str(root / row["path"]), "", KINDS.get(told, told), row.get("speaker") or "",
        row.get("split") or "train", row.get("transcript") or "", row.get("licence") or row.get("license") or "",
        length, size or round(32_000 * length), more,
    )  # fmt: skip


def _of_archive(path: str, name: str, kind: str) -> list[Item]:
    """The recordings of a tar file; of a WebDataset shard, texts of the same name tell transcript and speaker."""
    found: list[tuple[str, Item]] = []
    told: dict[str, dict] = {}
    try:
        with storage.opened(path) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                stem, suffix = os.path.splitext(member.name)
                if not member.isfile() or os.path.basename(stem).startswith("."):
                    continue
                if suffix.lower() in audio.SUFFIXES:
                    first = KINDS.get(PurePosixPath(member.name).parts[0], kind)
                    found.append((stem, Item(f"{name}/{member.name}", path, member.name, first, size=member.size)))
                elif suffix.lower() in TEXTS and member.size < 1 << 16:
                    told.setdefault(stem, {}).update(_text(archive.extractfile(member).read(), suffix.lower()))
    except (tarfile.TarError, EOFError, OSError, UserError):
        # What was listed before the damage can be read. One more item makes the report name the rest.
        found.append(("", Item(f"{name}/(the rest)", path, "(the rest)", kind)))
    return [replace(item, **told.get(stem, {})) for stem, item in found]


def _text(content: bytes, suffix: str) -> dict:
    """The fields of an item that a WebDataset's text tells."""
    text = content.decode("utf-8", "replace").strip()
    if suffix == ".txt":
        return {"transcript": text}
    try:
        facts = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(facts, dict):
        return {}
    names = {"transcript": "transcript", "text": "transcript", "speaker": "speaker", "speaker_id": "speaker",
             "licence": "licence", "license": "licence", "kind": "kind", "split": "split"}  # fmt: skip
    fields = {names[key]: str(value) for key, value in facts.items() if key in names}
    rest = {key: value for key, value in facts.items() if key not in names and isinstance(value, (str, int, float))}
    return fields | ({"more": rest} if rest else {})


def _of_tfds(root: Path) -> list[Item]:
    from decodec_jax.data import tfds_source

    clips = tfds_source.open_tfds(root, 1, lambda _: True).clips
    return [Item(f"{root.name}/{clip.name}", str(root), clip.name, clip.kind, clip.speaker, clip.split, clip.transcript,
                 "", clip.seconds, round(32_000 * clip.seconds)) for clip in clips]  # fmt: skip


# --- reading ----------------------------------------------------------------------------------------------------------


def contents(items: Sequence[Item]) -> Iterator[tuple[Item, str | io.BytesIO | UserError]]:
    """Where to read each item, in order: a path, the bytes of its file, or why it cannot be read.

    An archive is read once, from its start to the last of its items.
    """
    position = 0
    while position < len(items):
        first = items[position]
        if not first.path.lower().endswith(ARCHIVES) or not first.member:
            yield first, located(first)
            position += 1
            continue
        last = position
        while last < len(items) and items[last].path == first.path:
            last += 1
        yield from _members(items[position:last])
        position = last


def located(item: Item) -> str | io.BytesIO | UserError:
    """Where to read one item that is in no archive: a path, the bytes of its file, or why it cannot be read."""
    try:
        if item.member:
            return _example(item)
        address = records.address(item.path)
        if address:
            return io.BytesIO(records.read_record(*address))
        return io.BytesIO(storage.read(item.path)) if storage.is_url(item.path) else item.path
    except UserError as error:
        return error


def _members(items: Sequence[Item]) -> Iterator[tuple[Item, io.BytesIO | UserError]]:
    """Items of one archive, in its order."""
    left = iter(items)
    item = next(left)
    try:
        with storage.opened(item.path) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                while item is not None and member.name == item.member:
                    yield item, io.BytesIO(archive.extractfile(member).read())
                    item = next(left, None)
                if item is None:
                    return
        reason = "the archive ends before it"
    except UserError as error:
        reason = str(error)
    except (tarfile.TarError, EOFError, OSError) as error:
        reason = f"the archive is damaged or cut short: {error}"
    while item is not None:
        yield item, UserError(f"{item.id} cannot be read ({reason})")
        item = next(left, None)


def _example(item: Item) -> io.BytesIO:
    """A recording of a TFDS dataset, as the bytes of a file."""
    example = _examples(item.path, item.member.rsplit("#", 1)[0])[int(item.member.rsplit("#", 1)[1])]
    if isinstance(example["audio"], bytes):
        return io.BytesIO(example["audio"])
    return io.BytesIO(audio.encode(example["audio"], int(example["sample_rate"]), ".flac", item.id))


@lru_cache(maxsize=16)
def _examples(root: str, split: str):
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(root).as_data_source(split)
