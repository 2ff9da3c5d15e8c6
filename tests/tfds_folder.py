"""A TFDS dataset in a folder."""

import json

from decodec_jax.data import records


def write(root, features, splits, name="clips"):
    """A TFDS dataset as its ArrayRecord builder leaves it, made without TensorFlow. splits: name -> examples."""
    import tensorflow_datasets as tfds  # which takes seconds
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = tfds.features.FeaturesDict(features)
    root.mkdir(parents=True)
    features.save_config(root)
    serializer = ExampleSerializer(features.get_serialized_info())
    for split, examples in splits.items():
        encoded = (serializer.serialize_example(features.encode_example(example)) for example in examples)
        records.write(root / f"{name}-{split}.array_record-00000-of-00001", encoded)
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    described = [
        {"name": split, "shardLengths": [str(len(examples))], "numBytes": "1", "filepathTemplate": template}
        for split, examples in splits.items()
    ]
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": described}
    (root / "dataset_info.json").write_text(json.dumps(info))
