"""The same network and loss in JAX and in PyTorch, in turn: how many times faster ours is.

What is compared is what both sides have: encoder and decoder, between them nothing. In training, the step is waveform
and multi-scale mel distance of the reconstruction, forward, backward, clipping and AdamW's update, on one batch of as
many clips; ours is the real step of training/step.py, which also keeps the average of the weights and checks that all
is finite. In inference, one clip goes through the encoder, and its embedding through the decoder.

PyTorch's network is transformers' DacModel where the config has DAC's shape, its LSTM and mask left out on our side;
else encoder and decoder of interop/torch_model.py, with all the config asks for. DacModel is as transformers makes it,
without weight normalisation, of which ours and torch_model compute each kernel anew in every pass: ours does more.
PyTorch runs eagerly on all cores, with AdamW's fused form. Both are in float32. Ours counts on malloc to keep what a
step frees (training/memory.py); that is set for the process, so PyTorch has it too. On a machine with other work
PyTorch's threads wait for each other, and the ratios flatter ours: compare on an idle one.

This file alone needs torch and transformers.
"""

import copy
import dataclasses
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DacConfig, DacModel

from decodec_jax.codec.model import DeCodecNetwork, initialise
from decodec_jax.config import Config, Loss, Mesh, Model, Quantizer
from decodec_jax.errors import UserError
from decodec_jax.evaluation.speed import Row, matmul_rate, noise, say, timed
from decodec_jax.evaluation.train_speed import SyntheticRun
from decodec_jax.interop import torch_model
from decodec_jax.objective import spectral
from decodec_jax.training.cost import products

NEVER = 2**30  # steps


class Stacks(NamedTuple):
    """A codec in PyTorch without what lies between encoder and decoder."""

    encode: Callable[[Tensor], Tensor]  # waveform [b, t], t whole frames, to an embedding
    decode: Callable[[Tensor], Tensor]  # the embedding to [b, t], or some samples less
    parameters: list[nn.Parameter]


# --- what is compared -----------------------------------------------------------------------------------------------


def is_dac(model: Model) -> bool:
    """Whether the convolutions are those of a DacModel of some width."""
    sizes = (model.patch, model.kernel, tuple(model.dilations), model.causal)
    return sizes == (1, 7, (1, 3, 9), False) and model.latent == model.channels * 2 ** len(model.strides)


def comparable(config: Config) -> Config:
    """The config of what both sides have: one decoded waveform, its two losses, no quantizers, one device."""
    config, loss = copy.deepcopy(config), config.loss
    unused = Quantizer(levels=1, entries=2)  # bypassed throughout
    config.model = dataclasses.replace(
        config.model, projection="none", semantic=0, speech=unused, background=unused, dtype="float32",
        **({"lstm_layers": 0, "mask": False} if is_dac(config.model) else {}),
    )  # fmt: skip
    config.loss = Loss(
        wave_own=loss.wave_own, mel_own=loss.mel_own, mel_windows=loss.mel_windows, mel_bands=loss.mel_bands,
        wave_swap=0, mel_swap=0, perp=0, guidance=0, adversarial=0, feature=0,
    )  # fmt: skip
    config.mesh = Mesh(data=1)
    config.train.continuous_steps, config.train.accumulate, config.train.remat = NEVER, 1, False
    config.data.seconds = whole_frames(config.model, config.data.seconds)
    return config


def whole_frames(model: Model, seconds: float) -> float:
    """The duration rounded to frames, one at least."""
    return max(1, round(seconds * model.sample_rate / model.hop)) * model.hop / model.sample_rate


def stacks(model: Model) -> Stacks:
    """PyTorch's side of a comparable model, with random weights."""
    if not is_dac(model):
        config = torch_model.Model(**dataclasses.asdict(model))
        encoder, decoder = torch_model.Encoder(config), torch_model.Decoder(config)
        return Stacks(encoder, decoder, [*encoder.parameters(), *decoder.parameters()])
    dac = DacModel(DacConfig(
        encoder_hidden_size=model.channels, downsampling_ratios=list(model.strides),
        decoder_hidden_size=model.decoder_channels, sampling_rate=model.sample_rate,
    ))  # fmt: skip
    return Stacks(
        lambda wave: dac.encoder(wave[:, None]),
        lambda embedding: dac.decoder(embedding)[:, 0],
        [*dac.encoder.parameters(), *dac.decoder.parameters()],
    )


def mel_distance(rate: int, windows: tuple[int, ...], bands: tuple[int, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    """`spectral.mel_distance` in PyTorch, a function of output and target `[b, t]`, averaged over the batch."""
    scales = []
    for window, count in zip(windows, bands, strict=True):
        filters = spectral.mel_filters(rate, window, count)
        floor = 10 ** np.asarray(spectral.log_mel(jnp.zeros((1, window)), rate, window, count))[0, 0]  # all of silence
        scales.append((window, torch.from_numpy(filters.T.copy()), torch.tensor(floor)[:, None]))

    def log_mel(wave: Tensor, window: int, filters: Tensor, floor: Tensor) -> Tensor:
        hop = window // 4
        spectrum = torch.stft(
            F.pad(wave, (0, -wave.shape[-1] % hop)), window, hop, window=torch.hann_window(window),
            pad_mode="constant", return_complex=True,
        )  # fmt: skip
        magnitudes = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-10)
        return torch.log10(torch.maximum(filters @ magnitudes, floor))

    def distance(output: Tensor, target: Tensor) -> Tensor:
        return sum((log_mel(output, *scale) - log_mel(target, *scale)).abs().mean() for scale in scales)

    return distance


# --- the comparisons ------------------------------------------------------------------------------------------------


def training(config: Config, rounds: int) -> list[Row]:
    """A step on two clips for each of `data.batch`, as ours takes them, of `data.seconds` in whole frames each."""
    ready()
    config = comparable(config)
    ours = SyntheticRun(config, from_step=0)
    say(f"against torch: our step compiled in {ours.compile_time:.0f} s")
    theirs = training_step(config)
    return _rows({f"train/{config.variant}": (ours.step, theirs)}, rounds)


def training_step(config: Config) -> Callable[[], Tensor]:
    """PyTorch's step of a comparable config, on a batch of noise; gives the loss."""
    loss, optim, model = config.loss, config.optim, stacks(config.model)
    clips, t = 2 * config.data.batch, round(config.data.seconds * config.model.sample_rate)
    wave = torch.from_numpy(noise(clips * t, 1).reshape(clips, t))
    optimizer = torch.optim.AdamW(model.parameters, optim.lr, optim.betas, weight_decay=optim.weight_decay, fused=True)
    mel = mel_distance(config.model.sample_rate, loss.mel_windows, loss.mel_bands)

    def step() -> Tensor:
        optimizer.zero_grad()
        output = model.decode(model.encode(wave))
        target = wave[:, : output.shape[-1]]
        total = loss.wave_own * (output - target).abs().mean() + loss.mel_own * mel(output, target)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters, optim.clip)
        optimizer.step()
        return total.detach()

    return step


def inference(config: Config, seconds: float, rounds: int) -> list[Row]:
    """Encoder and decoder on one clip of whole frames, and the share of the machine's own rate that ours reach."""
    ready()
    model = comparable(config).model
    say(f"against torch: compiling encoder and decoder for {seconds:g} s")
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
        tasks = {
            "encode": (lambda: encode(variables, wave), lambda: theirs.encode(their_wave)),
            "decode": (lambda: decode(variables, embedding), lambda: theirs.decode(their_embedding)),
            "encode+decode": (
                lambda: decode(variables, encode(variables, wave)),
                lambda: theirs.decode(theirs.encode(their_wave)),
            ),
        }
        rows = _rows({f"inference/{name}": pair for name, pair in tasks.items()}, rounds)
    work = {name: products(jax.make_jaxpr(f)(variables, x).jaxpr).flops
            for name, f, x in (("encode", encode, wave), ("decode", decode, embedding))}  # fmt: skip
    work["encode+decode"] = sum(work.values())
    taken, peak = {row.name: row.value for row in rows}, matmul_rate(model.dtype)
    return rows + [
        Row(f"inference/{name}/jax/of_matmul_rate", 100 * work[name] / taken[f"inference/{name}/jax"] / peak, "%")
        for name in tasks
    ]


def ready() -> None:
    """Give PyTorch all cores, as JAX has them. Raises UserError where JAX does not compute on the CPU."""
    if jax.default_backend() != "cpu":
        raise UserError(f"--against torch compares on CPUs, jax uses {jax.default_backend()}; set JAX_PLATFORMS=cpu")
    torch.set_num_threads(os.cpu_count())


def _rows(tasks: dict[str, tuple[Callable, Callable]], rounds: int) -> list[Row]:
    rows = []
    for name, (ours, theirs) in tasks.items():
        say(f"against torch: {name}, {rounds} rounds")
        ours_taken, theirs_taken = in_turn(lambda: jax.block_until_ready(ours()), theirs, rounds)  # noqa: B023
        rows += [
            Row(f"{name}/jax", ours_taken, "s"),
            Row(f"{name}/torch", theirs_taken, "s"),
            Row(f"{name}/ratio", theirs_taken / ours_taken, "times faster than PyTorch"),
        ]
    return rows


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians of what both take (s), each once a round and each first in every other round; once before, untimed."""
    taken: dict[Callable, list[float]] = {ours: [], theirs: []}
    for turn in range(-1, rounds):
        for task in (ours, theirs) if turn % 2 else (theirs, ours):
            seconds = timed(task)
            if turn >= 0:
                taken[task].append(seconds)
    return float(np.median(taken[ours])), float(np.median(taken[theirs]))
