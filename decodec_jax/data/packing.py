"""Pack a folder of audio files into ArrayRecord, so that a pod lists and opens only a few files."""

import csv
from collections import Counter
from pathlib import Path

from decodec_jax import audio
from decodec_jax.data import records
from decodec_jax.data.clips import Clip, keep_usable
from decodec_jax.data.sources import Files, list_clips
from decodec_jax.errors import UserError

COLUMNS = ("path", "split", "kind", "speaker", "transcript", "duration")


def pack(root: Path, out: Path, clips_per_file: int = 2048) -> int:
    """Write the clips of folder `root` as ArrayRecord files of FLAC, with a manifest.csv, into folder `out`.

    Each record is a whole 16-bit FLAC file at its own rate and channel count. Samples of 16-bit sources stay unchanged.
    A warning names files that cannot be read. Returns the number of packed clips.
    """
    if out.resolve() == root.resolve():
        raise UserError(f"{out} is the folder to pack; choose another output folder")
    out.mkdir(parents=True, exist_ok=True)
    source = Files(root, 0, list_clips(root))
    counts, writers, rows = Counter(), {}, []

    def packed(clip: Clip) -> Clip:
        file, name = source.locate(clip)
        wave, rate = audio.read(file, name=name)
        record = audio.encode(wave, rate, ".flac", name)
        group = f"{clip.split}-{clip.kind}".replace("/", "-")
        shard, index = divmod(counts[group], clips_per_file)
        shard_name = f"{group}-{shard:05d}.array_record"
        if shard_name not in writers:
            writers[shard_name] = records.writer(out / shard_name)
        writers[shard_name].write(record)
        counts[group] += 1
        seconds = f"{wave.shape[-1] / rate:.6f}"
        rows.append((f"{shard_name}#{index}", clip.split, clip.kind, clip.speaker, clip.transcript, seconds))
        return clip

    try:
        keep_usable(source.clips, packed)
    finally:
        for writer in writers.values():
            writer.close()
    # Written last, so that a folder without it counts as unfinished.
    with (out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return len(rows)
