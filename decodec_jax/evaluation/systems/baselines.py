"""Other people's codecs and denoisers, each as a `System` that is measured like ours, found by name.

Whoever is compared gets its own rate: items are resampled to it and back, and come back as long as they were. Weights
are read from this machine. Codecs count the bits of their codes as they stand, ours too; Opus's are those of its
packets, which it has entropy-coded already.
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
    "mixture": "the mixture as it is, for whatever is asked for",
    "silence": "silence, for whatever is asked for",
    "oracle": "the truth",
    "opus:KBPS": "Opus by libsndfile, variable rate, 6 to 256 kbps",
    "encodec:PATH:KBPS": "EnCodec for one channel; a folder that transformers reads, such as facebook/encodec_24khz",
    "dac:PATH:KBPS": "DAC; a folder that transformers reads, such as descript/dac_16khz",
    "mimi:PATH:KBPS": "Mimi; a folder that transformers reads, such as kyutai/mimi",
    "speechtokenizer:PATH": "SpeechTokenizer by its package; a folder with config.json and SpeechTokenizer.pt",
    "hificodec:PATH": "HiFi-Codec by its repository AcademiCodec; a folder with its config (.json) and its checkpoint",
    "noisereduce": "spectral gating by the package noisereduce, for noise that does not change",
    "storm:PATH": "StoRM as a TorchScript file, see enhancer",
    "enhancer:PATH": "any denoiser as a TorchScript file, [1, t] to [1, t] at its sample_rate (none: 16000 Hz)",
    "DENOISER+CODEC": "one of each: what is denoised is then coded, as by noisereduce+opus:8",
}

OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz
OPUS_KBPS = (6.0, 256.0)  # libsndfile's at compression levels 1 and 0
ENHANCER_RATE = 16_000  # Hz
GATE_WINDOW = 1024  # samples, the least that noisereduce takes

Code = Callable[["Tensor"], tuple["Tensor", "Tensor"]]  # waveform [1, 1, t], whole frames, to what is decoded and codes
Denoise = Callable[[np.ndarray, int], np.ndarray]  # waveform [t] at a rate in Hz, to about as many samples


def find(spec: str) -> System:
    """The system of a name in `NAMES`, its weights loaded. Its own name is the spec, of a path the last part alone.

    Raises UserError for a name that is not there, and for what it needs and is missing.
    """
    if both := re.fullmatch(rf"(.+)\+((?:{'|'.join(MAKERS)})(?::.*)?)", spec):
        return cascade(find(both[1]), find(both[2]))
    kind, _, rest = spec.partition(":")
    pattern = next((name for name in NAMES if name.partition(":")[0] == kind and kind in MAKERS), None)
    if pattern is None:
        raise UserError(f"{spec!r} is no baseline; choose from {', '.join(NAMES)}")
    values = rest.rsplit(":", pattern.count(":") - 1) if rest else []
    if len(values) != pattern.count(":") or not all(values):
        raise UserError(f"{spec!r} should be written {pattern}")
    names = [Path(value).name if "PATH" in pattern and not n else value for n, value in enumerate(values)]
    return MAKERS[kind](*values)._replace(name=":".join([kind, *names]))


# --- systems of codecs and denoisers --------------------------------------------------------------------------------


def codec(name: str, rate: int, hop: int, entries: int, code: Code) -> System:
    """A codec in PyTorch, frames of `hop` samples at `rate` (Hz), each code one of so many entries."""
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
    """A denoiser; what it takes away is its background."""

    def enhance(item: Item) -> Output:
        return Output(fitted(denoise(item.mixture, item.rate), len(item.mixture)))

    return System(name, {"enhance": enhance, "background": lambda item: Output(item.mixture - enhance(item).wave)})


def cascade(first: System, second: System) -> System:
    """Denoise, then code. Raises UserError unless the first can do the one and the second the other."""
    for system, task in ((first, "enhance"), (second, "reconstruct")):
        if task not in system.tasks:
            raise UserError(f"{first.name}+{second.name}: {system.name} cannot {task}")

    def enhance(item: Item) -> Output:
        return second.tasks["reconstruct"](item._replace(mixture=first.tasks["enhance"](item).wave))

    return System(f"{first.name}+{second.name}", {"enhance": enhance})


def fitted(wave: np.ndarray, t: int) -> np.ndarray:
    """The first t samples, float32, with silence behind where there are fewer."""
    return np.pad(wave[:t], (0, max(0, t - len(wave)))).astype(np.float32)


# --- Opus and spectral gating ---------------------------------------------------------------------------------------


def opus(kbps: str) -> System:
    """Opus, whose bits come out up to 12 % under what is asked for; at 16 kHz, libopus 1.4 keeps 4 kHz below 9 kbps.

    The file says where the sound begins, so nothing is to be aligned: only those 4 kHz come half a sample early, which
    is left, as nothing here shifts by parts of a sample; it takes 0.6 dB of SI-SDR at 8 kbps.
    """
    low, high = OPUS_KBPS
    asked = number(kbps, "opus")
    if not low <= asked <= high:
        raise UserError(f"opus:{kbps}: libsndfile's Opus codes at {low:g} to {high:g} kbps")

    def reconstruct(item: Item) -> Output:
        rate = item.rate if item.rate in OPUS_RATES else OPUS_RATES[-1]
        wave, file = audio.resample(item.mixture, item.rate, rate), io.BytesIO()
        level = (high - asked) / (high - low)
        soundfile.write(file, np.clip(wave, -1, 1), rate, format="OGG", subtype="OPUS", compression_level=level)
        bits = 8 * packet_bytes(file.getvalue())
        file.seek(0)
        decoded, _ = soundfile.read(file, dtype="float32")
        decoded = audio.resample(fitted(decoded, len(wave)), rate, item.rate)
        return Output(fitted(decoded, len(item.mixture)), float(bits))

    return System("opus", {"reconstruct": reconstruct})


def packet_bytes(ogg: bytes) -> int:
    """Bytes of the sound in an Ogg Opus file: of its packets, without pages around them and the two headers before."""
    sizes, at = [], 0
    while at < len(ogg):  # a page: 26 bytes, a count, so many lengths, and what these add up to
        lengths = ogg[at + 27 : at + 27 + ogg[at + 26]]
        sizes.append(sum(lengths))
        at += 27 + len(lengths) + sizes[-1]
    return sum(sizes[2:])  # each header is a page of its own


def noisereduce() -> System:
    """Spectral gating whose threshold comes from the whole recording."""
    reduce_noise = package("noisereduce").reduce_noise

    def denoise(wave: np.ndarray, rate: int) -> np.ndarray:
        return reduce_noise(y=fitted(wave, max(len(wave), GATE_WINDOW)), sr=rate, stationary=True)

    return denoiser("noisereduce", denoise)


# --- codecs with weights --------------------------------------------------------------------------------------------


def encodec(path: str, kbps: str) -> System:
    """Every rate is one of the model's own."""
    model = pretrained("EncodecModel", path)
    config, asked = model.config, number(kbps, path)
    if config.audio_channels != 1:
        raise UserError(f"{path} codes {config.audio_channels} channels; one for a single channel is needed")
    if asked not in config.target_bandwidths:
        rates = ", ".join(f"{rate:g}" for rate in config.target_bandwidths)
        raise UserError(f"{path} codes at {rates} kbps, not at {asked:g}")

    def code(wave: "Tensor") -> tuple["Tensor", "Tensor"]:
        encoded = model.encode(wave, bandwidth=asked)
        return model.decode(encoded.audio_codes, encoded.audio_scales).audio_values, encoded.audio_codes

    return codec("encodec", config.sampling_rate, config.hop_length, config.codebook_size, code)


def dac(path: str, kbps: str) -> System:
    """DAC gives some samples less than it heard, at the end: silence stands there."""
    model = pretrained("DacModel", path)
    config = model.config
    levels = levels_for(kbps, config.sampling_rate / config.hop_length, config.codebook_size, config.n_codebooks, path)

    def code(wave: "Tensor") -> tuple["Tensor", "Tensor"]:
        codes = model.encode(wave, n_quantizers=levels).audio_codes
        return model.decode(audio_codes=codes).audio_values, codes

    return codec("dac", config.sampling_rate, config.hop_length, config.codebook_size, code)


def mimi(path: str, kbps: str) -> System:
    """All levels below the one that the rate allows."""
    model = pretrained("MimiModel", path)
    config = model.config
    levels = levels_for(kbps, config.frame_rate, config.codebook_size, config.num_quantizers, path)

    def code(wave: "Tensor") -> tuple["Tensor", "Tensor"]:
        codes = model.encode(wave, num_quantizers=levels).audio_codes
        return model.decode(codes).audio_values, codes

    hop = round(config.sampling_rate / config.frame_rate)
    return codec("mimi", config.sampling_rate, hop, config.codebook_size, code)


def speechtokenizer(path: str) -> System:
    """All its levels, the released model's 8 at 4 kbps."""
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
    """Two levels of two groups, 2 kbps at 16 kHz. Put together from its parts, as its own class loads on CUDA alone."""
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
    """A TorchScript file: `torch.jit.script(module).save(path)`, or `torch.jit.trace`."""
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
            raise UserError(f"{path} makes {list(made.shape)} of [1, t]; it must make [1, t]")
        return audio.resample(made[0].numpy(), own_rate, rate)

    return denoiser("enhancer", denoise)


# --- what is asked for ----------------------------------------------------------------------------------------------


def number(text: str, name: str) -> float:
    """A number of kbps. Raises UserError for any other text."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{name}: {text!r} is not a bitrate in kbit/s") from None


def levels_for(kbps: str, frame_rate: float, entries: int, most: int, name: str) -> int:
    """How many levels come nearest to a rate. Raises UserError for one that the model has not."""
    each = frame_rate * np.log2(entries) / 1000
    levels = round(number(kbps, name) / each)
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
