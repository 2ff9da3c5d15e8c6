"""Recipes for known corpora: how their folders and texts give speakers, splits, transcripts and licences.

`decodec prepare librispeech=/data/LibriSpeech ... OUT` names a recipe and the place of its corpus, unpacked or in
archives. The paper trains on AISHELL-3, LibriTTS, VCTK and WSJ0/1, with noises from ESC-50 and DNS.

For each recording, a recipe gives the fields of its item, or None if it is not to be used. The licences are those that
the publishers name; read them before you use a corpus.
"""

import csv
import os
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from decodec_jax.corpora import items, storage
from decodec_jax.corpora.items import ARCHIVES, Item
from decodec_jax.data import tfds_source
from decodec_jax.errors import UserError

Texts = Mapping[str, str]  # transcripts or other facts, by the key of a recording
Fields = dict[str, str]  # of an item


@dataclass(frozen=True)
class Recipe:
    """A corpus: where it is published, its licence, and how to describe its recordings."""

    url: str
    licence: str
    describe: Callable[[PurePosixPath, Texts], Fields | None]  # from its path in the source
    texts: Sequence[str] = ()  # patterns for the names of the text files it needs
    told: Callable[[dict[str, str]], Texts] = dict  # from the contents of the texts, by name
    tfds: bool = False  # whether TFDS's catalogue has the corpus; its examples give all but the licence


def listed(source: str, kind: str = "speech") -> list[Item]:
    """Like `items.listed`, but reads RECIPE=SOURCE with that recipe. Raises UserError if it cannot."""
    name, equals, place = source.partition("=")
    if not equals or "/" in name or os.path.exists(source):
        return items.listed(source, kind)
    if name not in RECIPES:
        raise UserError(f"{name!r} is not a recipe; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    if recipe.tfds and Path(place, "dataset_info.json").exists():
        if tfds_source.open_tfds(Path(place), 1, lambda _: False).dataset != name:
            raise UserError(f"{place} is a TFDS dataset, but not of {name}")
        return [replace(item, licence=recipe.licence) for item in items.listed(place)]
    told = recipe.told(texts(place, recipe.texts)) if recipe.texts else {}
    found = []
    for item in items.listed(place, kind):
        fields = recipe.describe(PurePosixPath(item.id), told)
        if fields is not None:
            found.append(replace(item, **{"licence": recipe.licence, "speaker": ""} | fields))
    if not found:
        raise UserError(f"{place} holds no recording where {name} has them; unpack it as published ({recipe.url})")
    return found


def texts(source: str, patterns: Sequence[str]) -> dict[str, str]:
    """The text files of a source, archives included, whose names match a pattern: name -> content."""
    def wanted(name: str) -> bool:
        return any(fnmatch(PurePosixPath(name).name, pattern) for pattern in patterns)

    if storage.is_url(source):
        files = [path for path, _ in storage.listed(source)]
    elif os.path.isdir(source):
        files = [str(path) for path in sorted(Path(source).rglob("*")) if path.is_file()]
    else:
        files = [source]
    found = {path: storage.read(path).decode("utf-8", "replace") for path in files if wanted(path)}
    for path in files:
        if path.lower().endswith(ARCHIVES):
            try:
                with storage.opened(path) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
                    for member in archive:
                        if member.isfile() and wanted(member.name):
                            found[member.name] = archive.extractfile(member).read().decode("utf-8", "replace")
            except (tarfile.TarError, EOFError, OSError):
                continue  # the damage is reported when recordings are read
    return found


# --- layouts ----------------------------------------------------------------------------------------------------------


def _split(folder: str) -> str:
    """The split of a folder: dev-clean is "valid", test-other is "test", all others are "train"."""
    return "valid" if re.match(r"dev|val|cv|si_dt", folder) else "test" if re.match(r"test|si_et", folder) else "train"


def _lines(contents: dict[str, str]) -> Texts:
    """Transcripts from files with lines of a key and its words."""
    pairs = (line.split(None, 1) for text in contents.values() for line in text.splitlines())
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def _by_stem(contents: dict[str, str]) -> Texts:
    """Transcripts from files that hold one each: a.txt or a.normalized.txt for a.wav."""
    return {PurePosixPath(name).name.split(".")[0]: text.strip() for name, text in contents.items()}


def _librispeech(path: PurePosixPath, told: Texts) -> Fields | None:
    if len(path.parts) < 4:  # .../train-clean-100/19/198/19-198-0000.flac
        return None
    return {"kind": "speech", "speaker": path.parts[-3], "split": _split(path.parts[-4]),
            "transcript": told.get(path.stem, "")}  # fmt: skip


def _vctk(path: PurePosixPath, told: Texts) -> Fields | None:
    key = re.fullmatch(r"((p|s)\d+)_\d+(_mic1)?", path.stem)  # wav48_silence_trimmed/p225/p225_001_mic1.flac
    return key and {"kind": "speech", "speaker": key[1], "transcript": told.get(path.stem.removesuffix("_mic1"), "")}


def _aishell3(path: PurePosixPath, told: Texts) -> Fields | None:
    if not re.fullmatch(r"SSB\d{8}", path.stem):  # train/wav/SSB0005/SSB00050001.wav
        return None
    split = "test" if "test" in path.parts else "train"
    return {"kind": "speech", "speaker": path.stem[:7], "split": split, "transcript": told.get(path.name, "")}


def _aishell3_told(contents: dict[str, str]) -> Texts:
    """Lines "SSB00050001.wav<tab>guang3-character guang3 zhou1-character zhou1 ...": every second word is pinyin."""
    return {name: "".join(words.split()[::2]) for name, words in _lines(contents).items()}


def _wsj(path: PurePosixPath, told: Texts) -> Fields | None:
    if len(path.parts) < 3:  # si_tr_s/011/011c0201.wav
        return None
    return {"kind": "speech", "speaker": path.parts[-2], "split": _split(path.parts[-3]),
            "transcript": told.get(path.stem.lower(), "")}  # fmt: skip


def _wsj_told(contents: dict[str, str]) -> Texts:
    """Lines "words (011c0201)"."""
    found = re.findall(r"^(.*?)\s*\((\w+)\)\s*$", "\n".join(contents.values()), re.MULTILINE)
    return {key.lower(): words for words, key in found}


def _esc50(path: PurePosixPath, told: Texts) -> Fields | None:
    if not re.fullmatch(r"\d-\d+-[A-Z]-\d+", path.stem):  # audio/5-9032-A-0.wav, which begins with its fold
        return None
    licence = {"licence": "CC BY 3.0"} if told.get(path.name) == "True" else {}
    return {"kind": "background", "split": "test" if path.name.startswith("5-") else "train"} | licence


def _esc50_told(contents: dict[str, str]) -> Texts:
    """Whether a clip belongs to ESC-10, which has a freer licence."""
    return {row["filename"]: row["esc10"] for text in contents.values() for row in csv.DictReader(text.splitlines())}


def _background(path: PurePosixPath, told: Texts) -> Fields | None:
    return {"kind": "background"}


def _musan(path: PurePosixPath, told: Texts) -> Fields | None:
    if len(path.parts) > 1 and "speech" in path.parts[:-1]:  # musan/speech/librivox/speech-librivox-0000.wav
        return {"kind": "speech", "speaker": path.stem}
    return {"kind": "background"}


def _demand(path: PurePosixPath, told: Texts) -> Fields | None:
    return {"kind": "background"} if path.stem == "ch01" else None  # DKITCHEN/ch01.wav, one of 16 microphones


def _rirs(path: PurePosixPath, told: Texts) -> Fields | None:
    if "pointsource_noises" in path.parts or "noise" in path.stem:
        return {"kind": "background"}
    return {"kind": "room"}  # RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00001.wav


RECIPES = {
    "aishell3": Recipe("https://www.openslr.org/93", "Apache-2.0", _aishell3, ("content.txt",), _aishell3_told),
    "libritts": Recipe("https://www.openslr.org/60", "CC BY 4.0", _librispeech, ("*.normalized.txt",), _by_stem,
                       tfds=True),
    "vctk": Recipe("https://doi.org/10.7488/ds/2645", "CC BY 4.0", _vctk, ("p*.txt", "s*.txt"), _by_stem, tfds=True),
    "wsj": Recipe("https://catalog.ldc.upenn.edu/LDC93S6A", "LDC user agreement", _wsj, ("*.dot", "*.lsn"), _wsj_told),
    "esc50": Recipe("https://github.com/karolpiczak/ESC-50", "CC BY-NC 3.0", _esc50, ("esc50.csv",), _esc50_told),
    "dns_noise": Recipe("https://github.com/microsoft/DNS-Challenge", "AudioSet and Freesound, per clip", _background),
    "librispeech": Recipe("https://www.openslr.org/12", "CC BY 4.0", _librispeech, ("*.trans.txt",), _lines, tfds=True),
    "musan": Recipe("https://www.openslr.org/17", "CC BY 4.0", _musan),
    "demand": Recipe("https://zenodo.org/records/1227121", "CC BY-SA 3.0", _demand),
    "rirs": Recipe("https://www.openslr.org/28", "Apache-2.0", _rirs),
}  # fmt: skip
