"""Figures of what a model does and of its scores: functions that draw arrays and write a png."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decodec_jax.errors import UserError

FLOOR = -80.0  # dB of full scale, the lower end of spectrograms
DPI = 144
KNOWN = {  # fixed colours of common systems; the others get those of `IN_TURN`
    "mixture": "#8a8f98", "silence": "#b9bdc4", "oracle": "#3d434d", "opus": "#d1495b", "noisereduce": "#e29a1c",
    "encodec": "#7a5195", "dac": "#b5651d", "mimi": "#c2569b", "speechtokenizer": "#5b8c2a", "hificodec": "#8c6bb1",
    "storm": "#a6611a",
}  # fmt: skip
IN_TURN = ("#0b7285", "#1f77b4", "#2b9348", "#17a2b8", "#4361ee", "#80b918", "#9c6644", "#6d597a")


class Point(NamedTuple):
    """A measured value with its interval; `x` is None if the value does not depend on it."""

    x: float | None
    value: float
    low: float | None = None
    high: float | None = None


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each system. The same names in the same order get the same colours in every picture and on the page.

    "opus:8" and "opus 8 kbps" get the colour of "opus" in `KNOWN`.
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
    """Fig. 2: draw spectrograms in a grid as a png; `rows[row][column]` is a waveform `[t]`."""
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
    """Draw only the spectrogram of a waveform `[t]`, `size` pixels wide and high, in 64 colours for a small file."""
    from matplotlib import colormaps
    from PIL import Image

    shades = np.round(63 * np.clip(1 - _levels(wave)[::-1] / FLOOR, 0, 1)).astype(np.uint8)
    picture = Image.fromarray(shades).resize(size, Image.Resampling.BOX)
    palette = np.round(255 * colormaps["magma"](np.linspace(0, 1, 64))[:, :3]).astype(np.uint8)
    picture.putpalette(palette.tobytes())
    picture.save(path, format="PNG", optimize=True)


def _levels(wave: np.ndarray, window: int = 512) -> np.ndarray:
    """Levels of a waveform `[t]` in dB of full scale, so that pictures can be compared: `[bins, frames]`."""
    hop = window // 4
    padded = np.pad(wave, (0, window + -len(wave) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    return 20 * np.log10(np.abs(np.fft.rfft(frames)).T / (window / 4) + 1e-5)


# --- training ---------------------------------------------------------------------------------------------------------


def curves(path: Path, rows: list[dict], panels: dict[str, list[str]]) -> None:
    """Draw metrics against steps as a png, with a panel for each entry of `panels` (title -> metric names)."""
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
    """Fig. 3: are the subspaces orthogonal? Draw latents S and N of the same frames, `[n, d]`; P_S and P_N, `[d, d]`.

    Left: cosines of S and N in each frame, and of each row of P_S with each row of P_N. In orthogonal subspaces they
    are 0. Right: singular values of P_S and P_N, which should be 1 or 0 by equation (4), and of P_S P_N^T, which should
    be 0.
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
    """Scale vectors `[n, d]` to length 1; zero vectors, which have no direction, stay zero."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def speakers(path: Path, content: np.ndarray, rest: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Fig. 4: is the voice in Zr and not in Zc? Draw means over utterances, `[n, d]` each; `names` are their speakers.

    Drawn by t-SNE with a colour for each speaker. Returns the silhouettes of the speakers, "Zc" and "Zr", from -1 to 1;
    at 0, the speakers cannot be told apart. They come from the vectors themselves by cosine distance, as t-SNE makes
    clusters of anything. Raises UserError unless there are two speakers, one of whom has two utterances.
    """
    from matplotlib import colormaps
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    who = sorted(set(names))
    if not 2 <= len(who) < len(names):
        raise UserError(f"the figure of speakers has {len(names)} utterances by {len(who)} speakers; it needs at least "
                        "two speakers, and more utterances than speakers")  # fmt: skip
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


# --- scores -----------------------------------------------------------------------------------------------------------


def rate_distortion(path: Path, systems: Mapping[str, Sequence[Point]], what: str, title: str = "") -> None:
    """Draw a metric, called `what` with its unit, against kbps, with a line for each system.

    A system that does not code, x None, is a horizontal line.
    """
    _lines(path, systems, "kbps", what, title)


def per_snr(path: Path, systems: Mapping[str, Sequence[Point]], what: str, title: str = "") -> None:
    """Draw a metric, called `what` with its unit, against the SNR of the mixture in dB, with a line for each system."""
    _lines(path, systems, "SNR of the mixture, dB", what, title)


def _lines(path: Path, systems: Mapping[str, Sequence[Point]], along: str, what: str, title: str) -> None:
    """Draw the lines. Intervals are shaded; that of a single value is a bar."""
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
    """`count` axes side by side to draw on; afterwards, add a legend to each or a shared one, and write the png."""
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
