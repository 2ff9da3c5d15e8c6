"""The page as a folder that any static host takes, and a server for one's own machine."""

import functools
import hashlib
import http.server
import json
import shutil
import tempfile
from pathlib import Path

from decodec_jax import audio
from decodec_jax.demo import runtime
from decodec_jax.errors import UserError

PAGE = Path(__file__).parent / "page"
GRAPHS = ("encode_step.onnx", "decode_step.onnx", "weights.bin", "model.json")  # what the page reads of a model
NOT_KEPT = "files.json", "offline.js"  # by the service worker, which is made of them
HEADERS = {  # isolate the page from others, which is what browsers ask before they give it threads
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
}


def build(model: str | Path, out: str | Path, int8: bool = False) -> Path:
    """Write the page, the runtime and a model into a folder; returns its index.html.

    Raises UserError if the model is not causal, if a package is missing, or if the runtime cannot be downloaded.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in PAGE.iterdir():
            if path.is_file():
                shutil.copy(path, out / path.name)
        shutil.copytree(_runtime(), out / "runtime", dirs_exist_ok=True)
        _export(model, out / "model", int8)
        # not what else may be in the folder: the service worker keeps nothing if a host lacks one of these
        names = sorted((
            *(path.name for path in PAGE.iterdir() if path.is_file() and path.name not in NOT_KEPT),
            *(f"runtime/{name}" for name in runtime.FILES), *(f"model/{name}" for name in GRAPHS),
        ))  # fmt: skip
        (out / "files.json").write_text(json.dumps(["./", *names], indent=1))
        digest = hashlib.sha256()
        for name in names:
            digest.update((out / name).read_bytes())
        worker = (PAGE / "offline.js").read_text().replace("VERSION", digest.hexdigest()[:16])
        (out / "offline.js").write_text(worker)
    except OSError as error:
        raise UserError(f"the page could not be written to {out}: {error}") from None
    return out / "index.html"


def serve(folder: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of a folder on this machine alone, at a free port unless one is given; `serve_forever` runs it."""
    handler = functools.partial(_Handler, directory=str(folder))
    try:
        return http.server.ThreadingHTTPServer(("localhost", port), handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port} cannot be used: {error}; leave --port out to take a free one") from None


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012 - the base class has it so
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm",
    }  # fmt: skip

    def end_headers(self):
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_):
        pass


def _runtime() -> Path:
    """The folder with onnxruntime-web: in the package, as the wheel has it, or else in the user's cache."""
    packaged = PAGE / "runtime"
    if runtime.is_complete(packaged):
        return packaged
    try:
        runtime.bring(runtime.cache())
    except runtime.RuntimeMissing as error:
        raise UserError(str(error)) from None
    return runtime.cache()


def _export(model: str | Path, folder: Path, int8: bool) -> None:
    """The graphs of a stream and the weights that they share."""
    from decodec_jax.inference import export

    try:
        from decodec_jax.interop import onnx_model, torch_model
    except ImportError as error:
        raise UserError(f"the page needs the package {error.name} to be built, which is not installed: "
                        "pip install 'decodec_jax[onnx]'") from None  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        facts = export.export(model, temporary)
        if not facts["causal"]:
            raise UserError(f"{model} is not causal, and the page codes a recording piece by piece; "
                            "choose a causal model, such as configs/decodec.py:light")  # fmt: skip
        twin = torch_model.DeCodec.from_pretrained(temporary)
        twin = onnx_model.rounded(twin) if int8 else twin
        licence = export.licence_of(model)
        onnx_model.write(twin, Path(temporary) / "onnx", facts["fingerprint"], licence, int8, forms=("stream",))
        folder.mkdir(parents=True, exist_ok=True)
        for name in GRAPHS:
            with audio.replacing(folder / name) as part:
                shutil.copy(Path(temporary) / "onnx" / name, part)
