"""How much speech is left in the background half, and vice versa."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from decodec_jax import audio
from decodec_jax.codec.model import DeCodecNetwork, Halves
from decodec_jax.codec.projection import orthogonality
from decodec_jax.errors import UserError
from decodec_jax.evaluation import extras
from decodec_jax.evaluation.reports import latents
from decodec_jax.evaluation.reports.tables import Row
from decodec_jax.evaluation.suites import probe, scoring
from decodec_jax.evaluation.suites.compare import normalised
from decodec_jax.evaluation.suites.scoring import Tools
from decodec_jax.evaluation.systems.base import Item, bits, decodec
from decodec_jax.inference.codec import DeCodec

SPEAKING = -30.0  # dB relative to an item's loudest frame; louder frames count as speech
SHARE = 0.99  # of the energy of vectors that their subspace must hold
SECONDS = 4.0  # of each item, for zero and blank codes; one length for all items, as each length compiles anew
BITRATES = (0.5, 0.75, 1.0)  # of all levels of each stream: 4, 6 and 8 kbit/s of the paper's model


def measure(model: DeCodec, items: Sequence[Item], tools: Tools | None = None, name: str = "model") -> list[Row]:
    """Rows of every group. Items are mixtures by two speakers or more, best of whole utterances and with transcripts.

    Raises UserError if there are fewer speakers, or if scikit-learn is not installed.
    """
    tools = scoring.tools() if tools is None else tools
    return [row for step in STEPS for row in step(name, model, items, tools)]


def untouched(items: Sequence[Item], tools: Tools) -> list[Row]:
    """Scores of the mixtures and of their true parts, to compare the outputs with."""
    columns = {"mixture": "mixture", "true speech": "speech", "true background": "background"}
    return [
        Row("outputs", column, item.name, scoring.scores_without_reference(getattr(item, part), item, tools))
        for column, part in columns.items()
        for item in items
    ]


def outputs(name: str, model: DeCodec, items: Sequence[Item], tools: Tools) -> list[Row]:
    """Scores of the outputs: the background should contain none of the words."""
    tasks = {"speech": model.enhance, "background": model.background}
    return [
        Row("outputs", f"{name}, {part}", item.name,
            scoring.scores_without_reference(task(item.mixture, item.rate), item, tools))
        for part, task in tasks.items()
        for item in items
    ]  # fmt: skip


# --- linear probes of single frames -----------------------------------------------------------------------------------


def frames(name: str, model: DeCodec, items: Sequence[Item], tools: Tools) -> list[Row]:
    """Accuracy of linear probes that see one frame of one half: is there speech, and is the background loud?

    A background is loud if it is louder than the median. The probes are fitted on some speakers and tested on others.
    """
    extras.package("sklearn.linear_model")
    speakers = [item.speaker or item.name for item in items]
    if len(set(speakers)) < 2:
        raise UserError("the probe needs mixtures of two speakers or more; give another folder of data, or more items")
    power = [Halves(*(levels(model, item, part) for part in Halves._fields)) for item in items]
    median = np.median(np.concatenate([each.background for each in power]))
    truth = {
        "speech": [each.speech > each.speech.max() + SPEAKING for each in power],
        "background": [each.background > median for each in power],
    }
    rows = []
    for column, features in probe_inputs(model, items).items():
        found = {f"frames/{what}": balanced_accuracies(features, labels, speakers) for what, labels in truth.items()}
        rows += [
            Row("frames", f"{name}, {column}", item.name, {key: values[n] for key, values in found.items()})
            for n, item in enumerate(items)
        ]
    return rows


def probe_inputs(model: DeCodec, items: Sequence[Item]) -> dict[str, list]:
    """Inputs of the probes, `[f, d]` for each item: the latents of both halves, and their one-hot codes, if any."""
    embedded = [model.embed(item.mixture, item.rate) for item in items]
    found = {f"{half} latents": [getattr(each, half) for each in embedded] for half in Halves._fields}
    if model.quantized:
        tokens = [model.encode(item.mixture, item.rate) for item in items]
        for half in Halves._fields:
            entries = getattr(model.config, half).entries
            found[f"{half} codes"] = [one_hot(getattr(each, half), entries) for each in tokens]
    return found


def one_hot(codes: np.ndarray, entries: int):
    """Codes `[k, f]` as a sparse matrix `[f, k entries]` with k ones in each row."""
    from scipy.sparse import csr_array

    k, f = codes.shape
    columns = (codes + entries * np.arange(k)[:, None]).T.ravel()
    return csr_array((np.ones(k * f, np.float32), columns, k * np.arange(f + 1)), shape=(f, k * entries))


def levels(model: DeCodec, item: Item, part: str) -> np.ndarray:
    """Level of one part in each frame, in dB, after the gain with which the codec codes the mixture: `[f]`."""
    config = model.config
    wave = getattr(item, part) * normalised(item.mixture, item.rate).gain
    wave = audio.resample(wave, item.rate, config.sample_rate)
    wave = np.pad(wave, (0, -len(wave) % config.hop)).reshape(-1, config.hop)
    return 10 * np.log10(np.mean(np.square(wave, dtype=np.float64), axis=1) + 1e-10)


def balanced_accuracies(features: Sequence, labels: Sequence[np.ndarray], speakers: Sequence[str]) -> list[float]:
    """Balanced accuracy for each item: the mean over both classes of the share of frames classified correctly."""
    fold = np.unique(speakers, return_inverse=True)[1]
    fold %= min(probe.FOLDS, fold.max() + 1)
    accuracies = [0.0] * len(labels)
    for n in np.unique(fold):
        others = np.flatnonzero(fold != n)
        predict = fitted_classifier([features[i] for i in others], [labels[i] for i in others])
        for i in np.flatnonzero(fold == n):
            correct = predict(features[i]) == labels[i]
            accuracies[i] = float(np.mean([correct[labels[i] == kind].mean() for kind in np.unique(labels[i])]))
    return accuracies


def fitted_classifier(features: Sequence, labels: Sequence[np.ndarray]) -> Callable:
    """Fit logistic regression to features `[f, d]`, dense or sparse; returns the function that predicts labels."""
    from scipy.sparse import issparse, vstack

    linear = extras.package("sklearn.linear_model")
    target = np.concatenate(labels)
    if target.all() or not target.any():
        return lambda others: np.full(others.shape[0], target[0])
    sparse = issparse(features[0])
    joined = vstack(features) if sparse else np.concatenate(features)
    mean, scale = (0, 1) if sparse else (joined.mean(0), joined.std(0) + 1e-6)

    def scaled(values):
        return values if sparse else (values - mean) / scale

    classifier = linear.LogisticRegression(
        C=probe.INVERSE_REGULARISATION, max_iter=probe.ITERATIONS, tol=1e-3, class_weight="balanced"
    ).fit(scaled(joined), target)  # fmt: skip
    return lambda others: classifier.predict(scaled(others))


# --- geometry, blanks, bitrates ---------------------------------------------------------------------------------------


def subspaces(name: str, model: DeCodec, items: Sequence[Item], tools: Tools) -> list[Row]:
    """Principal angles between the subspaces of the halves: of the projections' weights, and of each item's latents.

    In orthogonal subspaces all angles are 90 degrees. An angle of 0 means that they share a direction.
    """
    weights = angles(*(matrix.T for matrix in latents.projections(model)))  # the subspaces that they project onto
    rows = [Row("subspaces", f"{name}, weights", "every item", summary(weights))]
    for item in items:
        halves = latents.in_one_space(model, model.embed(item.mixture, item.rate))
        together = float(orthogonality(*(half[None] for half in halves))[0])
        scores = {**summary(angles(*halves)), "angle/frames": together}
        rows.append(Row("subspaces", f"{name}, latents", item.name, scores))
    return rows


def angles(one: np.ndarray, other: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Principal angles, degrees, ascending, between the subspaces that hold `share` of the energy of rows `[n, d]`."""
    cosines = np.linalg.svd(_basis(one, share) @ _basis(other, share).T, compute_uv=False)
    return np.degrees(np.arccos(np.clip(cosines, 0, 1)))


def _basis(rows: np.ndarray, share: float) -> np.ndarray:
    """Orthonormal basis `[rank, d]` of the subspace that holds `share` of the energy of `rows`."""
    _, sizes, directions = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    held = np.cumsum(sizes**2) / max(np.sum(sizes**2), 1e-30)
    return directions[: 1 + np.searchsorted(held, share - 1e-9)]


def summary(found: np.ndarray) -> dict[str, float]:
    return {"angle/smallest": float(found[0]), "angle/mean": float(found.mean())}


def blanks(name: str, model: DeCodec, items: Sequence[Item], tools: Tools) -> list[Row]:
    """Scores of the parts of the first `SECONDS`, if codes of silence ("blank") or zeros replace the other half."""
    config, rate = model.config, model.config.sample_rate
    network, variables = DeCodecNetwork(config), {"params": model.params, "codebook": model.codebook}
    parts = ((getattr(item, part) for part in Halves._fields) for item in items)
    waves = [Halves(*(audio.resample(wave, items[0].rate, rate) for wave in both)) for both in parts]
    t = min(round(SECONDS * rate), *(len(each.speech) for each in waves))
    counts = Halves(config.speech.levels, config.background.levels) if model.quantized else Halves(0, 0)

    @jax.jit
    def decoded(variables, wave):
        both = network.apply(variables, jnp.stack([wave, jnp.zeros_like(wave)]), method="embed")
        active = Halves(*(jnp.full(2, count) for count in counts))
        both = [q.vectors for q in network.apply(variables, both, active, method="quantize")]
        speech, background = (vectors[:1] for vectors in both)
        silence = Halves(*(vectors[1:] for vectors in both))
        zero = jnp.zeros_like(speech)
        halves = [
            (speech, silence.background), (silence.speech, background), (speech, zero), (zero, background),
        ]  # fmt: skip
        halves = Halves(*(jnp.concatenate(side) for side in zip(*halves, strict=True)))
        return network.apply(variables, halves, t, method="decode")

    rows = []
    for item, truth in zip(items, waves, strict=True):
        truth = Halves(*(part[:t] for part in truth))
        wave, gain = normalised(truth.speech + truth.background, rate)
        made = np.asarray(decoded(variables, wave)) / gain
        for column, (speech, background) in {"blank": made[:2], "zero": made[2:]}.items():
            scores = scoring.sdr_scores(speech, truth.speech, "speech", ("sdr", "si_sdr"))
            scores |= scoring.sdr_scores(background, truth.background, "background", ("sdr",))
            rows.append(Row("left out", f"{name}, {column}", item.name, scores))
    return rows


def bitrates(name: str, model: DeCodec, items: Sequence[Item], tools: Tools) -> list[Row]:
    """Scores of the parts and the whole at `BITRATES`: leakage may come with the finer levels."""
    if not model.quantized:
        return []
    there, rows = (model.config.speech.levels, model.config.background.levels), []
    for chosen in dict.fromkeys(tuple(max(1, round(share * count)) for count in there) for share in BITRATES):
        system = decodec(name, model, chosen)
        kbps = bits(model, 1.0, chosen) / 1000
        rows += [
            Row("bitrates", f"{name}, {kbps:.3g} kbit/s", item.name,
                scoring.separation(system, item, tools) | {"kbps": kbps})
            for item in items
        ]  # fmt: skip
    return rows


Step = Callable[[str, DeCodec, Sequence[Item], Tools], list[Row]]
STEPS: tuple[Step, ...] = (outputs, frames, subspaces, blanks, bitrates)
