"""Runs side by side: one small panel a figure, one bar a run, its band, its value and its ratio to the first run."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from factory_sim.reports.charts import style as look
from factory_sim.reports.formatting import figure_label, format_value, unit_label

FIGURES = (
    "cost_per_million_output_tokens", "revenue", "margin",
    "output_tokens", "requests_turned_away", "slo_attainment",
    "ttft_p95", "tpot_p95", "utilisation",
    "cost", "gpu_hours", "energy",
)  # fmt: skip
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo")


def plot_runs(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Draw one figure of several runs as bars from zero, with bands; value and ratio stand at the right.

    rows: run, value, low, high, unit, one row a run from top to bottom; optional ratio (to the first run), ratio_low,
    ratio_high. A ratio whose band holds 1 is marked "≈".
    """
    unit = rows.unit.iloc[0]
    for place, row in enumerate(rows.itertuples(index=False)):
        color = look.CYCLE[place % len(look.CYCLE)][0]
        if np.isfinite(row.value):
            ax.barh(place, row.value, height=0.62, facecolor=_light(color), edgecolor=color, linewidth=0.8, zorder=2,
                    hatch=_HATCHES[place % len(_HATCHES)])  # fmt: skip
        if np.isfinite([row.low, row.high]).all():
            band = [row.low, row.high]
            ax.plot(band, [place, place], color=look.INK, linewidth=1.1, zorder=4, marker="|", markersize=4)
        ax.annotate(format_value(row.value, unit), (1, place), (4, 0), xycoords=("axes fraction", "data"), size=7.2,
                    textcoords="offset points", va="center", weight="bold", annotation_clip=False)  # fmt: skip
        ratio = getattr(row, "ratio", np.nan)
        if place and np.isfinite(ratio):
            same = getattr(row, "ratio_low", np.inf) <= 1 <= getattr(row, "ratio_high", -np.inf)
            ax.annotate(format_value(ratio, "ratio") + (" ≈" if same else ""), (1, place), (50, 0), size=7.2,
                        xycoords=("axes fraction", "data"), textcoords="offset points", va="center", color=look.FAINT,
                        annotation_clip=False)  # fmt: skip
    known = rows[["value", "low", "high"]].to_numpy(float)
    known = known[np.isfinite(known)]
    low, high = min(0.0, known.min(initial=0.0)), max(0.0, known.max(initial=0.0))
    room = 0.05 * (high - low) or 1.0
    ax.set_xlim(low - room if low < 0 else 0.0, high + room if high > 0 else 0.0)
    ax.axvline(0, color=look.FAINT, linewidth=0.8, zorder=3)
    ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit, exact=True)))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="x", labelsize=6.5)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    return ax


def comparison_chart(
    comparison: pd.DataFrame,
    figures: Sequence[str] = FIGURES,
    *,
    title: str = "",
    subtitle: str = "",
    footnote: str = "",
) -> Figure:
    """Small panels of those `figures` that the runs have.

    comparison: figure, run, value, low, high, unit for one window and service, ratios to the first run as in
    `plot_runs`.
    """
    runs = list(dict.fromkeys(comparison.run))
    shown = [name for name in figures if name in set(comparison.figure)]
    columns = 2
    rows = -(-len(shown) // columns)
    note = f"Behind each value: its ratio to {runs[0]}; ≈ marks no difference beyond the range (P10 to P90)."
    with look.settings():
        names_in = min(1.6, max(look.text_width_in(run, look.SMALL) for run in runs) + 0.15)
        sheet = look.sheet(
            [0.21 * len(runs) + 0.05] * rows, title=title or "Runs compared", subtitle=subtitle, share_x=False,
            footnote="\n".join(filter(None, [note, footnote])), left_in=names_in + 0.2, right_in=1.2, gap_in=0.5,
            columns=columns, column_gap_in=1.33, bottom_in=0.35,
        )  # fmt: skip
        for number, ax in enumerate(sheet.panels):
            if number >= len(shown):
                ax.remove()
                continue
            part = comparison[comparison.figure == shown[number]].set_index("run").reindex(runs).reset_index()
            plot_runs(part.assign(unit=part.unit.dropna().iloc[0]), ax)
            unit = part.unit.dropna().iloc[0]
            look.panel_title(ax, _panel_name(shown[number], unit))
            if number % columns == 0:
                _names(ax, runs, names_in)
    return sheet.figure


def _panel_name(figure: str, unit: str) -> str:
    """What a panel shows, with its unit where the name does not say it."""
    label = figure_label(figure)
    said = unit_label(unit) or {"fraction": "%", "ratio": "×"}.get(unit, "USD" if unit.startswith("USD") else unit)
    return label if not said or said.lower() in label.lower() or said == "GPU-h" else f"{label}, {said}"


def _names(ax: Axes, runs: Sequence[str], room_in: float) -> None:
    for place, run in enumerate(runs):
        lines = look.wrapped(run, room_in, look.SMALL)
        ax.annotate(
            "\n".join(lines[:2]), (0, place), (-6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            size=look.SMALL, va="center", ha="right", annotation_clip=False, linespacing=1.0,
        )  # fmt: skip


def _light(color: str) -> tuple[float, float, float]:
    """A tint of a colour on which hatches and bands show."""
    rgb = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return tuple(1 - 0.45 * (1 - rgb))
