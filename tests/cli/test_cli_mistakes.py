"""Every mistake one line, and nothing half-written."""

import json
import resource
from dataclasses import replace

import numpy as np
import soundfile
from sounds import RATE, assert_holds, clips

from decodec_jax import audio
from decodec_jax.inference import container, files
from decodec_jax.inference.container.format import HEADER_BYTES


def test_unusual_recordings_are_recordings(decodec, folder):
    cases = {
        "one.wav": (np.ones((1, 1)) / 4, RATE), "silence.wav": (np.zeros((1, 139)), RATE),
        "clipped.wav": (np.sign(clips(139, 1)), RATE), "fast.wav": (clips(900, 1), 96_000),
        "six.wav": (clips(139, 6), RATE),
    }  # fmt: skip
    for name, (wave, rate) in cases.items():
        audio.write(folder / name, wave, rate)
        assert decodec("reconstruct", folder / name, folder / "out.wav") == (0, [], [])
        assert audio.info(folder / "out.wav") == audio.AudioInfo(rate, *wave.shape)


def test_each_mistake_is_one_line_and_leaves_nothing(decodec, model, folder):
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", np.array([0.0, np.inf]), RATE, subtype="FLOAT")
    soundfile.write(folder / "none.wav", np.zeros(0), RATE)
    (folder / "text.wav").write_text("not audio")
    (folder / "cut.flac").write_bytes((folder / "in/deep/stereo.flac").read_bytes()[:-200])
    newer = folder / "newer"
    newer.mkdir()
    for file in model.iterdir():
        text = file.read_bytes()
        (newer / file.name).write_bytes(text.replace(b'"version": 2', b'"version": 3'))
    mono, before = folder / "in/mono.wav", sorted(folder.rglob("*"))
    for source, target, options, words in [
        ("nan.wav", "out.wav", {}, "not finite numbers"), ("inf.wav", "out.wav", {}, "not finite numbers"),
        ("none.wav", "out.wav", {}, "no samples"), ("text.wav", "out.wav", {}, "not an audio file"),
        ("cut.flac", "out.wav", {}, "truncated"), ("missing.wav", "out.wav", {}, "does not exist"),
        ("in/mono.wav", "out.mp9", {}, "must end in .wav or .flac or .ogg"),
        ("in/mono.wav", "none/out.wav", {}, "there is no folder"),
        ("in/mono.wav", "out.wav", {"model": folder / "nowhere"}, "neither a bundle nor a run folder"),
        ("in/mono.wav", "out.wav", {"model": newer}, "bundle of version 3; this decodec_jax reads up to 2"),
    ]:  # fmt: skip
        code, out, errors = decodec("enhance", folder / source, folder / target, **options)
        assert (code, len(out), len(errors)) == (2, 0, 1) and words in errors[0], errors
    code, out, errors = decodec("enhance", folder / "text.wav", folder / "out.wav", "--json")
    assert json.loads(out[0])["files"][0]["error"] in errors[0]
    assert decodec("encode", mono, folder / "out.wav")[0] == decodec("info", folder / "nowhere")[0] == 2
    assert decodec("enhance", mono, folder / "out.wav", "--levels", "9,9")[2][0].endswith("not both 0")
    assert sorted(folder.rglob("*")) == before


def test_a_full_disk_leaves_no_half_of_a_file(decodec, folder):
    audio.write(folder / "long.wav", clips(500, 1), RATE)
    for command, target in (("enhance", "a.wav"), ("encode", "a.dcc"), ("embed", "a.npz")):
        assert decodec(command, folder / "long.wav", folder / target)[0] == 0
        (folder / target).unlink()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    for command, target in (("enhance", "out.wav"), ("encode", "out.dcc"), ("embed", "out.npz")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (120, old[1]))
        try:
            code, _, errors = decodec(command, folder / "long.wav", folder / target)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert code == 2 and len(errors) == 1 and f"{folder}/{target} cannot be written" in errors[0]
        assert sorted(path.name for path in folder.iterdir()) == ["in", "long.wav"]


def test_damage_is_one_line_and_silent_if_recovered(decodec, codec, folder):
    tokens = codec.encode(clips(2 * RATE // 100, 1)[0], RATE)
    container.write(folder / "a.dcc", tokens, block_seconds=0.005)
    data = bytearray((folder / "a.dcc").read_bytes())
    data[HEADER_BYTES] ^= 1
    (folder / "a.dcc").write_bytes(data)
    code, _, errors = decodec("decode", folder / "a.dcc", folder / "out.wav")
    assert code == 2 and len(errors) == 1 and "the speech from 0.000 to 0.005 s is damaged" in errors[0]
    code, _, errors = decodec("decode", folder / "a.dcc", folder / "out.wav", "--recover")
    assert (code, len(errors)) == (0, 1) and errors[0].endswith("from 0.000 to 0.005 s is damaged; silence replaces it")
    speech = tokens.speech.copy()
    speech[:, :4] = codec.blank(tokens.length).speech[:, :4]
    repaired = files.replace(tokens, speech=speech)
    assert_holds(folder / "out.wav", codec.decode(repaired), RATE)


def test_other_weights_and_damage_to_what_is_not_asked_for(decodec, codec, folder):
    tokens, out = codec.encode(clips(139, 1)[0], RATE), folder / "out.wav"
    container.write(folder / "other.dcc", replace(tokens, fingerprint=16 * "0"))
    code, _, errors = decodec("decode", folder / "other.dcc", out)
    assert code == 2 and len(errors) == 1 and f"weights {16 * '0'}, not" in errors[0] and not out.exists()
    container.write(folder / "a.dcc", tokens)
    data = bytearray((folder / "a.dcc").read_bytes())
    data[-53] ^= 1  # the last of the background
    (folder / "a.dcc").write_bytes(data)
    assert decodec("decode", folder / "a.dcc", out)[0] == 2
    assert decodec("decode", folder / "a.dcc", out, "--keep", "speech") == (0, [], [])
    assert_holds(out, codec.decode(tokens, "speech"), RATE)
