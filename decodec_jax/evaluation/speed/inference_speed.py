"""Real-time factors, streaming latency and memory of a model on this machine."""

import multiprocessing
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import soundfile

from decodec_jax.codec.model import DeCodecNetwork, initialise
from decodec_jax.config import Model
from decodec_jax.errors import UserError
from decodec_jax.evaluation.speed.cost import products
from decodec_jax.evaluation.speed.timing import Row, matmul_rate, most_memory, noise, timed
from decodec_jax.inference import files
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.live import Stopwatch
from decodec_jax.inference.streaming import latency


def random_codec(config: Model) -> DeCodec:
    """A codec with random weights, which cost the same as trained ones."""
    return DeCodec(config, *initialise(config, jax.random.key(0)))


def inference(codec: DeCodec, seconds: float, repeats: int = 5) -> list[Row]:
    """Real-time factors (processing time over duration) for a whole recording: medians of `repeats`, without compiling.

    Also gives the FLOPs of the network's matrix products and convolutions, and the share of this machine's matrix
    product rate that they reach. The codec's other work counts only as time.
    """
    rate = codec.config.sample_rate
    wave = noise(seconds, rate)
    tokens = codec.encode(wave, rate)
    tasks = {
        "encode": lambda: codec.encode(wave, rate),
        "decode": lambda: codec.decode(tokens),
        "encode+decode": lambda: codec.decode(codec.encode(wave, rate)),
        "enhance": lambda: codec.enhance(wave, rate),
    }
    peak, work = matmul_rate("float32"), arithmetic(codec.config, seconds)
    rows = [Row("inference/matmul_rate", peak / 1e9, "GFLOP/s in float32")]
    for name, task in tasks.items():
        task()
        taken = np.median([timed(task) for _ in range(repeats)])
        rows.append(Row(f"inference/{name}/real_time_factor", taken / seconds, ""))
        if name in work:
            rows.append(Row(f"inference/{name}/work", work[name] / seconds / 1e9, "GFLOP a second of audio"))
            rows.append(Row(f"inference/{name}/of_matmul_rate", 100 * work[name] / taken / peak, "%"))
    return rows


def arithmetic(config: Model, seconds: float) -> dict[str, float]:
    """FLOPs of the matrix products and convolutions for encoding and decoding a recording of `seconds`."""
    network = DeCodecNetwork(config)
    wave = jax.ShapeDtypeStruct((1, round(seconds * config.sample_rate)), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), wave)

    def encode(variables, wave):
        return network.apply(variables, wave, method="encode")

    def decode(variables, codes):
        return network.apply(variables, network.apply(variables, codes, method="vectors"), wave.size, method="decode")

    arguments = {"encode": (encode, wave), "decode": (decode, jax.eval_shape(encode, variables, wave))}
    flops = {name: products(jax.make_jaxpr(f)(variables, x).jaxpr).flops for name, (f, x) in arguments.items()}
    return flops | {"encode+decode": sum(flops.values())}


def streaming(codec: DeCodec, seconds: float) -> list[Row]:
    """How long a live stream waits for each frame: the algorithmic latency, and the codec's computing time.

    Raises UserError if the model is not causal.
    """
    if not codec.config.causal:
        raise UserError("only a causal model streams; choose one, such as configs/decodec.py:light")
    rate, hop = codec.config.sample_rate, codec.config.hop
    frames = np.split(noise(round(seconds * rate / hop) * hop / rate, rate)[None], round(seconds * rate / hop), axis=1)
    rows = [Row("streaming/algorithmic", 1000 * latency(codec.config) / rate, "ms")]
    for name, keep in (("reconstruct", "both"), ("enhance", "speech")):
        for _ in codec.stream(iter(frames[:50]), rate, keep):  # warm-up, which also compiles
            pass
        watch = Stopwatch(codec.config, rate)
        for _ in codec.stream(watch.started(iter(frames)), rate, keep):
            watch.stop()
        for percent in (50, 99):
            rows.append(Row(f"streaming/{name}/p{percent}", 1000 * np.percentile(watch.times, percent), "ms a frame"))
    return rows


def memory(config: Model, minutes: float) -> list[Row]:
    """Peak memory and real-time factor for enhancing a long recording from file to file, in a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "long.wav"
        with soundfile.SoundFile(source, "w", config.sample_rate, 1) as file:
            for piece in range(round(minutes)):
                file.write(noise(60, config.sample_rate, piece))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, most = pool.apply(_enhanced, (config, str(source), str(Path(folder) / "enhanced.wav")))
        if soundfile.info(Path(folder) / "enhanced.wav").frames != soundfile.info(source).frames:
            raise RuntimeError("the enhanced recording is not as long as its source")
    name = f"memory/enhance_{minutes:.0f}_min"
    return [Row(f"{name}/most", most, "MB"), Row(f"{name}/real_time_factor", seconds / (60 * round(minutes)), "")]


def _enhanced(config: Model, source: str, target: str) -> tuple[float, float]:
    codec = random_codec(config)
    seconds = timed(lambda: files.transform(codec, source, target, lambda _: None, "speech"))
    return seconds, most_memory()
