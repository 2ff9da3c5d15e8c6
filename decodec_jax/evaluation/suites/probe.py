"""How much the first speech level says about the words: phones predicted from its codes, words recognised in its sound.

The true phones come from a forced alignment of the transcripts. Classifiers are fitted on some speakers and tested on
others, and see a single frame of the first level without context. All speech is clean, as the teacher's is.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
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
from decodec_jax.objective.cepstra import HOP
from decodec_jax.objective.teacher import Teacher, of_whole_clips

log = logging.getLogger(__name__)

FOLDS = 5  # speakers are divided among these; one fold is tested, the others are for fitting
INVERSE_REGULARISATION = 0.01  # scikit-learn's C; with less regularisation, rare codes prevent convergence
ITERATIONS = 200


class Utterance(NamedTuple):
    """A clip of clean speech with its words and phones."""

    wave: np.ndarray  # [t]
    rate: int  # Hz
    speaker: str
    transcript: str
    phones: list[judges.Phone]
    name: str = ""


class Frames(NamedTuple):
    """The frames of all utterances, concatenated."""

    codes: np.ndarray  # [n] of the first speech level
    phones: np.ndarray  # [n] numbers from 0 up
    speakers: np.ndarray  # [n] names
    clips: np.ndarray  # [n] numbers of the utterances


def utterances(items: Iterable[Item], cache: Path) -> list[Utterance]:
    """The transcribed clean speech among the items, with its phones; the file `cache` keeps them for the next call.

    Clips that cannot be aligned, for example because of an unknown word, are left out with a warning. Raises UserError
    if fewer than two speakers are left.
    """
    extras.package("pocketsphinx")  # without it, every clip would be left out
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
    """The phone in the middle of each frame; a frame lasts `seconds`."""
    middles = (np.arange(frames) + 0.5) * seconds
    at = np.searchsorted([phone.start for phone in phones], middles, side="right") - 1
    return [phones[i].name for i in np.maximum(at, 0)]


def labelled_frames(spoken: Sequence[Utterance], codes_of: Callable[[Utterance], np.ndarray], seconds: float) -> Frames:
    """Label the frames of all utterances with their phones.

    `codes_of` gives an utterance's codes, a number for each frame `[f]`; a frame lasts `seconds`.
    """
    codes, names, speakers, clips = [], [], [], []
    for n, each in enumerate(spoken):
        of_clip = codes_of(each)
        codes.append(of_clip)
        names += labels(each.phones, len(of_clip), seconds)
        speakers += [each.speaker] * len(of_clip)
        clips += [n] * len(of_clip)
    return Frames(np.concatenate(codes), np.unique(names, return_inverse=True)[1], np.array(speakers), np.array(clips))


def first_level(model: DeCodec, spoken: Sequence[Utterance]) -> Frames:
    """The first-level codes of each utterance, labelled with its phones."""
    seconds = model.config.hop / model.config.sample_rate
    return labelled_frames(spoken, lambda each: model.encode(each.wave, each.rate).speech[0], seconds)


def teacher_accuracy(teacher: Teacher, spoken: Sequence[Utterance]) -> Values:
    """Accuracy of phones predicted from the teacher's targets: what guidance can offer."""
    targets = list(map(of_whole_clips(teacher), (each.wave for each in spoken)))
    return {"phones/vectors": phone_accuracy(targets, spoken, HOP)}


def phone_accuracy(targets: Sequence[np.ndarray], spoken: Sequence[Utterance], hop: int) -> np.ndarray:
    """Accuracy for each utterance of phones that logistic regression predicts from its frames `[f, width]`."""
    first = np.cumsum([0, *map(len, targets)])  # every frame is a code of its own
    numbers = {id(each): np.arange(first[n], first[n + 1]) for n, each in enumerate(spoken)}
    frames = labelled_frames(spoken, lambda each: numbers[id(each)], hop / spoken[0].rate)
    vectors = np.concatenate(targets)
    return cross_validated(frames, partial(predicted_phones, vectors=vectors))


def first_vectors(model: DeCodec) -> np.ndarray:
    """The vector of each code of the first speech level, `[entries, d]`."""
    every = np.arange(model.config.speech.entries)[None, None]
    run = jax.jit(partial(DeCodecNetwork(model.config).apply, method="vectors"))
    variables = {"params": model.params, "codebook": model.codebook}
    return np.asarray(run(variables, Halves(every, np.zeros_like(every))).speech[0])


def accuracies(frames: Frames, vectors: np.ndarray) -> Values:
    """Share of each utterance's frames whose phone is predicted correctly, by classifiers fitted on other speakers.

    codes: predicts the most frequent phone of each code, which is all that a linear classifier of one-hot codes can
           learn. vectors: multinomial logistic regression of `[entries, d]`. chance: always predicts the most frequent
           phone.
    """
    nothing = np.zeros_like(frames.codes)
    return {
        "phones/codes": cross_validated(frames, partial(most_frequent_phones, entries=len(vectors))),
        "phones/vectors": cross_validated(frames, partial(predicted_phones, vectors=vectors)),
        "phones/chance": cross_validated(frames._replace(codes=nothing), partial(most_frequent_phones, entries=1)),
    }


def cross_validated(frames: Frames, fit: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Accuracy for each utterance. `fit` maps the codes and phones of other speakers to a phone for each code."""
    speakers = np.unique(frames.speakers, return_inverse=True)[1]
    fold = speakers % min(FOLDS, speakers.max() + 1)
    correct = np.empty(len(frames.codes))
    for n in np.unique(fold):
        here = fold == n
        correct[here] = fit(frames.codes[~here], frames.phones[~here])[frames.codes[here]] == frames.phones[here]
    return np.bincount(frames.clips, correct) / np.bincount(frames.clips)


def most_frequent_phones(codes: np.ndarray, phones: np.ndarray, entries: int) -> np.ndarray:
    """The most frequent phone of each code, or of all codes if a code never occurs: `[entries]`."""
    counts = np.zeros((entries, phones.max() + 1))
    np.add.at(counts, (codes, phones), 1)
    return np.argmax(counts + counts.sum(0) / (counts.sum() + 1), axis=1)  # adds less than one, to break ties


def predicted_phones(codes: np.ndarray, phones: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The phone that multinomial logistic regression predicts from each code's vector, `[entries]`."""
    linear = extras.package("sklearn.linear_model")
    scaled = (vectors - vectors[codes].mean(0)) / (vectors[codes].std(0) + 1e-6)
    pairs, counts = np.unique(np.stack([codes, phones]), axis=1, return_counts=True)  # same as all frames, but faster
    model = linear.LogisticRegression(C=INVERSE_REGULARISATION, max_iter=ITERATIONS, tol=1e-3)
    return model.fit(scaled[pairs[0]], pairs[1], sample_weight=counts).predict(scaled)


def word_error_rates(
    spoken: Sequence[Utterance], process: Callable[[np.ndarray, int], np.ndarray], words: judges.Judge
) -> Values:
    """Word error rate of each utterance after `process`."""
    rates = [words(process(each.wave, each.rate), each.rate, each.transcript)["wer"] for each in spoken]
    return {"wer": np.array(rates)}
