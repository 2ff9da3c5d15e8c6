"""The command as people type it: every file as the codec makes it, every mistake one line."""

import io
import json
import re
import resource
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from decodec_jax import audio, cli, testing
from decodec_jax.codec.model import DeCodecNetwork
from decodec_jax.inference import bundle, container, files
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.container.format import HEADER_BYTES
from decodec_jax.inference.loudness import gain_of
from decodec_jax.inference.tokens import join

RATE = 16_000
STEP = 1 / 32768


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A bundle of a causal model."""
    config = testing.tiny_model(patch=10, strides=(2,), dilations=(), causal=True)
    variables = testing.random_variables(DeCodecNetwork(config), np.zeros((1, config.hop), np.float32))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    bundle.save(folder, config, variables["params"], variables["codebook"], step=7)
    return folder


@pytest.fixture(scope="module")
def codec(model):
    return DeCodec.load(model)


@pytest.fixture(autouse=True)
def loaded_once(codec, model, monkeypatch):
    """Each command would compile anew."""
    load = DeCodec.load
    monkeypatch.setattr(DeCodec, "load", lambda path: codec if Path(path) == model else load(path))


@pytest.fixture
def decodec(model, capsys):
    """Runs a command; returns its exit code and the lines it wrote to standard output and standard error."""

    def run(*arguments, model=model):
        arguments = [*map(str, arguments), *(["--model", str(model)] if arguments[0] not in ("info", "export") else [])]
        code = cli.main(arguments)
        written = capsys.readouterr()
        return code, written.out.splitlines(), written.err.splitlines()

    return run


def clips(t, b=2, seed=0):
    return np.round((testing.speech_clips(b, t, seed) + testing.background_clips(b, t, seed)) / STEP) * STEP


def streamed(codec, wave, keep, gain=0.0):
    """As a pipe is coded, which nobody measures."""
    return np.concatenate(list(codec.stream([wave], RATE, keep, gain=gain)), axis=1)


@pytest.fixture
def folder(tmp_path):
    """mono.wav, and stereo.flac at 44.1 kHz in deep/."""
    (tmp_path / "in/deep").mkdir(parents=True)
    audio.write(tmp_path / "in/mono.wav", clips(139, 1), RATE)
    audio.write(tmp_path / "in/deep/stereo.flac", clips(383), 44_100)
    return tmp_path


def assert_holds(path, wave, rate):
    got, got_rate = audio.read(path)
    assert (got.shape, got_rate) == (np.atleast_2d(wave).shape, rate)
    np.testing.assert_allclose(got, np.clip(np.atleast_2d(wave), -1, 1), atol=0.51 * STEP + 1e-5)


# --- what the commands make -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "options"),
    [("enhance", ()), ("background", ()), ("reconstruct", ("--levels", "2,1")), ("semantic", ())],
)
def test_a_file_becomes_what_the_array_becomes(decodec, codec, folder, command, options):
    levels = {"levels": (2, 1)} if options else {}
    sources = [("mono.wav", ".flac"), ("deep/stereo.flac", ".wav")]
    for source, suffix in sources[: 2 if command == "enhance" else 1]:
        wave, rate = audio.read(folder / "in" / source)
        target = folder / f"out{suffix}"
        assert decodec(command, folder / "in" / source, target, *options) == (0, [], [])
        assert_holds(target, getattr(codec, command)(wave, rate, **levels), rate)


def test_tokens_of_a_file_and_back(decodec, codec, folder):
    wave, rate = audio.read(folder / "in/deep/stereo.flac")
    assert decodec("encode", folder / "in/deep/stereo.flac", folder / "a.dcc", "--levels", "2,1") == (0, [], [])
    tokens = container.read(folder / "a.dcc")
    assert tokens == codec.encode(audio.mono(wave), rate, (2, 1))
    for keep in ("both", "speech", "background", "semantic"):
        assert decodec("decode", folder / "a.dcc", folder / f"{keep}.wav", "--keep", keep) == (0, [], [])
        assert_holds(folder / f"{keep}.wav", codec.decode(tokens, keep), RATE)
    assert decodec("decode", folder / "a.dcc", folder / "up.wav", "--rate", 44_100)[0] == 0
    assert_holds(folder / "up.wav", codec.decode(tokens, sample_rate=44_100), 44_100)


def test_two_recordings(decodec, codec, folder):
    wave, rate = audio.read(folder / "in/deep/stereo.flac")
    other = folder / "in/mono.wav"
    paths = folder / "in/deep/stereo.flac", folder / "out.wav"
    assert decodec("convert", *paths, "--reference", other, "--align", "tile", "--keep", "both") == (0, [], [])
    assert_holds(paths[1], codec.convert(wave, audio.read(other)[0], rate, RATE, "tile", "both"), rate)
    assert decodec("recombine", *paths, "--background", other) == (0, [], [])
    assert_holds(paths[1], codec.recombine(wave, audio.read(other)[0], rate, RATE), rate)
    code, _, errors = decodec("convert", *paths, "--reference", folder / "none.wav")
    assert code == 2 and errors == [f"decodec: {folder}/none.wav does not exist"]


def test_folders_are_gone_through_once_and_failures_told_at_the_end(decodec, folder):
    (folder / "in/deep/bad.wav").write_text("not audio")
    bad = f"decodec: {folder}/in/deep/bad.wav is not an audio file that can be read (Format not recognised)"
    code, out, errors = decodec("enhance", folder / "in", folder / "out", "--json")
    assert code == 2 and errors[1:] == [bad] and "2 written, 0 skipped, 1 failed" in errors[0]
    told = json.loads(out[0])
    assert [one["status"] for one in told["files"]] == ["failed", "written", "written"]
    assert told["audio_seconds"] == pytest.approx(139 / RATE + 383 / 44_100) and told["real_time_factor"] > 0
    made = sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*.*"))
    assert made == ["deep/stereo.flac", "mono.wav"]
    assert "0 written, 2 skipped, 1 failed" in decodec("enhance", folder / "in", folder / "out")[2][0]
    (folder / "in/deep/bad.wav").unlink()
    assert decodec("encode", folder / "in", folder / "out")[0] == 0
    assert decodec("decode", folder / "out", folder / "back", "--keep", "speech")[0] == 0
    made = sorted(str(path.relative_to(folder / "back")) for path in (folder / "back").rglob("*.*"))
    assert made == ["deep/stereo.wav", "mono.wav"]


def test_a_gain_that_is_asked_for_takes_the_place_of_the_measured_one(decodec, codec, folder):
    source, wave = folder / "in/mono.wav", clips(139, 1)
    assert decodec("enhance", source, folder / "out.wav", "--gain", "-6") == (0, [], [])
    assert_holds(folder / "out.wav", streamed(codec, wave, "speech", -6.0), RATE)
    assert decodec("encode", source, folder / "a.dcc", "--gain", "2.5") == (0, [], [])
    assert container.read(folder / "a.dcc") == join(list(codec.encode_stream([wave], RATE, gain=2.5)))
    code, _, errors = decodec("enhance", source, folder / "bad.wav", "--gain", "nan")
    assert code == 2 and "gain is nan; it must be a number of dB from -100 to 100" in errors[0]


# --- pipes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def piped(decodec, monkeypatch):
    """Runs a command with these bytes in; returns its exit code, the bytes that come out, and the lines of errors."""

    def run(data, *arguments):
        out = io.TextIOWrapper(io.BytesIO(), write_through=True)
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
            patch.setattr("sys.stdout", out)
            code, _, errors = decodec(*arguments)
        return code, out.buffer.getvalue(), errors

    return run


def test_a_causal_model_answers_a_pipe_and_tells_its_delays(piped, codec, folder):
    wave = clips(139, 1)
    code, out, errors = piped((folder / "in/mono.wav").read_bytes(), "enhance", "-", "-")
    assert code == 0
    (folder / "out.wav").write_bytes(out)
    assert_holds(folder / "out.wav", streamed(codec, wave, "speech"), RATE)
    delays = r"decodec: latency: 1\.2 ms algorithmic; computing [\d.]+ ms \(p50\), [\d.]+ ms \(p99\).*"
    assert len(errors) == 1 and re.fullmatch(delays, errors[0])
    data = np.round(wave / STEP).astype("<i2").tobytes()
    code, raw, errors = piped(data, "enhance", "-", "-", "--raw", RATE, "--json")
    assert code == 0 and raw == out[44:]
    delays = json.loads(errors[-1])["files"][0]["more"]
    assert delays["algorithmic_ms"] == 1.25 and delays["pieces"] == 4
    assert 0 < delays["compute_p50_ms"] <= delays["compute_p99_ms"]
    gain = gain_of(wave, RATE)
    code, out, _ = piped((folder / "in/mono.wav").read_bytes(), "enhance", "-", "-", "--gain", gain)
    (folder / "out.wav").write_bytes(out)
    assert_holds(folder / "out.wav", codec.enhance(wave, RATE), RATE)
    code, told, _ = piped(data, "enhance", "-", folder / "out.wav", "--raw", 8000, "--json")
    assert code == 0 and json.loads(told)["files"][0]["more"]["algorithmic_ms"] > 100  # what resampling keeps
    assert audio.info(folder / "out.wav") == audio.AudioInfo(8000, 1, 139)


def test_a_frame_is_answered_before_the_next_is_sent(decodec, monkeypatch):
    data, out, answered = np.round(clips(100, 1) / STEP).astype("<i2").tobytes(), io.BytesIO(), []

    def read1(_):
        answered.append(out.tell())
        return data[40 * len(answered) - 40 : 40 * len(answered)]

    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", SimpleNamespace(buffer=SimpleNamespace(read1=read1)))
        patch.setattr("sys.stdout", io.TextIOWrapper(out, write_through=True))
        assert decodec("enhance", "-", "-", "--raw", RATE)[0] == 0
    assert answered == [0, 40, 80, 120, 160, 200]


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


def test_tokens_through_pipes(piped, codec, folder):
    code, tokens, errors = piped((folder / "in/mono.wav").read_bytes(), "encode", "-", "-")
    assert (code, errors) == (0, [])
    code, out, errors = piped(tokens, "decode", "-", "-")
    assert (code, errors) == (0, [])
    (folder / "out.wav").write_bytes(out)
    assert_holds(folder / "out.wav", streamed(codec, clips(139, 1), "both"), RATE)
    code, out, errors = piped(b"nonsense", "enhance", "-", "-")
    assert (code, out) == (2, b"") and errors == ["decodec: standard input is not wav; send it as `ffmpeg -i FILE -f "
                                                  "wav -` does"]  # fmt: skip


# --- what is wrong ----------------------------------------------------------------------------------------------------


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
        (newer / file.name).write_bytes(text.replace(b'"version": 1', b'"version": 2'))
    mono, before = folder / "in/mono.wav", sorted(folder.rglob("*"))
    for source, target, options, words in [
        ("nan.wav", "out.wav", {}, "not finite numbers"), ("inf.wav", "out.wav", {}, "not finite numbers"),
        ("none.wav", "out.wav", {}, "no samples"), ("text.wav", "out.wav", {}, "not an audio file"),
        ("cut.flac", "out.wav", {}, "truncated"), ("missing.wav", "out.wav", {}, "does not exist"),
        ("in/mono.wav", "out.mp9", {}, "must end in .wav or .flac or .ogg"),
        ("in/mono.wav", "none/out.wav", {}, "there is no folder"),
        ("in/mono.wav", "out.wav", {"model": folder / "nowhere"}, "neither a bundle nor a run folder"),
        ("in/mono.wav", "out.wav", {"model": newer}, "bundle of version 2; this decodec_jax reads 1"),
    ]:  # fmt: skip
        code, out, errors = decodec("enhance", folder / source, folder / target, **options)
        assert (code, len(out), len(errors)) == (2, 0, 1) and words in errors[0], errors
    code, out, errors = decodec("enhance", folder / "text.wav", folder / "out.wav", "--json")
    assert json.loads(out[0])["files"][0]["error"] in errors[0]
    assert decodec("encode", mono, folder / "out.wav")[0] == decodec("info", folder / "nowhere")[0] == 2
    assert decodec("enhance", mono, folder / "out.wav", "--levels", "9,9")[2][0].endswith("which not both can be 0")
    assert sorted(folder.rglob("*")) == before


def test_a_full_disk_leaves_no_half_of_a_file(decodec, folder):
    audio.write(folder / "long.wav", clips(500, 1), RATE)
    for command, target in (("enhance", "a.wav"), ("encode", "a.dcc")):
        assert decodec(command, folder / "long.wav", folder / target)[0] == 0
        (folder / target).unlink()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    for command, target in (("enhance", "out.wav"), ("encode", "out.dcc")):
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
    assert (code, len(errors)) == (0, 1) and errors[0].endswith("from 0.000 to 0.005 s is damaged, and silent now")
    speech = tokens.speech.copy()
    speech[:, :4] = codec.blank(tokens.length).speech[:, :4]
    repaired = files.replace(tokens, speech=speech)
    assert_holds(folder / "out.wav", codec.decode(repaired), RATE)


# --- models, and the page itself --------------------------------------------------------------------------------------


def test_what_things_are(decodec, codec, model, folder):
    made = codec.encode(clips(139, 1)[0], RATE, (2, 1))
    container.write(folder / "a.dcc", made)
    names = [str(folder / "a.dcc"), str(folder / "in/deep/stereo.flac"), str(model)]
    code, out, errors = decodec("info", *names, "--json")
    assert (code, errors) == (0, [])
    tokens, recording, described = (json.loads(out[0])["found"][name] for name in names)
    assert (tokens["levels"], tokens["kbit_per_second"], tokens["fingerprint"]) == ([2, 1], 9.6, codec.fingerprint)
    assert tokens["gain_db"] == made.gain == gain_of(clips(139, 1), RATE) != 0
    assert (recording["channels"], recording["samples"]) == (2, 383)
    assert described["fingerprint"] == codec.fingerprint
    assert (described["latency_ms"], described["training_steps"], described["levels"]) == (1.25, 7, [2, 2])
    code, out, _ = decodec("info", names[0])
    assert code == 0 and "  kbit per second    9.6" in out


def test_export_is_the_model_and_a_card(decodec, codec, model, folder):
    row = {"step": 5, "valid/si_sdr/speech": 3.14159}
    (model / "metrics.jsonl").write_text(f'{{"step": 4}}\n{json.dumps(row)}\n{{"step": 6}}\n')
    code, _, errors = decodec("export", model, folder / "new")
    assert code == 0 and errors == [f"decodec: {folder}/new holds the model {codec.fingerprint}, after 7 steps"]
    assert bundle.load(folder / "new").fingerprint == codec.fingerprint
    assert sorted(path.name for path in (folder / "new").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = (folder / "new/README.md").read_text()
    assert codec.fingerprint in card and "at step 5" in card and "| si_sdr/speech | 3.14 |" in card


def test_the_page_has_an_example_of_every_command_and_all_of_them_parse(capsys):
    parser = cli.parser()
    page = parser.format_help()
    for group in cli.GROUPS.values():
        for name, command in group.items():
            assert f"decodec {name} {command.example}\n" in page
            assert parser.parse_args([name, *command.example.split()]).command == name
    assert max(map(len, page.splitlines())) <= 100
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["enhance", "a.wav", "b.wav", "--model", "m", "--levels", "four"])
    assert "'four' is not two numbers as in 4,2" in capsys.readouterr().err


def test_long_files_are_never_held_whole(tmp_path):
    """Of ten minutes, 38 MB as samples, a few seconds at a time."""
    with audio.writing(tmp_path / "long.wav", RATE, 1) as put:
        for _ in range(600):
            put(np.zeros((1, RATE), np.float32))
    codec = SimpleNamespace(config=testing.tiny_model(), stream=lambda pieces, *_: audio.resampled(pieces, RATE, 8000))
    tracemalloc.start()
    files.transform(codec, str(tmp_path / "long.wav"), str(tmp_path / "out.wav"), lambda seconds: None)
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()
    assert audio.info(tmp_path / "out.wav").frames == 300 * RATE
