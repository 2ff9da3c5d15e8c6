"""Clips and archives that the tests of this folder are made of."""

import io
import tarfile

from decodec_jax import testing

RATE = 16_000


def clip(t, seed=0):
    """Speech-like over noise, float32 [t]; no two seeds are alike."""
    return (testing.speech_clips(1, t, seed) + 0.2 * testing.background_clips(1, t, seed))[0]


def tarred(path, members):
    """An archive of name -> bytes, in this order."""
    with tarfile.open(path, "w:gz" if path.suffix != ".tar" else "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path
