"""The frontier of serving systems: tokens a second from each GPU against tokens a second for each user.

Measured points are markers, simulated ones lines, so that one sees at a glance where the simulation passes through
what was measured and where it speaks alone.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from factory_sim.reports.charts import style as look
from factory_sim.reports.formatting import format_value

KINDS = ("measured", "simulated", "left_out")
"""Kinds of points: as published; as simulated; as simulated with the system's own measurements left out of the fit."""


_PANELS = (
    ("tokens_per_s_per_gpu", "tokens/s", "Output tokens per second from each GPU", "tokens/s per GPU, log"),
    ("usd_per_million_output_tokens", "USD", "Cost per million output tokens", "USD / M tokens, log"),
)


def plot_frontier(points: pd.DataFrame, y: str, ax: Axes, *, unit: str = "") -> Axes:
    """Draw column `y` against tokens_per_s_per_user for each system, both axes logarithmic.

    points: system, kind (one of `KINDS`), concurrency, tokens_per_s_per_user, `y`, and optionally `y`_low, `y`_high.
    Each system is numbered to the left of its slowest point.
    """
    ax.set_xscale("log")
    ax.set_yscale("log")
    numbered = []
    for number, system in enumerate(dict.fromkeys(points.system)):
        color, dash, marker = look.CYCLE[number % len(look.CYCLE)]
        own = points[points.system == system].sort_values("concurrency", kind="stable")
        for kind in KINDS:
            _draw(ax, kind, own[own.kind == kind], y, color, dash, marker)
        drawn = own[np.isfinite(own.tokens_per_s_per_user) & np.isfinite(own[y])]
        if len(drawn):
            slowest = drawn.loc[drawn.tokens_per_s_per_user.idxmin()]
            numbered.append((number, slowest.tokens_per_s_per_user, slowest[y], color))
    _limits(ax, points, y, unit)
    _number(ax, numbered)
    return ax


def frontier_chart(
    points: pd.DataFrame, *, title: str = "", subtitle: str = "", footnote: str = "",
    user_speed_tokens_per_s: float | None = None, at_speed: Mapping[str, str] | None = None,
) -> Figure:  # fmt: skip
    """Tokens/s per GPU, and USD per million output tokens, against tokens/s per user.

    points: system, kind, concurrency, tokens_per_s_per_user, tokens_per_s_per_gpu, usd_per_million_output_tokens,
    each of the last two with optional _low and _high. user_speed_tokens_per_s: a speed to mark; at_speed: what to say
    of each system at that speed, e.g. "$0.63 / M".
    """
    systems = list(dict.fromkeys(points.system))
    kinds = set(points.kind)
    rows = -(-(len(systems) + len(kinds)) // 2)
    with look.settings():
        sheet = look.sheet([2.75, 2.0], title=title or "Throughput and cost against speed for each user",
                           subtitle=subtitle, footnote=footnote, right_in=0.25, bottom_in=0.55 + 0.165 * rows,
                           left_in=0.8)  # fmt: skip
        for ax, (column, unit, name, label) in zip(sheet.panels, _PANELS):
            plot_frontier(points, column, ax, unit=unit)
            look.panel_title(ax, name)
            ax.set_ylabel(label)
            if user_speed_tokens_per_s:
                ax.axvline(user_speed_tokens_per_s, color=look.FAINT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        if user_speed_tokens_per_s:
            sheet.panels[0].annotate(
                f"{user_speed_tokens_per_s:g} tokens/s per user", (user_speed_tokens_per_s, 0), (3, 3), size=6.8,
                xycoords=("data", "axes fraction"), textcoords="offset points", va="bottom", color=look.FAINT,
            )  # fmt: skip
        sheet.panels[-1].set_xlabel("Output tokens per second for each user, tokens/s (log)")
        _legend(sheet, systems, kinds, at_speed or {})
    return sheet.figure


def _draw(ax: Axes, kind: str, line: pd.DataFrame, y: str, color: str, dash, marker: str) -> None:
    """One system's points of one kind: markers if measured, else a line (a cross where it is a single point)."""
    x = line.tokens_per_s_per_user
    if kind == "measured":
        ax.plot(x, line[y], color=color, marker=marker, linestyle="none", markersize=5.5, markeredgecolor="white",
                markeredgewidth=0.6, zorder=5)  # fmt: skip
        return
    fitted = kind == "simulated"
    ax.plot(x, line[y], color=color, linestyle=dash if fitted else ":", linewidth=1.6 if fitted else 1.0, zorder=4,
            marker=("x" if fitted else "+") if len(line) == 1 else None, markersize=6, markeredgewidth=1.4)  # fmt: skip
    if fitted and f"{y}_low" in line and len(line) > 1:
        ax.fill_between(x, line[f"{y}_low"], line[f"{y}_high"], color=color, alpha=0.14, linewidth=0, zorder=2)


def _limits(ax: Axes, points: pd.DataFrame, y: str, unit: str) -> None:
    sides = [(ax.xaxis, ax.set_xlim, points.tokens_per_s_per_user, 0.06), (ax.yaxis, ax.set_ylim, points[y], 0.07)]
    for axis, set_limits, column, room in sides:
        values = column.to_numpy(float)
        known = values[np.isfinite(values) & (values > 0)]
        low, high = (known.min(), known.max()) if len(known) else (0.5, 2.0)
        margin = max(1.1, (high / low) ** room)
        set_limits(low / margin, high * margin)
        look.log_ticks(axis, low, high)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit, exact=True)))
    ax.grid(axis="both", visible=True)


def _number(ax: Axes, numbered: list[tuple]) -> None:
    """Write each system's number beside the end of its line, moved up or down where two would touch."""
    if not numbered:
        return
    low, high = ax.get_ylim()
    height_pt = ax.get_position().height * ax.figure.get_figheight() * 72
    numbered.sort(key=lambda item: item[2])
    shares = np.log(np.array([item[2] for item in numbered]) / low) / np.log(high / low)
    places = look.spread(shares * height_pt, np.full(len(numbered), 9.5))
    for (number, x, _, color), share, place in zip(numbered, shares, places):
        ax.annotate(
            str(number + 1), (x, low * (high / low) ** share), (-7, place - share * height_pt),
            textcoords="offset points", ha="right", va="center", size=7, weight="bold", color="white", zorder=7,
            bbox=dict(boxstyle="circle,pad=0.18", facecolor=color, edgecolor="white", linewidth=0.5),
        )  # fmt: skip


def _legend(sheet: look.Sheet, systems: list[str], kinds: set[str], at_speed: Mapping[str, str]) -> None:
    handles, names = [], []
    for number, system in enumerate(systems):
        color, dash, marker = look.CYCLE[number % len(look.CYCLE)]
        handles.append(Line2D([], [], color=color, linestyle=dash, marker=marker, markersize=5, linewidth=1.5))
        said = f"   {at_speed[system]}" if system in at_speed else ""
        names.append(f"{number + 1}  {system}{said}")
    words = {
        "measured": (dict(marker="o", linestyle="none", markersize=5), "measured"),
        "simulated": (dict(linestyle="-", linewidth=1.5), "simulated (× a single point)"),
        "left_out": (dict(linestyle=":", linewidth=1.0), "simulated, its own measurements left out of the fit"),
    }
    for kind in (kind for kind in KINDS if kind in kinds):
        handles.append(Line2D([], [], color=look.FAINT, **words[kind][0]))
        names.append(words[kind][1])
    ax = sheet.panels[-1]
    drop = 0.43 / (ax.get_position().height * ax.figure.get_figheight())
    ax.legend(handles, names, loc="upper left", bbox_to_anchor=(-0.08, -drop), ncols=2, handlelength=3.0,
              columnspacing=1.5, labelspacing=0.35, borderaxespad=0)  # fmt: skip
