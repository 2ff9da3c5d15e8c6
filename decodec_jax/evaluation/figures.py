"""Pictures of what a model does and of how good it is: functions of arrays that write a png."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decodec_jax.errors import UserError

FLOOR = -80.0  # dB below full scale, where spectrograms end
DPI = 144
KNOWN = {  # colours of what is in many pictures; others take theirs in turn
    "mixture": "#8a8f98", "silence": "#b9bdc4", "oracle": "#3d434d", "opus": "#d1495b", "noisereduce": "#e29a1c",
    "encodec": "#7a5195", "dac": "#b5651d", "mimi": "#c2569b", "speechtokenizer": "#5b8c2a", "hificodec": "#8c6bb1",
    "storm": "#a6611a",
}  # fmt: skip
IN_TURN = ("#0b7285", "#1f77b4", "#2b9348", "#17a2b8", "#4361ee", "#80b918", "#9c6644", "#6d597a")


class Point(NamedTuple):
    """A measured value, and the interval that it is in; `x` is None where it does not depend on it."""

    x: float | None
    value: float
    low: float | None = None
    high: float | None = None


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each system, the same in every picture and on the page where the names come in the same order.

    "opus:8" and "opus 8 kbps" are what `KNOWN` calls "opus".
    """
    chosen, turn = {}, 0
    for name in names:
        family = name.lower().replace(":", " ").split(" ")[0]
        if family not in KNOWN and name not in chosen:
            chosen[name] = IN_TURN[turn % len(IN_TURN)]
            turn += 1
        chosen.setdefault(name, KNOWN.get(family))
    return chosen


# --- sound ------------------------------------------------------------------------------------------------------------


def taken_apart(path: Path, rows: dict[str, dict[str, np.ndarray]], sample_rate: int, title: str = "") -> None:
    """Fig. 2, spectrograms in a grid: `rows[row][column]` is a waveform `[t]`; written as a png."""
    from matplotlib.figure import Figure  # the object interface: no global state, no display

    columns = list(next(iter(rows.values())))
    figure = Figure(figsize=(4 * len(columns), 2.2 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    for row_axes, (row, waves) in zip(axes, rows.items(), strict=True):
        for axis, column in zip(row_axes, columns, strict=True):
            wave = waves[column]
            extent = (0, len(wave) / sample_rate, 0, sample_rate / 2000)
            axis.imshow(_levels(wave), origin="lower", aspect="auto", extent=extent, vmin=FLOOR, vmax=0, cmap="magma")
            axis.set_title(f"{column}, {row}" if row else column, fontsize=9)
        row_axes[0].set_ylabel("kHz")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    if title:
        figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)


def spectrogram(path: Path, wave: np.ndarray, size: tuple[int, int] = (480, 112)) -> None:
    """The spectrogram of a waveform `[t]` and nothing else, so many pixels wide and high, in 64 colours to be small."""
    from matplotlib import colormaps
    from PIL import Image

    shades = np.round(63 * np.clip(1 - _levels(wave)[::-1] / FLOOR, 0, 1)).astype(np.uint8)
    picture = Image.fromarray(shades).resize(size, Image.Resampling.BOX)
    palette = np.round(255 * colormaps["magma"](np.linspace(0, 1, 64))[:, :3]).astype(np.uint8)
    picture.putpalette(palette.tobytes())
    picture.save(path, format="PNG", optimize=True)


def _levels(wave: np.ndarray, window: int = 512) -> np.ndarray:
    """Of a waveform `[t]`, dB below full scale, on a fixed scale, to compare pictures by: `[bins, frames]`."""
    hop = window // 4
    padded = np.pad(wave, (0, window + -len(wave) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    return 20 * np.log10(np.abs(np.fft.rfft(frames)).T / (window / 4) + 1e-5)


# --- training ---------------------------------------------------------------------------------------------------------


def curves(path: Path, rows: list[dict], panels: dict[str, list[str]]) -> None:
    """Metrics against steps, a panel for each entry of `panels` (title -> metric names); written as a png."""
    with _panels(path, len(panels), dpi=90) as axes:
        for axis, (title, names) in zip(axes, panels.items(), strict=True):
            for name in names:
                points = [(row["step"], row[name]) for row in rows if name in row]
                if points:
                    axis.plot(*zip(*points, strict=True), label=name.split("/", 1)[-1], linewidth=1)
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("step")


# --- the two subspaces ------------------------------------------------------------------------------------------------


def projections(path: Path, speech: np.ndarray, background: np.ndarray, onto: Sequence[np.ndarray]) -> None:
    """Fig. 3: are the subspaces orthogonal? Latents S and N of the same frames, `[n, d]` each; P_S and P_N, `[d, d]`.

    Left, cosines of S and N in each frame and of each row of P_S with each of P_N; they are 0 in orthogonal subspaces.
    Right, singular values of P_S, of P_N and of P_S P_N^T, which equation (4) wants 1 or 0, and 0.
    """
    first, second = (np.asarray(matrix, np.float64) for matrix in onto)
    frames = np.sum(_unit(speech) * _unit(background), axis=1)
    rows = (_unit(first) @ _unit(second).T).ravel()
    with _panels(path, 2) as (left, right):
        bins = np.linspace(-1, 1, 81)
        for cosines, label, colour in (
            (frames, "$S$, $N$", "#0b7285"),
            (rows, "rows of $P_S$, $P_N$", "#e29a1c"),
        ):
            share = np.full(len(cosines), 100 / len(cosines))
            label += f": rms {np.sqrt(np.mean(cosines**2)):.2f}"
            left.hist(cosines, bins, weights=share, histtype="stepfilled", alpha=0.45, color=colour, label=label)
        left.set(xlabel="cosine", ylabel="share, %", yscale="log", ylim=(0.01, 100), xlim=(-1, 1))
        left.set_title("cosines of speech and background, frame by frame", fontsize=10)
        for matrix, label, colour in ((first, "$P_S$", "#0b7285"), (second, "$P_N$", "#d1495b"),
                                      (first @ second.T, "$P_S P_N^T$", "#3d434d")):  # fmt: skip
            values = np.linalg.svd(matrix, compute_uv=False)
            right.plot(np.arange(1, len(values) + 1), values, label=label, color=colour, linewidth=1.6)
        right.set(xlabel="number, from the largest", ylabel="singular value")
        right.set_ylim(bottom=-0.02)
        right.set_title("singular values of the projections", fontsize=10)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `[n, d]` at length 1; those of zeros, which have no direction, stay zeros."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def speakers(path: Path, content: np.ndarray, rest: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Fig. 4: does the voice live in Zr and not in Zc? Means over utterances, `[n, d]` each, and who speaks in each.

    Drawn by t-SNE, a colour for each speaker. Returns the silhouettes of the speakers, "Zc" and "Zr", from -1 to 1:
    of the vectors themselves by cosine distance, as t-SNE makes clusters of anything. 0: the speakers cannot be told
    apart. Raises UserError unless there are two speakers, one of whom has two utterances.
    """
    from matplotlib import colormaps
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    who = sorted(set(names))
    if not 2 <= len(who) < len(names):
        raise UserError(f"the figure of speakers is of {len(names)} utterances by {len(who)} speakers; it needs two "
                        "speakers at least, and more utterances than speakers")  # fmt: skip
    scores = {}
    with _panels(path, 2, shared=True) as axes:
        for axis, symbol, vectors, what in (
            (axes[0], "Zc", content, "the first speech level"),
            (axes[1], "Zr", rest, "the levels after it"),
        ):
            scores[symbol] = float(silhouette_score(vectors, names, metric="cosine"))
            placed = TSNE(perplexity=min(30.0, (len(names) - 1) / 3), init="random", random_state=0).fit_transform(
                np.asarray(vectors, np.float32)
            )
            for n, name in enumerate(who):
                points = placed[[name == other for other in names]]
                colour, marker = colormaps["tab10"](n % 10), "os^Dv"[n // 10 % 5]
                axis.scatter(*points.T, s=22, color=colour, marker=marker, linewidths=0, alpha=0.85, label=name)
            axis.set_title(f"{symbol}, {what}: silhouette {scores[symbol]:+.2f}", fontsize=10)
            axis.set(xticks=[], yticks=[], xlabel="t-SNE", ylabel="t-SNE")
    return scores


# --- how good it is ---------------------------------------------------------------------------------------------------


def rate_distortion(path: Path, systems: Mapping[str, Sequence[Point]], what: str, title: str = "") -> None:
    """A figure, called `what` with its unit, against kbps, a line for each system.

    A system that is not coded, x None, is a line across.
    """
    _lines(path, systems, "kbps", what, title)


def per_snr(path: Path, systems: Mapping[str, Sequence[Point]], what: str, title: str = "") -> None:
    """A figure, called `what` with its unit, against the SNR of the mixture in dB, a line for each system."""
    _lines(path, systems, "SNR of the mixture, dB", what, title)


def _lines(path: Path, systems: Mapping[str, Sequence[Point]], along: str, what: str, title: str) -> None:
    """Intervals are shaded; those of a single value are a bar."""
    chosen = colours(list(systems))
    with _panels(path, 1, width=7.5, height=4.2) as (axis,):
        for name, points in systems.items():
            colour = chosen[name]
            across = [point for point in points if point.x is None]
            along_x = sorted(point for point in points if point.x is not None)
            for point in across:
                axis.axhline(point.value, color=colour, linewidth=1.4, linestyle=(0, (5, 3)), label=name)
            if not along_x:
                continue
            x, value = [point.x for point in along_x], [point.value for point in along_x]
            axis.plot(x, value, color=colour, label=None if across else name, linewidth=1.8, marker="o", markersize=4.5)
            known = [point for point in along_x if None not in (point.low, point.high)]
            span = [[getattr(point, field) for point in known] for field in ("x", "low", "high")]
            if len(known) > 1:
                axis.fill_between(*span, color=colour, alpha=0.15, linewidth=0)
            elif known:
                axis.vlines(*span, color=colour, linewidth=1.4)
        axis.set(xlabel=along, ylabel=what)
        axis.set_title(title, fontsize=10)


@contextlib.contextmanager
def _panels(
    path: Path, count: int, width: float = 4.5, height: float = 3.2, shared: bool = False, dpi: int = DPI
) -> Iterator[Sequence]:
    """`count` axes side by side, to be drawn on; then labels make a legend, shared or of each, and a png is written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    yield axes
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, linewidth=0.6)
        if not shared and axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, frameon=False)
    handles, labels = axes[0].get_legend_handles_labels()
    if shared and len(labels) <= 20:  # more would be taller than the picture
        figure.legend(handles, labels, loc="outside right upper", fontsize=7, frameon=False)
    figure.savefig(path, dpi=dpi)
