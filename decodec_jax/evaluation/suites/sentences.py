"""What the suite "synthesis" says: sentences that the models were not trained on, and prompts in the same voices.

The sentences are transcripts of recordings by the models' own speakers that training left out: those held out for
validation, and those of other splits. So each sentence has a recording to compare with. Its prompt is another of these
recordings by the same speaker, or one recording for all.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decodec_jax import audio
from decodec_jax.config import Data
from decodec_jax.data.clips import Clip
from decodec_jax.data.sources import Files, list_clips, select
from decodec_jax.downstream.corpus import selected
from decodec_jax.downstream.tts.prompts import LONGEST, VOICE
from decodec_jax.downstream.tts.trained import Trained
from decodec_jax.errors import UserError
from decodec_jax.evaluation.suites.items import mixed, spread
from decodec_jax.evaluation.systems.base import Item

SNR = 0.0  # dB, of noisy prompts: loud noise, because recordings have a little noise of their own in their pauses
SOURCES = 5  # recordings by other speakers, to be converted


class Sentence(NamedTuple):
    """A recording that training left out, and the prompt in whose voice its text is said. `[t]` each."""

    said: Item
    prompt: Item  # the mixture has a background in it, if there is one; the speech has none


class Sentences(NamedTuple):
    """The input of the suite."""

    read: Sequence[Sentence]
    sources: Sequence[Item]  # by other speakers; the first is for the voice of the first prompt, and so on

    @property
    def items(self) -> list[Item]:
        return [item for each in self.read for item in each] + list(self.sources)


def load(first: Trained, nar: Trained, folder: str, limit: int, voice: str = "") -> Sentences:
    """At most `limit` sentences, of the folder that was tokenized. voice: the prompt of all; "": of each speaker's own.

    The backgrounds and the sources are of the split "test". Raises UserError if there is no sentence or no prompt.
    """
    if limit < 1:
        raise UserError(f"the limit is {limit}; it must be above 0")
    if not folder:
        raise UserError("synthetic clips have no transcripts; give --data the folder that you tokenized")
    rate = first.codec.config.sample_rate
    files = Files(Path(folder), rate, list_clips(Path(folder)))
    test = select(files.clips, Data(), "test")
    noises = spread(files.present(clip for clip in test if clip.kind == "background"), limit)
    read = []
    for n, (clip, prompt) in enumerate(spread(chosen(files, first, nar, bool(voice)), limit)):
        wave = audio.mono(audio.read(voice, rate, 0.0, LONGEST)[0]) if prompt is None else _wave(files, prompt)
        noise = _wave(files, noises[n % len(noises)]) if noises else None
        speaker = Path(voice).stem if prompt is None else prompt.speaker
        read.append(Sentence(_item(f"{n:03d}_sentence", files, clip),
                             in_noise(Item(f"{n:03d}_prompt", rate, wave, wave, speaker=speaker), noise)))  # fmt: skip
    return Sentences(read, _sources(files, test, [each.prompt.speaker for each in read]))


def chosen(files: Files, first: Trained, nar: Trained, given: bool) -> list[tuple[Clip, Clip | None]]:
    """All recordings to say, each with its prompt, or None if a prompt is given. Raises UserError if there are none."""
    clips = files.present(unseen(files.clips, first, nar))
    spoken = [clip for clip in clips if _fits(first, clip) and _fits(nar, clip)]
    if not spoken:
        raise UserError(f"{files.root} has no transcript that the models can say, by the first model's speakers, in a "
                        "recording that neither model was trained on; give the folder that you tokenized")  # fmt: skip
    if given:
        return [(clip, None) for clip in spoken]
    pairs = prompted(spoken)
    if not pairs:
        raise UserError(f"{files.root} has no second recording of a speaker, to be the prompt; give one: --voice FILE")
    return pairs


def unseen(clips: Sequence[Clip], first: Trained, nar: Trained) -> list[Clip]:
    """The recordings with transcripts, by the speakers of the first model, that neither model was trained on."""
    speech = [clip for clip in clips if clip.kind == "speech"]
    seen = set().union(*(selected(speech, each.config.data, "train") for each in (first, nar)))
    speakers = first.config.data.speakers
    return [clip for clip in speech
            if clip.transcript and clip.name not in seen and (not speakers or clip.speaker in speakers)]  # fmt: skip


def prompted(clips: Sequence[Clip]) -> list[tuple[Clip, Clip]]:
    """Each clip, and the next one by its speaker that lasts `VOICE` s, or else the longest; not those without one."""
    pairs = []
    for i, clip in enumerate(clips):
        others = [other for other in (*clips[i + 1 :], *clips[:i]) if other.speaker == clip.speaker]
        if others:
            pairs.append((clip, max(others, key=lambda other: min(other.seconds, VOICE))))
    return pairs


def in_noise(prompt: Item, noise: np.ndarray | None) -> Item:
    """The prompt, with a background `[n]` in its mixture, repeated or cut to fit."""
    if noise is None:
        return prompt
    mixture, speech, background = mixed(prompt.speech, noise, SNR)
    return prompt._replace(mixture=mixture, speech=speech, background=background, snr=SNR)


def _fits(trained: Trained, clip: Clip) -> bool:
    """Whether training would have used the clip."""
    try:
        trained.spell(clip.transcript)
    except UserError:
        return False
    return trained.config.data.shortest <= clip.seconds <= trained.config.data.longest


def _sources(files: Files, test: Sequence[Clip], voices: Sequence[str]) -> list[Item]:
    """Spread over the test clips, one by another speaker for each of the first voices."""
    others = files.present(clip for clip in test if clip.kind == "speech" and clip.speaker not in voices)
    return [_item(f"{n:03d}_source", files, clip)
            for n, clip in enumerate(spread(others, min(SOURCES, len(voices))))]  # fmt: skip


def _item(name: str, files: Files, clip: Clip) -> Item:
    wave = _wave(files, clip)
    return Item(name, files.sample_rate, wave, wave, None, None, clip.speaker, clip.transcript)


def _wave(files: Files, clip: Clip) -> np.ndarray:
    return replace(files, clips=[clip]).read(0)
