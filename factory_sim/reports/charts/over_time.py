"""A run over time: money, latency against the promise, demand and what became of it.

The frame of all charts here is `series`: start_s, end_s, figure, service, value, low, high, unit; one row an
interval, the band empty where none is known. `stages` has name, start_s, end_s, label.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from factory_sim.reports.charts import style as look
from factory_sim.reports.formatting import format_value, unit_label
from factory_sim.units import DAY_S, HOUR_S, MINUTE_S, WEEK_S

PERCENTILES = {"p50": (look.BLUE, "-"), "p95": (look.RED, (0, (5, 1.5))), "p99": (look.BLACK, (0, (1, 1)))}


def plot_figure(
    series: pd.DataFrame, figure: str, ax: Axes, *, scale: look.TimeScale, color: str = look.BLUE, linestyle="-",
    log: bool = False,
) -> Axes:  # fmt: skip
    """Draw one figure over time with its band; its last value is written beside it."""
    frame = series[series.figure == figure]
    look.draw_steps(ax, frame, scale, color=color, linestyle=linestyle)
    known = frame.dropna(subset=["value"])
    unit = frame.unit.iloc[0] if len(frame) else ""
    look.value_axis(ax, unit, frame[["value", "low", "high"]].to_numpy(float).ravel(), log=log)
    if len(known):
        last = known.sort_values("start_s", kind="stable").value.iloc[-1]
        look.end_labels(ax, [(last, format_value(last, unit), color)])
    return ax


COSTS = (
    ("cost_per_million_output_tokens", "a million tokens", "Cost per million output tokens", "USD / M tokens"),
    ("cost_per_image", "an image", "Cost of an image", "USD / image"),
    ("cost_per_video_second", "a second of video", "Cost of a second of video", "USD / s of video"),
)
"""Figures of cost, of which a chart takes the first that is there: name, what it buys, title of the panel, its axis."""


def money_chart(
    series: pd.DataFrame, stages: pd.DataFrame | None = None, *, title: str = "", subtitle: str = "", footnote: str = ""
) -> Figure:
    """Cost of what is made (logarithmic if it falls more than threefold), revenue and margin over time: per million
    output tokens, else per image, else per second of video.

    The panel of money holds `revenue`, `cost` and `margin` per interval. Series of one service only.
    """
    with look.settings():
        figure, told, panel, label = next((cost for cost in COSTS if _last(series, cost[0]) is not None), COSTS[0])
        mixed = figure == COSTS[0][0] and any(_last(series, name) is not None for name, *_ in COSTS[1:])
        earned = (
            "what all services earned" if mixed else "what they earned" if figure == COSTS[0][0] else "what it earned"
        )
        title = title or f"What {told} cost, and {earned}"
        sheet, scale = _sheet(series, [1.75, 1.75, 1.3], stages, title, subtitle, footnote)
        cost, money, margin = sheet.panels
        spread = series[series.figure == figure].value
        wide = spread.max() > 3 * spread.min() > 0
        plot_figure(series, figure, cost, scale=scale, log=bool(wide))
        look.panel_title(cost, panel)
        cost.set_ylabel(label + (", log" if wide else ""))

        per = interval_label(series[series.figure == "revenue"])
        labels = _lines(money, series, {"revenue": ("revenue", look.GREEN, "-"),
                                        "cost": ("cost", look.RED, (0, (5, 1.5)))}, scale)  # fmt: skip
        look.panel_title(money, "Revenue and cost")
        money.set_ylabel(f"USD per {per}")
        look.end_labels(money, labels)

        plot_figure(series, "margin", margin, scale=scale, color=look.BLACK)
        margin.axhline(0, color=look.FAINT, linewidth=0.8)
        look.panel_title(margin, "Margin (revenue less cost)")
        margin.set_ylabel(f"USD per {per}")
    return sheet.figure


def plot_latency(
    series: pd.DataFrame, metric: str, ax: Axes, *, scale: look.TimeScale, promises: Mapping[str, float] | None = None
) -> Axes:
    """Draw p50, p95 and p99 of a latency over time on a logarithmic axis, with the promised limit.

    metric: "ttft", "tpot" or "time_to_output". promises: limit in seconds by figure, e.g. {"ttft_p95": 15.0}.
    """
    limits = {name: limit for name, limit in (promises or {}).items() if name.startswith(f"{metric}_")}
    lines = {f"{metric}_{p}": (p, color, dash) for p, (color, dash) in PERCENTILES.items()}
    _lines(ax, series, lines, scale)
    shown = series[series.figure.isin(list(lines))]
    values = [*shown[["value", "low", "high"]].to_numpy(float).ravel(), *limits.values()]
    look.value_axis(ax, "s", values, log=True)
    labels = []
    for name, (p, color, _) in lines.items():
        last = _last(series, name)
        if last is not None:
            labels.append((last, f"{p}  {format_value(last, 's')}", color))
    for name, limit in limits.items():
        ax.axhline(limit, color=look.RED, linewidth=2.4, alpha=0.35, zorder=1)
        bound = name.removeprefix(f"{metric}_")
        labels.append((limit, f"promise {bound}\n≤ {format_value(limit, 's', exact=True)}", look.RED))
    look.end_labels(ax, labels)
    ax.set_ylabel("seconds, log scale")
    return ax


LATENCIES = {
    "tokens": ("How fast tokens arrived", 2.1, {
        "ttft": "Time to first token (TTFT)", "tpot": "Time per output token after the first (TPOT)",
    }),
    "outputs": ("How fast images and videos were finished", 2.4, {
        "time_to_output": "Time from request to finished output",
    }),
}  # fmt: skip
"""Title of a chart of latency by what arrives; height of its panels, inches; their metrics and titles."""


def latency_chart(
    series: pd.DataFrame,
    stages: pd.DataFrame | None = None,
    promises: Mapping[str, float] | None = None,
    *,
    of: str = "tokens",
    title: str = "",
    subtitle: str = "",
    footnote: str = "",
) -> Figure:
    """Latency (p50, p95, p99) over time against the promise: TTFT and TPOT, or `of` "outputs" (images and videos) the
    time to the output."""
    with look.settings():
        usual, height_in, panels = LATENCIES[of]
        heights = [height_in] * len(panels)
        sheet, scale = _sheet(series, heights, stages, title or usual, subtitle, footnote, right_in=1.0)
        for ax, (metric, name) in zip(sheet.panels, panels.items()):
            plot_latency(series, metric, ax, scale=scale, promises=promises)
            look.panel_title(ax, name)
    return sheet.figure


OUTPUT_PANELS = (
    ("images", "Images", "images"), ("cost_per_image", "Cost of an image", ""),
    ("energy_per_image", "Energy of an image", ""), ("videos", "Videos", "videos"),
    ("cost_per_video_second", "Cost of a second of video", ""), ("energy_per_video", "Energy of a video", ""),
)  # fmt: skip
"""Figure, title and what is counted in an interval, of each panel of `outputs_chart`."""


def outputs_chart(
    series: pd.DataFrame, stages: pd.DataFrame | None = None, *, title: str = "", subtitle: str = "", footnote: str = ""
) -> Figure:
    """Images and videos over time, what each costs and the energy it takes: a panel for each figure that is there."""
    present = set(series.figure[series.value.notna()])
    panels = [panel for panel in OUTPUT_PANELS if panel[0] in present]
    with look.settings():
        title = title or "What was made, and what each cost"
        sheet, scale = _sheet(series, [1.35] * len(panels), stages, title, subtitle, footnote)
        for ax, (name, told, counted) in zip(sheet.panels, panels):
            plot_figure(series, name, ax, scale=scale)
            look.panel_title(ax, told)
            own = series[series.figure == name]
            ax.set_ylabel(f"{counted} per {interval_label(own)}" if counted else own.unit.iloc[0])
    return sheet.figure


def plot_traffic(series: pd.DataFrame, ax: Axes, *, scale: look.TimeScale) -> Axes:
    """Draw requests served, turned away on top of them, those that arrived and (if given) all that were wanted."""
    served, away = (series[series.figure == name] for name in ("requests_completed", "requests_turned_away"))
    x, value, low, high = look.steps(served, scale)
    top = value
    ax.fill_between(x, 0, value, color=look.SKY, alpha=0.55, linewidth=0, zorder=2)
    ax.fill_between(x, low, high, color=look.BLUE, alpha=0.3, linewidth=0, zorder=3)
    ax.plot(x, value, color=look.BLUE, linewidth=1.4, zorder=4)
    if len(away) == len(served):
        top = value + look.steps(away, scale)[1]
        ax.fill_between(x, value, top, facecolor="white", edgecolor=look.RED, hatch="////", linewidth=0, zorder=2)
    for name, color, dash in (("requests_arrived", look.RED, "-"), ("demand", look.BLACK, (0, (1, 1.2)))):
        frame = series[series.figure == name]
        look.draw_steps(ax, frame, scale, color=color, linestyle=dash, width=1.2, alpha=0.13)
    names = ["requests_completed", "requests_arrived", "demand"]
    shown = series[series.figure.isin(names)]
    look.value_axis(ax, "requests", [*shown[["value", "high"]].to_numpy(float).ravel(), *top])
    return ax


def traffic_chart(
    series: pd.DataFrame, stages: pd.DataFrame | None = None, *, title: str = "", subtitle: str = "", footnote: str = ""
) -> Figure:
    """Requests wanted, arrived, served and turned away over time; below, output tokens per second from each GPU or
    the output tokens themselves, and how much of the fleet was busy."""
    present = set(series.figure)
    with look.settings():
        made = set(series.figure[(series.figure == "output_tokens") & (series.value > 0)])
        extra = [name for name in ("output_tokens", "utilisation") if name in made | (present - {"output_tokens"})]
        title = title or "Demand, served and turned away"
        sheet, scale = _sheet(series, [2.3, *[1.15] * len(extra)], stages, title, subtitle, footnote)
        traffic = sheet.panels[0]
        plot_traffic(series, traffic, scale=scale)
        look.panel_title(traffic, "Requests")
        traffic.set_ylabel(f"requests per {interval_label(series[series.figure == 'requests_completed'])}")
        traffic_legend(traffic, present)
        for ax, name in zip(sheet.panels[1:], extra):
            plot_figure(series, name, ax, scale=scale)
            look.panel_title(ax, {"output_tokens": "Output tokens", "utilisation": "Utilisation of the GPUs"}[name])
            per = interval_label(series[series.figure == name])
            ax.set_ylabel(f"tokens per {per}" if name == "output_tokens" else "share of GPU time")
    return sheet.figure


def interval_label(frame: pd.DataFrame) -> str:
    """Return what one interval of a series is: "hour", "6 h", "day", "week", or "interval" where they differ."""
    if frame.empty:
        return "interval"
    widths = np.round((frame.end_s - frame.start_s).to_numpy(float))
    width = float(np.median(widths))
    if (np.abs(widths - width) > 0.01 * width).sum() > 1:
        return "interval"
    for unit_s, name, short in ((WEEK_S, "week", "weeks"), (DAY_S, "day", "days"), (HOUR_S, "hour", "h"),
                                (MINUTE_S, "minute", "min")):  # fmt: skip
        if width >= unit_s and abs(width / unit_s - round(width / unit_s)) < 1e-6:
            many = round(width / unit_s)
            return name if many == 1 else f"{many} {short}"
    return format_value(width, "s", exact=True)


def _sheet(series, heights, stages, title, subtitle, footnote, right_in: float = 0.8) -> tuple:
    """The panels of a chart over time, with time axis and stages; and their time scale."""
    start_s, end_s = (float(series.start_s.min()), float(series.end_s.max())) if len(series) else (0.0, DAY_S)
    scale, left_in = look.time_scale(end_s - start_s), 0.72
    marked = look.stages_on(stages, scale, start_s, end_s, look.WIDTH_IN - left_in - right_in)
    note = "\n".join(filter(None, [marked.key, footnote]))
    lines = max((text.count("\n") + 1 for text in marked.texts), default=0)
    sheet = look.sheet(heights, title=title, subtitle=subtitle, footnote=note, left_in=left_in, right_in=right_in,
                       top_in=0.08 + 0.11 * lines if lines else 0.0)  # fmt: skip
    for ax in sheet.panels:
        look.time_axis(ax, scale, start_s, end_s)
        if ax is not sheet.panels[-1]:
            ax.set_xlabel("")
    look.mark_stages(sheet.panels, marked)
    return sheet, scale


def _lines(ax: Axes, series: pd.DataFrame, lines: Mapping[str, tuple], scale) -> list[tuple[float, str, str]]:
    """Draw several figures in one panel, name by (label, colour, style); return their end labels."""
    labels = []
    for name, (label, color, dash) in lines.items():
        look.draw_steps(ax, series[series.figure == name], scale, color=color, linestyle=dash)
        last = _last(series, name)
        if last is not None:
            unit = series[series.figure == name].unit.iloc[0]
            said = f" {unit_label(unit)}".rstrip()
            labels.append((last, f"{label}\n{format_value(last, unit)}{said}", color))
    shown = series[series.figure.isin(list(lines))]
    if len(shown):
        look.value_axis(ax, shown.unit.iloc[0], shown[["value", "low", "high"]].to_numpy(float).ravel())
    return labels


def _last(series: pd.DataFrame, figure: str) -> float | None:
    known = series[(series.figure == figure) & series.value.notna()]
    return float(known.sort_values("start_s", kind="stable").value.iloc[-1]) if len(known) else None


def traffic_legend(ax: Axes, present: set[str]) -> None:
    """Say what is what in a panel of `plot_traffic`, above it at the right, for the figures that are `present`."""
    dotted = dict(linestyle=(0, (1, 1.2)), linewidth=1.2)
    handles = [
        (Patch(facecolor=look.SKY, alpha=0.55, edgecolor=look.BLUE), "served", "requests_completed"),
        (Patch(facecolor="white", edgecolor=look.RED, hatch="////"), "turned away", "requests_turned_away"),
        (Line2D([], [], color=look.RED, linewidth=1.2), "arrived", "requests_arrived"),
        (Line2D([], [], color=look.BLACK, **dotted), "demand", "demand"),
    ]
    chosen = [(handle, name) for handle, name, figure in handles if figure in present]
    ax.legend(*zip(*chosen), loc="lower right", bbox_to_anchor=(1.0, 0.985), ncols=len(chosen), handlelength=1.9,
              columnspacing=1.2, borderaxespad=0.2)  # fmt: skip
