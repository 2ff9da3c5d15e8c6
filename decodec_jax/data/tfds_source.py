"""Clips of a TensorFlow Datasets folder in ArrayRecord format, read without TensorFlow.

An example holds `audio` (int16 or float tensor [t], or the bytes of an encoded audio file) and `sample_rate` (Hz; not
needed with bytes). It may hold `kind`, `speaker` and `transcript`. Without `kind`, the split's name must begin with the
kind, as in "noise_train". TFDS's own feature `Audio` needs TensorFlow, so corpora of its catalogue cannot be read.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decodec_jax import audio
from decodec_jax.data.clips import KINDS, Clip, keep_usable, require_rate
from decodec_jax.errors import UserError


@dataclass(repr=False)
class Tfds:
    """Clips of one or more splits; named "split#index"."""

    sample_rate: int
    clips: Sequence[Clip]
    splits: dict  # name -> tfds data source

    def read(self, i: int, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
        name = self.clips[i].name
        example = fetch(self.splits, name)
        wave = example["audio"]
        if isinstance(wave, bytes):
            return audio.mono(audio.read(io.BytesIO(wave), self.sample_rate, start, seconds, name)[0])
        if not np.isfinite(wave).all():
            raise UserError(f"{name} contains samples that are not finite numbers (NaN or inf)")
        wave = wave.astype(np.float32) / (32768 if wave.dtype == np.int16 else 1)
        wave = audio.resample(wave, int(example["sample_rate"]), self.sample_rate)
        first = round(start * self.sample_rate)
        return wave[first:] if seconds is None else wave[first : first + round(seconds * self.sample_rate)]


def open_tfds(root: Path, sample_rate: int, wanted: Callable[[str], bool]) -> Tfds:
    """Open the splits that `wanted` accepts; TFDS's name "validation" is our "valid".

    Reads every example once, without decoding, to build the manifest that TFDS lacks.
    """
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2
    except ImportError:
        raise UserError(f"{root} is a TFDS dataset; to read it, pip install 'decodec_jax[tfds]'") from None
    try:
        builder = tfds.builder_from_directory(root)
        names = [name for name in builder.info.splits if wanted(_ours(name))]
        splits = {name: builder.as_data_source(name) for name in names}
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        records = {name: builder.as_data_source(name, deserialize_method=raw) for name in names}
    except Exception as error:  # TFDS raises many kinds of errors, all of which mean that this folder is wrong
        raise UserError(f"{root} cannot be read as a TFDS dataset ({str(error).splitlines()[0]})") from None
    if "audio" not in builder.info.features:
        raise UserError(f"{root}: its examples lack the feature 'audio'")

    def described(clip: Clip) -> Clip:
        record = tf_example_pb2.Example.FromString(fetch(records, clip.name))
        return _describe(clip, record.features.feature, sample_rate)

    unknown = [Clip(f"{name}#{i}", "", "", 0.0, _ours(name)) for name in names for i in range(len(splits[name]))]
    return Tfds(sample_rate, keep_usable(unknown, described), splits)


def fetch(splits: dict, name: str):
    """The example, or its bytes, of a clip's name."""
    split, index = name.rsplit("#", 1)
    try:
        return splits[split][int(index)]
    except Exception as error:  # of many kinds, for damage at any of three layers
        raise UserError(f"{name} cannot be read ({str(error).splitlines()[0]})") from None


def _describe(clip: Clip, example, sample_rate: int) -> Clip:
    """Fill in a clip from the features of its example."""

    def text(key: str) -> str:
        return example[key].bytes_list.value[0].decode() if key in example else ""

    wave = example["audio"]
    if wave.bytes_list.value:
        head = audio.info(io.BytesIO(wave.bytes_list.value[0]), clip.name)
        rate, frames = head.rate, head.frames
    elif "sample_rate" in example:
        rate = example["sample_rate"].int64_list.value[0]
        frames = len(wave.int64_list.value) or len(wave.float_list.value)
    else:
        raise UserError(f"{clip.name} lacks the feature 'sample_rate'")
    if frames == 0:
        raise UserError(f"{clip.name} has no samples")
    require_rate(rate, sample_rate, clip.name)
    told = text("kind")
    kind = KINDS.get(told, told) or KINDS.get(clip.split.split("_")[0], "")
    return Clip(clip.name, kind, text("speaker"), frames / rate, clip.split, text("transcript"))


def _ours(split: str) -> str:
    return split.replace("validation", "valid")
