"""What happened and what it did: replicas and stages as bars, events as ticks, above load, latency and power."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from factory_sim.reports.charts import style as look
from factory_sim.reports.charts.over_time import interval_label, plot_latency, plot_traffic, traffic_legend
from factory_sim.reports.formatting import figure_label, format_value

STATES = {
    "serving": ("#9CCBE8", look.BLUE, ""),
    "starting": ("white", look.ORANGE, "////"),
    "draining": ("white", look.BLUE, "...."),
    "down": ("white", look.ORANGE, "////"),
    "broken": ("#E9A27C", look.RED, "xxxx"),
    "training": ("#E7C6D8", look.PURPLE, "\\\\\\\\"),
    "idle": ("white", look.FAINT, ""),
}
"""(face, edge, hatch) of the states of a replica or a stage; others are drawn grey."""
MOST_ROWS = 30
MOST_KINDS = 10


def plot_spans(spans: pd.DataFrame, ax: Axes, *, scale: look.TimeScale) -> Axes:
    """Draw a Gantt chart: one row for each `row`, one bar for each span in the colour and hatch of its state.

    spans: row, start_s, end_s, state; optional share (0..1, the height of the bar: what part of the row's replicas).
    At most `MOST_ROWS` rows, the first ones; how many were left out is written below them.
    """
    rows = list(dict.fromkeys(spans.row))
    shown = {row: place for place, row in enumerate(rows[:MOST_ROWS])}
    share = spans["share"] if "share" in spans else pd.Series(1.0, index=spans.index)
    part = spans.assign(share=share.fillna(1.0).clip(0, 1))[spans.row.isin(list(shown))]
    for (state, row), group in part.groupby(["state", "row"], sort=False):
        face, edge, hatch = STATES.get(state, ("#CCCCCC", look.FAINT, "--"))
        heights = 0.8 * group.share.to_numpy(float)
        bottoms = np.full(len(group), shown[row] + 0.4) - heights
        left, width = group.start_s / scale.unit_s, (group.end_s - group.start_s) / scale.unit_s
        ax.bar(left, heights, width=width, bottom=bottoms, align="edge", facecolor=face, edgecolor=edge, hatch=hatch,
               linewidth=0.5, zorder=3)  # fmt: skip
    left_out = len(rows) - len(shown)
    labels = [*map(str, shown), *([f"and {left_out} more"] if left_out else [])]
    ax.set_yticks(range(len(labels)), [_shortened(label, 1.5) for label in labels], size=6.8)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    return ax


def plot_events(events: pd.DataFrame, ax: Axes, *, scale: look.TimeScale) -> Axes:
    """Draw events as ticks, one row a kind in order of first appearance; how often each happened stands at the right.

    events: time_s, kind (of one replication).
    """
    kinds = list(dict.fromkeys(events.sort_values("time_s", kind="stable").kind))
    shown = kinds[:MOST_KINDS]
    for place, kind in enumerate(shown):
        times = events.time_s[events.kind == kind] / scale.unit_s
        color = look.CYCLE[place % len(look.CYCLE)][0]
        ax.vlines(times, place - 0.32, place + 0.32, color=color, linewidth=1.3 if len(times) < 60 else 0.6, zorder=3)
        ax.annotate(f"{len(times):,}×", (1, place), (4, 0), xycoords=("axes fraction", "data"), va="center", size=6.8,
                    textcoords="offset points", color=look.FAINT, annotation_clip=False)  # fmt: skip
    left_out = len(kinds) - len(shown)
    labels = [kind.replace("_", " ") for kind in shown] + ([f"and {left_out} more kinds"] if left_out else [])
    ax.set_yticks(range(len(labels)), [_shortened(label, 1.5) for label in labels], size=6.8)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    return ax


def timeline_chart(
    series: pd.DataFrame,
    spans: pd.DataFrame | None = None,
    events: pd.DataFrame | None = None,
    promises: dict[str, float] | None = None,
    *,
    figures: Sequence[str] = ("power", "energy", "utilisation"),
    title: str = "",
    subtitle: str = "",
    footnote: str = "",
) -> Figure:
    """Gantt of replicas and stages, events, load, latency and the first of `figures` that the series has.

    series as in `over_time`; spans as in `plot_spans`; events of one replication as in `plot_events`.
    """
    present = set(series.figure)
    panels = _panels(series, spans, events, next((name for name in figures if name in present), None))
    known = [(s.start_s.min(), s.end_s.max()) for s in (series, spans) if s is not None and len(s)]
    start_s, end_s = min(start for start, _ in known), max(end for _, end in known)
    scale = look.time_scale(end_s - start_s)
    with look.settings():
        sheet = look.sheet([height for _, height, _ in panels], title=title or "What happened, and what it did",
                           subtitle=subtitle, footnote=footnote, left_in=1.6, right_in=0.95, gap_in=0.38)  # fmt: skip
        for (kind, _, name), ax in zip(panels, sheet.panels):
            _draw_panel(kind, name, ax, series, spans, events, promises, scale)
            look.time_axis(ax, scale, start_s, end_s)
            if ax is not sheet.panels[-1]:
                ax.set_xlabel("")
    return sheet.figure


def _panels(series: pd.DataFrame, spans, events, figure: str | None) -> list[tuple[str, float, str]]:
    """(kind, height in inches, title) of the panels that there is something to show in."""
    present = set(series.figure)
    panels = []
    if spans is not None and len(spans):
        panels.append(("spans", 0.3 + 0.17 * min(spans.row.nunique(), MOST_ROWS + 1), "Replicas and stages"))
    if events is not None and len(events):
        panels.append(("events", 0.15 + 0.15 * min(events.kind.nunique(), MOST_KINDS + 1), "Events"))
    if "requests_completed" in present:
        panels.append(("load", 1.25, "Load"))
    panels += [
        (metric, 1.25, name)
        for metric, name in (("ttft", "Time to first token (TTFT)"), ("tpot", "Time per output token (TPOT)"))
        if f"{metric}_p95" in present
    ]
    if figure:
        panels.append((figure, 1.0, figure_label(figure)))
    return panels


def _draw_panel(kind: str, name: str, ax: Axes, series, spans, events, promises, scale: look.TimeScale) -> None:
    if kind == "spans":
        plot_spans(spans, ax, scale=scale)
        states = list(dict.fromkeys(spans.state))
        boxes = [STATES.get(state, ("#CCCCCC", look.FAINT, "--")) for state in states]
        handles = [Patch(facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.6) for face, edge, hatch in boxes]
        ax.legend(handles, states, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=len(states), handlelength=1.6,
                  columnspacing=1.0, borderaxespad=0.2)  # fmt: skip
    elif kind == "events":
        plot_events(events, ax, scale=scale)
    elif kind == "load":
        plot_traffic(series, ax, scale=scale)
        ax.set_ylabel(f"requests per {interval_label(series[series.figure == 'requests_completed'])}")
        traffic_legend(ax, set(series.figure))
    elif kind in ("ttft", "tpot"):
        plot_latency(series, kind, ax, scale=scale, promises=promises)
    else:
        _plot_filled(series[series.figure == kind], ax, scale)
    look.panel_title(ax, name)


def _plot_filled(frame: pd.DataFrame, ax: Axes, scale: look.TimeScale) -> None:
    unit = frame.unit.iloc[0]
    x, value, _, _ = look.steps(frame, scale)
    ax.fill_between(x, 0, value, color=look.SHADE if unit == "fraction" else "#DDEFE8", linewidth=0, zorder=1)
    look.draw_steps(ax, frame, scale, color=look.GREEN)
    look.value_axis(ax, unit, frame[["value", "low", "high"]].to_numpy(float).ravel())
    per = "" if unit in ("W", "kW", "MW", "fraction") else f" per {interval_label(frame)}"
    ax.set_ylabel({"fraction": "share", "W": "at the meter"}.get(unit, unit) + per)
    last = frame.dropna(subset=["value"]).sort_values("start_s", kind="stable").value
    if len(last):
        look.end_labels(ax, [(last.iloc[-1], format_value(last.iloc[-1], unit), look.GREEN)])


def _shortened(text: str, room_in: float, size: float = 6.8) -> str:
    """A label that fits, its middle left out if need be."""
    if look.text_width_in(text, size) <= room_in:
        return text
    for keep in range(len(text) // 2, 3, -1):
        short = f"{text[:keep]}…{text[-keep + 2 :]}"
        if look.text_width_in(short, size) <= room_in:
            return short
    return text[:8] + "…"
