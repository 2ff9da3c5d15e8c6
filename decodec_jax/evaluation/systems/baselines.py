"""Other people's codecs and denoisers, each as a `System` that is found by name and measured like ours.

Each system works at its own rate: items are resampled to that rate and back, and keep their length. Weights are read
from this machine. The bits of a codec are those of its raw codes, for ours too; those of Opus are of its packets, which
are entropy-coded already.
"""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from decodec_jax import audio
from decodec_jax.errors import UserError
from decodec_jax.evaluation.extras import folder, loading, package, pretrained
from decodec_jax.evaluation.systems.base import Item, Output, System, oracle, silence, untouched

if TYPE_CHECKING:
    from torch import Tensor

NAMES = {
    "mixture": "the unchanged mixture, for each task",
    "silence": "silence, for each task",
    "oracle": "the ground truth",
    "opus:KBPS": "Opus by libsndfile, variable bitrate, 6 to 256 kbps",
    "encodec:PATH:KBPS": "single-channel EnCodec; a folder that transformers reads, such as facebook/encodec_24khz",
    "dac:PATH:KBPS": "DAC; a folder that transformers reads, such as descript/dac_16khz",
    "mimi:PATH:KBPS": "Mimi; a folder that transformers reads, such as kyutai/mimi",
    "speechtokenizer:PATH": "SpeechTokenizer by its package; a folder with config.json and SpeechTokenizer.pt",
    "hificodec:PATH": "HiFi-Codec by its repository AcademiCodec; a folder with its config (.json) and checkpoint",
    "noisereduce": "spectral gating of stationary noise by the package noisereduce",
    "storm:PATH": "StoRM as a TorchScript file, see enhancer",
    "enhancer:PATH": "any denoiser as a TorchScript file, [1, t] to [1, t] at its sample_rate (default: 16000 Hz)",
    "DENOISER+CODEC": "a denoiser followed by a codec, such as noisereduce+opus:8",
}

OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz
OPUS_KBPS = (6.0, 256.0)  # of libsndfile at compression levels 1 and 0
ENHANCER_RATE = 16_000  # Hz
GATE_WINDOW = 1024  # samples, the shortest input of noisereduce

Code = Callable[["Tensor"], tuple["Tensor", "Tensor"]]  # [1, 1, t], whole frames -> decoded waveform, codes
Denoise = Callable[[np.ndarray, int], np.ndarray]  # [t], rate in Hz -> about as many samples


def find(spec: str) -> System:
    """Load the system that a spec describes, see `NAMES`. It is called by its spec, with only the last part of a path.

    Raises UserError if there is no such system, or if something that it needs is missing.
    """
    if both := re.fullmatch(rf"(.+)\+((?:{'|'.join(MAKERS)})(?::.*)?)", spec):
        return cascade(find(both[1]), find(both[2]))
    kind, _, rest = spec.partition(":")
    pattern = next((name for name in NAMES if name.partition(":")[0] == kind and kind in MAKERS), None)
    if pattern is None:
        raise UserError(f"{spec!r} is not a baseline; choose from {', '.join(NAMES)}")
    values = rest.rsplit(":", pattern.count(":") - 1) if rest else []
    if len(values) != pattern.count(":") or not all(values):
        raise UserError(f"{spec!r} should be written {pattern}")
    names = [Path(value).name if "PATH" in pattern and not n else value for n, value in enumerate(values)]
    return MAKERS[kind](*values)._replace(name=":".join([kind, *names]))


# --- systems of codecs and denoisers --------------------------------------------------------------------------------


def codec(name: str, rate: int, hop: int, entries: int, code: Code) -> System:
    """A codec in PyTorch with frames of `hop` samples at `rate` Hz; each code is one of `entries`."""
    torch = package("torch")

    def reconstruct(item: Item) -> Output:
        wave = audio.resample(item.mixture, item.rate, rate)
        frames = np.pad(wave, (0, -len(wave) % hop))
        with torch.inference_mode():
            made, codes = code(torch.from_numpy(frames)[None, None])
        made = fitted(made.numpy().reshape(-1), len(wave))
        made = fitted(audio.resample(made, rate, item.rate), len(item.mixture))
        return Output(made, codes.numel() * float(np.log2(entries)))

    return System(name, {"reconstruct": reconstruct})


def denoiser(name: str, denoise: Denoise) -> System:
    """A denoiser; its background is what it removes."""

    def enhance(item: Item) -> Output:
        return Output(fitted(denoise(item.mixture, item.rate), len(item.mixture)))

    return System(name, {"enhance": enhance, "background": lambda item: Output(item.mixture - enhance(item).wave)})


def cascade(first: System, second: System) -> System:
    """Denoise with `first`, then code with `second`. Raises UserError if one of them cannot do its task."""
    for system, task in ((first, "enhance"), (second, "reconstruct")):
        if task not in system.tasks:
            raise UserError(f"{first.name}+{second.name}: {system.name} cannot {task}")

    def enhance(item: Item) -> Output:
        return second.tasks["reconstruct"](item._replace(mixture=first.tasks["enhance"](item).wave))

    return System(f"{first.name}+{second.name}", {"enhance": enhance})


def fitted(wave: np.ndarray, t: int) -> np.ndarray:
    """The first t samples as float32, padded with silence at the end."""
    return np.pad(wave[:t], (0, max(0, t - len(wave)))).astype(np.float32)


# --- Opus and spectral gating ---------------------------------------------------------------------------------------


def opus(kbps: str) -> System:
    """Opus. Its bitrates are up to 12 % below the requested ones.

    For 16 kHz and below 9 kbps, libopus 1.4 keeps only 4 kHz. The file says where the sound begins, so the output needs
    no alignment. Only those 4 kHz come half a sample early, which costs 0.6 dB of SI-SDR at 8 kbps. This is not
    corrected, as nothing here shifts by fractions of a sample.
    """
    low, high = OPUS_KBPS
    requested = bitrate(kbps, "opus")
    if not low <= requested <= high:
        raise UserError(f"opus:{kbps}: libsndfile's Opus codes at {low:g} to {high:g} kbps")

    def reconstruct(item: Item) -> Output:
        rate = item.rate if item.rate in OPUS_RATES else OPUS_RATES[-1]
        wave, file = audio.resample(item.mixture, item.rate, rate), io.BytesIO()
        level = (high - requested) / (high - low)
        soundfile.write(file, np.clip(wave, -1, 1), rate, format="OGG", subtype="OPUS", compression_level=level)
        bits = 8 * packet_bytes(file.getvalue())
        file.seek(0)
        decoded, _ = soundfile.read(file, dtype="float32")
        decoded = audio.resample(fitted(decoded, len(wave)), rate, item.rate)
        return Output(fitted(decoded, len(item.mixture)), float(bits))

    return System("opus", {"reconstruct": reconstruct})


def packet_bytes(ogg: bytes) -> int:
    """Bytes of the audio packets in an Ogg Opus file, without its page headers and its two header packets."""
    sizes, at = [], 0
    while at < len(ogg):  # a page: 26 bytes, a count, as many lengths, and data of their total length
        lengths = ogg[at + 27 : at + 27 + ogg[at + 26]]
        sizes.append(sum(lengths))
        at += 27 + len(lengths) + sizes[-1]
    return sum(sizes[2:])  # each of the two headers has a page of its own


def noisereduce() -> System:
    """Spectral gating with a threshold from the whole recording."""
    reduce_noise = package("noisereduce").reduce_noise

    def denoise(wave: np.ndarray, rate: int) -> np.ndarray:
        return reduce_noise(y=fitted(wave, max(len(wave), GATE_WINDOW)), sr=rate, stationary=True)

    return denoiser("noisereduce", denoise)


# --- codecs with weights --------------------------------------------------------------------------------------------


def encodec(path: str, kbps: str) -> System:
    """EnCodec. The bitrate must be one of the model's own."""
    model = pretrained("EncodecModel", path)
    config, requested = model.config, bitrate(kbps, path)
    if config.audio_channels != 1:
        raise UserError(f"{path} codes {config.audio_channels} channels; a single-channel model is needed")
    if requested not in config.target_bandwidths:
        rates = ", ".join(f"{rate:g}" for rate in config.target_bandwidths)
        raise UserError(f"{path} codes at {rates} kbps, not at {requested:g}")

    def code(wave: "Tensor") -> tuple["Tensor", "Tensor"]:
        encoded = model.encode(wave, bandwidth=requested)
        return model.decode(encoded.audio_codes, encoded.audio_scales).audio_values, encoded.audio_codes

    return codec("encodec", config.sampling_rate, config.hop_length, config.codebook_size, code)


def dac(path: str, kbps: str) -> System:
    """DAC. Its output is a few samples shorter than its input; the end is filled with silence."""
    model = pretrained("DacModel", path)
    config = model.config
    levels = levels_for(kbps, config.sampling_rate / config.hop_length, config.codebook_size, config.n_codebooks, path)

    def code(wave: "Tensor") -> tuple["Tensor", "Tensor"]:
        codes = model.encode(wave, n_quantizers=levels).audio_codes
        return model.decode(audio_codes=codes).audio_values, codes

    return codec("dac", config.sampling_rate, config.hop_length, config.codebook_size, code)


def mimi(path: str, kbps: str) -> System:
    """Mimi, with its first levels, as many as come nearest to the bitrate."""
    model = pretrained("MimiModel", path)
    config = model.config
    levels = levels_for(kbps, config.frame_rate, config.codebook_size, config.num_quantizers, path)

    def code(wave: "Tensor") -> tuple["Tensor", "Tensor"]:
        codes = model.encode(wave, num_quantizers=levels).audio_codes
        return model.decode(codes).audio_values, codes

    hop = round(config.sampling_rate / config.frame_rate)
    return codec("mimi", config.sampling_rate, hop, config.codebook_size, code)


def speechtokenizer(path: str) -> System:
    """SpeechTokenizer with all its levels: 8 in the released model, 4 kbps."""
    path = folder(path)
    module = package("speechtokenizer")
    with loading(path):
        config = json.loads((path / "config.json").read_text())
        model = module.SpeechTokenizer.load_from_checkpoint(
            str(path / "config.json"), str(path / "SpeechTokenizer.pt")
        ).eval()
        rate, hop, entries = config["sample_rate"], int(np.prod(config["strides"])), config["codebook_size"]

    def code(wave: "Tensor") -> tuple["Tensor", "Tensor"]:
        codes = model.encode(wave)
        return model.decode(codes), codes

    return codec("speechtokenizer", rate, hop, entries, code)


def hificodec(path: str) -> System:
    """HiFi-Codec: two levels of two groups, 2 kbps at 16 kHz. Built from its parts, as its own class needs CUDA."""
    path, torch = folder(path), package("torch")
    parts = package("academicodec.models.hificodec.models")
    settings = package("academicodec.models.hificodec.env").AttrDict
    configs = sorted(path.glob("*.json"))
    checkpoints = sorted(file for file in path.iterdir() if file.is_file() and file not in configs)
    if len(configs) != 1 or len(checkpoints) != 1:
        raise UserError(f"{path} must hold two files, HiFi-Codec's config (.json) and its checkpoint")
    with loading(path):
        config = settings(json.loads(configs[0].read_text()))
        weights = torch.load(checkpoints[0], map_location="cpu", weights_only=True)
        encoder, quantizer, generator = (getattr(parts, n)(config) for n in ("Encoder", "Quantizer", "Generator"))
        for name, part in (("encoder", encoder), ("quantizer", quantizer), ("generator", generator)):
            part.load_state_dict(weights[name])
            part.eval()

    def code(wave: "Tensor") -> tuple["Tensor", "Tensor"]:
        codes = torch.stack(quantizer(encoder(wave))[2], -1)[None]  # [1, f, 4]
        return generator(quantizer.embed(codes)), codes

    hop = int(np.prod(config.upsample_rates))
    return codec("hificodec", config.sampling_rate, hop, config.n_codes, code)


# --- denoisers with weights -----------------------------------------------------------------------------------------


def enhancer(path: str) -> System:
    """A denoiser in a TorchScript file: `torch.jit.script(module).save(path)`, or `torch.jit.trace`."""
    torch = package("torch")
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}; a denoiser is given as a TorchScript file")
    with loading(Path(path)):
        module = torch.jit.load(path, map_location="cpu").eval()
    own_rate = int(getattr(module, "sample_rate", ENHANCER_RATE))

    def denoise(wave: np.ndarray, rate: int) -> np.ndarray:
        with torch.inference_mode():
            made = module(torch.from_numpy(audio.resample(wave, rate, own_rate))[None])
        if made.ndim != 2 or len(made) != 1:
            raise UserError(f"{path} turns [1, t] into {list(made.shape)}; it must return [1, t]")
        return audio.resample(made[0].numpy(), own_rate, rate)

    return denoiser("enhancer", denoise)


# --- bitrates -------------------------------------------------------------------------------------------------------


def bitrate(text: str, name: str) -> float:
    """Parse a bitrate in kbps. Raises UserError if it is not a number."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{name}: {text!r} is not a bitrate in kbit/s") from None


def levels_for(kbps: str, frame_rate: float, entries: int, most: int, name: str) -> int:
    """Number of levels nearest to a bitrate. Raises UserError if the model does not have as many."""
    each = frame_rate * np.log2(entries) / 1000
    levels = round(bitrate(kbps, name) / each)
    if not 1 <= levels <= most:
        raise UserError(f"{name} codes at {each:g} to {most * each:g} kbps, in steps of {each:g}, not at {kbps}")
    return levels


MAKERS: dict[str, Callable[..., System]] = {
    "mixture": untouched,
    "silence": silence,
    "oracle": oracle,
    "opus": opus,
    "encodec": encodec,
    "dac": dac,
    "mimi": mimi,
    "speechtokenizer": speechtokenizer,
    "hificodec": hificodec,
    "noisereduce": noisereduce,
    "storm": enhancer,
    "enhancer": enhancer,
}
