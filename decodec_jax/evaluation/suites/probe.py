"""What the first speech level says of the words: phones read from its codes, words heard in its sound.

Phones are those of a forced alignment of the transcripts. Whatever reads them is fitted on some speakers and tried on
others, and sees one frame of the first level, nothing around it. All of it on clean speech, as the teacher's is.
"""

import functools
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from decodec_jax.codec.model import DeCodecNetwork, Halves
from decodec_jax.errors import UserError
from decodec_jax.evaluation import extras
from decodec_jax.evaluation.metrics import judges
from decodec_jax.evaluation.suites.compare import Values
from decodec_jax.evaluation.systems.base import Item
from decodec_jax.inference.codec import DeCodec
from decodec_jax.objective.teacher import Teacher

log = logging.getLogger(__name__)

FOLDS = 5  # speakers are dealt out over these; one fold is tried, the others are fitted on
SLACK = 0.01  # of the regression, scikit-learn's C: with less regularisation rare codes keep it from converging
ITERATIONS = 200


class Utterance(NamedTuple):
    """A clip of clean speech and what is said in it."""

    wave: np.ndarray  # [t]
    rate: int  # Hz
    speaker: str
    transcript: str
    phones: list[judges.Phone]
    name: str = ""


class Frames(NamedTuple):
    """Frames of all utterances, one after the other."""

    codes: np.ndarray  # [n] of the first speech level
    phones: np.ndarray  # [n] numbers from 0 up
    speakers: np.ndarray  # [n] names
    clips: np.ndarray  # [n] numbers of the utterances


def utterances(items: Iterable[Item], cache: Path) -> list[Utterance]:
    """The transcribed clean speech among the items with its phones, which the file `cache` keeps for the next time.

    Clips with words that the recogniser does not know are left out, with a warning. Raises UserError where fewer than
    two speakers are left.
    """
    extras.package("pocketsphinx")  # or each clip would be left out for want of it
    known = json.loads(cache.read_text()) if cache.is_file() else {}
    found, reasons = [], []
    for item in items:
        if item.background is not None or not item.transcript:
            continue
        before = known.get(item.name)
        if not before or before["transcript"] != item.transcript:
            try:
                phones = judges.phones(item.mixture, item.rate, item.transcript)
            except UserError as error:
                reasons.append(str(error))
                continue
            known[item.name] = {"transcript": item.transcript, "phones": phones}
        phones = [judges.Phone(*phone) for phone in known[item.name]["phones"]]
        found.append(Utterance(item.mixture, item.rate, item.speaker, item.transcript, phones, item.name))
    if reasons:
        log.warning("%d of %d clips are left out: %s", len(reasons), len(reasons) + len(found), "; ".join(reasons[:3]))
    if len({each.speaker for each in found}) < 2:
        raise UserError("the probe needs transcribed test clips of two speakers or more; give another folder of data")
    temporary = cache.with_suffix(".tmp")
    temporary.write_text(json.dumps(known) + "\n")
    os.replace(temporary, cache)
    return found


def labels(phones: Sequence[judges.Phone], frames: int, seconds: float) -> list[str]:
    """The phone in the middle of each of so many frames of so many seconds."""
    middles = (np.arange(frames) + 0.5) * seconds
    at = np.searchsorted([phone.start for phone in phones], middles, side="right") - 1
    return [phones[i].name for i in np.maximum(at, 0)]


def beside(spoken: Sequence[Utterance], codes_of: Callable[[Utterance], np.ndarray], seconds: float) -> Frames:
    """What `codes_of` makes of each utterance, a number `[f]` for each frame of so many seconds, beside its phones."""
    codes, names, speakers, clips = [], [], [], []
    for n, each in enumerate(spoken):
        of_clip = codes_of(each)
        codes.append(of_clip)
        names += labels(each.phones, len(of_clip), seconds)
        speakers += [each.speaker] * len(of_clip)
        clips += [n] * len(of_clip)
    return Frames(np.concatenate(codes), np.unique(names, return_inverse=True)[1], np.array(speakers), np.array(clips))


def first_level(model: DeCodec, spoken: Sequence[Utterance]) -> Frames:
    """The model's codes of each utterance beside its phones."""
    seconds = model.config.hop / model.config.sample_rate
    return beside(spoken, lambda each: model.encode(each.wave, each.rate).speech[0], seconds)


def taught(teacher: Teacher, spoken: Sequence[Utterance], hop: int) -> Values:
    """How well phones are read from the teacher's own targets, frames of `hop` samples: what guidance has to give."""
    targets = [np.asarray(teacher.targets(each.wave[None])[0]) for each in spoken]
    return {"phones/vectors": read_from(targets, spoken, hop)}


def read_from(targets: Sequence[np.ndarray], spoken: Sequence[Utterance], hop: int) -> np.ndarray:
    """Accuracy for each utterance of phones read from its frames `[f, width]` by linear regression."""
    first = np.cumsum([0, *map(len, targets)])  # every frame is a code of its own
    numbers = {id(each): np.arange(first[n], first[n + 1]) for n, each in enumerate(spoken)}
    frames = beside(spoken, lambda each: numbers[id(each)], hop / spoken[0].rate)
    vectors = np.concatenate(targets)
    return tried(frames, lambda codes, phones: regressed(codes, phones, vectors))


def first_vectors(model: DeCodec) -> np.ndarray:
    """What each code of the first speech level stands for, `[entries, d]`."""
    every = np.arange(model.config.speech.entries)[None, None]
    run = jax.jit(functools.partial(DeCodecNetwork(model.config).apply, method="vectors"))
    variables = {"params": model.params, "codebook": model.codebook}
    return np.asarray(run(variables, Halves(every, np.zeros_like(every))).speech[0])


def accuracies(frames: Frames, vectors: np.ndarray) -> Values:
    """Share of each utterance's frames whose phone is read rightly by readers that never heard its speaker.

    codes: for each code the phone that it stood for most often, which is all that a linear classifier of one-hot codes
           can learn. vectors: multinomial logistic regression of `[entries, d]`. chance: always the commonest phone.
    """
    nothing = np.zeros_like(frames.codes)
    return {
        "phones/codes": tried(frames, lambda codes, phones: commonest(codes, phones, len(vectors))),
        "phones/vectors": tried(frames, lambda codes, phones: regressed(codes, phones, vectors)),
        "phones/chance": tried(frames._replace(codes=nothing), lambda codes, phones: commonest(codes, phones, 1)),
    }


def tried(frames: Frames, fit: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Accuracy for each utterance; `fit` makes of the codes and phones of other speakers a phone for each code."""
    speakers = np.unique(frames.speakers, return_inverse=True)[1]
    fold = speakers % min(FOLDS, speakers.max() + 1)
    right = np.empty(len(frames.codes))
    for n in np.unique(fold):
        here = fold == n
        right[here] = fit(frames.codes[~here], frames.phones[~here])[frames.codes[here]] == frames.phones[here]
    return np.bincount(frames.clips, right) / np.bincount(frames.clips)


def commonest(codes: np.ndarray, phones: np.ndarray, entries: int) -> np.ndarray:
    """The phone that each code stands for most often; for a code never seen, the commonest of all: `[entries]`."""
    counts = np.zeros((entries, phones.max() + 1))
    np.add.at(counts, (codes, phones), 1)
    return np.argmax(counts + counts.sum(0) / (counts.sum() + 1), axis=1)  # fewer than one, to break ties


def regressed(codes: np.ndarray, phones: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """What multinomial logistic regression makes of each code's vector, `[entries]`."""
    linear = extras.package("sklearn.linear_model")
    scaled = (vectors - vectors[codes].mean(0)) / (vectors[codes].std(0) + 1e-6)
    seen, often = np.unique(np.stack([codes, phones]), axis=1, return_counts=True)  # as good as every frame, and faster
    model = linear.LogisticRegression(C=SLACK, max_iter=ITERATIONS, tol=1e-3)
    return model.fit(scaled[seen[0]], seen[1], sample_weight=often).predict(scaled)


def words_heard(
    spoken: Sequence[Utterance], say: Callable[[np.ndarray, int], np.ndarray], words: judges.Judge
) -> Values:
    """Word error rates of what `say` makes of each utterance."""
    rates = [words(say(each.wave, each.rate), each.rate, each.transcript)["wer"] for each in spoken]
    return {"wer": np.array(rates)}
