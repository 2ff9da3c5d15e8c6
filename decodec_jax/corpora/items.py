"""List and open the recordings of a source: a folder, manifest, bucket, tar file, WebDataset shard or TFDS dataset.

Listing decodes nothing. Names are sorted, and members of an archive keep their order, so a source always gives the same
list.
"""

import csv
import io
import json
import math
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from decodec_jax import audio
from decodec_jax.corpora import storage
from decodec_jax.data import records, tfds_source
from decodec_jax.data.clips import KINDS, Clip
from decodec_jax.errors import UserError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TEXTS = (".txt", ".json")  # beside the recording of the same name in a WebDataset shard
KNOWN = {"path", "split", "kind", "speaker", "transcript", "duration", "duration_s", "licence", "license"}


@dataclass(frozen=True)
class Item:
    """A recording, not opened yet."""

    id: str  # name in the source and in messages
    path: str  # of its file or archive, or their URL
    member: str = ""  # name in the archive; "split#index" in a TFDS dataset
    kind: str = "speech"
    speaker: str = ""
    split: str = "train"
    transcript: str = ""
    licence: str = ""
    seconds: float = 0.0  # 0 if unknown
    size: int = 0  # bytes
    more: dict = field(default_factory=dict, hash=False)  # other columns of a manifest


def listed(source: str, kind: str = "speech") -> list[Item]:
    """List the recordings of a folder, a file, an archive or a URL, which may hold a pattern.

    kind: of recordings whose folder or manifest does not say. Raises UserError if there are no recordings.
    """
    if storage.is_url(source):
        found = _of_bucket(source, kind)
    elif os.path.isdir(source):
        found = _of_folder(Path(source), kind)
    elif os.path.exists(source):
        found = _of_file(source, Path(source).name, os.path.getsize(source), kind)
    else:
        raise UserError(f"{source} does not exist")
    if not found:
        raise UserError(f"{source} holds no recordings ({', '.join(audio.SUFFIXES)}) and no archives of them")
    return found


def _of_bucket(source: str, kind: str) -> list[Item]:
    """The files of a bucket, named relative to the folder, or to the part of the URL that has no wildcards."""
    files = storage.listed(source)
    fixed = re.split(r"[*?\[]", source)[0]
    root = fixed.rstrip("/") if fixed == source and files[0][0] != source else fixed.rsplit("/", 1)[0]
    if fixed == source and f"{root}/manifest.csv" in dict(files):
        return _of_manifest(root, dict(files), kind)
    return [item for path, size in files for item in _of_file(path, path.removeprefix(f"{root}/"), size, kind)]


def _of_folder(root: Path, kind: str) -> list[Item]:
    if (root / "manifest.csv").exists():
        return _of_manifest(str(root), {}, kind)
    if (root / "dataset_info.json").exists():
        return _of_tfds(root, kind)
    found = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not path.name.startswith("."):
            found += _of_file(str(path), relative.as_posix(), path.stat().st_size, kind)
    return found


def _of_file(path: str, name: str, size: int, kind: str) -> list[Item]:
    """A recording, or the recordings of an archive; nothing for other files. A first folder "noise" tells the kind."""
    kind = KINDS.get(PurePosixPath(name).parts[0], kind)
    if name.lower().endswith(ARCHIVES):
        return _of_archive(path, name, kind)
    if PurePosixPath(name).suffix.lower() not in audio.SUFFIXES:
        return []
    folders = PurePosixPath(name).parts[:-1]
    speaker = folders[-1] if kind == "speech" and len(folders) > 1 and folders[0] in KINDS else ""
    return [Item(name, path, kind=kind, speaker=speaker, size=size)]


def _of_manifest(root: str, sizes: Mapping[str, int], kind: str) -> list[Item]:
    """The rows of a manifest in a folder or a bucket. sizes: bytes of each file in the bucket."""
    path = f"{root}/manifest.csv"
    try:
        rows = csv.DictReader(io.StringIO(storage.read(path).decode("utf-8-sig"), newline=""))
        if "path" not in (rows.fieldnames or ()):
            raise UserError(f"{path} lacks the column 'path'; its first line must name the columns")
        return [_of_row(root, row, sizes, kind) for row in rows if row["path"]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error})") from None


def _of_row(root: str, row: dict[str, str], sizes: Mapping[str, int], kind: str) -> Item:
    seconds = row.get("duration") or row.get("duration_s") or "0"
    try:
        length = max(0.0, float(seconds))
    except ValueError:
        length = 0.0
    if not math.isfinite(length):
        length = 0.0
    told = row.get("kind") or kind
    path = os.path.join(root, row["path"])
    size = sizes.get(path, 0)
    if not storage.is_url(root) and not records.address(row["path"]) and os.path.exists(path):
        size = os.path.getsize(path)  # a missing file is reported when it is read
    more = {key: text for key, text in row.items() if key and key not in KNOWN and text}
    return Item(
        row["path"], path, "", KINDS.get(told, told), row.get("speaker") or "",
        row.get("split") or "train", row.get("transcript") or "", row.get("licence") or row.get("license") or "",
        length, size or round(32_000 * length), more,
    )  # fmt: skip


def _of_archive(path: str, name: str, kind: str) -> list[Item]:
    """The recordings of a tar file. In a WebDataset shard, texts of the same name give transcript and speaker."""
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
        # What comes before the damage can be read. One more item puts the rest into the report.
        found.append(("", Item(f"{name}/(the rest)", path, "(the rest)", kind)))
    return [replace(item, **told.get(stem, {})) for stem, item in found]


def _text(content: bytes, suffix: str) -> dict:
    """The fields of an item that a text in a WebDataset shard gives."""
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
    fields = {names[key]: str(value) for key, value in facts.items() if key in names and value not in (None, "")}
    if "kind" in fields:
        fields["kind"] = KINDS.get(fields["kind"], fields["kind"])
    rest = {key: value for key, value in facts.items() if key not in names and isinstance(value, (str, int, float))}
    return fields | ({"more": rest} if rest else {})


def _of_tfds(root: Path, kind: str) -> list[Item]:
    """All examples, also those that cannot be read, so that the report can name them."""
    source = tfds_source.open_tfds(root, 1, lambda _: True)
    described = {clip.name: clip for clip in source.clips}
    found = []
    for split, examples in source.splits.items():
        for name in (f"{split}#{index}" for index in range(len(examples))):
            clip = described.get(name) or Clip(name, "", "", 0.0, tfds_source.ours(split))
            found.append(Item(name, str(root), name, clip.kind or kind, clip.speaker, clip.split, clip.transcript, "",
                              clip.seconds, round(32_000 * clip.seconds)))  # fmt: skip
    return found


# --- reading ----------------------------------------------------------------------------------------------------------


def contents(items: Sequence[Item]) -> Iterator[tuple[Item, str | io.BytesIO | UserError]]:
    """Open each item, in order: gives a path, the bytes of a file, or the reason why it cannot be read.

    An archive is read once, up to the last of the items.
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
    """Open an item that is not in an archive: a path, the bytes of a file, or the reason why it cannot be read."""
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
    """Open items of one archive, in its order."""
    left = iter(items)
    item = next(left)
    try:
        with storage.opened(item.path) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                if member.name == item.member:
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
    _, held = _dataset(item.path).example(item.member)
    return io.BytesIO(held if isinstance(held, bytes) else audio.encode(*held, ".flac", item.id))


@lru_cache(maxsize=16)
def _dataset(root: str) -> tfds_source.Tfds:
    return tfds_source.open_tfds(Path(root), 1, lambda _: False)
