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

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from decodec_jax import arrays
from decodec_jax.codec.layers import LSTM
from decodec_jax.codec.model import FAMILIES, DeCodecNetwork, Halves, lookahead
from decodec_jax.config import Model
from decodec_jax.errors import UserError

PARTS = ("mixture", "speech", "background")
GROUPS = (256, 32, 4, 1)

State = dict  # of arrays: the collection `stream` of codec/layers.py
Frames = Any  # one array or a tuple; axis 1 counts frames, so a waveform is [b, f, hop] here, and codes are [b, f, k]


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
        for part in chunked.take_apart(microphone, ("speech",)):  # microphone yields [1, n] for any n
            play(part["speech"])

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
        self._apply = jax.jit(network.apply, static_argnames=("method", "mutable", "then", "parts", "active"))
        self._passes = FAMILIES[self.config.family].passes(self.config)

    def embed(self, waves: Iterable[np.ndarray], at_once: bool = True) -> Iterator[Halves[np.ndarray]]:
        """Speech and background embeddings before quantization: pieces `[b, n]` to pieces `[b, f, d]` twice."""
        return _to_numpy(self._analyse(waves, at_once, then=_itself))

    def encode(self, waves: Iterable[np.ndarray], at_once: bool = True) -> Iterator[Halves[np.ndarray]]:
        """Codes of a recording: pieces `[b, n]` to pieces int32 `[b, k, f]` twice, coarse levels first."""
        return (_swapped(codes) for codes in _to_numpy(self._analyse(waves, at_once, then=_codes)))

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

    def take_apart(
        self,
        waves: Iterable[np.ndarray],
        parts: tuple[str, ...] = PARTS,
        active: Halves[int] | None = None,
        at_once: bool = True,
    ) -> Iterator[dict[str, np.ndarray]]:
        """A recording's parts through the quantizers (paper section 3), by name: pieces `[b, n]` to pieces `[b, n]`.

        The codes of silence of the same length replace the part that is left out. These codes change while the network
        settles, so silence is encoded as a recording of its own beside the others.

        active: how many levels each half uses; 0 bypasses its quantizer; None: all.
        """
        heard = given = 0

        def with_silence() -> Iterator[np.ndarray]:
            nonlocal heard
            for wave in _checked(waves):
                heard += wave.shape[1]
                yield np.concatenate([wave, np.zeros_like(wave[:1])])

        latents = self._analyse(with_silence(), at_once, then=_recombined, parts=tuple(parts), active=active)
        for wave in self._synthesise(latents, at_once, then=_itself):
            wave = wave[:, : heard - given]
            given += wave.shape[1]
            yield dict(zip(parts, np.split(wave, len(parts)), strict=True))

    def _analyse(self, waves: Iterable[np.ndarray], at_once: bool, **then) -> Iterator[Frames]:
        """Pieces of a waveform, in frames, as far as `then` makes of their embeddings."""
        late = lookahead(self.config)
        frames = _followed_by_silence(_whole_frames(waves, self.config.hop), late)
        if self.config.causal:
            return _without_first(self._carried(frames, at_once, method=_analysed, **then), late)
        passes = self._passes.encoder
        features = self._in_windows(frames, passes.front, method=_heard)
        if passes.lstm_layers:
            features = self._in_sweeps(features, "encoder", passes.lstm_layers)
        return _without_first(self._in_windows(features, passes.back, method=_concluded, **then), late)

    def _synthesise(self, pieces: Iterable[Frames], at_once: bool, **then) -> Iterator[np.ndarray]:
        """Pieces `[b, n]` of the waveform of what `then` makes embeddings of."""
        if self.config.causal:
            frames = self._carried(pieces, at_once, method=_synthesised, **then)
        else:
            passes = self._passes.decoder
            features = self._in_windows(pieces, passes.front, method=_prepared, **then)
            if passes.lstm_layers:
                features = self._in_sweeps(features, "decoder", passes.lstm_layers)
            frames = self._in_windows(features, passes.back, method=_sounded)
        return (wave.reshape(wave.shape[0], -1) for wave in _to_numpy(frames))

    def _carried(self, pieces: Iterable[Frames], at_once: bool, **options) -> Iterator[Frames]:
        """A stage of a causal network, its state handed on from piece to piece."""
        grouped = _grouped(pieces, self._groups) if at_once else _filled(pieces, *self._groups[:2])
        state = None
        for piece, count in grouped:
            if state is None:
                state = _fresh(self._apply, self._variables, piece, **options)
            state, output = _step(self._apply, self._variables, state, piece, **options)
            yield output if count == _count(output) else _cut(output, 0, count)

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
            held = piece if held is None else _joined(held, piece)
            while _count(held) > window:
                yield _cut(self._applied(_cut(held, 0, window), **options), given, window - context)
                before, held, given = _cut(held, 0, block), _cut(held, block, None), context
        if held is None:
            return
        if before is None and smaller and _count(held) < window:
            yield from self._in_windows([held], context, tuple(smaller), **options)
            return
        left = _count(held) - given
        if before is not None:
            held = _cut(_joined(before, held), -window, None)
        yield _cut(self._applied(held, **options), -left, None)

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
            places = _spill(file, (piece for piece, _ in _grouped(pieces, self._groups)))
            if not places:
                return
            zeros = _fresh(apply, lstm, _read(file, places[0]))
            known = [zeros] * len(places)
            for sweep in reversed(range(layers + 1)):
                way, order = ("backward", reversed) if sweep % 2 else ("forward", iter)
                travelling = {name: carry for name, carry in zeros.items() if name.startswith(way)}
                for i in order(range(len(places))):
                    known[i] = known[i] | travelling
                    after, output = _step(apply, lstm, known[i], _read(file, places[i]))
                    travelling = {name: after[name] for name in travelling}
                    if sweep == 0:
                        yield np.asarray(output)

    @staticmethod
    @cache
    def _lstm(layers: int) -> Callable:
        return jax.jit(LSTM(layers, True).apply, static_argnames="mutable")


# --- stages of the network, frames in and frames out; `then` makes something of embeddings ----------------------------


def _analysed(network: DeCodecNetwork, frames: Array, then: Callable, **options) -> Frames:
    return then(network, network.split(network.encoder(frames.reshape(frames.shape[0], -1))), **options)


def _heard(network: DeCodecNetwork, frames: Array) -> Array:
    return network.encoder.front(frames.reshape(frames.shape[0], -1))


def _concluded(network: DeCodecNetwork, features: Array, then: Callable, **options) -> Frames:
    return then(network, network.split(network.encoder.back(features)), **options)


def _synthesised(network: DeCodecNetwork, piece: Frames, then: Callable) -> Array:
    return _framed(network, network.decoder(then(network, piece)))


def _prepared(network: DeCodecNetwork, piece: Frames, then: Callable) -> Array:
    return network.decoder.front(then(network, piece))


def _sounded(network: DeCodecNetwork, features: Array) -> Array:
    return _framed(network, network.decoder.back(features))


def _framed(network: DeCodecNetwork, wave: Array) -> Array:
    return wave.reshape(wave.shape[0], -1, network.config.hop)


def _itself(network: DeCodecNetwork, embeddings: Frames) -> Frames:
    return embeddings


def _codes(network: DeCodecNetwork, halves: Halves[Array]) -> Halves[Array]:
    return _swapped(Halves(*(quantized.codes for quantized in network.quantize(halves))))


def _vectors(network: DeCodecNetwork, codes: Halves[Array]) -> Array:
    return network.recombine(network.vectors(_swapped(codes)))


def _recombined(
    network: DeCodecNetwork, halves: Halves[Array], parts: tuple[str, ...], active: Halves[int] | None
) -> Array:
    """What to decode for each part, one after the other: `[b + 1, f, d]` twice, silence last, to `[p b, f, d]`."""
    both = halves
    if active is None or any(active):
        counts = active and Halves(*(jnp.full(halves.speech.shape[0], levels) for levels in active))
        both = Halves(*(quantized.vectors for quantized in network.quantize(halves, counts)))
    own, blank = (jax.tree.map(lambda v, here=here: v[here], both) for here in (np.s_[:-1], np.s_[-1:]))
    recombinations = {
        "mixture": own,
        "speech": own._replace(background=blank.background),
        "background": own._replace(speech=blank.speech),
    }
    return jnp.concatenate([network.recombine(recombinations[part]) for part in parts])


# --- pieces -----------------------------------------------------------------------------------------------------------


def _checked(waves: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for wave in map(arrays.samples, waves):
        if wave.ndim != 2:
            raise UserError(f"a piece of a recording is [b, n], one row a channel; this one has shape {wave.shape}")
        yield wave


def _whole_frames(waves: Iterable[np.ndarray], hop: int) -> Iterator[np.ndarray]:
    """Pieces `[b, n]` of any lengths to pieces `[b, f, hop]`, each as soon as it is full; silence fills the last."""
    held = None
    for wave in _checked(waves):
        held = wave if held is None else np.concatenate([held, wave], axis=1)
        full = held.shape[1] // hop * hop
        if full:
            yield held[:, :full].reshape(held.shape[0], -1, hop)
            held = held[:, full:]
    if held is not None and held.shape[1]:
        yield np.pad(held, ((0, 0), (0, hop - held.shape[1])))[:, None]


def _followed_by_silence(pieces: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Pieces `[b, f, hop]` and, where there were any, `count` frames of zeros after them."""
    piece = None
    for piece in pieces:
        yield piece
    if piece is not None and count:
        yield np.zeros((piece.shape[0], count, piece.shape[2]), piece.dtype)


def _without_first(pieces: Iterable[Frames], count: int) -> Iterator[Frames]:
    """All but the first `count` frames."""
    for piece in pieces:
        dropped = min(count, _count(piece))
        count -= dropped
        if _count(piece) > dropped:
            yield _cut(piece, dropped, None) if dropped else piece


def _grouped(pieces: Iterable[Frames], groups: tuple[int, ...]) -> Iterator[tuple[Frames, int]]:
    """The same frames in pieces of these sizes only, and their sizes."""
    for piece in pieces:
        if _count(piece) in groups:
            yield piece, _count(piece)  # as it is: cutting it would take it off its device
            continue
        done = 0
        for group in groups:
            while _count(piece) - done >= group:
                yield _cut(piece, done, done + group), group
                done += group


def _filled(pieces: Iterable[Frames], large: int, small: int | None = None) -> Iterator[tuple[Frames, int]]:
    """The same frames in large pieces, then small ones, the last filled up with zeros; and how many frames are theirs.

    small: as the large ones when None.
    """
    held = None
    for piece in pieces:
        held = piece if held is None else _joined(held, piece)
        while _count(held) >= large:
            yield _cut(held, 0, large), large
            held = _cut(held, large, None)
    small = small or large
    while held is not None and (count := min(_count(held), small)):
        piece, held = _cut(held, 0, small), _cut(held, small, None)
        yield jax.tree.map(lambda a, missing=small - count: _longer(a, missing), piece), count


def _longer(array: np.ndarray, count: int) -> np.ndarray:
    """`[b, f, ...]` and `count` frames of zeros."""
    return np.pad(array, [(0, 0), (0, count), *[(0, 0)] * (array.ndim - 2)])


def _count(piece: Frames) -> int:
    return jax.tree.leaves(piece)[0].shape[1]


def _cut(piece: Frames, first: int | None, last: int | None) -> Frames:
    """Some of the frames, on the host: on a device, each cut would cost a compilation."""
    return jax.tree.map(lambda a: np.asarray(a)[:, first:last], piece)


def _joined(piece: Frames, following: Frames) -> Frames:
    return jax.tree.map(lambda a, b: np.concatenate([a, b], axis=1), piece, following)


def _swapped(codes: Halves) -> Halves:
    """`[b, k, f]` to `[b, f, k]`, and back."""
    return Halves(*(c.swapaxes(1, 2) for c in codes))


def _to_numpy(pieces: Iterable[Frames]) -> Iterator[Frames]:
    return (jax.tree.map(np.asarray, piece) for piece in pieces)


Place = tuple[int, tuple[int, ...], np.dtype]  # in a file: offset, shape and type of an array


def _spill(file: BinaryIO, pieces: Iterable[np.ndarray]) -> list[Place]:
    """Write all pieces and say where they are. Raises UserError if there is no room for them."""
    places = []
    for piece in pieces:
        places.append((file.tell(), piece.shape, piece.dtype))
        left = memoryview(np.ascontiguousarray(piece).view(np.uint8).reshape(-1))
        try:
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise UserError(f"the temporary folder {tempfile.gettempdir()} is full after {file.tell() / 1e6:.0f} MB: "
                            f"{os.strerror(error.errno)}; set TMPDIR to a folder with more space") from None
    return places


def _read(file: BinaryIO, place: Place) -> np.ndarray:
    offset, shape, dtype = place
    file.seek(offset)
    return np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
