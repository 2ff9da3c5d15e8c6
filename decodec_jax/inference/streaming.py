"""Recordings piece by piece: the codes and samples of the whole recording, in constant memory.

A causal network keeps a state: the last inputs of its convolutions and the carry of its LSTM. One frame (20 ms) goes in
and its codes come out, and the other way round. `encode_step` and `decode_step` are pure functions that do this. The
spectral family looks one frame ahead, so a step returns the codes of the frame before, and silence must follow the last
frame of a recording.

A non-causal network looks ahead, and its bidirectional LSTM sees the whole recording. Its convolutions run on windows
that overlap by their receptive field. Between them, the LSTM's input goes to a temporary file, 1.5 to 6 kB a frame,
which is read forwards and backwards in turn (`_in_sweeps`). No output comes before the recording has ended, but memory
stays constant.

`Chunked` handles both. The results equal those of the whole recording up to float rounding, so the codes are the same
unless two codebook entries are equally near to within that rounding.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import jax
import numpy as np
from jax import Array

from decodec_jax.codec.lstm import LSTM
from decodec_jax.codec.model import FAMILIES, DeCodecNetwork, Halves, lookahead
from decodec_jax.config import Model
from decodec_jax.errors import UserError
from decodec_jax.inference.pieces import (
    Frames,
    count_of,
    cut,
    filled,
    followed_by_silence,
    in_groups,
    joined,
    read_back,
    spill,
    to_numpy,
    whole_frames,
    without_first,
)

GROUPS = (256, 32, 4, 1)

State = dict  # of arrays: the collection `stream` of codec/layers.py


# --- causal: one step -------------------------------------------------------------------------------------------------


def latency(config: Model) -> int | None:
    """Algorithmic latency in samples, without compute: how long the first sample of a frame waits for its output.

    One frame for a causal model, plus its lookahead; None for others, which wait for the end of the recording.
    """
    return (1 + lookahead(config)) * config.hop if config.causal else None


def encoder_state(network: DeCodecNetwork, variables: dict, batch: int = 1) -> State:
    """The state in which `encode_step` begins a stream. Raises UserError if the network is not causal."""
    _check_causal(network)
    return _fresh(network.apply, variables, np.zeros((batch, network.config.hop), np.float32), method=_encoded)


def encode_step(network: DeCodecNetwork, variables: dict, state: State, wave: Array) -> tuple[State, Halves[Array]]:
    """Codes of a stream's next frames: `[b, n hop]` to the state after them and int32 `[b, k, n]` twice.

    Codes come `lookahead(config)` frames late: that many at the start of a stream belong to no frame, and that many
    frames of silence at its end give the last codes. n may be any number, but each n is compiled once. Raises UserError
    for parts of frames.
    """
    _check_causal(network)
    if wave.shape[1] % network.config.hop:
        raise UserError(f"a piece of {wave.shape[1]} samples is not a whole number of frames of {network.config.hop}")
    return _step(network.apply, variables, state, wave, method=_encoded)


def decoder_state(network: DeCodecNetwork, variables: dict, batch: int = 1) -> State:
    """The state in which `decode_step` begins a stream. Raises UserError if the network is not causal."""
    _check_causal(network)
    codes = (np.zeros((batch, q.levels, 1), np.int32) for q in (network.config.speech, network.config.background))
    return _fresh(network.apply, variables, Halves(*codes), method=_decoded)


def decode_step(network: DeCodecNetwork, variables: dict, state: State, codes: Halves[Array]) -> tuple[State, Array]:
    """Samples of a stream's next frames: codes `[b, k, n]` twice to the state after them and `[b, n hop]`."""
    _check_causal(network)
    return _step(network.apply, variables, state, codes, method=_decoded)


def _encoded(network: DeCodecNetwork, wave: Array) -> Halves[Array]:
    return Halves(*(quantized.codes for quantized in network.quantize(network.split(network.encoder(wave)))))


def _decoded(network: DeCodecNetwork, codes: Halves[Array]) -> Array:
    return network.decoder(network.recombine(network.vectors(codes)))


def _check_causal(network: DeCodecNetwork) -> None:
    if not network.config.causal:
        raise UserError("this model is not causal, so it codes no frame before the recording has ended; "
                        "stream with a causal one, or process recordings in pieces with `Chunked`")


def _step(apply: Callable, variables: dict, state: State, piece: Frames, **options) -> tuple[State, Frames]:
    output, kept = apply({**variables, "stream": state}, piece, mutable="stream", **options)
    return kept["stream"], output


def _fresh(apply: Callable, variables: dict, piece: Frames, **options) -> State:
    """Zeros, in the shape that the state has after a piece."""
    _, kept = jax.eval_shape(lambda v, x: apply(v, x, mutable="stream", **options), variables, piece)
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), kept["stream"])


# --- both variants ----------------------------------------------------------------------------------------------------


class Chunked:
    """A network and its weights, for recordings that come in pieces `[b, n]` of any lengths, as from a microphone:

        chunked = Chunked(network, variables)
        for wave in chunked.decode(chunked.encode(microphone)):  # microphone yields [1, n] for any n
            play(wave)

    A causal network returns each frame as soon as it is complete; others return all after the last piece. Silence fills
    up an incomplete last frame, as for a whole recording. The output comes in pieces of other lengths. Each call
    begins a new stream, and all calls share the compiled code. Samples are floats, or integers scaled by their type.

    groups: numbers of frames that are processed together, from large to small, ending in 1. The largest that fits is
    used, so pieces of all lengths need one compilation for each group. A non-causal network needs memory for the
    largest group, and some for each group in a recording; groups much smaller than its receptive field cost time.

    at_once: False lets a causal network wait for its largest groups, which is faster. At the end, the rest is filled up
    to groups of the second size, so a recording of any length needs at most two compilations of each stage.
    """

    def __init__(self, network: DeCodecNetwork, variables: dict, groups: tuple[int, ...] = GROUPS):
        self.config = network.config
        self._variables = variables
        self._groups = groups
        self._apply = jax.jit(network.apply, static_argnames=("method", "mutable", "then"))
        self._passes = FAMILIES[self.config.family].passes(self.config)

    def embed(self, waves: Iterable[np.ndarray], at_once: bool = True) -> Iterator[Halves[np.ndarray]]:
        """Speech and background embeddings before quantization: pieces `[b, n]` to pieces `[b, f, d]` twice."""
        return to_numpy(self._analyse(waves, at_once, then=_itself))

    def encode(self, waves: Iterable[np.ndarray], at_once: bool = True) -> Iterator[Halves[np.ndarray]]:
        """Codes of a recording: pieces `[b, n]` to pieces int32 `[b, k, f]` twice, coarse levels first."""
        return (_swapped(codes) for codes in to_numpy(self._analyse(waves, at_once, then=_codes)))

    def decode(
        self, codes: Iterable[Halves[np.ndarray]], length: int | None = None, at_once: bool = True
    ) -> Iterator[np.ndarray]:
        """The recording of codes: pieces `[b, k, f]` twice, any k from 1 to all levels, to pieces `[b, n]`.

        length: samples of the whole recording, without the silence that filled up its last frame.
        """
        given = 0
        for wave in self._synthesise(map(_swapped, codes), at_once, then=_vectors):
            yield wave if length is None else wave[:, : max(length - given, 0)]
            given += wave.shape[1]

    def synthesise(self, embeddings: Iterable[Halves[np.ndarray]], at_once: bool = True) -> Iterator[np.ndarray]:
        """The recording of embeddings, as `embed` gives them: pieces `[b, f, d]` twice to pieces `[b, n]`."""
        return self._synthesise(embeddings, at_once, then=_recombined)

    def _analyse(self, waves: Iterable[np.ndarray], at_once: bool, then: Callable) -> Iterator[Frames]:
        """Pieces of a waveform, in frames, as far as `then` makes of their embeddings."""
        late = lookahead(self.config)
        frames = followed_by_silence(whole_frames(waves, self.config.hop), late)
        if self.config.causal:
            return without_first(self._carried(frames, at_once, method=_analysed, then=then), late)
        passes = self._passes.encoder
        features = self._in_windows(frames, passes.front, method=_heard)
        if passes.lstm_layers:
            features = self._in_sweeps(features, "encoder", passes.lstm_layers)
        return without_first(self._in_windows(features, passes.back, method=_concluded, then=then), late)

    def _synthesise(self, pieces: Iterable[Frames], at_once: bool, then: Callable) -> Iterator[np.ndarray]:
        """Pieces `[b, n]` of the waveform of what `then` makes embeddings of."""
        if self.config.causal:
            frames = self._carried(pieces, at_once, method=_synthesised, then=then)
        else:
            passes = self._passes.decoder
            features = self._in_windows(pieces, passes.front, method=_prepared, then=then)
            if passes.lstm_layers:
                features = self._in_sweeps(features, "decoder", passes.lstm_layers)
            frames = self._in_windows(features, passes.back, method=_sounded)
        return (wave.reshape(wave.shape[0], -1) for wave in to_numpy(frames))

    def _carried(self, pieces: Iterable[Frames], at_once: bool, **options) -> Iterator[Frames]:
        """A stage of a causal network, its state handed on from piece to piece."""
        grouped = in_groups(pieces, self._groups) if at_once else filled(pieces, self._groups[:2])
        state = None
        for piece, count in grouped:
            if state is None:
                state = _fresh(self._apply, self._variables, piece, **options)
            state, output = _step(self._apply, self._variables, state, piece, **options)
            yield output if count == count_of(output) else cut(output, 0, count)

    def _in_windows(
        self, pieces: Iterable[Frames], context: int, groups: tuple[int, ...] | None = None, **options
    ) -> Iterator[Frames]:
        """A stage of convolutions that hear `context` frames to either side.

        What lies so close to a cut is heard by both windows and kept from the one that hears it all. All windows are
        of one size, the last overlapping more. A recording that is shorter takes windows of the next smaller group, so
        that lengths beyond a few frames share what is compiled.
        """
        block, *smaller = groups or self._groups
        window = block + 2 * context
        held, before, given = None, None, 0  # frames from the next window's start, those before it, how many are done
        for piece in pieces:
            held = piece if held is None else joined([held, piece])
            while count_of(held) > window:
                yield cut(self._applied(cut(held, 0, window), **options), given, window - context)
                before, held, given = cut(held, 0, block), cut(held, block, None), context
        if held is None:
            return
        if before is None and smaller and count_of(held) < window:
            yield from self._in_windows([held], context, tuple(smaller), **options)
            return
        left = count_of(held) - given
        if before is not None:
            held = cut(joined([before, held]), -window, None)
        yield cut(self._applied(held, **options), -left, None)

    def _applied(self, piece: Frames, **options) -> Frames:
        return jax.tree.map(np.asarray, self._apply(self._variables, piece, **options))

    def _in_sweeps(self, pieces: Iterable[np.ndarray], side: str, layers: int) -> Iterator[np.ndarray]:
        """The bidirectional LSTM of the encoder or decoder: pieces `[b, f, c]` to pieces `[b, f, c]`.

        A piece needs the carries that enter it, forward ones from its left and backward ones from its right. Sweeps run
        through all pieces, this way and that. Each hands the carries of its own direction on, remembers them, and takes
        those of the other direction as the sweep before remembered them. The n-th sweep is right about n layers in its
        own direction, since these need only the n - 1 below them right in both, which the sweep before has seen to.
        So one sweep more than there are layers gives the output. The last runs forwards, and gives it in order.
        """
        lstm, apply = {"params": self._variables["params"][side]["lstm"]}, self._lstm(layers)
        with tempfile.TemporaryFile(buffering=0) as file:
            places = spill(file, (piece for piece, _ in in_groups(pieces, self._groups)))
            if not places:
                return
            zeros = _fresh(apply, lstm, read_back(file, places[0]))
            known = [zeros] * len(places)
            for sweep in reversed(range(layers + 1)):
                way, order = ("backward", reversed) if sweep % 2 else ("forward", iter)
                travelling = {name: carry for name, carry in zeros.items() if name.startswith(way)}
                for i in order(range(len(places))):
                    known[i] = known[i] | travelling
                    after, output = _step(apply, lstm, known[i], read_back(file, places[i]))
                    travelling = {name: after[name] for name in travelling}
                    if sweep == 0:
                        yield np.asarray(output)

    @staticmethod
    @cache
    def _lstm(layers: int) -> Callable:
        return jax.jit(LSTM(layers, True).apply, static_argnames="mutable")


# --- stages of the network, frames in and frames out; `then` makes something of embeddings ----------------------------


def _analysed(network: DeCodecNetwork, frames: Array, then: Callable) -> Frames:
    return then(network, network.split(network.encoder(frames.reshape(frames.shape[0], -1))))


def _heard(network: DeCodecNetwork, frames: Array) -> Array:
    return network.encoder.front(frames.reshape(frames.shape[0], -1))


def _concluded(network: DeCodecNetwork, features: Array, then: Callable) -> Frames:
    return then(network, network.split(network.encoder.back(features)))


def _synthesised(network: DeCodecNetwork, piece: Frames, then: Callable) -> Array:
    return _framed(network, network.decoder(then(network, piece)))


def _prepared(network: DeCodecNetwork, piece: Frames, then: Callable) -> Array:
    return network.decoder.front(then(network, piece))


def _sounded(network: DeCodecNetwork, features: Array) -> Array:
    return _framed(network, network.decoder.back(features))


def _framed(network: DeCodecNetwork, wave: Array) -> Array:
    return wave.reshape(wave.shape[0], -1, network.config.hop)


def _swapped(codes: Halves) -> Halves:
    """`[b, k, f]` to `[b, f, k]`, and back."""
    return Halves(*(c.swapaxes(1, 2) for c in codes))


def _itself(network: DeCodecNetwork, embeddings: Frames) -> Frames:
    return embeddings


def _codes(network: DeCodecNetwork, halves: Halves[Array]) -> Halves[Array]:
    return _swapped(Halves(*(quantized.codes for quantized in network.quantize(halves))))


def _vectors(network: DeCodecNetwork, codes: Halves[Array]) -> Array:
    return network.recombine(network.vectors(_swapped(codes)))


def _recombined(network: DeCodecNetwork, halves: Halves[Array]) -> Array:
    return network.recombine(halves)
