"""Codes recordings piece by piece in constant memory, with the same result as for the whole recording.

A causal network keeps a state: the last inputs of its convolutions and the carry of its LSTM. The pure functions
`encode_step` and `decode_step` take one frame (20 ms) or several at a time and return its codes or samples. The
spectral family looks one frame ahead, so a step returns the codes of the previous frame, and silence must follow the
last frame of a recording.

A non-causal network looks ahead, and its bidirectional LSTM sees the whole recording. Its convolutions run on windows
that overlap by their receptive field. Between them, the LSTM's input goes to a temporary file, 1.5 to 6 kB per frame,
which is read alternately forwards and backwards (`_in_sweeps`). No output comes before the recording has ended, but
memory stays constant.

`Chunked` handles both. The results equal those for the whole recording up to float rounding, so the codes are the same
unless two codebook entries are equally near within that rounding.
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
    followed_by_silence,
    in_groups,
    in_padded_groups,
    joined,
    read_back,
    spill,
    to_numpy,
    whole_frames,
    without_first,
)

GROUPS = (256, 32, 4, 1)

State = dict  # arrays of the collection `stream`, see codec/layers.py


# --- causal: one step -------------------------------------------------------------------------------------------------


def latency(config: Model) -> int | None:
    """Algorithmic latency in samples, without compute: how long the first sample of a frame waits for its output.

    One frame for a causal model, plus its lookahead; None for others, which wait for the end of the recording.
    """
    return (1 + lookahead(config)) * config.hop if config.causal else None


def encoder_state(network: DeCodecNetwork, variables: dict, batch: int = 1) -> State:
    """The initial state of a stream for `encode_step`. Raises UserError if the network is not causal."""
    _check_causal(network)
    return _fresh(network.apply, variables, np.zeros((batch, network.config.hop), np.float32), method=_encoded)


def encode_step(network: DeCodecNetwork, variables: dict, state: State, wave: Array) -> tuple[State, Halves[Array]]:
    """Encode a stream's next n frames, `[b, n hop]`: returns the new state, and int32 codes `[b, k, n]` twice.

    Codes come `lookahead(config)` frames late: that many at the start of a stream belong to no frame, and you need to
    send that many frames of silence at its end to get the last codes. n may be any number, but each n is compiled
    separately. Raises UserError for incomplete frames.
    """
    _check_causal(network)
    if wave.shape[1] % network.config.hop:
        raise UserError(f"a piece of {wave.shape[1]} samples is not a whole number of frames of {network.config.hop}")
    return _step(network.apply, variables, state, wave, method=_encoded)


def decoder_state(network: DeCodecNetwork, variables: dict, batch: int = 1) -> State:
    """The initial state of a stream for `decode_step`. Raises UserError if the network is not causal."""
    _check_causal(network)
    codes = (np.zeros((batch, q.levels, 1), np.int32) for q in (network.config.speech, network.config.background))
    return _fresh(network.apply, variables, Halves(*codes), method=_decoded)


def decode_step(network: DeCodecNetwork, variables: dict, state: State, codes: Halves[Array]) -> tuple[State, Array]:
    """Decode a stream's next n frames, codes `[b, k, n]` twice: returns the new state, and samples `[b, n hop]`."""
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
    """An initial state: zeros in the shapes that the state has after `piece`."""
    _, kept = jax.eval_shape(lambda v, x: apply(v, x, mutable="stream", **options), variables, piece)
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), kept["stream"])


# --- causal and non-causal: whole recordings in pieces ----------------------------------------------------------------


class Chunked:
    """A network and its weights, for recordings that come in pieces `[b, n]` of any lengths, as from a microphone:

        chunked = Chunked(network, variables)
        for wave in chunked.decode(chunked.encode(microphone)):  # microphone yields [1, n] for any n
            play(wave)

    A causal network returns each frame as soon as it is complete; others return everything after the last piece.
    Silence fills up an incomplete last frame, as for a whole recording. Output pieces may have other lengths than input
    pieces. Each call begins a new stream, and all calls share the compiled code. Samples are floats, or integers scaled
    by their type.

    groups: numbers of frames that are processed together, from large to small, ending in 1. The largest that fits is
    used, so pieces of any lengths need one compilation for each group. A non-causal network needs memory for the
    largest group, and some for each group in a recording. Groups much smaller than its receptive field cost time.

    at_once: False lets a causal network collect frames for its largest group, which is faster. At the end, the rest is
    filled up to groups of the second size, so a recording of any length needs at most two compilations of each stage.
    """

    def __init__(self, network: DeCodecNetwork, variables: dict, groups: tuple[int, ...] = GROUPS):
        self.config = network.config
        self._variables = variables
        self._groups = groups
        self._apply = jax.jit(network.apply, static_argnames=("method", "mutable", "then"))
        self._passes = FAMILIES[self.config.family].passes(self.config)

    def embed(self, waves: Iterable[np.ndarray], at_once: bool = True) -> Iterator[Halves[np.ndarray]]:
        """Speech and background embeddings before quantization: pieces `[b, n]` to pieces `[b, f, d]` twice."""
        return to_numpy(self._analyse(waves, at_once, then=_unchanged))

    def encode(self, waves: Iterable[np.ndarray], at_once: bool = True) -> Iterator[Halves[np.ndarray]]:
        """The codes of a recording: pieces `[b, n]` to int32 pieces `[b, k, f]` twice, coarse levels first."""
        return (_swapped(codes) for codes in to_numpy(self._analyse(waves, at_once, then=_codes)))

    def encode_with_latents(
        self, waves: Iterable[np.ndarray], at_once: bool = True
    ) -> Iterator[tuple[Halves[np.ndarray], np.ndarray]]:
        """`encode`, and the speech embedding before quantization, `[b, f, d]`, in one pass."""
        analysed = to_numpy(self._analyse(waves, at_once, then=_codes_and_latents))
        return ((_swapped(codes), latents) for codes, latents in analysed)

    def decode(
        self, codes: Iterable[Halves[np.ndarray]], length: int | None = None, at_once: bool = True
    ) -> Iterator[np.ndarray]:
        """Decode codes to a recording: pieces `[b, k, f]` twice, any k from 1 to all levels, to pieces `[b, n]`.

        length: samples of the whole recording, to cut off the silence that filled up its last frame.
        """
        given = 0
        for wave in self._synthesise(map(_swapped, codes), at_once, then=_vectors):
            yield wave if length is None else wave[:, : max(length - given, 0)]
            given += wave.shape[1]

    def synthesise(self, embeddings: Iterable[Halves[np.ndarray]], at_once: bool = True) -> Iterator[np.ndarray]:
        """Decode embeddings, as `embed` returns them, to a recording: pieces `[b, f, d]` twice to pieces `[b, n]`."""
        return self._synthesise(embeddings, at_once, then=_recombined)

    def _analyse(self, waves: Iterable[np.ndarray], at_once: bool, then: Callable) -> Iterator[Frames]:
        """Encode pieces of a waveform `[b, n]`, and apply `then(network, halves)` to the embeddings."""
        late = lookahead(self.config)
        frames = followed_by_silence(whole_frames(waves, self.config.hop), late)
        if self.config.causal:
            return without_first(self._with_state(frames, at_once, method=_encoder_stage, then=then), late)
        passes = self._passes.encoder
        features = self._in_windows(frames, passes.front, method=_encoder_front)
        if passes.lstm_layers:
            features = self._in_sweeps(features, "encoder", passes.lstm_layers)
        return without_first(self._in_windows(features, passes.back, method=_encoder_back, then=then), late)

    def _synthesise(self, pieces: Iterable[Frames], at_once: bool, then: Callable) -> Iterator[np.ndarray]:
        """Turn each piece into an embedding by `then(network, piece)`, and decode it to pieces `[b, n]`."""
        if self.config.causal:
            frames = self._with_state(pieces, at_once, method=_decoder_stage, then=then)
        else:
            passes = self._passes.decoder
            features = self._in_windows(pieces, passes.front, method=_decoder_front, then=then)
            if passes.lstm_layers:
                features = self._in_sweeps(features, "decoder", passes.lstm_layers)
            frames = self._in_windows(features, passes.back, method=_decoder_back)
        return (wave.reshape(wave.shape[0], -1) for wave in to_numpy(frames))

    def _with_state(self, pieces: Iterable[Frames], at_once: bool, **options) -> Iterator[Frames]:
        """Run a stage of a causal network, passing its state from piece to piece."""
        grouped = in_groups(pieces, self._groups) if at_once else in_padded_groups(pieces, self._groups[:2])
        state = None
        for piece, count in grouped:
            if state is None:
                state = _fresh(self._apply, self._variables, piece, **options)
            state, output = _step(self._apply, self._variables, state, piece, **options)
            yield output if count == count_of(output) else cut(output, 0, count)

    def _in_windows(
        self, pieces: Iterable[Frames], context: int, groups: tuple[int, ...] | None = None, **options
    ) -> Iterator[Frames]:
        """Run a stage of convolutions that see `context` frames on each side.

        Windows overlap, and each output frame is taken from a window that holds its whole context. All windows have the
        same size; the last one overlaps more. A recording shorter than a window uses windows of the next smaller group,
        so that all lengths beyond a few frames share compiled code.
        """
        block, *smaller = groups or self._groups
        window = block + 2 * context
        # frames from the next window's start on, the block before them, and how many frames of `held` are done
        held, before, given = None, None, 0
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
        """Run the bidirectional LSTM of the encoder or decoder: pieces `[b, f, c]` to pieces `[b, f, c]`.

        A piece needs the carries that enter it: the forward ones from its left and the backward ones from its right.
        Sweeps run over all pieces, in alternating directions. Each sweep passes the carries of its own direction on and
        stores them for every piece. For the other direction it uses the carries that the previous sweep stored. After
        the n-th sweep, the first n layers are correct in its own direction, because they only need the first n - 1
        layers to be correct in both directions, which the previous sweep has ensured. So one sweep more than there are
        layers gives the output. The last sweep runs forwards and yields it in order.
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


# --- stages of the network, frames in and frames out; `then` converts to or from embeddings ---------------------------


def _encoder_stage(network: DeCodecNetwork, frames: Array, then: Callable) -> Frames:
    return then(network, network.split(network.encoder(frames.reshape(frames.shape[0], -1))))


def _encoder_front(network: DeCodecNetwork, frames: Array) -> Array:
    return network.encoder.front(frames.reshape(frames.shape[0], -1))


def _encoder_back(network: DeCodecNetwork, features: Array, then: Callable) -> Frames:
    return then(network, network.split(network.encoder.back(features)))


def _decoder_stage(network: DeCodecNetwork, piece: Frames, then: Callable) -> Array:
    return _framed(network, network.decoder(then(network, piece)))


def _decoder_front(network: DeCodecNetwork, piece: Frames, then: Callable) -> Array:
    return network.decoder.front(then(network, piece))


def _decoder_back(network: DeCodecNetwork, features: Array) -> Array:
    return _framed(network, network.decoder.back(features))


def _framed(network: DeCodecNetwork, wave: Array) -> Array:
    return wave.reshape(wave.shape[0], -1, network.config.hop)


def _swapped(codes: Halves) -> Halves:
    """`[b, k, f]` to `[b, f, k]`, and back."""
    return Halves(*(c.swapaxes(1, 2) for c in codes))


def _unchanged(network: DeCodecNetwork, embeddings: Frames) -> Frames:
    return embeddings


def _codes(network: DeCodecNetwork, halves: Halves[Array]) -> Halves[Array]:
    return _swapped(Halves(*(quantized.codes for quantized in network.quantize(halves))))


def _codes_and_latents(network: DeCodecNetwork, halves: Halves[Array]) -> tuple[Halves[Array], Array]:
    return _codes(network, halves), halves.speech


def _vectors(network: DeCodecNetwork, codes: Halves[Array]) -> Array:
    return network.recombine(network.vectors(_swapped(codes)))


def _recombined(network: DeCodecNetwork, halves: Halves[Array]) -> Array:
    return network.recombine(halves)
