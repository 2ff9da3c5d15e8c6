"""The page in a browser codes as Python does. Without Chromium, its driver or the runtime, only the files are read."""

import base64
import json
import re
import struct
import sys
import threading
from pathlib import Path

import browser
import numpy as np
import pytest
import soundfile

from decodec_jax import audio, cli, testing
from decodec_jax.demo import runtime, site
from decodec_jax.errors import UserError
from decodec_jax.inference import container
from decodec_jax.inference.codec import DeCodec

if sys.version_info >= (3, 12):  # as in test_torch_model.py
    pytest.importorskip("torch")

RATE, T = 16_000, 24_300
CAN_RUN = browser.DRIVER and browser.CHROMIUM and runtime.is_complete(runtime.cache())
READ = """
const [name, done] = arguments, text = (byte) => String.fromCharCode(byte);
page[name].arrayBuffer().then((data) => done(btoa(Array.from(new Uint8Array(data), text).join(""))));
"""
STATUS, ERROR = (f"document.querySelector('#{name}').textContent" for name in ("status", "error"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = testing.tiny_model(family="spectral", causal=True, width=48, lstm_layers=0, decoder_blocks=1)
    return testing.random_bundle(tmp_path_factory.mktemp("model"), config)


def stand_in_for_the_runtime(cache, patch):
    """Where onnxruntime-web is not at hand, empty files in its place."""
    if not CAN_RUN:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        runtime.cache().mkdir(parents=True)
        for name in runtime.FILES:
            (runtime.cache() / name).touch()


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    """A folder with the page."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        stand_in_for_the_runtime(folder / "cache", patch)
        (folder / "site/.git").mkdir(parents=True)
        (folder / "site/.git/config").touch()
        assert cli.main(["demo", "--model", str(model), "--build", str(folder / "site")]) == 0
    return folder / "site"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    clip = testing.speech_clips(1, T) + testing.background_clips(1, T)
    audio.write(folder / "talk.wav", clip, RATE)
    audio.write(folder / "talk.flac", np.repeat(clip, 2, axis=0), RATE)
    audio.write(folder / "fast.wav", audio.resample(clip, RATE, 192_000), 192_000)
    audio.write(folder / "long.wav", np.tile(clip, (1, 100)), RATE)
    audio.write(folder / "long.flac", np.tile(clip, (1, 20)), RATE)
    soundfile.write(folder / "nan.wav", np.where(np.arange(T) == 9000, np.nan, clip[0]), RATE, "FLOAT")
    silence(folder / "no_samples.wav", 0)
    silence(folder / "hours.wav", 8 * 3600)
    audio.write(folder / "hour.flac", np.zeros((1, 61 * 60 * 8000), np.float32), 8000)
    (folder / "empty.wav").touch()
    (folder / "noise.mp3").write_bytes(b"no sound at all")
    (folder / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    return folder


def silence(path: Path, seconds: int) -> None:
    """A wav file that takes no room on the disk, however long it is."""
    size = 2 * RATE * seconds
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    with path.open("wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size))
        file.truncate(44 + size)


def test_the_folder_is_all_that_the_page_needs(page):
    kept = json.loads((page / "files.json").read_text())
    files = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    assert files - set(kept) == {"files.json", "offline.js", ".git/config"} and set(kept) - files == {"./"}
    named = re.findall(r"""(?:from |import\(|URL\(|src=|href=)["'](?:\./)?([\w./-]+)["']""", "\n".join(
        path.read_text() for path in page.iterdir() if path.suffix in (".js", ".html")
    ))  # fmt: skip
    assert len(named) > 10
    for name in named:
        assert (page / name).exists(), name
    text = "".join(path.read_text() for path in page.iterdir() if path.suffix in (".js", ".html", ".css"))
    assert not re.search(r"https?://", text), "the page names another server"
    assert "VERSION" not in (page / "offline.js").read_text()


def test_a_wrong_download_is_refused():
    with pytest.raises(runtime.RuntimeMissing, match="is not the file that this version expects"):
        runtime.check(b"something else", "https://there")


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    other = testing.random_bundle(tmp_path / "model", testing.tiny_model(family="spectral", decoder_blocks=1))
    stand_in_for_the_runtime(tmp_path / "cache", monkeypatch)
    assert cli.main(["demo", "--model", str(other), "--build", str(tmp_path / "site")]) == 2
    assert "is not causal" in capsys.readouterr().err
    with pytest.raises(UserError, match="port 70000 cannot be used"):
        site.serve(tmp_path, 70_000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    for mirror in ("http://localhost:1", "localhost"):
        monkeypatch.setenv("npm_config_registry", mirror)
        assert cli.main(["demo", "--model", str(other), "--build", str(tmp_path / "site")]) == 2
        assert "connect to the internet once" in capsys.readouterr().err


def test_it_codes_as_python_does(page, model, recordings, tmp_path):
    if not CAN_RUN:
        return
    server = started(page)
    microphone = f"--use-file-for-fake-audio-capture={recordings / 'talk.wav'}"
    fake = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", microphone
    with browser.opened(*fake) as chromium:
        address = f"http://localhost:{server.server_port}/"
        chromium.post("url", url=address)
        chromium.wait(f"{STATUS} === 'Ready.'")
        assert chromium.run("return crossOriginIsolated")
        codec = DeCodec.load(model)
        is_coded_as_in_python(chromium, codec, recordings, tmp_path)
        fewer_levels(chromium, codec, tmp_path)
        other_forms(chromium, recordings)
        bad_input(chromium, recordings)
        the_last_choice_counts(chromium, recordings)
        it_is_heard_while_it_is_coded(chromium, recordings)
        eight_hours_can_be_stopped(chromium, recordings)
        from_the_microphone(chromium)
        sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        chromium.picture(tmp_path / "phone.png", 390, "dark")
        assert chromium.run(f"return {sideways}") == 0
        assert [line for line in chromium.console() if "decodeAudioData" not in line] == []
        chromium.wait("navigator.serviceWorker.controller")
        ended(server)
        chromium.post("url", url=address)
        chromium.wait(f"{STATUS} === 'Ready.'")
        code(chromium, recordings / "talk.wav")
        damaged(chromium, page)


def test_what_a_browser_lacks_is_said(page):
    """A microphone, leave to use it, a safe address, WebAssembly with SIMD."""
    if not CAN_RUN:
        return
    server = started(page)
    address = f"http://localhost:{server.server_port}/"
    with browser.opened("--use-fake-device-for-media-stream") as chromium:
        chromium.devtools("Browser.setPermission", permission={"name": "microphone"}, setting="denied")
        said = "This page may not use the microphone. Allow it in the settings of the browser, and press Record again."
        assert said_of_the_microphone(chromium, address) == said
    with browser.opened("--use-fake-ui-for-media-stream") as chromium:
        said = "No microphone was found. Connect one, and press Record again."
        assert said_of_the_microphone(chromium, address) == said
        no_devices = "Object.defineProperty(navigator, 'mediaDevices', { value: undefined })"
        chromium.devtools("Page.addScriptToEvaluateOnNewDocument", source=no_devices)
        said = "This page cannot use a microphone: browsers allow that on https addresses and on localhost only."
        assert said_of_the_microphone(chromium, address) == said
        chromium.devtools("Page.addScriptToEvaluateOnNewDocument", source="WebAssembly.validate = () => false")
        chromium.post("url", url=address)
        said = "This browser is too old for the codec: it lacks WebAssembly with SIMD. Please update it."
        assert chromium.wait(ERROR) == said
        assert chromium.run(f"return {STATUS}") == ""
        assert chromium.run("return document.querySelector('#record').disabled")
    ended(server)


def said_of_the_microphone(chromium, address: str) -> str:
    chromium.post("url", url=address)
    chromium.wait(f"{STATUS} === 'Ready.'")
    chromium.run("document.querySelector('#record').click()")
    return chromium.wait(ERROR)


def started(folder: Path):
    """A server of the page, which `ended` ends."""
    server = site.serve(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def ended(server) -> None:
    server.shutdown()
    server.server_close()


def code(chromium, path: Path) -> None:
    chromium.run("page.results = null")
    chromium.choose("#file", path)
    chromium.wait(f"page.results || {ERROR}")
    assert chromium.run(f"return {ERROR}") == ""


def downloaded(chromium, name: str, path: Path) -> Path:
    path.write_bytes(base64.b64decode(chromium.post("execute/async", script=READ, args=[name])))
    return path


def is_coded_as_in_python(chromium, codec, recordings, folder):
    code(chromium, recordings / "talk.wav")
    wave = audio.read(recordings / "talk.wav")[0][0]
    tokens = codec.encode(wave, RATE)
    assert container.read(downloaded(chromium, "dcc", folder / "page.dcc")) == tokens
    for name, expected in (
        ("speech", codec.enhance(wave, RATE)), ("background", codec.background(wave, RATE)),
        ("reconstruction", codec.reconstruct(wave, RATE)), ("original", wave),
    ):  # fmt: skip
        sound, rate = audio.read(downloaded(chromium, name, folder / f"{name}.wav"))
        assert rate == RATE
        np.testing.assert_allclose(sound[0], np.clip(expected, -1, 1), rtol=0, atol=1e-3)
    drawn = "[...document.querySelectorAll('canvas')].every((c) => c.width === 640)"
    assert chromium.run(f"return {drawn}")


def fewer_levels(chromium, codec, folder):
    chromium.run("page.results = null; const s = document.querySelector('#levels_speech'); s.value = 1;"
                 "s.dispatchEvent(new Event('change'))")  # fmt: skip
    chromium.wait("page.results === '1,2'")
    tokens = container.read(downloaded(chromium, "dcc", folder / "fewer.dcc"))
    assert tokens.levels == (1, 2)
    sound = audio.read(downloaded(chromium, "reconstruction", folder / "fewer.wav"))[0][0]
    np.testing.assert_allclose(sound, np.clip(codec.decode(tokens), -1, 1), rtol=0, atol=1e-3)
    chromium.run("document.querySelector('#levels_speech').value = 2")


def other_forms(chromium, recordings):
    for name in ("talk.flac", "fast.wav"):
        code(chromium, recordings / name)
        samples = (chromium.run("return page.original.size") - 44) / 2
        assert abs(samples - T) <= 1, name


def bad_input(chromium, recordings):
    for name, said in (
        ("empty.wav", "empty.wav is empty."), ("noise.mp3", "noise.mp3 holds no sound that this browser can read"),
        ("film.mp4", "film.mp4 is a video"), ("no_samples.wav", "This recording is empty: it has no samples."),
        ("hour.flac", "hour.flac is longer than an hour. Save it as wav"),
        ("nan.wav", "This recording contains samples that are not finite numbers."),
    ):  # fmt: skip
        chromium.choose("#file", recordings / name)
        assert said in chromium.wait(ERROR)
        chromium.run(f"{ERROR} = ''")


def the_last_choice_counts(chromium, recordings):
    """Even if the first takes longer to read."""
    chromium.run("page.results = null")
    chromium.choose("#file", recordings / "long.flac")
    chromium.choose("#file", recordings / "talk.wav")
    chromium.wait("page.results")
    chromium.post("execute/async", script="setTimeout(arguments[0], 1500)", args=[])
    assert chromium.run("return page.original.size") == 44 + 2 * T


def it_is_heard_while_it_is_coded(chromium, recordings):
    """The mix plays what there is, in more than one piece, before the last is coded."""
    chromium.run("page.results = null; page.milliseconds = {}")
    chromium.choose("#file", recordings / "long.wav")
    chromium.wait("page.milliseconds.first")
    chromium.run("""
        document.querySelector("#mix").click();
        const { context, gains } = page.mixer, ear = new AnalyserNode(context), samples = new Float32Array(ear.fftSize);
        gains[0].connect(ear);
        page.heard = 0;
        page.listening = setInterval(() => {
          ear.getFloatTimeDomainData(samples);
          if (Math.max(...samples) > 0.01 && !page.results) page.heard = context.currentTime;
        }, 20);
    """)
    chromium.wait("page.heard > 0.1")
    chromium.wait("page.results")
    chromium.run("clearInterval(page.listening); document.querySelector('#mix').click()")
    assert chromium.run("return page.milliseconds.first < 0.5 * page.milliseconds.all")


def eight_hours_can_be_stopped(chromium, recordings):
    """Its first sound can be heard, and the page never holds the whole."""
    before = browser.most_memory()
    chromium.run("page.milliseconds = {}")
    chromium.choose("#file", recordings / "hours.wav")
    chromium.wait("page.milliseconds.first")
    assert chromium.run(f"return {STATUS}") == "Coding the rest… You can already play the mix."
    chromium.run("document.querySelector('#cancel').click()")
    chromium.wait(f"{STATUS} === 'Stopped.'")
    assert browser.most_memory() - before < 300e6 < (recordings / "hours.wav").stat().st_size


def from_the_microphone(chromium):
    chromium.run("""
        page.results = null;
        page.opened = 0;
        const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
        devices.getUserMedia = (...wishes) => { page.opened++; return open(...wishes); };
        for (let press = 0; press < 2; press++) document.querySelector('#record').click();
    """)
    chromium.wait(f"{STATUS} === 'Recording…'")
    assert chromium.run("return page.opened") == 1
    chromium.post("execute/async", script="setTimeout(arguments[0], 1500)", args=[])
    chromium.run("document.querySelector('#record').click()")
    chromium.wait("page.results")
    heard = "page.original.arrayBuffer().then((data) => arguments[0](Math.max(...new Int16Array(data, 44))))"
    assert chromium.post("execute/async", script=heard, args=[]) > 300
    assert chromium.run("return page.original.size") > 2 * RATE


def damaged(chromium, page):
    """A model that was cut short on its way."""
    weights = (page / "model/weights.bin").read_bytes()
    (page / "model/weights.bin").write_bytes(weights[:-10])
    server = started(page)
    try:
        chromium.post("url", url=f"http://localhost:{server.server_port}/")
        said = f"The model file weights.bin is incomplete: {len(weights) - 10} of {len(weights)} bytes"
        assert said in chromium.wait(ERROR)
    finally:
        ended(server)
        (page / "model/weights.bin").write_bytes(weights)
