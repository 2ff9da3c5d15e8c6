"""Pictures of what a model does."""

from pathlib import Path

import numpy as np


def taken_apart(path: Path, rows: dict[str, dict[str, np.ndarray]], sample_rate: int, title: str = "") -> None:
    """Spectrograms in a grid: `rows[row][column]` is a waveform `[t]`; written as a png."""
    from matplotlib.figure import Figure  # the object interface: no global state, no display

    columns = list(next(iter(rows.values())))
    figure = Figure(figsize=(4 * len(columns), 2.2 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    for row_axes, (row, waves) in zip(axes, rows.items(), strict=True):
        for axis, column in zip(row_axes, columns, strict=True):
            _spectrogram(axis, waves[column], sample_rate)
            axis.set_title(f"{column}, {row}" if row else column, fontsize=9)
        row_axes[0].set_ylabel("kHz")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    if title:
        figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)


def _spectrogram(axis, wave: np.ndarray, sample_rate: int, window: int = 512) -> None:
    """One spectrogram in dB below full scale, on a fixed scale, so that pictures can be compared."""
    hop = window // 4
    padded = np.pad(wave, (0, window + -len(wave) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    level = 20 * np.log10(np.abs(np.fft.rfft(frames)).T / (window / 4) + 1e-5)
    extent = (0, len(wave) / sample_rate, 0, sample_rate / 2000)
    axis.imshow(level, origin="lower", aspect="auto", extent=extent, vmin=-80, vmax=0, cmap="magma")


def curves(path: Path, rows: list[dict], panels: dict[str, list[str]]) -> None:
    """Metrics against steps, a panel for each entry of `panels` (title -> metric names); written as a png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(panels), 3.2), layout="constrained")
    for axis, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                axis.plot(*zip(*points, strict=True), label=name.split("/", 1)[-1], linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=90)
