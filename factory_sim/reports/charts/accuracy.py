"""Measured against predicted: how far a profile is from what was measured, point by point."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from factory_sim.reports.charts import style as look
from factory_sim.reports.formatting import ABBREVIATIONS, format_value

UNITS = {"ttft": "s", "tpot": "s", "itl": "s", "e2e": "s", "energy_per_output_token": "J"}


def plot_accuracy(points: pd.DataFrame, ax: Axes, *, unit: str = "s", tolerance: float = 0.25) -> Axes:
    """Draw predicted against measured values on equal logarithmic axes, with the line of no error.

    points: measured, predicted, group (what its marker tells apart), optional low, high (drawn as a thin bar). The
    shaded stripe is `tolerance` above and below, as a factor: from 1 / (1 + tolerance) to 1 + tolerance.
    """
    known = points[(points.measured > 0) & (points.predicted > 0)]
    values = known[["measured", "predicted"]].to_numpy(float)
    low, high = (values.min() / 1.3, values.max() * 1.3) if len(values) else (0.1, 10.0)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ends = np.array([low, high])
    ax.fill_between(ends, ends / (1 + tolerance), ends * (1 + tolerance), color=look.SHADE, linewidth=0, zorder=0)
    ax.plot(ends, ends, color=look.FAINT, linewidth=0.9, zorder=1)
    few = len(known) <= 60
    for number, (group, part) in enumerate(known.groupby("group", sort=False)):
        color, _, marker = look.CYCLE[number % len(look.CYCLE)]
        if few and {"low", "high"} <= set(part.columns):
            ax.vlines(part.measured, part.low, part.high, color=color, linewidth=0.8, alpha=0.6, zorder=2)
        ax.plot(
            part.measured, part.predicted, linestyle="none", marker=marker, markersize=4.5 if few else 3.2, zorder=3,
            markerfacecolor="none", markeredgecolor=color, markeredgewidth=0.9, label=str(group),
        )  # fmt: skip
    for axis, limits in ((ax.xaxis, ax.set_xlim), (ax.yaxis, ax.set_ylim)):
        limits(low, high)
        look.log_ticks(axis, low, high)
        axis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit, exact=True)))
    ax.grid(axis="both", visible=True)
    return ax


def accuracy_chart(
    points: pd.DataFrame, notes: Mapping[str, str] | None = None, *, title: str = "", subtitle: str = "",
    footnote: str = "", tolerance: float = 0.25,
) -> Figure:  # fmt: skip
    """One square panel a metric, at most two side by side.

    points: metric ("ttft", "tpot", "itl", "e2e", "energy_per_output_token"), measured, predicted (s or J), group,
    optional low, high. notes: a line to write into a metric's panel, e.g. {"tpot": "median error 2.1 %, 84 rows"}.
    """
    metrics = list(dict.fromkeys(points.metric))
    columns = min(2, len(metrics))
    with look.settings():
        side = (look.WIDTH_IN - 0.8 - 0.2 - 0.8 * (columns - 1)) / max(columns, 2)
        groups = list(dict.fromkeys(points.group))
        sheet = look.sheet(
            [side] * -(-len(metrics) // columns), title=title or "Predicted against measured", subtitle=subtitle,
            left_in=0.8, right_in=0.2 + (0 if columns == 2 else side), columns=columns, column_gap_in=0.8,
            share_x=False, gap_in=0.75, bottom_in=0.5 + 0.17 * -(-len(groups) // 3),
            footnote=_with_stripe(footnote, tolerance),
        )  # fmt: skip
        for ax, metric in zip(sheet.panels, metrics):
            plot_accuracy(points[points.metric == metric], ax, unit=UNITS.get(metric, ""), tolerance=tolerance)
            look.panel_title(ax, " ".join(ABBREVIATIONS.get(word, word) for word in metric.split("_")))
            ax.set_xlabel("measured, log")
            ax.set_ylabel("predicted, log")
            if (notes or {}).get(metric):
                ax.annotate(notes[metric], (0.03, 0.97), xycoords="axes fraction", va="top", size=6.8)
        for ax in sheet.panels[len(metrics) :]:
            ax.remove()
        _legend(sheet, groups)
    return sheet.figure


def _with_stripe(footnote: str, tolerance: float) -> str:
    said = f"Line: no error. Stripe: within a factor of {1 + tolerance:g}."
    return "\n".join(filter(None, [said, footnote]))


def _legend(sheet: look.Sheet, groups: list) -> None:
    """One legend for all panels, below them."""
    handles = {}
    for ax in sheet.panels:
        if ax.figure is not None:
            handles.update({label: handle for handle, label in zip(*ax.get_legend_handles_labels())})
    first = sheet.panels[0]
    height = sheet.figure.get_figheight()
    bottom = min(ax.get_position().y0 for ax in sheet.panels if ax.figure is not None)
    sheet.figure.legend(
        list(handles.values()), list(handles), loc="upper left", ncols=3, columnspacing=1.5, handletextpad=0.4,
        bbox_to_anchor=(first.get_position().x0 - 0.01, bottom - 0.42 / height), borderaxespad=0,
    )  # fmt: skip
