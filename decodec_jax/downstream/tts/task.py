"""The task of training one of the models of speech synthesis."""

from collections import Counter
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from decodec_jax.downstream import corpus, held_out
from decodec_jax.downstream.asr.recogniser import Recogniser
from decodec_jax.downstream.batches import Batch, Batches, Bucket, Make, buckets
from decodec_jax.downstream.corpus import Corpus, Utterance
from decodec_jax.downstream.text import CHARACTERS, Vocabulary, spelled
from decodec_jax.downstream.tts import ar, nar, parallel
from decodec_jax.downstream.tts.config import Config, Model
from decodec_jax.downstream.vectors import codec_of, tables
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec
from decodec_jax.training import sharding

STAGES: dict[str, ModuleType] = {"ar": ar, "parallel": parallel, "nar": nar}  # each has a `Network` and its `scores`


class Synthesis:
    """The task of `downstream.loop.train`. Reads the tokens when it is made."""

    precision = "float32"  # of products; the loop sets it

    def __init__(self, config: Config):
        self.config, model, data = config, config.model, config.data
        self.corpus = corpus.read(data.tokens)
        self.frozen = frozen(config, self.corpus)
        self.left_out: Counter[str] = Counter()
        spelt: dict[str, list[str]] = {}
        train, valid = (self._usable(self.corpus.split(data, split), spelt) for split in ("train", "valid"))
        self._durations: dict[str, np.ndarray] = {}  # of the symbols, in frames
        if model.stage == "parallel":
            recogniser = Recogniser.load(data.aligner, codec_of(data.codec, self.corpus))
            train, valid = (self._aligned(chosen, spelt, recogniser) for chosen in (train, valid))
        found = tuple(sorted({symbol for each in train for symbol in spelt[each.id]}))
        symbols = CHARACTERS if model.text == "characters" else found
        valid = [each for each in valid if set(spelt[each.id]) <= set(symbols)]
        if not train or not valid:
            raise UserError(f"{data.tokens} has {len(train)} utterances {self._wanted()} to train on and {len(valid)} "
                            f"to validate on; data.train_splits is {data.train_splits}, data.speakers {data.speakers}")
        self.vocabulary = Vocabulary(symbols, "" if model.text == "characters" else " ")
        self.train, self.valid = train, corpus.spaced(valid, config.train.valid_items)
        self._texts = {each.id: self.vocabulary.encode(spelt[each.id]) for each in [*train, *valid]}
        self._judged = None
        self.seconds = data.batch * sum(map(self.corpus.seconds, self.train)) / len(self.train)

    def describe(self) -> str:
        left = ", ".join(f"{count} {why}" for why, count in self.left_out.items() if count)
        minutes = sum(map(self.corpus.seconds, self.train)) / 60
        speakers = len({each.speaker for each in self.train})
        return (f"{minutes:.0f} min of speech by {speakers} speakers in {len(self.train)} utterances {self._wanted()}"
                + (f" (left out: {left})" if left else ""))  # fmt: skip

    def card(self) -> dict[str, Any]:
        minutes = sum(map(self.corpus.seconds, self.train)) / 60
        spoken = [each for each in self.train if self._texts[each.id]]
        pace = sum(each.frames for each in spoken) / max(1, sum(len(self._texts[each.id]) for each in spoken))
        return {
            "task": f"tts_{self.config.model.stage}",
            "codec": self.corpus.fingerprint,  # of the codec that wrote the tokens
            "sample_rate": self.corpus.sample_rate,
            "hop": self.corpus.hop,
            "entries": list(self.corpus.entries),
            "symbols": list(self.vocabulary.symbols),
            "pace": round(pace, 3),  # frames a symbol
            "data": {"minutes": round(minutes, 2), "utterances": len(self.train), "digest": corpus.digest(self.train)},
        }

    def network(self):
        return network(self.config.model, len(self.vocabulary.symbols), self.corpus.entries, self.precision)

    def create(self, key: Array) -> dict:
        return parameters(self.network(), self.frozen, key)

    def loss(self, params: dict, frozen: dict, batch: dict[str, Array], key: Array) -> tuple[Array, dict]:
        losses, right = STAGES[self.config.model.stage].scores(self.network(), params, frozen, batch, key)
        return jnp.mean(losses), {"right": jnp.mean(right)}

    def batches(self, position: int = 0, host: int = 0, hosts: int = 1) -> Batches:
        data = self.config.data
        return Batches(self._buckets(self.train), self._batch_maker(self.train), data.batch, data.seed, position,
                               host, hosts)  # fmt: skip

    def judge(self, params: dict, frozen: dict, mesh: Mesh) -> tuple[dict[str, float], str]:
        """Loss, and share of codes that are likeliest, on the held-out utterances."""
        if self._judged is None:  # compiled once, for the run's mesh
            self._judged = jax.jit(self._scores, out_shardings=sharding.replicated(mesh))
        rows = held_out.rows(self._buckets(self.valid), self._batch_maker(self.valid), self.config.data.batch, mesh,
                             lambda batch: self._judged(params, frozen, batch))  # fmt: skip
        loss, right = np.mean([row for _, row in rows], axis=0)
        said = f"on {len(self.valid)} held-out utterances, loss {loss:.3f}, {100 * right:.1f} % of codes likeliest"
        return {"valid/loss": float(loss), "valid/right": float(right)}, said

    def _scores(self, params: dict, frozen: dict, batch: dict[str, Array]) -> tuple[Array, Array]:
        return STAGES[self.config.model.stage].scores(self.network(), params, frozen, batch, None)

    def _wanted(self) -> str:
        return "with or without transcripts" if self.config.model.stage == "nar" else "with transcripts"

    def _usable(self, chosen: Sequence[Utterance], spelt: dict[str, list[str]]) -> list[Utterance]:
        """Those of a length that is asked for, whose symbols go into `spelt`; the others are counted."""
        model, data, kept = self.config.model, self.config.data, []
        for each, text in zip(chosen, spelled([each.transcript for each in chosen], model.text, model.language),
                              strict=True):  # fmt: skip
            known = not isinstance(text, UserError)
            if not data.shortest <= self.corpus.seconds(each) <= data.longest:
                self.left_out["too short or too long"] += 1
            elif known or model.stage == "nar":  # which can do without
                kept.append(each)
                spelt[each.id] = text if known else []
            else:
                self.left_out["without a transcript that can be spelled"] += 1
        return kept

    def _aligned(
        self, chosen: Sequence[Utterance], spelt: dict[str, list[str]], recogniser: Recogniser
    ) -> list[Utterance]:  # fmt: skip
        """Those whose text the recogniser finds in their tokens, and where; the others are counted."""
        kept = []
        for each in chosen:
            try:
                self._durations[each.id] = recogniser.align(each.speech, each.background, spelt[each.id])
            except UserError:
                self.left_out["with text that the recogniser cannot align"] += 1
            else:
                kept.append(each)
        return kept

    def _buckets(self, chosen: Sequence[Utterance]) -> list[Bucket]:
        symbols = [len(self._texts[each.id]) for each in chosen]
        return buckets([each.frames for each in chosen], symbols, self.config.data.buckets)

    def _batch_maker(self, chosen: Sequence[Utterance]) -> Make:
        """A function that makes batches of these utterances."""
        model = self.config.model
        longest = round(model.prompt * self.corpus.sample_rate / self.corpus.hop)

        def make(members: Sequence[int], bucket: Bucket) -> Batch:
            some = [chosen[i] for i in members]
            made = said([self._texts[each.id] for each in some], bucket.symbols)
            made["places"] = np.stack([places(n, each.frames, bucket.symbols)
                                       for n, each in zip(made["symbols"], some, strict=True)])  # fmt: skip
            levels = model.levels if model.stage == "nar" else 1
            made["codes"] = corpus.padded([each.speech for each in some], levels, bucket.frames)
            made["frames"] = np.array([each.frames for each in some], np.int32)
            if model.stage == "nar":
                made["prompt"] = np.minimum(longest, made["frames"] // 2)
            if model.stage == "parallel":
                lengths = [self._durations[each.id] for each in some]
                owners, within = zip(*(parallel.spread_out(each, bucket.frames) for each in lengths), strict=True)
                made |= {"owners": np.stack(owners), "within": np.stack(within)}
                made["durations"] = corpus.padded([each[None] for each in lengths], 1, bucket.symbols)[:, 0]
            return made

        return make


def said(texts: Sequence[list[int]], size: int) -> Batch:
    """Symbols as part of a batch: "text" `[b, size]`, of which "symbols" `[b]` count."""
    padded = corpus.padded([np.array([text], np.int32) for text in texts], 1, size)[:, 0]
    return {"text": padded, "symbols": np.array([len(text) for text in texts], np.int32)}


def places(symbols: int, frames: float, size: int, first: int = 0) -> np.ndarray:
    """Where symbols stand that share `frames` frames evenly, from frame `first` on; zeros behind them: `[size]`."""
    found = np.zeros(size, np.float32)
    found[:symbols] = first + (np.arange(symbols) + 0.5) * frames / max(1, symbols)
    return found


def network(model: Model, symbols: int, entries: Sequence[int], precision: str = "float32"):
    """The network of the stage that a config names. entries: of the codebooks of speech and background."""
    return STAGES[model.stage].Network(model, symbols, entries[0], precision)


def frozen(config: Config, found: Corpus) -> dict[str, np.ndarray]:
    """The codec's vectors of the levels in use, `[k, n, d]`. Raises UserError where there are fewer levels."""
    model = config.model
    needed = model.levels if model.stage == "nar" else 1
    if needed > found.levels[0]:
        raise UserError(f"model.levels is {needed}; the tokens have {found.levels[0]} levels of speech")
    return vectors(model, codec_of(config.data.codec, found)) if model.vectors == "codebook" else {}


def vectors(model: Model, codec: DeCodec) -> dict[str, np.ndarray]:
    """The codec's own vectors that a model hears, `[k, n, d]`, scaled to power 1 at the first level."""
    if model.vectors != "codebook":
        return {}
    table = tables(codec).speech[: model.levels if model.stage == "nar" else 1]
    return {"speech": table / np.sqrt(np.mean(table[0] ** 2) + 1e-12)}


def parameters(network, frozen: dict[str, np.ndarray], key: Array) -> dict:
    """Fresh parameters."""
    levels = network.config.levels if network.config.stage == "nar" else 1
    batch = {"text": jnp.ones((1, 1), jnp.int32), "places": jnp.zeros((1, 1)), "codes": jnp.zeros((1, levels, 1), int)}
    batch |= {name: jnp.ones(1, jnp.int32) for name in ("symbols", "frames", "prompt", "level")}
    batch |= {"owners": jnp.zeros((1, 1), int), "within": jnp.zeros((1, 1)), "known": jnp.zeros((1, 1), bool)}
    return network.init(key, batch, frozen)["params"]
