"""What a token costs at each load: the penalty of idle capacity."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from factory_sim.reports.charts import style as look
from factory_sim.reports.formatting import format_value

_UNIT = "USD/million tokens"


def plot_load_curve(
    curve: pd.DataFrame, ax: Axes, *, at_load: float | None = None, between: tuple[float, float] | None = None
) -> Axes:
    """Draw usd_per_million_output_tokens against load, both logarithmic; ``at_load`` is marked on the curve.

    between: a published range of costs, USD per million tokens, drawn as a band behind.
    """
    known = curve[np.isfinite(curve.usd_per_million_output_tokens)]
    cost = known.usd_per_million_output_tokens.to_numpy(float)
    if between is not None:
        ax.axhspan(*between, color=look.SHADE, linewidth=0, zorder=0)
    look.value_axis(ax, _UNIT, [*cost, *(between or ())], log=True)
    ax.set_xscale("log")
    ax.plot(known.load, cost, color=look.BLUE, marker="o", markersize=3.5, zorder=3)
    if at_load and len(known) and known.load.min() <= at_load <= 1.05:
        there = float(np.exp(np.interp(np.log(at_load), np.log(known.load), np.log(cost))))
        ax.plot([at_load], [there], color=look.RED, marker="D", markersize=6, zorder=5)
        ax.annotate(
            f"this run: {at_load:.0%}, {format_value(there, _UNIT)}", (at_load, there), (-9, -4), size=look.SMALL,
            textcoords="offset points", ha="right", va="top", color=look.RED,
        )  # fmt: skip
    look.log_ticks(ax.xaxis, 0.02, 1.0)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    ax.set_xlabel("Load, share of full (log)")
    return ax


def load_curve_chart(
    curve: pd.DataFrame, *, at_load: float | None = None, between: tuple[float, float] | None = None,
    between_label: str = "", title: str = "", subtitle: str = "", footnote: str = "",
) -> Figure:  # fmt: skip
    """Cost per million output tokens against load; frame and arguments as in `plot_load_curve`."""
    with look.settings():
        sheet = look.sheet([2.9], title=title or "Cost of a token against load", subtitle=subtitle, footnote=footnote,
                           right_in=0.3)  # fmt: skip
        ax = plot_load_curve(curve, sheet.panels[0], at_load=at_load, between=between)
        look.panel_title(ax, "Cost per million output tokens, USD (log)")
        if between is not None and between_label:
            ax.annotate(between_label, (0.99, between[1]), (0, -3), xycoords=("axes fraction", "data"), va="top",
                        textcoords="offset points", ha="right", size=look.SMALL, color=look.FAINT)  # fmt: skip
    return sheet.figure
