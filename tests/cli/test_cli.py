"""Every file as the codec makes it."""

import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from sounds import RATE, assert_holds, clips, streamed

from decodec_jax import arguments, audio, testing, weights
from decodec_jax.inference import bundle, container, files
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.loudness import gain_of
from decodec_jax.inference.tokens import join

# --- what the commands make -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "options"),
    [("enhance", ()), ("background", ()), ("reconstruct", ("--levels", "2,1")), ("semantic", ()),
     ("background", ("--continuous",))],
)
def test_a_file_becomes_what_the_array_becomes(decodec, codec, folder, command, options):
    levels = {"levels": (2, 1)} if "--levels" in options else {}
    codec = codec.continuous() if "--continuous" in options else codec
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


def test_embeddings_of_a_file_a_folder_and_a_pipe(decodec, piped, codec, folder):
    wave, rate = audio.read(folder / "in/deep/stereo.flac")
    assert decodec("embed", folder / "in/deep/stereo.flac", folder / "a.npz") == (0, [], [])
    assert_embedded(folder / "a.npz", codec, audio.mono(wave), rate)
    assert decodec("embed", folder / "in", folder / "out")[0] == 0
    assert (folder / "out/deep/stereo.npz").read_bytes() == (folder / "a.npz").read_bytes()
    assert "0 written, 2 skipped" in decodec("embed", folder / "in", folder / "out")[2][0]
    code, out, errors = piped((folder / "in/mono.wav").read_bytes(), "embed", "-", "-")
    assert (code, errors) == (0, []) and out == (folder / "out/mono.npz").read_bytes()
    code, _, errors = decodec("embed", folder / "in/mono.wav", folder / "a.wav")
    assert code == 2 and errors[0].endswith("its name must end in .npz")


def assert_embedded(path, codec, wave, rate):
    expected = codec.embed(wave, rate)
    with np.load(path) as embedded:  # which refuses pickles
        assert sorted(embedded) == ["background", "fingerprint", "frames_per_second", "speech"]
        assert (embedded["fingerprint"], embedded["frames_per_second"]) == (codec.fingerprint, 800)
        for name, half in expected._asdict().items():
            assert embedded[name].shape == half.shape == (len(wave) * RATE // rate // 20 + 1, 8)
            np.testing.assert_array_equal(embedded[name], half)


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
    assert (described["latency_ms"], described["training_steps"], described["levels"]) == (2.5, 7, [2, 2])
    code, out, _ = decodec("info", names[0])
    assert code == 0 and "  kbit per second    9.6" in out
    code, out, _ = decodec("info", "--json")
    about = json.loads(out[0])
    assert {"decodec_jax", "jax", "python", "devices"} < set(about["installation"])
    assert list(about["found"]) == ["built-in"]


def test_without_a_model_it_is_the_one_that_comes_with_the_package(decodec, piped, codec, folder, monkeypatch):
    names = []
    monkeypatch.setattr(DeCodec, "load", lambda path: names.append(str(path)) or codec)
    source, out = folder / "in/mono.wav", folder / "out.wav"
    assert decodec("enhance", source, out, model=None) == (0, [], [])
    assert_holds(out, codec.enhance(clips(139, 1), RATE), RATE)
    code, sound, _ = piped(source.read_bytes(), "enhance", "-", "-", model=None)
    assert code == 0 and len(sound) == 44 + 2 * 139
    assert decodec("encode", source, folder / "a.dcc", model="built-in") == (0, [], [])
    assert decodec("decode", folder / "a.dcc", out, model=None) == (0, [], [])
    code, told, _ = decodec("info", "built-in", "--json")
    assert code == 0 and json.loads(told[0])["found"]["built-in"]["fingerprint"] == codec.fingerprint
    assert decodec("export", "built-in", folder / "new")[0] == 0
    assert names == 6 * ["built-in"]


def test_a_model_that_did_not_come_with_the_package_is_one_line(decodec, folder, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", folder)
    for command in (("enhance", folder / "in/mono.wav", folder / "out.wav"), ("info", "built-in")):
        code, out, errors = decodec(*command, model=None)
        assert (code, out, len(errors)) == (2, [], 1)
        assert f"the model that comes with the package is not in {folder}; install decodec_jax again" in errors[0]


def test_export_is_the_model_and_a_card(decodec, codec, model, folder):
    row = {"step": 5, "valid/si_sdr/speech": 3.14159, "valid/sdr/mixture": None}
    (model / "metrics.jsonl").write_text(f'{{"step": 4}}\n{json.dumps(row)}\n{{"step": 6}}\n{{"step": 7, "va')
    code, _, errors = decodec("export", model, folder / "new")
    assert code == 0 and errors == [f"decodec: {folder}/new holds the model {codec.fingerprint}, after 7 steps"]
    assert bundle.load(folder / "new").fingerprint == codec.fingerprint
    assert sorted(path.name for path in (folder / "new").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = (folder / "new/README.md").read_text()
    assert codec.fingerprint in card and "at step 5" in card and "| si_sdr/speech | 3.14 |" in card


def test_export_with_another_beam_searches_with_it(decodec, model, folder):
    assert decodec("export", model, folder / "wide", "--beam", "3,1")[0] == 0
    wide, asis = bundle.load(folder / "wide"), bundle.load(model)
    assert (wide.config.speech.beam, wide.config.background.beam) == (3, 1) and wide.fingerprint == asis.fingerprint
    code, _, errors = decodec("export", model, folder / "none", "--beam", "0,1")
    assert code == 2 and "model.speech.beam is 0; it must be above 0" in errors[0]
    assert not (folder / "none").exists()


def test_export_in_half_precision_keeps_a_card_that_people_wrote(decodec, codec, model, folder):
    (folder / "ours").mkdir()
    (folder / "ours/README.md").write_text("# Our model\n")
    for out in ("ours", "theirs"):
        code, told, _ = decodec("export", model, folder / out, "--half", "--json")
        fingerprint = json.loads(told[0])["fingerprint"]
        assert code == 0 and fingerprint == bundle.load(folder / out).fingerprint != codec.fingerprint
    assert (folder / "ours/README.md").read_text() == "# Our model\n"
    assert fingerprint in (folder / "theirs/README.md").read_text()
    decodec("export", model, folder / "theirs")
    assert codec.fingerprint in (folder / "theirs/README.md").read_text()


def test_the_page_has_an_example_of_every_command_and_all_of_them_parse(capsys):
    parser = arguments.parser()
    page = parser.format_help()
    for group in arguments.GROUPS.values():
        for name, command in group.items():
            assert f"decodec {name} {command.example}\n" in page
            assert parser.parse_args([name, *command.example.split()]).command == name
    assert max(map(len, page.splitlines())) <= 100
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["enhance", "a.wav", "b.wav", "--model", "m", "--levels", "four"])
    assert "'four' is not a pair of numbers such as 4,2" in capsys.readouterr().err


def test_long_files_are_never_held_whole(tmp_path):
    """Of ten minutes, 38 MB as samples, a few seconds at a time."""
    with audio.writing(tmp_path / "long.wav", RATE, 1) as put:
        for _ in range(600):
            put(np.zeros((1, RATE), np.float32))

    def stream(pieces, *_, **__):
        return audio.resampled(pieces, RATE, 8000)

    codec = SimpleNamespace(config=testing.tiny_model(), stream=stream)
    tracemalloc.start()
    files.transform(codec, str(tmp_path / "long.wav"), str(tmp_path / "out.wav"), lambda seconds: None)
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()
    assert audio.info(tmp_path / "out.wav").frames == 300 * RATE
