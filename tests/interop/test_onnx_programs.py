"""The programs of docs/onnx.md enhance a stream as the PyTorch twin does."""

import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import browser
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.demo import runtime, site

if sys.version_info >= (3, 12):  # as in test_torch_model.py
    pytest.importorskip("torch")

import torch

from decodec_jax.interop import onnx_model, torch_model

ROOT = Path(__file__).parents[2]
LIBRARIES = sorted(Path(sysconfig.get_path("purelib")).glob("onnxruntime/capi/libonnxruntime.so.*"))
INCLUDED = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime")  # and where the compiler looks anyway
MAIN = """
#include <cstdio>

int main() {
  std::vector<float> frame(hop);
  while (std::fread(frame.data(), sizeof(float), hop, stdin) == size_t(hop)) {
    auto samples = enhance(frame);
    std::fwrite(samples.data(), sizeof(float), samples.size(), stdout);
  }
}
"""
PAGE = """<!doctype html>
<script type="importmap">{ "imports": { "onnxruntime-web": "./runtime/ort.wasm.min.mjs" } }</script>
<script type="module">%s
window.enhance = enhance;
</script>
"""
ENHANCE_ALL = """
const [samples, hop, done] = arguments;
(async () => {
  const clean = [];
  for (let at = 0; at < samples.length; at += hop)
    clean.push(...((await enhance(Float32Array.from(samples.slice(at, at + hop)))) ?? []));
  done(clean);
})();
"""


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """A folder that holds a model's files in `model`, and the twin."""
    folder = tmp_path_factory.mktemp("programs")
    config = testing.tiny_model(family="spectral", causal=True, projection="exact", width=48, lstm_layers=1)
    model = torch_model.DeCodec.from_pretrained(testing.random_bundle(folder / "model", config))
    onnx_model.write(model, folder / "model", "0123456789abcdef", "not stated")
    return folder, model


@pytest.fixture
def wave(twin):
    return np.random.default_rng(0).normal(0, 0.05, 50 * twin[1].config.hop).astype(np.float32)


def program(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/onnx.md").read_text(), re.DOTALL)
    return code


def assert_enhanced(model, wave: np.ndarray, clean: np.ndarray) -> None:
    with torch.inference_mode():
        expected = model.enhance(torch.from_numpy(wave)[None])[0].numpy()
    assert len(clean) == len(wave) - model.lookahead * model.config.hop
    np.testing.assert_allclose(clean, expected[: len(clean)], rtol=0, atol=1e-4)


def test_python(twin, monkeypatch):
    folder, model = twin
    monkeypatch.chdir(folder)
    exec(program("python"), variables := {})
    assert_enhanced(model, variables["wave"][0], np.concatenate(variables["clean"], axis=1)[0])


def test_javascript(twin, wave):
    if not (browser.DRIVER and browser.CHROMIUM and runtime.is_complete(runtime.cache())):
        pytest.skip("needs chromium, chromedriver, and what `python decodec_jax/demo/runtime.py` downloads")
    folder, model = twin
    shutil.copytree(runtime.cache(), folder / "runtime")
    (folder / "index.html").write_text(PAGE % program("js"))
    server = site.serve(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with browser.opened() as chromium:
        chromium.post("url", url=f"http://localhost:{server.server_port}/")
        chromium.wait("Boolean(window.enhance)")
        clean = chromium.post("execute/async", script=ENHANCE_ALL, args=[wave.tolist(), model.config.hop])
    server.shutdown()
    server.server_close()
    assert_enhanced(model, wave, np.array(clean, np.float32))


def test_cpp(twin, wave):
    includes = [f"-I{folder}" for folder in INCLUDED]
    look = ["g++", *includes, "-E", "-x", "c++", "-include", "onnxruntime_cxx_api.h", "/dev/null"]
    if not shutil.which("g++") or not LIBRARIES or subprocess.run(look, capture_output=True).returncode:
        pytest.skip("needs g++ and onnxruntime_cxx_api.h, which Debian 13 has in libonnxruntime-dev; or set CPATH")
    folder, model = twin
    (folder / "stream.cpp").write_text(program("cpp") + MAIN)
    (folder / "libonnxruntime.so.1").symlink_to(LIBRARIES[0])  # the name under which the program looks for it
    given = ["stream.cpp", "libonnxruntime.so.1", "-Wl,-rpath,$ORIGIN"]
    subprocess.run(["g++", "-std=c++17", "-Wall", *includes, *given, "-o", "stream"], cwd=folder, check=True)
    done = subprocess.run(["./stream"], cwd=folder, input=wave.tobytes(), capture_output=True, check=True)
    assert_enhanced(model, wave, np.frombuffer(done.stdout, np.float32))
