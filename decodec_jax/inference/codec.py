"""`DeCodec`, the class that people use: recordings to recordings, recordings to tokens, and tokens to recordings."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from decodec_jax import arrays, audio
from decodec_jax import config as settings
from decodec_jax.codec.model import DeCodecNetwork, Halves, lookahead
from decodec_jax.config import Model
from decodec_jax.errors import UserError
from decodec_jax.inference import bundle
from decodec_jax.inference.alignment import aligned
from decodec_jax.inference.loudness import amplitude, gain_of
from decodec_jax.inference.pieces import joined, trimmed_to_input
from decodec_jax.inference.recordings import SIDE_BY_SIDE, grouped, keep_parts
from decodec_jax.inference.streaming import GROUPS, Chunked
from decodec_jax.inference.tokens import STREAMS, Tokens
from decodec_jax.weights import BUILT_IN

KEEP = ("both", "speech", "background", "semantic")  # what `decode` may keep

Levels = tuple[int, int] | None  # of speech and background, coarse to fine; 0 leaves a stream out; None: all of them


class Heard(NamedTuple):
    """One channel of a recording as a model hears it."""

    wave: np.ndarray  # float32 [t] at the model's rate
    gain: float  # dB by which it is louder than the recording


class Coded(NamedTuple):
    """Tokens, and what the speech's codes were chosen for."""

    tokens: Tokens
    latents: np.ndarray | None = None  # float16 [f, d], the speech embedding before quantization, if it is asked for


class DeCodec:
    """A trained model and its weights.

    **Waveforms** are arrays `[t]` or `[channels, t]` of any kind (numpy, JAX, torch, lists): floats in [-1, 1], or
    int16, int32 and uint8, which are scaled by their type. `sample_rate` is in Hz. What comes back is float32, of the
    same shape and rate, to the sample. Channels are coded one by one. Other rates are resampled to the model's 16 kHz
    and back, so nothing above 8 kHz survives.

    **Loudness.** A recording is coded at -26 dB of full scale, as `loudness` measures it, and returned at its own
    level. Nobody knows the level of a stream in advance: the argument `gain` says how many dB louder to code it.

    **Tokens** belong to one channel: `[t]` gives one `Tokens`, `[channels, t]` a list of them.

    **Length.** Recordings of any length are processed in pieces of a few seconds. The result is the same, and no length
    needs a compilation of its own. For recordings that do not fit in memory there are `stream`, `encode_stream` and
    `decode_stream`. In place of a part that is left out, the decoder gets the codes of silence.

    Every method raises `UserError`, one line long, for arguments that are not a waveform or do not fit the model. A
    codec can be pickled and copied.
    """

    def __init__(
        self, config: Model, params: dict, codebook: dict, quantized: bool = True, step: int = 0,
        fingerprint: str | None = None,
    ):  # fmt: skip
        self.config = config
        self.params, self.codebook = params, codebook
        self.quantized = quantized  # False: codebooks have not started or are left out; embeddings take their place
        self.step = step  # training steps behind it
        if fingerprint is not None:  # of a bundle, and not always what `fingerprint_of` gives: version 1 keeps its own
            self.fingerprint = fingerprint
        self._network = DeCodecNetwork(config)
        self._variables = {"params": params, "codebook": codebook}
        self._chunked = Chunked(self._network, self._variables)
        self._blank = functools.lru_cache(maxsize=4)(self._coded_silence)

    @classmethod
    def load(cls, path: str | Path = BUILT_IN) -> "DeCodec":
        """Load a model: the one in the package, a bundle, or the newest checkpoint of a run folder.

        path: a bundle's folder or a run's (averaged weights); "built-in", the default, is the model in the package,
        which decodec_jax/weights/README.md describes. A run whose codebooks have not started yet loads with
        `quantized` False. Raises UserError if there is no model at `path`, or if it is damaged.

            >>> from decodec_jax import DeCodec
            >>> codec = DeCodec.load()
            >>> codec.config.sample_rate, codec.config.hop  # Hz, samples a frame
            (16000, 320)
        """
        folder = bundle.located(path)
        if bundle.is_bundle(folder):
            read = bundle.load(folder)
            return cls(read.config, read.params, read.codebook, step=read.step, fingerprint=read.fingerprint)
        from decodec_jax.training.checkpoint import load_weights  # needs Orbax, which a bundle does not

        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} is neither a bundle nor a run folder: it has no config.json")
        config: settings.Config = settings.load(folder / "config.json")
        step, params, codebook = load_weights(config, folder / "checkpoints")
        return cls(config.model, params, codebook, quantized=step > config.train.continuous_steps, step=step)

    def __reduce__(self):
        """Pickle and copy the weights; compiled functions stay behind, as they belong to one process."""
        return type(self), (self.config, self.params, self.codebook, self.quantized, self.step, self.fingerprint)

    def continuous(self) -> "DeCodec":
        """The same model with its quantizers bypassed: the decoder gets the embeddings. Better sound, but no tokens."""
        return DeCodec(self.config, self.params, self.codebook, False, self.step, self.fingerprint)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tokens and bundles carry: the model decodes tokens that have the same.

        They identify the settings and weights of all but the decoder.
        """
        return bundle.fingerprint_of(self.config, bundle.to_tensors(self.params, self.codebook))

    # --- recordings to recordings -------------------------------------------------------------------------------------

    def reconstruct(self, wave: ArrayLike, sample_rate: int, levels: Levels = None) -> np.ndarray:
        """The whole recording through the codec: Dec(Zs(y) + Zn(y))."""
        return self._whole(wave, sample_rate, "both", levels)

    def enhance(self, wave: ArrayLike, sample_rate: int, levels: Levels = None) -> np.ndarray:
        """The speech alone: Dec(Zs(y) + Zn(blank)).

        wave: `[t]` or `[channels, t]` at `sample_rate` Hz; the result has the same shape and rate. levels: how many
        levels of speech and background to use, as in `encode`. Raises UserError for anything else.

            >>> from decodec_jax import DeCodec
            >>> import numpy as np
            >>> codec = DeCodec.load()
            >>> noisy = np.random.default_rng(0).normal(0, 0.1, (2, 14112))  # two channels, 0.32 s at 44.1 kHz
            >>> speech = codec.enhance(noisy, 44100)
            >>> speech.shape, speech.dtype
            ((2, 14112), dtype('float32'))
        """
        return self._whole(wave, sample_rate, "speech", levels)

    def background(self, wave: ArrayLike, sample_rate: int, levels: Levels = None) -> np.ndarray:
        """The background alone: Dec(Zs(blank) + Zn(y))."""
        return self._whole(wave, sample_rate, "background", levels)

    def semantic(self, wave: ArrayLike, sample_rate: int) -> np.ndarray:
        """The first speech level alone, which carries the words more than the voice: Dec(Zc(y) + Zn(blank)).

        Its codes are `codec.encode(wave, sample_rate).speech[0]`.
        """
        return self._whole(wave, sample_rate, "semantic", None)

    def convert(
        self, source: ArrayLike, reference: ArrayLike, sample_rate: int, reference_rate: int | None = None,
        alignment: str = "content", keep: str = "speech",
    ) -> np.ndarray:  # fmt: skip
        """One-shot voice conversion: the words of `source` in the voice of `reference` (paper section 3).

        The first speech level comes from the source, the others from frames of the reference; `alignment` ("content" or
        "tile") chooses those frames, see `alignment.aligned`. A reference with several channels is mixed down to one.
        reference_rate: Hz; None: as the source. keep: "speech", or "both" to keep the background of the source too.
        """
        wave, voice_wave = arrays.waveform(source), audio.mono(arrays.waveform(reference))
        rows, voice_rate = np.atleast_2d(wave), sample_rate if reference_rate is None else reference_rate
        (voice,) = self._encoded([voice_wave], voice_rate, [gain_of(voice_wave, voice_rate)])
        converted = []
        for tokens in self._encoded(rows, sample_rate, [gain_of(rows, sample_rate)] * len(rows)):
            frames = aligned(tokens.speech[0], voice.speech[0], self._first_vectors, alignment)
            speech = np.concatenate([tokens.speech[:1], voice.speech[1:, frames]])
            converted.append(replace(tokens, speech=speech))
        return self._as(wave, self.decode_batch(converted, keep, sample_rate))

    def recombine(
        self, speech_from: ArrayLike, background_from: ArrayLike, sample_rate: int, background_rate: int | None = None
    ) -> np.ndarray:
        """The speech of one recording over the background of another: Dec(Zs(y1) + Zn(y2)).

        The second is repeated or cut to the length of the first, and mixed down to one channel. background_rate: Hz;
        None: as the first. Both are coded with the gain of the first, so they keep their balance.
        """
        wave, background = arrays.waveform(speech_from), audio.mono(arrays.waveform(background_from))
        if background_rate is not None:
            background = audio.resample(background, background_rate, sample_rate)
        every = [*np.atleast_2d(wave), np.resize(background, wave.shape[-1])]
        *own, other = self._encoded(every, sample_rate, [gain_of(wave, sample_rate)] * len(every))
        mixed = [replace(tokens, background=other.background) for tokens in own]
        return self._as(wave, self.decode_batch(mixed, "both", sample_rate))

    def stream(
        self, pieces: Iterable[ArrayLike], sample_rate: int, keep: str = "both", levels: Levels = None,
        gain: float = 0.0, at_once: bool = True,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        """Process a recording in pieces, in constant memory.

        Pieces `[channels, n]` of any n give pieces `[channels, n]`, of other n, as many samples in all. keep: "both",
        "speech", "background" or "semantic", as `reconstruct`, `enhance`, `background` and `semantic` do. A causal
        model returns each frame once it has heard all that the frame needs (`streaming.latency`; resampling adds
        `audio.delay`); others return nothing before the last piece.

        gain: dB; with that of `loudness.gain_of`, the result is that of the whole recording at once. at_once: False
        lets a causal model collect some seconds first, which is faster when nobody listens.
        """
        rate = self.config.sample_rate
        louder, quieter = amplitude(gain), amplitude(-gain)
        sample_rate = arrays.checked_rate(sample_rate)
        self._check_kept(keep, self._levels(levels))

        def process(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            own = audio.resampled((piece * louder for piece in pieces), sample_rate, rate)
            processed = (wave * quieter for wave in self._streamed(own, keep, levels, at_once))
            return audio.resampled(processed, rate, sample_rate)

        return trimmed_to_input(arrays.pieces(pieces), process)

    # --- recordings to tokens, and back -------------------------------------------------------------------------------

    def encode(self, wave: ArrayLike, sample_rate: int, levels: Levels = None) -> Tokens | list[Tokens]:
        """The codes of a recording: one `Tokens` for `[t]`, a list with one for each channel for `[channels, t]`.

        levels: how many levels of speech and background to keep. In the paper's setting a level takes 10 bits a frame:
        (8, 8) is 8 kbit/s, (1, 0) is 0.5. `Tokens.with_levels` does the same later. Raises UserError for what is not a
        waveform, a rate in Hz or levels of this model, and if the model has no codebooks yet.

            >>> from decodec_jax import DeCodec
            >>> import numpy as np
            >>> codec = DeCodec.load()
            >>> wave = np.random.default_rng(0).normal(0, 0.1, 10240)  # 0.64 s at 16 kHz
            >>> tokens = codec.encode(wave, 16000)
            >>> tokens.speech.shape, tokens.background.shape  # [levels, frames]
            ((8, 32), (8, 32))
            >>> tokens.bitrate, codec.encode(wave, 16000, levels=(4, 0)).bitrate  # bits a second
            (8000.0, 2000.0)
        """
        wave = arrays.waveform(wave)
        rows = np.atleast_2d(wave)
        tokens = self._encoded(rows, sample_rate, [gain_of(rows, sample_rate)] * len(rows), levels)
        return tokens[0] if wave.ndim == 1 else tokens

    def encode_batch(self, waves: Iterable[ArrayLike], sample_rate: int, levels: Levels = None) -> list[Tokens]:
        """`encode` for many recordings `[t]` of any lengths, each coded at its own level.

        Recordings of about one length (of equally many frames, if the model is not causal) run side by side, 1, 2, 4 or
        8 at a time, so few sizes are compiled.
        """
        rows = [arrays.waveform(wave) for wave in waves]
        for row in rows:
            if row.ndim != 1:
                raise UserError(f"each recording of a batch is one channel, [t]; this one has shape {row.shape}")
        return self._encoded(rows, sample_rate, [gain_of(row, sample_rate) for row in rows], levels)

    def hear(self, wave: ArrayLike, sample_rate: int) -> Heard:
        """What `encode` does before the model: one channel `[t]` at the level and the rate at which it is coded.

        It runs in numpy alone, so threads can do it while a device codes what they have heard (`encode_heard`).
        """
        gain = gain_of(wave, sample_rate)
        return Heard(self._heard(arrays.waveform(wave), sample_rate, gain), gain)

    def encode_heard(
        self, heard: Sequence[Heard], levels: Levels = None, side_by_side: int = SIDE_BY_SIDE
    ) -> list[Tokens]:
        """`encode_batch` of what `hear` returned; side_by_side: how many recordings run in a batch at the most."""
        return [each.tokens for each in self.code_heard(heard, levels, side_by_side)]

    def code_heard(
        self, heard: Sequence[Heard], levels: Levels = None, side_by_side: int = SIDE_BY_SIDE, latents: bool = False
    ) -> list[Coded]:
        """`encode_heard`, with the latents if they are asked for."""
        hop = self.config.hop
        made: dict[int, Coded] = {}
        for frames, alike in grouped((self.frames_run(each.wave) for each in heard), side_by_side):
            batch = np.stack([np.pad(heard[i].wave, (0, frames * hop - len(heard[i].wave))) for i in alike])
            pieces = list(self._analysed([batch], latents))
            codes = joined((codes for codes, _ in pieces), axis=2)
            embedded = joined((embedded for _, embedded in pieces), axis=1)
            for row, i in enumerate(alike):
                wave, gain = heard[i]
                own = -(-len(wave) // hop)  # frames
                tokens = self._tokens(Halves(*(c[row, :, :own] for c in codes)), len(wave), gain, levels)
                made[i] = Coded(tokens, embedded[row, :own] if latents else None)
        return [made[i] for i in range(len(heard))]

    def frames_run(self, wave: np.ndarray) -> int:
        """How many frames the model runs for a waveform `[t]` at its own rate; those with equally many share a batch.

        A causal model runs groups of frames and fills the last one up with silence, which changes no code before it.
        Another one must not hear more silence than there is.
        """
        frames = -(-len(wave) // self.config.hop)
        if not self.config.causal:
            return frames
        late = lookahead(self.config)
        return -(-(frames + late) // GROUPS[1]) * GROUPS[1] - late

    def on(self, device: jax.Device) -> "DeCodec":
        """The same model with its weights on a device, on which it then runs."""
        params, codebook = jax.device_put((self.params, self.codebook), device)
        return DeCodec(self.config, params, codebook, self.quantized, self.step, self.fingerprint)

    def checked_levels(self, levels: Levels) -> tuple[int, int]:
        """How many levels of each stream `levels` keeps. Raises UserError if the model has fewer, or no codes."""
        self._check_quantized()
        return self._levels(levels)

    def encode_stream(
        self, pieces: Iterable[ArrayLike], sample_rate: int, levels: Levels = None, gain: float = 0.0,
        at_once: bool = True,
    ) -> Iterator[Tokens]:  # fmt: skip
        """`encode` for one channel in pieces `[1, n]`, in constant memory; `tokens.join` joins the results.

        gain, at_once: as in `stream`.
        """
        return (each.tokens for each in self.code_stream(pieces, sample_rate, levels, gain, at_once))

    def code_stream(
        self, pieces: Iterable[ArrayLike], sample_rate: int, levels: Levels = None, gain: float = 0.0,
        at_once: bool = True, latents: bool = False,
    ) -> Iterator[Coded]:  # fmt: skip
        """`encode_stream`, with the latents if they are asked for."""
        sample_rate = arrays.checked_rate(sample_rate)
        louder = amplitude(gain)
        heard = given = 0

        def listening() -> Iterator[np.ndarray]:
            nonlocal heard
            own = (piece * louder for piece in arrays.pieces(pieces, channels=1))
            for piece in audio.resampled(own, sample_rate, self.config.sample_rate):
                heard += piece.shape[1]
                yield piece

        for codes, embedded in self._analysed(listening(), latents, at_once):
            length = min(codes.speech.shape[2] * self.config.hop, heard - given)
            given += length
            tokens = self._tokens(Halves(*(c[0] for c in codes)), length, gain, levels)
            yield Coded(tokens, None if embedded is None else embedded[0])

    def decode(
        self, tokens: Tokens | Sequence[Tokens], keep: str = "both", sample_rate: int | None = None
    ) -> np.ndarray:
        """The recording that tokens stand for: float32 `[t]`, or `[channels, t]` for a list of tokens.

        keep: "both", or one part alone: "speech", "background" or "semantic", the first level of the speech.
        sample_rate: Hz; None: the model's. Raises UserError if other weights made the tokens, if they lack what is to
        be kept, or if the channels differ in length.

            >>> from decodec_jax import DeCodec
            >>> import numpy as np
            >>> codec = DeCodec.load()
            >>> tokens = codec.encode(np.random.default_rng(0).normal(0, 0.1, 10240), 16000)
            >>> codec.decode(tokens).shape, codec.decode(tokens, "speech", 48000).shape
            ((10240,), (30720,))
        """
        if isinstance(tokens, Tokens):
            return self.decode_batch([tokens], keep, sample_rate)[0]
        if len({each.length for each in tokens}) != 1:
            raise UserError(f"the channels of a recording must be of one length, not {[t.length for t in tokens]}; "
                            "use `decode_batch` for several recordings")  # fmt: skip
        return np.stack(self.decode_batch(tokens, keep, sample_rate))

    def decode_batch(
        self, tokens: Sequence[Tokens], keep: str = "both", sample_rate: int | None = None
    ) -> list[np.ndarray]:
        """`decode` for many recordings of any lengths, `[t]` each."""
        rate = self.config.sample_rate
        sample_rate = rate if sample_rate is None else arrays.checked_rate(sample_rate)
        waves: dict[int, np.ndarray] = {}
        for _, alike in grouped((each.frames, each.levels) for each in tokens):
            batch = np.concatenate(list(self._sound([tokens[i] for i in alike], keep)), axis=1)
            for i, wave in dict(zip(alike, batch, strict=True)).items():
                waves[i] = audio.resample(wave[: tokens[i].length], rate, sample_rate)
        return [waves[i] for i in range(len(tokens))]

    def decode_stream(self, tokens: Tokens, keep: str = "both", sample_rate: int | None = None) -> Iterator[np.ndarray]:
        """`decode` in pieces `[1, n]`. The tokens of an hour take 12 MB, its samples twenty times as much."""
        rate = self.config.sample_rate
        sample_rate = rate if sample_rate is None else arrays.checked_rate(sample_rate)
        return audio.resampled(self._sound([tokens], keep, tokens.length), rate, sample_rate)

    def blank(self, length: int) -> Tokens:
        """The codes of silence, `length` samples long at the model's rate."""
        self._check_quantized()
        return self._tokens(Halves(*(c[0] for c in self._blank(-(-length // self.config.hop)))), length, gain=0.0)

    def embed(self, wave: ArrayLike, sample_rate: int) -> Halves[np.ndarray]:
        """The speech and background embeddings S and N before quantization, equation (8), for downstream models.

        float32 `[f, d]` each, or `[channels, f, d]`: d = `config.half`, and `config.sample_rate / config.hop` frames a
        second. How loud the recording is does not matter.
        """
        wave = arrays.waveform(wave)
        heard = np.atleast_2d(self._heard(wave, sample_rate, gain_of(wave, sample_rate)))
        halves = joined(self._chunked.embed([heard], at_once=False))
        return Halves(*(half[0] if wave.ndim == 1 else half for half in halves))

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _whole(self, wave: ArrayLike, sample_rate: int, keep: str, levels: Levels) -> np.ndarray:
        wave = arrays.waveform(wave)
        gain = gain_of(wave, sample_rate)
        pieces = self.stream([np.atleast_2d(wave)], sample_rate, keep, levels, gain, at_once=False)
        return np.concatenate(list(pieces), axis=1).reshape(wave.shape)

    def _encoded(
        self, waves: Iterable[np.ndarray], sample_rate: int, gains: Sequence[float], levels: Levels = None
    ) -> list[Tokens]:
        """`encode_batch` of float32 `[t]`, each with its gain."""
        return self.encode_heard(
            [Heard(self._heard(wave, sample_rate, gain), gain) for wave, gain in zip(waves, gains, strict=True)], levels
        )

    def _heard(self, wave: np.ndarray, sample_rate: int, gain: float) -> np.ndarray:
        """A waveform at the model's rate and at the level at which it is coded."""
        return audio.resample(wave * amplitude(gain), sample_rate, self.config.sample_rate)

    def _streamed(self, pieces: Iterable[np.ndarray], keep: str, levels: Levels, at_once: bool) -> Iterator[np.ndarray]:
        """`stream` at the model's own rate, without the gain."""
        speech, background = self._levels(levels)
        whole = keep == "both" and (not self.quantized or (speech and background))

        def process(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            if not whole:  # append a row of silence to the batch, whose codes replace the parts that are not kept
                pieces = (np.concatenate([piece, np.zeros_like(piece[:1])]) for piece in pieces)
            if not self.quantized:
                return self._chunked.synthesise(map(chosen, self._chunked.embed(pieces, at_once)), at_once)
            return self._chunked.decode(map(chosen, self._codes(pieces, at_once)), at_once=at_once)

        def chosen(halves: Halves[np.ndarray]) -> Halves[np.ndarray]:
            """The parts to keep, of codes, or of embeddings if the quantizers are bypassed."""
            own = halves if whole else Halves(*(half[:-1] for half in halves))
            if self.quantized:
                own = Halves(own.speech[:, :speech], own.background[:, :background])
            return keep_parts(own, Halves(*(half[-1:] for half in halves)), keep)

        return trimmed_to_input(pieces, process)

    def _codes(self, pieces: Iterable[np.ndarray], at_once: bool = False) -> Iterator[Halves[np.ndarray]]:
        """Pieces `[b, n]` at the model's rate to codes `[b, k, f]`."""
        self._check_quantized()
        return self._chunked.encode(pieces, at_once)

    def _analysed(
        self, pieces: Iterable[np.ndarray], latents: bool, at_once: bool = False
    ) -> Iterator[tuple[Halves[np.ndarray], np.ndarray | None]]:
        """`_codes`, with latents float16 `[b, f, d]` if they are asked for."""
        if not latents:
            return ((codes, None) for codes in self._codes(pieces, at_once))
        self._check_quantized()
        both = self._chunked.encode_with_latents(pieces, at_once)
        return ((codes, embedded.astype(np.float16)) for codes, embedded in both)

    def _sound(self, tokens: Sequence[Tokens], keep: str, length: int | None = None) -> Iterator[np.ndarray]:
        """Decode tokens with equal numbers of frames and levels to pieces `[b, n]`, at the recordings' own levels."""
        self._check_quantized()
        for each in tokens:
            if each.fingerprint != self.fingerprint:
                raise UserError(f"the tokens were made with the weights {each.fingerprint}, not with these, "
                                f"{self.fingerprint}; decode them with the model that made them")  # fmt: skip
        self._check_kept(keep, tokens[0].levels)
        codes = Halves(*(np.stack([getattr(each, stream) for each in tokens]) for stream in STREAMS))
        if keep != "both" or 0 in tokens[0].levels:
            codes = keep_parts(codes, self._blank(tokens[0].frames), keep)
        quieter = np.array([[amplitude(-each.gain)] for each in tokens], np.float32)
        return (wave * quieter for wave in self._chunked.decode([codes], length, at_once=False))

    def _coded_silence(self, frames: int) -> Halves[np.ndarray]:
        piece = np.zeros((1, 256 * self.config.hop), np.float32)
        whole, rest = divmod(frames, 256)
        silence = itertools.chain(itertools.repeat(piece, whole), [piece[:, : rest * self.config.hop]])
        return joined(self._codes(silence), axis=2)

    @functools.cached_property
    def _first_vectors(self) -> np.ndarray:
        """The vector of each code of the first speech level, `[entries, d]`."""
        every = np.arange(self.config.speech.entries)[None, None]
        codes = Halves(every, np.zeros_like(every))
        run = jax.jit(functools.partial(self._network.apply, method="vectors"))
        return np.asarray(run(self._variables, codes).speech[0])

    def _tokens(self, codes: Halves[np.ndarray], length: int, gain: float, levels: Levels = None) -> Tokens:
        model = self.config
        entries = model.speech.entries, model.background.entries
        tokens = Tokens(*codes, length, model.sample_rate, model.hop, entries, self.fingerprint, gain)
        return tokens if levels is None else tokens.with_levels(*self._levels(levels))

    def _levels(self, levels: Levels) -> tuple[int, int]:
        there = self.config.speech.levels, self.config.background.levels
        if levels is None:
            return there
        self._check_quantized()
        fits = np.shape(levels) == (2,) and all(n in range(k + 1) for n, k in zip(levels, there, strict=True))
        if not fits or not any(levels):
            raise UserError(f"levels are {levels!r}; pass a pair (speech, background) of up to {there}, not both 0")
        return int(levels[0]), int(levels[1])

    def _check_kept(self, keep: str, levels: tuple[int, int]) -> None:
        """Raise UserError unless tokens with these levels hold what is to be kept."""
        if keep not in KEEP:
            raise UserError(f"keep is {keep!r}; it must be one of {', '.join(KEEP)}")
        if keep == "semantic":
            self._check_quantized()
        missing = {"speech": not levels[0], "semantic": not levels[0], "background": not levels[1]}
        if missing.get(keep):
            raise UserError(f"the {keep} cannot be kept: its stream was left out (levels {levels})")

    def _check_quantized(self) -> None:
        if not self.quantized:
            raise UserError("this model has no codes: its codebooks have not started, or its quantizers are bypassed")

    @staticmethod
    def _as(wave: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Rows cut to the length and brought to the shape of a waveform."""
        return np.stack([row[: wave.shape[-1]] for row in rows]).reshape(wave.shape)
