"""Charts of a suite's results: against the signal-to-noise ratio for groups that have one, and against the bitrate for
systems that have one."""

from collections.abc import Mapping
from pathlib import Path

from decodec_jax.evaluation import figures
from decodec_jax.evaluation.figures import Point
from decodec_jax.evaluation.reports import tables
from decodec_jax.evaluation.reports.tables import Figure, Found

PER_SNR = ("si_sdr/speech", "sdr/background", "sdr/mixture", "dnsmos/ovrl")
PER_RATE = ("bss_sdr/mixture", "si_sdr/speech", "sdr/background", "dnsmos/ovrl")


def draw(found: Found, out: Path) -> None:
    """Write KEY_per_snr.png and GROUP_KEY_per_kbps.png to the folder `out`, for every key that has data to plot."""
    for key in PER_SNR:
        lines: dict[str, list[Point]] = {}
        for group, columns in found.items():
            if group.endswith(" dB"):
                for column, figure in _known(columns, key).items():
                    lines.setdefault(column, []).append(_point(float(group.removesuffix(" dB")), figure))
        if lines:
            figures.per_snr(out / f"{_file(key)}_per_snr.png", lines, tables.label(key))
    for group, columns in found.items():
        for key in PER_RATE:
            lines = {}
            for column, figure in _known(columns, key).items():
                rate = columns[column].get("kbps")
                name = column.partition(", ")[0].partition(":")[0]  # all bitrates of a system form one line
                lines.setdefault(name, []).append(_point(rate and rate.mean, figure))
            if any(point.x is not None for points in lines.values() for point in points):
                path = out / f"{_file(group)}_{_file(key)}_per_kbps.png"
                figures.rate_distortion(path, lines, tables.label(key), group)


def _known(columns: Mapping[str, Mapping[str, Figure]], key: str) -> dict[str, Figure]:
    """The figure `key` of each column that has it, except exact ones, which would squash the scale for the others."""
    return {
        column: row[key] for column, row in columns.items() if key in row and not tables.exact(key, row[key])
    }


def _point(x: float | None, figure: Figure) -> Point:
    return Point(x, figure.mean, figure.low, figure.high)


def _file(name: str) -> str:
    return name.replace("/", "_").replace(" ", "_")
