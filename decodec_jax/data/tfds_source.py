"""Clips of a TensorFlow Datasets folder in ArrayRecord format, read without TensorFlow.

An example holds one channel in `audio`, or in `speech` in TFDS's own catalogue: 16-bit samples, float samples, or the
bytes of an audio file. The rate of samples (Hz) is in `sample_rate` or features.json. There may also be `speaker` or
`speaker_id`; `transcript`, `text_normalized` or `text`; and `kind`. Without `kind`, what is in `speech` is speech;
otherwise, the split's name must begin with the kind, as in "noise_train".
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from decodec_jax import audio
from decodec_jax.data import records
from decodec_jax.data.clips import KINDS, Clip, keep_usable, require_rate
from decodec_jax.errors import UserError

FORMAT = "array_record"  # TFDS's name for it
LABELS = ".labels.txt"  # files that name the numbers of a feature
Features = Mapping[str, Any]  # of an example, by name; those that it lacks are empty


@dataclass(repr=False)
class Tfds:
    """Clips of one or more splits; named "split#index"."""

    sample_rate: int
    clips: Sequence[Clip]
    dataset: str
    splits: dict[str, list[tuple[str, int]]]  # name -> the file of each example, and its index there
    feature: str  # that holds the recording
    rate: int  # Hz, in features.json; 0: not there
    labels: dict[str, dict[int, str]]  # feature -> names of its numbers

    def read(self, i: int, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
        name = self.clips[i].name
        _, held = self.example(name)
        if isinstance(held, bytes):
            return audio.mono(audio.read(io.BytesIO(held), self.sample_rate, start, seconds, name)[0])
        wave = audio.resample(*held, self.sample_rate)
        first = round(start * self.sample_rate)
        return wave[first:] if seconds is None else wave[first : first + round(seconds * self.sample_rate)]

    def example(self, name: str) -> tuple[Features, bytes | tuple[np.ndarray, int]]:
        """An example and its recording: the bytes of a file, or float32 [t] and the rate (Hz).

        Raises UserError if the example is damaged, or its samples are not 16-bit integers or finite numbers.
        """
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        split, index = name.rsplit("#", 1)
        record = records.read_record(*self.splits[split][int(index)])
        try:
            features = tf_example_pb2.Example.FromString(record).features.feature
        except DecodeError as error:
            raise UserError(f"{name} cannot be read ({error})") from None
        stored = features[self.feature]
        if stored.bytes_list.value:
            return features, stored.bytes_list.value[0]
        rate = (*features["sample_rate"].int64_list.value, self.rate)[0]
        if not rate:
            raise UserError(f"{name} lacks the feature 'sample_rate'")
        values = np.array(stored.int64_list.value or stored.float_list.value)
        wave = values.astype(np.int16 if stored.int64_list.value else np.float32)
        if not np.isfinite(wave).all():
            raise UserError(f"{name} contains samples that are not finite numbers (NaN or inf)")
        if wave.dtype == np.int16 and (wave != values).any():
            raise UserError(f"{name} has samples from {values.min()} to {values.max()}, which 16 bits cannot hold")
        return features, (wave.astype(np.float32) / (32768 if wave.dtype == np.int16 else 1), rate)

    def described(self, clip: Clip) -> Clip:
        """Fill in a clip from its example."""
        features, held = self.example(clip.name)

        def text(*names: str) -> str:
            for name in names:
                for content in features[name].bytes_list.value:
                    return content.decode("utf-8", "replace").strip()
                for number in features[name].int64_list.value:
                    return self.labels.get(name, {}).get(number, str(number))
            return ""

        if isinstance(held, bytes):
            head = audio.info(io.BytesIO(held), clip.name)
            frames, rate = head.frames, head.rate
        else:
            frames, rate = len(held[0]), held[1]
        if frames == 0:
            raise UserError(f"{clip.name} has no samples")
        require_rate(rate, self.sample_rate, clip.name)
        told = text("kind")
        kind = KINDS.get(told, told) or KINDS.get(self.feature) or KINDS.get(clip.split.split("_")[0], "")
        words = text("transcript", "text_normalized", "text")
        return Clip(clip.name, kind, text("speaker", "speaker_id"), frames / rate, clip.split, words)


def open_tfds(root: Path, sample_rate: int, wanted: Callable[[str], bool]) -> Tfds:
    """Open a dataset, with the clips of the splits that `wanted` accepts by our names for them.

    Reads every example of these splits once, without decoding files, to build the manifest that TFDS lacks.
    """
    try:
        import tensorflow_datasets as tfds
        from google.protobuf import json_format
        from tensorflow_datasets.core.proto import dataset_info_pb2, feature_pb2
    except ImportError:
        raise UserError(f"{root} is a TFDS dataset; to read it, pip install 'decodec_jax[tfds]'") from None
    try:  # TFDS's builder does the same, but its feature Audio imports TensorFlow
        info = json_format.Parse((root / "dataset_info.json").read_text(), dataset_info_pb2.DatasetInfo())
        told = json_format.Parse((root / "features.json").read_text(), feature_pb2.Feature()).features_dict.features
        files = tfds.core.ShardedFileTemplate(root, dataset_name=info.name, filetype_suffix=FORMAT)
        splits = {
            name: [(shard.filename, i) for shard in split.file_instructions for i in range(shard.examples_in_shard)]
            for name, split in tfds.core.SplitDict.from_proto(info.splits, files).items()
        }
        labels = {path.name.removesuffix(LABELS): dict(enumerate(path.read_text().splitlines()))
                  for path in root.glob(f"*{LABELS}")}  # fmt: skip
    except Exception as error:  # TFDS raises many kinds of errors, all of which mean that this folder is wrong
        raise UserError(f"{root} cannot be read as a TFDS dataset ({str(error).splitlines()[0]})") from None
    if FORMAT not in (info.file_format, *info.alternative_file_formats):
        raise UserError(f"{root} holds {info.file_format or 'tfrecord'} files; convert them with tfds convert_format "
                        f"--out_file_format={FORMAT}")
    feature = next((name for name in ("audio", "speech") if name in told), "")
    if not feature:
        raise UserError(f"{root}: its examples lack the feature 'audio' or 'speech'")
    form = told[feature].audio if told[feature].HasField("audio") else told[feature].tensor
    axes, encoding = len(form.shape.dimensions), form.encoding.lower() or "none"
    if axes > 1 or encoding != "none":
        raise UserError(f"{root}: {feature!r} must have 1 axis and the encoding 'none', not {axes} and {encoding!r}")
    source = Tfds(sample_rate, [], info.name, splits, feature, told[feature].audio.sample_rate, labels)
    unknown = [Clip(f"{name}#{i}", "", "", 0.0, ours(name)) for name in splits if wanted(ours(name))
               for i in range(len(splits[name]))]  # fmt: skip
    return replace(source, clips=keep_usable(unknown, source.described))


def ours(split: str) -> str:
    """Our name for TFDS's split: "valid" for "validation" and "dev_clean", "train" for "train_clean100"."""
    part = re.fullmatch(r"(train|dev|test)_(clean|other)\d*", split)
    return (part[1].replace("dev", "valid") if part else split).replace("validation", "valid")
