"""What everyone's tests need: configs of a few thousand parameters, clips made on the fly, a training batch of them.

The configs are fresh objects: change them freely. A change may also be given as a keyword, `tiny_model(causal=True)`.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn
from jax import lax

from decodec_jax.codec.model import DeCodecNetwork, Halves, lookahead
from decodec_jax.config import (
    Config,
    Data,
    Discriminator,
    Loss,
    Mesh,
    Model,
    Optim,
    Quantizer,
    Spectral,
    Train,
    Waveform,
)
from decodec_jax.inference import bundle, streaming
from decodec_jax.objective import cepstra


def tiny_quantizer(**changes) -> Quantizer:
    """Two levels of 16 entries."""
    return Quantizer(**({"levels": 2, "entries": 16} | changes))


def tiny_model(**changes) -> Model:
    """The whole network with every kind of layer in it, at a few thousand parameters and 20 samples a frame.

    Settings of `Model.waveform` and `Model.spectral` may be given by their own names.
    """
    families = {"waveform": _TINY_WAVEFORM, "spectral": _TINY_SPECTRAL}
    built = {}
    for name, tiny in families.items():
        ours = {key: value for key, value in changes.items() if hasattr(tiny, key)}
        built[name] = dataclasses.replace(tiny, **ours)
    rest = {key: value for key, value in changes.items() if not any(hasattr(tiny, key) for tiny in families.values())}
    return Model(**({"latent": 8, "speech": tiny_quantizer(), "background": tiny_quantizer()} | built | rest))


_TINY_WAVEFORM = Waveform(
    channels=4, strides=(2, 2, 5), dilations=(1, 3), kernel=3, decoder_channels=16, lstm_layers=1
)  # fmt: skip
_TINY_SPECTRAL = Spectral(
    hop=20, bands=6, width=8, expansion=2, kernel=3, encoder_blocks=1, decoder_blocks=2, lstm_layers=1
)  # fmt: skip


def tiny_config(**model_changes) -> Config:
    """A run of six steps on 0.1 s of the built-in clips: the codebooks start at step 2, it saves at steps 3 and 6.

    One device takes part, however many there are; a test of the mesh sets `mesh.data`. The model is less deep than
    `tiny_model`: what tests of training wait for is its compilation.
    """
    return Config(
        variant="testing",
        model=tiny_model(**({"dilations": (3,), "decoder_lstm": False} | model_changes)),
        data=Data(batch=2, seconds=0.1),
        loss=Loss(mel_windows=(64, 256), mel_bands=(10, 40), guidance=0.0, adversarial=0.0, feature=0.0),
        optim=Optim(lr=1e-3, warmup=2, decay_steps=100),
        mesh=Mesh(data=1),
        train=Train(
            steps=6, continuous_steps=2, kmeans_batches=2, log_every=1, valid_every=3, valid_clips=2, sample_clips=1,
            save_every=3, keep=2, precision="float32",
        ),
    )  # fmt: skip


def tiny_discriminator(**changes) -> Discriminator:
    """One sub-discriminator of each kind, for clips of 256 samples and more."""
    tiny = {
        "periods": (3,), "period_channels": (4, 4), "rates": (2,), "rate_channels": (4, 8, 8), "windows": (256,),
        "bands": (0.0, 0.5, 1.0), "band_channels": 4, "stft_windows": (128,), "stft_channels": 4,
        "frame_windows": (64,), "frame_channels": 4,
    }  # fmt: skip
    return Discriminator(**(tiny | changes))


def full_config(**model_changes) -> Config:
    """`tiny_config` with the whole objective: discriminators, and guidance by the teacher that needs no weights.

    It compiles more slowly than that, so its network and its spectra are fewer.
    """
    config = tiny_config(strides=(32, 10), hop=320, semantic=cepstra.WIDTH, **model_changes)
    config.loss.mel_windows, config.loss.mel_bands = (64,), (10,)
    config.data.seconds = 0.2
    config.discriminator = tiny_discriminator()
    config.teacher.kind = "cepstra"
    config.loss.guidance, config.loss.adversarial, config.loss.feature = 150.0, 1.0, 2.0
    return config


def random_variables(module: nn.Module, *inputs, seed: int = 0) -> dict:
    """Variables of a module at random, biases and gains too; compiling its initialisers would take seconds."""
    rng = np.random.default_rng(seed)

    def draw(path, array: jax.ShapeDtypeStruct) -> np.ndarray:
        if "bias" in jax.tree_util.keystr(path):
            drawn = 0.1 * rng.standard_normal(array.shape)
        elif array.ndim < 2:  # gains and alphas
            drawn = rng.uniform(0.3, 1.2, array.shape)
        else:
            drawn = 0.5 * rng.standard_normal(array.shape)
        return drawn.astype(array.dtype)

    return jax.tree.map_with_path(draw, jax.eval_shape(module.init, jax.random.key(0), *inputs))


def in_frames(network: DeCodecNetwork, variables: dict, wave: np.ndarray) -> tuple[Halves[np.ndarray], np.ndarray]:
    """Codes `[b, k, f]` and samples `[b, t]` of a causal network's stream, a frame at a time, of whole frames `[b, t]`.

    As scans, which refuse states that change their structure. Silence follows, as long as the network looks ahead.
    """
    b, hop, late = len(wave), network.config.hop, lookahead(network.config)

    @jax.jit
    def run(variables, heard, said, frames):
        _, codes = lax.scan(lambda state, frame: streaming.encode_step(network, variables, state, frame), heard, frames)
        codes = jax.tree.map(lambda c: c[late:], codes)  # the first belong to no frame
        _, sound = lax.scan(lambda state, codes: streaming.decode_step(network, variables, state, codes), said, codes)
        return codes, sound

    states = streaming.encoder_state(network, variables, b), streaming.decoder_state(network, variables, b)
    frames = np.pad(wave, ((0, 0), (0, late * hop))).reshape(b, -1, hop).swapaxes(0, 1)
    codes, sound = run(variables, *states, frames)
    return Halves(*(np.concatenate(list(c), axis=2) for c in codes)), np.concatenate(list(sound), axis=1)


def speech_clips(count: int, t: int, seed: int = 0, sample_rate: int = 16_000) -> np.ndarray:
    """Speech-like `[count, t]`: harmonics of a gliding pitch that come and go like syllables, each clip its own."""
    rng = np.random.default_rng([1, seed])
    pitch, glide, tempo = (rng.uniform(*span, (count, 1)) for span in ((90, 250), (-0.3, 0.3), (2, 6)))
    time = np.arange(t) / sample_rate
    phase = 2 * np.pi * pitch * (time + 0.5 * glide * time**2)
    voice = sum(np.sin(k * phase) / k for k in range(1, 9))
    return (0.1 * voice * np.abs(np.sin(np.pi * tempo * time + rng.uniform(0, np.pi, (count, 1))))).astype(np.float32)


def background_clips(count: int, t: int, seed: int = 0) -> np.ndarray:
    """Background-like `[count, t]`: noise whose spectrum falls, from clip to clip more or less steeply."""
    rng = np.random.default_rng([2, seed])
    spectrum = np.fft.rfft(rng.standard_normal((count, t)))
    shaped = np.fft.irfft(spectrum / (1 + np.arange(spectrum.shape[1])) ** rng.uniform(0, 1, (count, 1)), t)
    return (0.05 * shaped / (np.std(shaped, axis=-1, keepdims=True) + 1e-9)).astype(np.float32)


def training_batch(config: Config, seed: int = 0) -> dict[str, np.ndarray]:
    """What the pipeline would give: speech, background, mixture and swapped, `[b, 2, t]` each."""
    b, t = config.data.batch, round(config.data.seconds * config.model.sample_rate)
    speech = speech_clips(2 * b, t, seed, config.model.sample_rate).reshape(b, 2, t)
    background = background_clips(2 * b, t, seed).reshape(b, 2, t)
    swapped = speech + background[:, ::-1]
    return {"speech": speech, "background": background, "mixture": speech + background, "swapped": swapped}


def random_bundle(folder: Path, config: Model) -> Path:
    """The folder, with a bundle of a model at random in it, as after step 7."""
    variables = random_variables(DeCodecNetwork(config), np.zeros((1, config.hop), np.float32))
    bundle.save(folder, config, variables["params"], variables["codebook"], step=7)
    return folder
