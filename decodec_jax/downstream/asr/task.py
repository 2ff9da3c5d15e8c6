"""The task of training a recogniser: CTC over the characters, pieces of words or phones of transcripts."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from decodec_jax import audio
from decodec_jax.downstream import corpus, held_out, pieces
from decodec_jax.downstream.asr import rates
from decodec_jax.downstream.asr.config import CODES, FRAMES, Config, Model
from decodec_jax.downstream.asr.decoding import collapsed
from decodec_jax.downstream.asr.model import STREAMS, Heard, Network, joined
from decodec_jax.downstream.batches import Batch, Batches, Bucket, Make, buckets
from decodec_jax.downstream.corpus import Corpus, Utterance
from decodec_jax.downstream.mel import log_mel
from decodec_jax.downstream.text import CHARACTERS, Vocabulary, spelled
from decodec_jax.downstream.vectors import codec_of, tables
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec
from decodec_jax.training import sharding


def ctc(heard: Heard, text: Array, symbols: Array) -> Array:
    """The CTC loss of each utterance, nats a symbol: `[b]`; text `[b, l]` from 1 up, of which `symbols` `[b]` count."""
    logits, frames = heard
    ended = (jnp.arange(logits.shape[1]) >= frames[:, None]).astype(jnp.float32)
    unused = (jnp.arange(text.shape[1]) >= symbols[:, None]).astype(jnp.float32)
    return optax.ctc_loss(logits, ended, text, unused) / jnp.maximum(symbols, 1)


class Recognition:
    """The task of `downstream.loop.train`. Reads the tokens when it is made."""

    precision = "float32"  # of products; the loop sets it

    def __init__(self, config: Config, run: Path | None = None):
        rates.require()
        self.config, model, data = config, config.model, config.data
        self.corpus = corpus.read(data.tokens, model.features.kind == "latents")
        self.frozen = frozen(config, self.corpus)
        there = [each for each in self.corpus.utterances if each.transcript.strip()]
        if not there:
            raise UserError(f"{data.tokens} has no transcripts; tokenize a folder whose manifest.csv has the column "
                            "'transcript'")  # fmt: skip
        texts = dict(zip((each.id for each in there), spelled([each.transcript for each in there], model.text,
                                                              model.language), strict=True))  # fmt: skip
        self.left_out: Counter[str] = Counter({"without transcript": len(self.corpus.utterances) - len(there)})
        self.pieces = self._pieces(texts, run) if model.text == "pieces" else b""
        if self.pieces:
            texts = {name: text if isinstance(text, UserError) else pieces.split(self.pieces, text)
                     for name, text in texts.items()}  # fmt: skip
        train = self._usable(self.corpus.split(data, "train"), texts)
        self.vocabulary = vocabulary(model, self._symbols([texts[each.id] for each in train]))
        valid = [each for each in self._usable(self.corpus.split(data, "valid"), texts)
                 if set(texts[each.id]) <= set(self.vocabulary.symbols)]  # fmt: skip
        if not train or not valid:
            raise UserError(f"{data.tokens} has {len(train)} utterances with transcripts to train on and {len(valid)} "
                            f"to validate on; data.train_splits is {data.train_splits}")  # fmt: skip
        self.train, self.valid = train, corpus.spaced(valid, config.train.valid_items)
        self._texts = {each.id: self.vocabulary.encode(texts[each.id]) for each in [*train, *valid]}
        self._mels: dict[str, np.ndarray] = {}
        self._heard = None
        self.seconds = data.batch * sum(map(self.corpus.seconds, train)) / len(train)

    def describe(self) -> str:
        left = ", ".join(f"{count} {why}" for why, count in self.left_out.items() if count)
        minutes = sum(map(self.corpus.seconds, self.train)) / 60
        speakers = len({each.speaker for each in self.train})
        return (f"{minutes:.0f} min of transcribed speech by {speakers} speakers in {len(self.train)} utterances"
                + (f" (left out: {left})" if left else ""))  # fmt: skip

    def card(self) -> dict[str, Any]:
        minutes = sum(map(self.corpus.seconds, self.train)) / 60
        return {
            "task": "asr",
            "codec": self.corpus.fingerprint,  # of the codec that wrote the tokens
            "sample_rate": self.corpus.sample_rate,
            "hop": self.corpus.hop,
            "entries": list(self.corpus.entries),
            "width": self.corpus.width,  # of latents
            "symbols": list(self.vocabulary.symbols),
            "data": {"minutes": round(minutes, 2), "utterances": len(self.train), "digest": corpus.digest(self.train)},
        } | pieces.on_card(self.pieces)

    def network(self) -> Network:
        return network(self.config, len(self.vocabulary.symbols), self.corpus.entries, self.precision)

    def create(self, key: Array) -> dict:
        return parameters(self.network(), self.frozen, self.corpus.width, key)

    def loss(self, params: dict, frozen: dict, batch: dict[str, Array], key: Array) -> tuple[Array, dict]:
        for_masks, for_dropout = jax.random.split(key)
        rngs = {"masks": for_masks, "dropout": for_dropout}
        heard = self.network().apply({"params": params}, batch, frozen, rngs=rngs)
        return jnp.mean(ctc(heard, batch["text"], batch["symbols"])), {}

    def batches(self, position: int = 0, host: int = 0, hosts: int = 1) -> Batches:
        data = self.config.data
        return Batches(self._buckets(self.train), self._batch_maker(self.train), data.batch, data.seed, position,
                               host, hosts)  # fmt: skip

    def judge(self, params: dict, frozen: dict, mesh: Mesh) -> tuple[dict[str, float], str]:
        """Loss and error rates of greedy decoding on the held-out utterances."""
        if self._heard is None:  # compiled once, for the run's mesh
            self._heard = jax.jit(self._listen, out_shardings=sharding.replicated(mesh))
        rows = held_out.rows(self._buckets(self.valid), self._batch_maker(self.valid), self.config.data.batch, mesh,
                             lambda batch: self._heard(params, frozen, batch))  # fmt: skip
        said, texts, losses = [], [], []
        for i, (best, frames, loss) in rows:
            said.append(self.vocabulary.decode(self._texts[self.valid[i].id]))
            texts.append(self.vocabulary.decode(collapsed(best[:frames])))
            losses.append(loss)
        found = rates.error_rates(self.config.model.text, said, texts)
        scores = {"valid/loss": float(np.mean(losses))} | {f"valid/{name}": rate for name, rate in found.items()}
        told = ", ".join(f"{name.upper()} {100 * rate:.1f} %" for name, rate in found.items())
        return scores, f"on {len(said)} held-out utterances, {told}; \"{said[0][:50]}\" is heard as \"{texts[0][:50]}\""

    def _listen(self, params: dict, frozen: dict, batch: dict[str, Array]) -> tuple[Array, Array, Array]:
        """The likeliest symbol of each joined frame `[b, g]`, how many of these count `[b]`, and the losses `[b]`."""
        heard = self.network().apply({"params": params}, batch, frozen)
        return jnp.argmax(heard.logits, axis=-1), heard.frames, ctc(heard, batch["text"], batch["symbols"])

    def _pieces(self, texts: dict, run: Path | None) -> bytes:
        """The run's model of pieces, or a new one, of the texts to train on."""
        chosen = [texts.get(each.id) for each in self.corpus.split(self.config.data, "train")]
        said = ["".join(text) for text in chosen if isinstance(text, list)]
        return pieces.of_run(run) or pieces.trained(said, self.config.model.pieces)

    def _symbols(self, texts: Sequence[list[str]]) -> Sequence[str]:
        """The symbols that texts may have: phones are those of the texts to train on."""
        kind = self.config.model.text
        if kind == "pieces":
            return pieces.symbols(self.pieces)
        return CHARACTERS if kind == "characters" else tuple(sorted({symbol for text in texts for symbol in text}))

    def _usable(self, chosen: Sequence[Utterance], texts: dict) -> list[Utterance]:
        """Those with a text that CTC can spell in their frames; the others are counted."""
        data, kept = self.config.data, []
        for each in chosen:
            text = texts.get(each.id)
            if text is None:
                continue
            frames = joined(each.frames, self.config.model.stack)
            if isinstance(text, UserError):
                self.left_out["with text that cannot be spelled"] += 1
            elif not data.shortest <= self.corpus.seconds(each) <= data.longest:
                self.left_out["too short or too long"] += 1
            elif len(text) + sum(a == b for a, b in itertools.pairwise(text)) > frames:
                self.left_out["with more symbols than frames"] += 1
            else:
                kept.append(each)
        return kept

    def _buckets(self, chosen: Sequence[Utterance]) -> list[Bucket]:
        symbols = [len(self._texts[each.id]) for each in chosen]
        return buckets([each.frames for each in chosen], symbols, self.config.data.buckets)

    def _batch_maker(self, chosen: Sequence[Utterance]) -> Make:
        """A function that makes batches of these utterances."""
        def make(members: Sequence[int], bucket: Bucket) -> Batch:
            some = [chosen[i] for i in members]
            texts = [np.array([self._texts[each.id]]) for each in some]
            made = {
                "frames": np.array([each.frames for each in some], np.int32),
                "text": corpus.padded(texts, 1, bucket.symbols)[:, 0],
                "symbols": np.array([text.size for text in texts], np.int32),
            }
            features = self.config.model.features
            if features.kind in FRAMES:
                found = [self._mel(each) if features.kind == "mel" else each.latents for each in some]
                return made | {features.kind: corpus.stacked(found, bucket.frames)}
            return made | {stream: corpus.padded([getattr(each, stream) for each in some], levels, bucket.frames)
                           for stream in STREAMS if (levels := getattr(features, stream))}  # fmt: skip

        return make

    def _mel(self, each: Utterance) -> np.ndarray:
        """The log mel spectrum of an utterance, cached in memory as float16: 29 MB an hour."""
        if each.id not in self._mels:
            wave, rate = audio.read(Path(self.config.data.waves) / each.id)
            wave = audio.resample(audio.mono(wave), rate, self.corpus.sample_rate)
            spectrum = log_mel(wave, self.corpus.sample_rate, self.corpus.hop, self.config.model.features.bands)
            self._mels[each.id] = spectrum[: each.frames].astype(np.float16)
        return self._mels[each.id]


def vocabulary(model: Model, symbols: Sequence[str]) -> Vocabulary:
    """The symbols that a model writes: phones with spaces between them, others as they are."""
    return Vocabulary(symbols, " " if model.text == "phones" else "")


def network(config: Config, symbols: int, entries: tuple[int, int], precision: str = "float32") -> Network:
    return Network(config.model, symbols, entries, config.masks, precision)


def frozen(config: Config, heard: Corpus) -> dict[str, np.ndarray]:
    """The codec's vectors of the levels in use, `[k, n, d]` of each stream. Raises UserError where there are fewer."""
    features = config.model.features
    if features.kind not in CODES:
        return {}
    for stream, there in zip(STREAMS, heard.levels, strict=True):
        if getattr(features, stream) > there:
            raise UserError(f"model.features.{stream} is {getattr(features, stream)}; the tokens have {there} levels "
                            f"of {stream}")  # fmt: skip
    if features.kind == "learned":  # needs no codec
        return {}
    return vectors(config.model, codec_of(config.data.codec, heard))


def vectors(model: Model, codec: DeCodec) -> dict[str, np.ndarray]:
    """The codec's own vectors of the levels that a model hears, `[k, n, d]` of each stream; nothing for other kinds."""
    if model.features.kind != "codebook":
        return {}
    both = tables(codec)
    return {stream: getattr(both, stream)[:levels] for stream in STREAMS if (levels := getattr(model.features, stream))}


def parameters(network: Network, frozen: dict[str, np.ndarray], width: int, key: Array) -> dict:
    """Fresh parameters, initialised on two joined frames. width: of latents."""
    features, f = network.config.features, 2 * network.config.stack
    batch = {"frames": jnp.full((1,), f), "mel": jnp.zeros((1, f, features.bands)),
             "latents": jnp.zeros((1, f, width))}  # fmt: skip
    batch |= {stream: jnp.zeros((1, getattr(features, stream), f), jnp.int32) for stream in STREAMS}
    return network.init(key, batch, frozen)["params"]
