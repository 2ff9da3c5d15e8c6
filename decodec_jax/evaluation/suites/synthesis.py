"""How well models on tokens speak: words, voice and sound, and what they do with the background of the prompt.

The text of a prompt is never given. So the first model reads a sentence in the same way whether or not there is noise
in the prompt, and the pauses of the reading in quiet are those of the others: no threshold decides twice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decodec_jax.downstream.tts import prompts
from decodec_jax.downstream.tts.config import FIRST
from decodec_jax.downstream.tts.converter import Converter
from decodec_jax.downstream.tts.speaker import Speaker
from decodec_jax.downstream.tts.trained import Trained
from decodec_jax.downstream.tts.trained import load as trained
from decodec_jax.errors import UserError
from decodec_jax.evaluation.reports import spoken
from decodec_jax.evaluation.reports.spoken import Reading, Sound
from decodec_jax.evaluation.reports.tables import Row
from decodec_jax.evaluation.suites import conversion, pauses, sentences
from decodec_jax.evaluation.suites.scoring import Scores, Tools
from decodec_jax.evaluation.suites.sentences import Sentence, Sentences
from decodec_jax.evaluation.systems.base import Item
from decodec_jax.inference.codec import DeCodec

HEARD = 5  # sentences for the listening page


class Voice(NamedTuple):
    """Two trained models, and what they are to say."""

    first: Trained
    nar: Trained
    speaker: Speaker
    sentences: Sentences


class Spoken(NamedTuple):
    """Three readings of a sentence, `[t]` each, of one length."""

    quiet: np.ndarray  # from the prompt without noise, without a background
    kept: np.ndarray  # from the noisy prompt, with its background
    dropped: np.ndarray  # from the noisy prompt, without a background


def load(first: str, nar: str, codecs: Sequence[DeCodec], folder: str, limit: int, voice: str = "") -> Voice:
    """The models in two run folders, with the one of these codecs that they were trained on.

    folder, limit, voice: as for `sentences.load`. Raises UserError if a model is missing or of another codec, and if
    there is nothing to say.
    """
    if not first or not nar:
        raise UserError("the suite 'synthesis' measures two runs of configs/tts.py; give --model-first and --model-nar")
    one = trained(first, FIRST, conversion.codec_of(first, codecs))
    two = trained(nar, ("nar",), one.codec)
    return Voice(one, two, Speaker(one, two), sentences.load(one, two, folder, limit, voice))


def spoken_by(speaker: Speaker, sentence: Sentence) -> Spoken:
    """The readings of a sentence, as `decodec speak` makes them."""
    said, prompt = sentence

    def read(wave: np.ndarray, background: str) -> np.ndarray:
        heard = prompts.heard(speaker.codec, wave, prompt.rate, name=f"the prompt {prompt.name}")
        return speaker.codec.decode(speaker.speak(said.transcript, heard, background))

    return Spoken(read(prompt.speech, "drop"), read(prompt.mixture, "keep"), read(prompt.mixture, "drop"))


def rows(name: str, codec: DeCodec, sentence: Sentence, made: Spoken, tools: Tools) -> list[Row]:
    """The scores of a sentence. name: of the codec in the tables."""
    said, prompt = sentence
    waves = {
        "recordings": said.mixture,
        f"{name}, reconstructed": codec.reconstruct(said.mixture, said.rate),
        f"{name}, spoken": made.quiet,
    }
    found = [Row("sentences", column, said.name, scores(wave, sentence, tools)) for column, wave in waves.items()]
    found[-1].scores["length"] = len(made.quiet) / len(said.mixture)
    if prompt.background is None:
        return found
    theirs, ours = (pauses.found(wave, prompt.rate) for wave in (prompt.speech, made.quiet))
    between = {
        "prompts without noise": (prompt.speech, theirs),
        "noisy prompts": (prompt.mixture, theirs),
        f"{name}, reconstructed": (codec.reconstruct(prompt.mixture, prompt.rate), theirs),
        f"{name}, background kept": (made.kept, ours),
        f"{name}, background dropped": (made.dropped, ours),
    }
    return found + [
        Row("pauses", column, said.name, pauses.scores(wave, where, prompt.mixture, theirs, prompt.rate))
        for column, (wave, where) in between.items()
    ]


def scores(wave: np.ndarray, sentence: Sentence, tools: Tools) -> Scores:
    """The judges' scores of a waveform `[t]`: its sound, its words, and how similar its voice is to the prompt's."""
    said, prompt = sentence
    found: Scores = {} if tools.opinion is None else dict(tools.opinion(wave, said.rate))
    if tools.words is not None:
        found |= tools.words(wave, said.rate, said.transcript)
    if tools.similarity is not None and wave.any():
        found["similarity"] = float(tools.similarity(wave, prompt.speech, said.rate))
    return found


def notes(voice: Voice) -> list[str]:
    """What the tables do not say, in lines."""
    told = [f"The model {each.config.variant}: step {each.step}, trained on {each.card['data']['minutes']:g} min of "
            f"tokens of the codec {each.card['codec']}." for each in (voice.first, voice.nar)]  # fmt: skip
    if all(each.prompt.background is None for each in voice.sentences.read):
        return [*told, "Not measured: the background (the folder has no background of the split test)."]
    return [*told, f"The noisy prompts have an SNR of {sentences.SNR:g} dB."]


def save(voice: Voice, made: Sequence[Spoken], out: Path) -> None:
    """Write the first readings, and the sources in the voices of their prompts, for the listening page."""
    read = [_reading(sentence, each) for sentence, each in zip(voice.sentences.read, made, strict=False)]
    converter = Converter(voice.nar)
    read += [_converted(converter, source, sentence.prompt)
             for source, sentence in zip(voice.sentences.sources, voice.sentences.read, strict=False)]  # fmt: skip
    spoken.save(out, read)


def _reading(sentence: Sentence, made: Spoken) -> Reading:
    said, prompt = sentence
    known = [Sound("recording", "of the sentence", said.mixture), Sound("prompt", prompt.speaker, prompt.mixture)]
    ours = [Sound("spoken", "background kept", made.kept), Sound("spoken", "background removed", made.dropped)]
    about = "" if prompt.snr is None else f"prompt at {prompt.snr:g} dB SNR"
    return Reading("speak", said.name, about, said.transcript, said.rate, known, ours)


def _converted(converter: Converter, source: Item, prompt: Item) -> Reading:
    wave = converter.convert(source.mixture, prompt.speech, source.rate)
    known = [Sound("source", source.speaker, source.mixture), Sound("reference", prompt.speaker, prompt.speech)]
    title = f"{source.name} in the voice of {prompt.speaker}"
    return Reading("convert", title, "", source.transcript, source.rate, known,
                   [Sound("converted", "by the NAR model", wave)])  # fmt: skip
