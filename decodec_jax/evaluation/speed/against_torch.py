"""Compares the speed of the same network and loss in JAX and PyTorch, in alternating runs.

**The network** is only what both sides have, encoder and decoder, with nothing in between. If the config has DAC's
shape, PyTorch runs transformers' DacModel, and our side leaves out its LSTM. Otherwise PyTorch runs the encoder and
decoder of interop/torch_model with all of the config's settings. DacModel is used as transformers builds it, without
weight normalisation. Ours and torch_model recompute each weight-normalised kernel in every pass, so ours does more
work than DacModel.

**Training.** A step computes waveform, multi-scale mel and magnitude distances of the reconstruction. It consists of
the forward and backward passes, gradient clipping and the AdamW update, on the same number of clips. Ours is the real
step of training/step.py, which also averages the weights and checks that all values are finite. Both sides train in
float32 and with bfloat16 operands: ours through train.precision, PyTorch through autocast around the network.

**Inference** is in float32: one clip goes through the encoder, and its embedding through the decoder.

PyTorch runs eagerly on all cores, with fused AdamW. With torch.compile, a step of the light variant was no faster in
float32 and a tenth faster in bfloat16. Our side relies on malloc keeping the memory that a step frees
(launching.keep_freed_memory). That setting applies to the whole process, so PyTorch has it too.

Compare on an idle machine. Under other load PyTorch's threads wait for each other, and the ratios flatter our side. On
two cores with two other processes, our float32 step of the light variant was 10 times faster than PyTorch's; in
processor time, on one core with one thread each, it was 1.7 times faster.

Only this file needs torch and transformers.
"""

import copy
import dataclasses
import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DacConfig, DacModel

from decodec_jax.codec.model import DeCodecNetwork, initialise
from decodec_jax.codec.product import PRECISIONS
from decodec_jax.config import Config, Loss, Mesh, Model, Quantizer, to_dict
from decodec_jax.errors import UserError
from decodec_jax.evaluation.speed.cost import products
from decodec_jax.evaluation.speed.timing import Row, matmul_rate, noise, print_progress, timed
from decodec_jax.evaluation.speed.train_speed import SyntheticRun
from decodec_jax.interop import torch_model
from decodec_jax.objective import spectral

NEVER = 2**30  # steps


class Stacks(NamedTuple):
    """A codec in PyTorch, reduced to its encoder and decoder."""

    encode: Callable[[Tensor], Tensor]  # waveform [b, t], t whole frames, to an embedding
    decode: Callable[[Tensor], Tensor]  # the embedding to [b, t], or a few samples fewer
    parameters: list[nn.Parameter]


# --- the two sides --------------------------------------------------------------------------------------------------


def is_dac(model: Model) -> bool:
    """Whether the convolutions match those of a DacModel of some width."""
    stack = model.waveform
    sizes = (model.family, stack.kernel, tuple(stack.dilations), model.causal)
    return sizes == ("waveform", 7, (1, 3, 9), False) and model.latent == stack.channels * 2 ** len(stack.strides)


def comparable(config: Config, precision: str = "float32") -> Config:
    """The config reduced to what both sides have: one decoded waveform, its losses, no quantizers, one device."""
    config, loss = copy.deepcopy(config), config.loss
    unused = Quantizer(levels=1, entries=2)  # bypassed throughout
    # the exact projection splits the embedding in two and joins it again, which changes nothing
    config.model = dataclasses.replace(
        config.model, projection="exact", semantic=0, speech=unused, background=unused,
        waveform=dataclasses.replace(config.model.waveform, **({"lstm_layers": 0} if is_dac(config.model) else {})),
    )  # fmt: skip
    config.loss = dataclasses.replace(
        loss, own=1, swap=0, speech=0, background=0, perp=0, guidance=0, perceptual=0, adversarial=0, feature=0,
        balance=0,
    )  # fmt: skip
    config.optim.kind = "adamw"
    config.mesh = Mesh(data=1)
    config.train.continuous_steps, config.train.accumulate, config.train.remat = NEVER, 1, False
    config.train.precision = precision
    config.data.seconds = whole_frames(config.model, config.data.seconds)
    return config


def whole_frames(model: Model, seconds: float) -> float:
    """The duration (s) rounded to whole frames, at least one."""
    return max(1, round(seconds * model.sample_rate / model.hop)) * model.hop / model.sample_rate


def stacks(model: Model) -> Stacks:
    """PyTorch's side of a comparable model, with random weights."""
    if not is_dac(model):
        twin = torch_model.DeCodec(torch_model.from_dict(to_dict(model)))
        return Stacks(twin.encoder, twin.decoder, [*twin.encoder.parameters(), *twin.decoder.parameters()])
    stack = model.waveform
    dac = DacModel(DacConfig(
        encoder_hidden_size=stack.channels, downsampling_ratios=list(stack.strides),
        decoder_hidden_size=stack.decoder_channels, sampling_rate=model.sample_rate,
    ))  # fmt: skip
    return Stacks(
        lambda wave: dac.encoder(wave[:, None]),
        lambda embedding: dac.decoder(embedding)[:, 0],
        [*dac.encoder.parameters(), *dac.decoder.parameters()],
    )


def reconstruction(loss: Loss, rate: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A PyTorch function of output and target, `[b, t]` each: the weighted sum of `losses.reconstruction_terms`."""
    mel = {}
    for window, count in zip(loss.mel_windows, loss.mel_bands, strict=True):
        filters = torch.from_numpy(spectral.mel_filters(rate, window, count).T.copy())
        quiet = 10 ** (loss.mel_floor / 20) * torch.hann_window(window).norm() * filters.sum(1, keepdim=True)
        mel[window] = filters, quiet

    def mel_distance(ours: Tensor, theirs: Tensor, window: int) -> Tensor:
        filters, quiet = mel[window]
        heard = (torch.log10(filters @ torch.sqrt(power + 1e-10) + quiet) for power in (ours, theirs))
        return distance(*heard)

    def magnitude_distance(ours: Tensor, theirs: Tensor, window: int) -> Tensor:
        norm = torch.hann_window(window).norm()
        return distance(*((power / norm**2 + 9e-8) ** 0.25 for power in (ours, theirs)))

    parts = [(loss.mel, window, mel_distance) for window in loss.mel_windows]
    parts += [(loss.magnitude / len(loss.magnitude_windows), w, magnitude_distance) for w in loss.magnitude_windows]
    parts = [part for part in parts if part[0]]

    def total(output: Tensor, target: Tensor) -> Tensor:
        powers = {
            window: [power_spectrum(wave, window, loss.overlap) for wave in (output, target)] for _, window, _ in parts
        }
        spectra = sum(weight * measure(*powers[window], window) for weight, window, measure in parts)
        return loss.wave * distance(output, target) + spectra

    return total


def distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).abs().mean()


def power_spectrum(wave: Tensor, window: int, overlap: int) -> Tensor:
    """Squared STFT magnitudes of waveforms `[b, t]`: `[b, window / 2 + 1, frames]`."""
    hop = window // overlap
    spectrum = torch.stft(
        F.pad(wave, (0, -wave.shape[-1] % hop)), window, hop, window=torch.hann_window(window),
        pad_mode="constant", return_complex=True,
    )  # fmt: skip
    return spectrum.real**2 + spectrum.imag**2


# --- the comparisons ------------------------------------------------------------------------------------------------


def training(config: Config, rounds: int) -> list[Row]:
    """Compare training steps on 2 * `data.batch` clips, as ours uses, of `data.seconds` each, in whole frames."""
    use_all_cores()
    name, theirs, tasks = f"train/{config.variant}", training_step(comparable(config)), {}
    for precision in PRECISIONS:
        ours = SyntheticRun(comparable(config, precision), from_step=0)
        print_progress(f"against torch: our step in {precision} compiled in {ours.compile_time:.0f} s")
        tasks |= {f"{precision}/jax": ours.step, f"{precision}/torch": partial(theirs, precision)}
    print_progress(f"against torch: {name}, {rounds} rounds")
    taken = median_times(tasks, rounds)
    rows = [row for precision in PRECISIONS for row in _rows(f"{name}/{precision}", taken, f"{precision}/")]
    fastest = {side: min(taken[f"{precision}/{side}"] for precision in PRECISIONS) for side in ("jax", "torch")}
    return rows + _rows(f"{name}/fastest", fastest)


def training_step(config: Config) -> Callable[[str], Tensor]:
    """PyTorch's training step for a comparable config, on a batch of noise: a function from precision to loss."""
    optim, model = config.optim, stacks(config.model)
    clips, t = 2 * config.data.batch, round(config.data.seconds * config.model.sample_rate)
    wave = torch.from_numpy(noise(clips * t, 1).reshape(clips, t))
    optimizer = torch.optim.AdamW(model.parameters, optim.lr, optim.betas, weight_decay=optim.weight_decay, fused=True)
    loss = reconstruction(config.loss, config.model.sample_rate)

    def step(precision: str) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            output = model.decode(model.encode(wave)).float()
        total = loss(output, wave[:, : output.shape[-1]])
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters, optim.clip)
        optimizer.step()
        return total.detach()

    return step


def inference(config: Config, seconds: float, rounds: int) -> list[Row]:
    """Compare encoder and decoder on one clip of whole frames; also the share of the matrix product rate ours reach."""
    use_all_cores()
    model = comparable(config).model
    print_progress(f"against torch: compiling encoder and decoder for {seconds:g} s")
    network, theirs = DeCodecNetwork(model), stacks(model)
    wave = noise(whole_frames(model, seconds), model.sample_rate)[None]
    variables = {"params": initialise(model, jax.random.key(0))[0]}

    @jax.jit
    def encode(variables, wave):
        return network.apply(variables, wave, method=lambda network, wave: network.encoder(wave))

    @jax.jit
    def decode(variables, embedding):
        return network.apply(variables, embedding, method=lambda network, embedding: network.decoder(embedding))

    embedding = encode(variables, wave)
    with torch.inference_mode():
        their_wave = torch.from_numpy(wave)
        their_embedding = theirs.encode(their_wave)
        pairs = {
            "encode": (lambda: encode(variables, wave), lambda: theirs.encode(their_wave)),
            "decode": (lambda: decode(variables, embedding), lambda: theirs.decode(their_embedding)),
            "encode+decode": (
                lambda: decode(variables, encode(variables, wave)),
                lambda: theirs.decode(theirs.encode(their_wave)),
            ),
        }
        print_progress(f"against torch: inference, {rounds} rounds")
        taken = {
            name: median_times(dict(zip(("jax", "torch"), pair, strict=True)), rounds) for name, pair in pairs.items()
        }
    work = {name: products(jax.make_jaxpr(f)(variables, x).jaxpr).flops
            for name, f, x in (("encode", encode, wave), ("decode", decode, embedding))}  # fmt: skip
    work["encode+decode"] = sum(work.values())
    peak, rows = matmul_rate("float32"), []
    for name, seconds in taken.items():
        rows += _rows(f"inference/{name}", seconds)
        rows.append(Row(f"inference/{name}/jax/of_matmul_rate", 100 * work[name] / seconds["jax"] / peak, "%"))
    return rows


def use_all_cores() -> None:
    """Let PyTorch use all cores, as JAX does. Raises UserError if JAX does not compute on the CPU."""
    if jax.default_backend() != "cpu":
        raise UserError(f"--against torch compares on the CPU, but JAX uses {jax.default_backend()}; "
                        "set JAX_PLATFORMS=cpu")  # fmt: skip
    torch.set_num_threads(os.cpu_count())


def _rows(name: str, taken: dict[str, float], prefix: str = "") -> list[Row]:
    ours, theirs = (taken[f"{prefix}{side}"] for side in ("jax", "torch"))
    return [
        Row(f"{name}/jax", ours, "s"),
        Row(f"{name}/torch", theirs, "s"),
        Row(f"{name}/ratio", theirs / ours, "times faster than PyTorch"),
    ]


def median_times(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each task (s). Each round runs every task once, starting with a different one each time.

    A first, untimed round warms up. Times include waiting for the results.
    """
    taken, names = {name: [] for name in tasks}, list(tasks)
    for turn in range(-1, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds = timed(lambda: jax.block_until_ready(tasks[name]()))  # noqa: B023
            if turn >= 0:
                taken[name].append(seconds)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}
