"""How fast are the ONNX graphs and the page? `python launch/benchmark_onnx.py graphs`, or `page`: a Markdown table.

graphs: real-time factors of onnxruntime beside JAX and PyTorch; on one core with `taskset -c 0 python ...`
page: the demo page in headless Chromium, with one thread and with more (Linux, with chromium and chromedriver)
"""

import argparse
import contextlib
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from decodec_jax import audio
from decodec_jax.data import synthetic
from decodec_jax.errors import UserError
from decodec_jax.evaluation.speed.scaling import table
from decodec_jax.evaluation.speed.timing import noise, timed
from decodec_jax.inference import export
from decodec_jax.launching import one_line
from decodec_jax.weights import BUILT_IN

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import browser  # what the tests drive the page with

RATE = 16_000  # Hz, of the recording
VERSION = "navigator.userAgent.match(/Chrome.([0-9]+)/)[1]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("what", choices=["graphs", "page"])
    parser.add_argument("--model", default=BUILT_IN, help="bundle or run folder, causal (default: the package's)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio for the page (default: %(default)g)")
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.what == "graphs":
        print(graphs(arguments.model, arguments.rounds))
    else:
        print(page(arguments.model, arguments.seconds, arguments.rounds))


# --- graphs -----------------------------------------------------------------------------------------------------------


def graphs(model: str, rounds: int) -> str:
    """Processor time over duration, the least of some rounds: what one core takes that does nothing else."""
    import onnxruntime
    import torch

    from decodec_jax.evaluation.onnx_agreement import TIMED, processor_seconds, real_time_factors
    from decodec_jax.inference.codec import DeCodec
    from decodec_jax.interop import onnx_model, torch_model

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        facts = export.export(model, folder)
        codec, twin = DeCodec.load(folder), torch_model.DeCodec.from_pretrained(folder)
        onnx_model.write(twin, Path(folder), facts["fingerprint"], "")
        factors = {f"onnxruntime {onnxruntime.__version__}": real_time_factors(onnx_model.Runtime(folder), rounds)}
    rate = codec.config.sample_rate
    wave = noise(TIMED, rate)
    tokens = codec.encode(wave, rate)
    tasks = {"encode": lambda: codec.encode(wave, rate), "decode": lambda: codec.decode(tokens)}
    for task in tasks.values():
        task()  # which compiles
    factors["JAX"] = {name: min(processor_seconds(task) for _ in range(rounds)) / TIMED for name, task in tasks.items()}
    with torch.inference_mode(), torch.nn.utils.parametrize.cached():
        factors[f"PyTorch {torch.__version__}"] = real_time_factors(twin, rounds)
    columns = ["encode", "decode", "enhance", "encode_step", "decode_step"]
    rows = [[name, *(f"{own[each]:.4f}" if each in own else "" for each in columns)] for name, own in factors.items()]
    return table(["real-time factor", *columns], rows)


# --- page -------------------------------------------------------------------------------------------------------------


def page(model: str, seconds: float, rounds: int) -> str:
    """Seconds from choosing a recording to its sound, and the most memory of the page's process."""
    from decodec_jax.demo import site

    if not (browser.CHROMIUM and browser.DRIVER):
        raise UserError("this needs chromium and chromedriver; on Debian: apt-get install chromium chromium-driver")

    @contextlib.contextmanager
    def isolated(folder: Path) -> Iterator[str]:
        with site.serve(folder) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://localhost:{server.server_port}/"
            server.shutdown()

    with tempfile.TemporaryDirectory() as temporary:
        folder, clip = Path(temporary) / "page", Path(temporary) / "clip.wav"
        site.build(model, folder)
        audio.write(clip, recording(seconds), RATE)
        # browsers give threads to a page only if its server's headers isolate it, which `served` does not send
        columns = [measured(folder, clip, rounds, served) for served in (browser.served, isolated)]
    head, *rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return table(head, rows)


def measured(folder: Path, clip: Path, rounds: int, served) -> dict[str, str]:
    """A column of the table."""
    with served(folder) as url, browser.opened() as chromium:
        ready = timed(lambda: (chromium.post("url", url=url), chromium.wait("page.threads")))
        version, threads = chromium.run(f"return [{VERSION}, page.threads]")
        taken = np.array([coded(chromium, clip) for _ in range(rounds)]) / 1000
        first, whole = (", ".join(f"{seconds:.1f}" for seconds in each) for each in taken.T)
        return {
            f"Chromium {version}": f"{threads} thread{'s' if threads > 1 else ''}",
            "the model is ready after": f"{ready:.1f} s",
            "the first sound can be heard after": f"{first} s",
            "all is coded after": f"{whole} s",
            "most memory of the page's process": f"{browser.most_memory() / 1e6:.0f} MB",
        }


def coded(chromium: browser.Browser, clip: Path) -> list[float]:
    """Milliseconds from choosing a recording until its first sound, and all of it, are there."""
    chromium.run("page.results = null")
    chromium.choose("#file", clip)
    chromium.wait("page.results", 3600)
    return chromium.run("return [page.milliseconds.first, page.milliseconds.all]")


def recording(seconds: float) -> np.ndarray:
    clip = synthetic.speech(0, 0, RATE) + synthetic.background(0, RATE)
    return np.resize(clip, (1, round(RATE * seconds))).astype(np.float32)


if __name__ == "__main__":
    with one_line("benchmark_onnx.py"):
        main()
