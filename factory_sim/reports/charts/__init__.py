"""Charts of runs, comparisons and profiles: tidy frames in, PNG and SVG out; they draw what they are given.

Every `plot_*` draws on an Axes that is passed in; every `*_chart` returns a Figure with title, units and a source
line; `write_charts` and `write_comparison` save what a run or a comparison has. Importing this package imports
matplotlib: the command line does so only when it draws.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from factory_sim.reports.charts.accuracy import accuracy_chart, plot_accuracy
from factory_sim.reports.charts.comparison import comparison_chart, plot_runs
from factory_sim.reports.charts.frontier import frontier_chart, plot_frontier
from factory_sim.reports.charts.over_time import (
    COSTS,
    latency_chart,
    money_chart,
    outputs_chart,
    plot_figure,
    plot_latency,
    plot_traffic,
    traffic_chart,
)
from factory_sim.reports.charts.style import save, settings
from factory_sim.reports.charts.timeline import plot_events, plot_spans, timeline_chart
from factory_sim.reports.charts.waterfall import plot_waterfall, waterfall_chart

__all__ = [
    "accuracy_chart", "comparison_chart", "frontier_chart", "latency_chart", "money_chart", "outputs_chart", "plot_accuracy",
    "plot_events", "plot_figure", "plot_frontier", "plot_latency", "plot_runs", "plot_spans", "plot_traffic",
    "plot_waterfall", "save", "settings", "timeline_chart", "traffic_chart", "waterfall_chart", "write_charts",
    "write_comparison",
]  # fmt: skip


def write_charts(
    folder: str | Path,
    *,
    series: pd.DataFrame,
    stages: pd.DataFrame | None = None,
    promises: Mapping[str, float] | None = None,
    steps: pd.DataFrame | None = None,
    frontier: pd.DataFrame | None = None,
    user_speed_tokens_per_s: float | None = None,
    at_speed: Mapping[str, str] | None = None,
    spans: pd.DataFrame | None = None,
    events: pd.DataFrame | None = None,
    service: str = "all",
    by_service: Mapping[str, Mapping] | None = None,
    subtitle: str = "",
    footnote: str = "",
    formats: Iterable[str] = ("svg", "png"),
) -> list[Path]:
    """Write the charts of a run into `folder` (made if missing) and return the files, in the order of a report.

    series: start_s, end_s, figure, service, value, low, high, unit; `service` picks whose. stages: name, start_s,
    end_s, label. promises: limit in seconds by figure. steps, frontier, spans, events: frames of `waterfall_chart`,
    `frontier_chart` and `timeline_chart`. by_service: `stages`, `promises` and `steps` of each service of a factory
    that has several, drawn as `latency-<service>`, `outputs-<service>` and `waterfall-<service>`. A chart whose figures or frame are
    missing or empty is not written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    own = _of(series, service)
    common = dict(subtitle=subtitle, footnote=footnote)
    drawn = _over_time(own, stages, promises, steps, common)
    if frontier is not None and len(frontier):
        marks = dict(user_speed_tokens_per_s=user_speed_tokens_per_s, at_speed=at_speed)
        drawn["frontier"] = frontier_chart(frontier, **marks, **common)
    if any(frame is not None and len(frame) for frame in (spans, events)):
        drawn["timeline"] = timeline_chart(own, spans, events, promises, **common)
    for name, frames in (by_service or {}).items():
        theirs = dict(subtitle=f"{subtitle} · {name}" if subtitle else name, footnote=footnote)
        charts = _over_time(_of(series, name), *map(frames.get, ("stages", "promises", "steps")), theirs)
        drawn |= {f"{chart}-{name}": charts[chart] for chart in ("latency", "outputs", "waterfall") if chart in charts}
    formats = tuple(formats)
    return [path for name, figure in drawn.items() for path in save(figure, folder, name, formats)]


def _of(series: pd.DataFrame, service: str) -> pd.DataFrame:
    return series[series.service == service] if "service" in series else series


def _over_time(series: pd.DataFrame, stages, promises, steps, common: dict) -> dict:
    """The charts over time that a series allows, and the waterfall, by name."""
    has = set(series.figure[series.value.notna()])
    drawn = {}
    if {"revenue", "margin"} <= has and has & {name for name, *_ in COSTS}:
        drawn["money"] = money_chart(series, stages, **common)
    if has & {"ttft_p95", "tpot_p95"}:
        drawn["latency"] = latency_chart(series, stages, promises, **common)
    elif "time_to_output_p95" in has:
        drawn["latency"] = latency_chart(series, stages, promises, of="outputs", **common)
    if has & {"cost_per_image", "cost_per_video"}:
        drawn["outputs"] = outputs_chart(series, stages, **common)
    if "requests_completed" in has:
        drawn["traffic"] = traffic_chart(series, stages, **common)
    if steps is not None and len(steps) > 1:
        drawn["waterfall"] = waterfall_chart(steps, **common)
    return drawn


def write_comparison(
    folder: str | Path,
    comparison: pd.DataFrame,
    *,
    subtitle: str = "",
    footnote: str = "",
    formats: Iterable[str] = ("svg", "png"),
) -> list[Path]:
    """Write the chart of a comparison into `folder` and return the files; frame as in `comparison_chart`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figure = comparison_chart(comparison, subtitle=subtitle, footnote=footnote)
    return save(figure, folder, "comparison", tuple(formats))
