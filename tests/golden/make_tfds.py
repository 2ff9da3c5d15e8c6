"""Writes tfds.npz beside this file: folders that TFDS's own builders make of tiny corpora, and what TFDS reads there.

Run once, in an environment of its own, as no test needs TensorFlow:

    python3.11 -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0 tensorflow-datasets==4.9.10 \
        apache-beam==2.77.0 pydub==0.25.1 soundfile imageio-ffmpeg importlib_resources
    venv/bin/python tests/golden/make_tfds.py

The builders of TFDS's catalogue read fake corpora with a few clips of noise, instead of downloads, and write them as
ArrayRecord. For each CORPUS ("librispeech", "lazy", which is LibriSpeech with the audio files, "libritts", "vctk"):

    CORPUS/files/NAME   the bytes of a file in its folder
    CORPUS/examples     JSON: of each example, split, speaker, transcript and rate (Hz)
    CORPUS/N            the samples of example N, int16 [t]
"""

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from unittest import mock

import imageio_ffmpeg
import numpy as np
import pydub
import soundfile
import tensorflow_datasets as tfds

PARTS = {"dev_clean": "dev-clean", "test_other": "test-other", "train_clean100": "train-clean-100"}  # TFDS's names
TEXTS = ("TWO WORDS", "ÉTÉ", "MORE")


def clip(path: Path, seed: int, rate: int) -> None:
    """Write a clip of noise that uses all 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.random.default_rng(seed).integers(-32768, 32768, 100 + seed)
    wave[:2] = -32768, 32767
    soundfile.write(path, wave.astype(np.int16), rate, subtype="PCM_16")


def librispeech(root: Path) -> dict[str, Path]:
    """An unpacked fake of LibriSpeech. Returns the folder of each split."""
    for number, (split, part) in enumerate(PARTS.items()):
        chapter = root / split / "LibriSpeech" / part / f"{19 + number}/198"
        key = f"{19 + number}-198-0000"
        clip(chapter / f"{key}.flac", number, 16_000)
        (chapter / f"{19 + number}-198.trans.txt").write_text(f"{key} {TEXTS[number]}\n")
        for name in ("SPEAKERS.TXT", "CHAPTERS.TXT"):
            (root / split / "LibriSpeech" / name).write_text("; none\n")
    return {split: root / split for split in PARTS}


def libritts(root: Path) -> dict[str, Path]:
    """A packed fake of LibriTTS. Returns the archive of each split."""
    found = {}
    for number, (split, part) in enumerate(PARTS.items()):
        chapter = root / split / part / f"{19 + number}/198"
        key = f"{19 + number}_198_000000_000000"
        clip(chapter / f"{key}.wav", number, 24_000)
        (chapter / f"{19 + number}_198.trans.tsv").write_text(f"{key}\tAs written\t{TEXTS[number]}\n")
        (root / split / "speakers.tsv").write_text("READER\tGENDER\tSUBSET\tNAME\n19\tF\ttrain\tAnn\n")
        found[split] = root / f"{split}.tar.gz"
        with tarfile.open(found[split], "w:gz") as archive:
            archive.add(root / split, "LibriTTS")
    return found


def vctk(root: Path) -> Path:
    """An unpacked fake of VCTK, whose second clip lacks a transcript."""
    root.mkdir()
    (root / "speaker-info.txt").write_text("ID AGE GENDER ACCENTS\np225 23 F English\ns5 22 M Welsh\n")
    for number, key in enumerate(("p225_001", "s5_002")):
        clip(root / "wav48_silence_trimmed" / key.split("_")[0] / f"{key}_mic1.flac", number, 48_000)
    (root / "txt/p225").mkdir(parents=True)
    (root / "txt/p225/p225_001.txt").write_text("Please call Stella.\n")
    return root


def built(name: str, corpus: object, root: Path) -> tfds.core.DatasetBuilder:
    """The dataset that TFDS's builder makes of a corpus that it believes to have downloaded."""
    builder = tfds.builder(name, data_dir=root, file_format="array_record")
    manager = tfds.download.DownloadManager
    with (
        mock.patch.object(manager, "download", lambda self, urls: corpus),
        mock.patch.object(manager, "download_and_extract", lambda self, urls: corpus),
    ):
        builder.download_and_prepare()
    return builder


def read(builder: tfds.core.DatasetBuilder) -> tuple[list[dict], list[np.ndarray]]:
    """Each example's facts and samples, as TFDS gives them with TensorFlow."""
    facts, waves = [], []
    features = builder.info.features
    for split in builder.info.splits:
        decoders = {"speech": tfds.decode.SkipDecoding()} if "lazy" in builder.info.full_name else None
        for example in builder.as_data_source(split, decoders=decoders):
            if "speaker" in example:
                speaker = features["speaker"].int2str(example["speaker"])
            else:
                speaker = str(example["speaker_id"])
            text = example.get("text_normalized", example.get("text")).decode()
            wave = example["speech"]
            if isinstance(wave, bytes):  # decoding these would need tensorflow-io
                wave = soundfile.read(io.BytesIO(wave), dtype="int16")[0]
            rate = features["speech"].sample_rate
            facts.append({"split": split, "speaker": speaker, "transcript": text, "rate": rate})
            waves.append(wave.astype(np.int16))
            assert (waves[-1] == wave).all() and (wave[0], wave[1]) == (-32768, 32767)
    return facts, waves


def main() -> None:
    pydub.AudioSegment.converter = imageio_ffmpeg.get_ffmpeg_exe()
    pydub.audio_segment.mediainfo_json = lambda *_, **__: {}  # which would need ffprobe
    sys.modules["tensorflow_io"] = mock.MagicMock(**{"audio.decode_flac": None})  # only decoding would need it
    arrays = {}
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        trees = librispeech(root / "ls")
        for key, name, corpus in (
            ("librispeech", "librispeech", trees), ("lazy", "librispeech/lazy_decode", trees),
            ("libritts", "libritts", libritts(root / "tts")), ("vctk", "vctk/mic1", vctk(root / "vctk")),
        ):  # fmt: skip
            builder = built(name, corpus, root / "tfds")
            facts, waves = read(builder)
            folder = Path(builder.data_dir)
            print(key, folder.relative_to(root), facts, [wave.shape for wave in waves])
            for path in sorted(set(folder.iterdir()) - {folder / "metadata.json"}):
                arrays[f"{key}/files/{path.name}"] = np.frombuffer(path.read_bytes(), np.uint8)
            arrays[f"{key}/examples"] = np.array(json.dumps(facts))
            arrays |= {f"{key}/{number}": wave for number, wave in enumerate(waves)}
    np.savez_compressed(Path(__file__).parent / "tfds.npz", **arrays)


if __name__ == "__main__":
    main()
