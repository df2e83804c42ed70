"""The look of every chart, and the few drawing helpers they share.

Charts must read in print, in grey and for the colour-blind: colours are Okabe and Ito's, and no two lines differ by
colour alone (line style, marker or hatch as well). Lines carry their names at their ends where there is room, so that
no legend has to be decoded. Figures are built without pyplot, under fixed settings, so that the same frames give the
same bytes (dates left out of the metadata, a fixed salt for SVG ids).

Okabe, M. and Ito, K. (2008), "Color Universal Design", https://jfly.uni-koeln.de/color/.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullFormatter, NullLocator

from factory_sim.reports.formatting import format_value, window_label
from factory_sim.units import DAY_S, HOUR_S, WEEK_S, YEAR_S

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
INK, FAINT, SHADE = "#222222", "#6B6B6B", "#F1F1F1"
CYCLE = [
    (BLUE, "-", "o"), (RED, (0, (5, 1.5)), "s"), (GREEN, (0, (3, 1, 1, 1)), "^"), (BLACK, (0, (1, 1)), "D"),
    (PURPLE, (0, (7, 1.5, 1.5, 1.5, 1.5, 1.5)), "v"), (ORANGE, (0, (9, 2)), "P"), (SKY, (0, (2, 2)), "X"),
]  # fmt: skip
"""(colour, line style, marker) of the first, second, ... series of a chart."""
BAND_ALPHA = 0.18
WIDTH_IN = 7.2
"""The text width of a printed page."""
TEXT, SMALL = 8.5, 7.5

_BLANK_EM = 0.318
"""Width of the font's blank."""

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": SMALL,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#DADADA",
    "grid.linewidth": 0.6,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "text.color": INK,
    "text.parse_math": False,
    "text.hinting": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "factory_sim",
    "savefig.dpi": 170,
    "path.simplify": True,
}


@contextmanager
def settings() -> Iterator[None]:
    """Draw and save under the project's settings, whatever the user's own are."""
    clean = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    with matplotlib.rc_context({**clean, **_RC}):
        yield


@dataclass(frozen=True)
class Sheet:
    """A figure with its panels, from top to bottom."""

    figure: Figure
    panels: list[Axes]
    left_in: float


def sheet(
    heights_in: Sequence[float],
    *,
    title: str,
    subtitle: str = "",
    footnote: str = "",
    left_in: float = 0.72,
    right_in: float = 0.8,
    top_in: float = 0.0,
    bottom_in: float = 0.5,
    gap_in: float = 0.42,
    share_x: bool = True,
    columns: int = 1,
    column_gap_in: float = 0.9,
    width_in: float = WIDTH_IN,
) -> Sheet:
    """Return a figure of panels of the given heights (inches) with title, subtitle and footnote in their margins.

    top_in: extra room between subtitle and first panel. Margins are in inches and fixed, so nothing is laid out
    twice.
    """
    note_lines = wrapped(footnote, width_in - 0.24, 6.5)
    head = 0.36 + (0.19 if subtitle else 0.0) + top_in + 0.22
    foot = bottom_in + (0.08 + 0.115 * len(note_lines) if note_lines else 0.0)
    height = head + sum(heights_in) + gap_in * (len(heights_in) - 1) + foot
    figure = Figure(figsize=(width_in, height))
    panels, y = [], height - head
    width = (width_in - left_in - right_in - column_gap_in * (columns - 1)) / columns
    for h in heights_in:
        for column in range(columns):
            x = left_in + column * (width + column_gap_in)
            share = panels[0] if share_x and panels else None
            box = (x / width_in, (y - h) / height, width / width_in, h / height)
            panels.append(figure.add_axes(box, sharex=share, label=f"panel {len(panels)}"))
        y -= h + gap_in
    figure.text(0.12 / width_in, 1 - 0.2 / height, title, size=11, weight="bold", va="center")
    if subtitle:
        figure.text(0.12 / width_in, 1 - 0.4 / height, subtitle, size=TEXT, color=FAINT, va="center")
    if note_lines:
        note = "\n".join(note_lines)
        figure.text(0.12 / width_in, 0.07 / height, note, size=6.5, color=FAINT, va="bottom", linespacing=1.25)
    for ax in panels[: -columns if share_x else 0]:
        ax.tick_params(labelbottom=False)
    return Sheet(figure, panels, left_in)


def save(figure: Figure, folder: Path, name: str, formats: Iterable[str] = ("svg", "png")) -> list[Path]:
    """Write a figure once for each format and return the files; the same figure gives the same bytes."""
    metadata = {"svg": {"Date": None, "Creator": "factory_sim"}, "png": {"Software": "factory_sim"}}
    paths = []
    with settings():
        for kind in formats:
            paths.append(Path(folder) / f"{name}.{kind}")
            figure.savefig(paths[-1], format=kind, metadata=metadata.get(kind), facecolor="white")
    return paths


def panel_title(ax: Axes, text: str) -> None:
    """Say what a panel shows, above it at its left edge."""
    ax.set_title(text, loc="left", weight="bold", pad=5)


@dataclass(frozen=True)
class TimeScale:
    """How a horizon is shown: seconds in one unit of the axis, its name, the distance of ticks in that unit."""

    unit_s: float
    label: str
    tick: float


def time_scale(span_s: float) -> TimeScale:
    """Return hours for a day or two, days for weeks, weeks for months, months for years."""
    if span_s <= 2.5 * DAY_S:
        tick = next(tick for tick in (1, 2, 3, 6, 12) if span_s / HOUR_S / tick <= 9 or tick == 12)
        return TimeScale(HOUR_S, "Hours from the start", tick)
    if span_s <= 10 * WEEK_S:
        return TimeScale(DAY_S, "Days from the start", 7 if span_s > 2 * WEEK_S else 1)
    if span_s <= 1.05 * YEAR_S:
        return TimeScale(WEEK_S, "Weeks from the start", 4)
    return TimeScale(YEAR_S / 12, "Months from the start", 6 if span_s > 3 * YEAR_S else 3)


def time_axis(ax: Axes, scale: TimeScale, start_s: float, end_s: float) -> None:
    """Give an axis its time scale: limits, ticks, label."""
    ax.set_xlim(start_s / scale.unit_s, end_s / scale.unit_s)
    ax.xaxis.set_major_locator(MultipleLocator(scale.tick))
    ax.set_xlabel(scale.label)


def value_axis(ax: Axes, unit: str, values: Iterable[float], *, log: bool = False, zero: bool = True) -> None:
    """Give the y axis its unit and limits that hold `values`; linear from zero unless told, or logarithmic."""
    known = np.asarray([value for value in values if np.isfinite(value)], dtype=float)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit, exact=True)))
    if log and (known > 0).any():
        known = known[known > 0]
        log_ticks(ax.yaxis, known.min(), known.max())
        ax.set_yscale("log")
        log_ticks(ax.yaxis, known.min(), known.max())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit, exact=True)))
        room = max(1.1, (known.max() / known.min()) ** 0.06)
        ax.set_ylim(known.min() / room, known.max() * room)
        return
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    ax.set_ylim(low if zero and low == 0 else low - room, high + room)


def log_ticks(axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis: decades, with 2 and 5 between them while there are few."""
    decades = np.log10(high / low) if high > low else 0.0
    subs = (1.0, 2.0, 5.0) if decades <= 2.2 else (1.0,) if decades > 3.2 else (1.0, 3.0)
    if decades < 0.6:
        subs = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def steps(frame: pd.DataFrame, scale: TimeScale) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x, value, low, high of intervals drawn as steps; NaN where there is a gap in time."""
    frame = frame.sort_values("start_s", kind="stable")
    start, end = frame.start_s.to_numpy(float), frame.end_s.to_numpy(float)
    gap = np.append(start[1:] > end[:-1] * (1 + 1e-9) + 1e-6, False)
    x = np.column_stack([start, end, np.where(gap, end, np.nan)])
    keep = np.column_stack([np.ones_like(gap), np.ones_like(gap), gap])
    out = [x[keep] / scale.unit_s]
    for name in ("value", "low", "high"):
        y = frame[name].to_numpy(float)
        out.append(np.column_stack([y, y, np.full_like(y, np.nan)])[keep])
    return tuple(out)


def draw_steps(
    ax: Axes, frame: pd.DataFrame, scale: TimeScale, *, color: str, linestyle="-", width=1.6, alpha=BAND_ALPHA
) -> None:  # fmt: skip
    """Draw a figure over time as steps, its band behind it."""
    if frame.empty:
        return
    x, value, low, high = steps(frame, scale)
    ax.fill_between(x, low, high, color=color, alpha=alpha, linewidth=0, zorder=2)
    ax.plot(x, value, color=color, linestyle=linestyle, linewidth=width, solid_joinstyle="miter", zorder=3)


@dataclass(frozen=True)
class Stages:
    """The stages of a run as a chart shows them: where each lies on the axis and what is written above it."""

    spans: list[tuple[float, float]]
    texts: list[str]
    key: str
    """What the numbers mean, where names are too wide for their stage and numbers stand in; else empty."""


def stages_on(
    stages: pd.DataFrame | None, scale: TimeScale, start_s: float, end_s: float, width_in: float, size: float = 6.8
) -> Stages:
    """Return how `stages` (name, start_s, end_s, label) are written over an axis of `width_in` from start to end."""
    if stages is None or stages.empty:
        return Stages([], [], "")
    stages = stages[(stages.start_s < end_s) & (stages.end_s > start_s)].sort_values("start_s", kind="stable")
    labels = [str(label or window_label(name)) for name, label in zip(stages.name, stages.label)]
    starts, ends = np.maximum(stages.start_s.to_numpy(float), start_s), np.minimum(stages.end_s.to_numpy(float), end_s)
    rooms = (ends - starts) / (end_s - start_s) * width_in - 0.05
    lines_of = [wrapped(text, room, size) for text, room in zip(labels, rooms)]
    fits = all(
        len(lines) <= 3 and max(text_width_in(line, size) for line in lines) <= room
        for lines, room in zip(lines_of, rooms)
    )
    texts = ["\n".join(lines) for lines in lines_of] if fits else [str(n + 1) for n in range(len(labels))]
    key = "" if fits else "Stages:  " + "   ".join(f"{n + 1} {label}" for n, label in enumerate(labels))
    return Stages(list(zip(starts / scale.unit_s, ends / scale.unit_s)), texts, key)


def mark_stages(panels: Sequence[Axes], stages: Stages, size: float = 6.8) -> None:
    """Shade every other stage in all panels, part them by a line, and write their names above the first panel."""
    for ax in panels:
        for number, (start, end) in enumerate(stages.spans):
            if number % 2:
                ax.axvspan(start, end, color=SHADE, linewidth=0, zorder=0)
            if number:
                ax.axvline(start, color=FAINT, linewidth=0.6, linestyle=(0, (2, 2)), zorder=1)
    for text, (start, end) in zip(stages.texts, stages.spans):
        panels[0].annotate(
            text, ((start + end) / 2, 1.0), (0, 19), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", va="bottom", size=size, color=INK, linespacing=1.1,
        )  # fmt: skip


def end_labels(ax: Axes, labels: Sequence[tuple[float, str, str]], *, size: float = SMALL, at: float = 1.0) -> None:
    """Write (y, text, colour) labels beside the axis at the height of their lines, moved apart where they would
    touch.

    Call it once limits are set. at: x as a share of the axis. A label that had to move keeps a thin line to its
    place.
    """
    labels = [label for label in labels if np.isfinite(label[0])]
    if not labels:
        return
    height_pt = ax.get_position().height * ax.figure.get_figheight() * 72
    order = sorted(range(len(labels)), key=lambda n: labels[n][0])
    wanted = np.array([_share_of_axis(ax, labels[n][0]) * height_pt for n in order])
    room = np.array([size * 1.22 * (labels[n][1].count("\n") + 1) for n in order])
    places = spread(np.clip(wanted, 0, height_pt), room)
    moved = bool((np.abs(places - wanted) > 0.25 * size).any())
    for place, want, n in zip(places, wanted, order):
        _, text, color = labels[n]
        ax.annotate(
            text, (at, min(1, max(0, want / height_pt))), (at + (0.028 if moved else 0.012), place / height_pt),
            xycoords="axes fraction", textcoords="axes fraction", va="center", ha="left", size=size, color=color,
            linespacing=1.1, annotation_clip=False,
            arrowprops=dict(arrowstyle="-", color=color, linewidth=0.6, shrinkA=0, shrinkB=0) if moved else None,
        )  # fmt: skip


def spread(wanted: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Return places near the rising `wanted`, each at least half its own and half its neighbour's `room` apart.

    Groups that would touch are set side by side around their mean, which keeps the sum of squared moves least.
    """
    groups = []
    for place, need in zip(wanted, room):
        groups.append([[place], [need]])
        while len(groups) > 1 and _bottom(groups[-1]) < _top(groups[-2]):
            places, needs = groups.pop()
            groups[-1][0] += places
            groups[-1][1] += needs
    found = []
    for places, needs in groups:
        at = _bottom((places, needs))
        for need in needs:
            found.append(at + need / 2)
            at += need
    return np.array(found)


def _bottom(group) -> float:
    places, needs = group
    offsets = np.cumsum(needs) - np.asarray(needs) / 2
    return float(np.mean(np.asarray(places) - offsets))


def _top(group) -> float:
    return _bottom(group) + float(sum(group[1]))


def _share_of_axis(ax: Axes, y: float) -> float:
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log":
        return float(np.log(max(y, 1e-300) / low) / np.log(high / low))
    return float((y - low) / (high - low))


def text_width_in(text: str, size: float) -> float:
    """Return the width of a line of text in the charts' font, inches (its words and the blanks between them)."""
    words = text.split(" ")
    return size * (sum(map(_word_width, words)) + _BLANK_EM * (len(words) - 1)) / 72


@lru_cache(maxsize=4096)
def _word_width(word: str) -> float:
    """Width of a word, ems."""
    if not word:
        return 0.0
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    font.set_size(100, 72)
    font.set_text(word, 0.0)
    return font.get_width_height()[0] / 64 / 100


def wrapped(text: str, room_in: float, size: float) -> list[str]:
    """Break text into lines of at most `room_in` at blanks and after hyphens; a longer piece has a line of its own."""
    lines: list[str] = []
    for paragraph in text.split("\n") if text else []:
        line = ""
        for piece in re.findall(r"\s*(?:[^\s-]+-?|-)", paragraph):
            longer = (line + piece).strip()
            if line and text_width_in(longer, size) > room_in:
                lines.append(line)
                line = piece.strip()
            else:
                line = longer
        lines.append(line)
    return lines
