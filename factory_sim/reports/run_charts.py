"""The charts of a run: picks, out of a run's tables, the frames that each chart takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from factory_sim.reports.formatting import TRUST_MARKS
from factory_sim.units import DAY_S

if TYPE_CHECKING:
    from factory_sim.inputs.scenario import Scenario
    from factory_sim.results.run import Run

WATERFALL_FIGURE = "cost_per_million_output_tokens"


def write_run_charts(run: "Run", folder: Path, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Draw the charts of a run into `folder` and return the files.

    One service: its money, latency, traffic and waterfall. Several: money and traffic of the whole factory, then
    latency and waterfall of each service as `<chart>-<service>`.
    """
    from factory_sim.reports import charts

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    series, figures, note = run.tables["series"], run.figures, source_line(run)
    services = run.scenario.services
    drawn = {}
    for name, service in services.items():
        own = series[series.service == name]
        stages = stages_frame(run.scenario, name)
        common = dict(subtitle=_subtitle(run.scenario, None if len(services) == 1 else name), footnote=note)
        ending = "" if len(services) == 1 else f"-{name}"
        if len(services) == 1:
            drawn["money"] = charts.money_chart(own, stages, **common)
        drawn[f"latency{ending}"] = charts.latency_chart(own, stages, promises(service.slo), **common)
        if len(services) == 1:
            drawn["traffic"] = charts.traffic_chart(own, stages, **common)
        steps = waterfall_steps(figures, stages, name)
        if len(steps) > 1:
            drawn[f"waterfall{ending}"] = charts.waterfall_chart(steps, **common)
    if len(services) > 1:
        whole = series[series.service == "all"]
        common = dict(subtitle=_subtitle(run.scenario, None), footnote=note)
        factory = {"money": charts.money_chart(whole, **common), "traffic": charts.traffic_chart(whole, **common)}
        drawn = {**factory, **drawn}
    return [path for name, figure in drawn.items() for path in charts.save(figure, folder, name, formats)]


def stages_frame(scenario: "Scenario", service: str) -> pd.DataFrame:
    """Return the stages of a service: name, start_s, end_s, label; each from the day its change begins to the next."""
    stages = scenario.services[service].stages
    starts = [stage.from_day * DAY_S for stage in stages]
    return pd.DataFrame(
        {
            "name": [stage.name for stage in stages],
            "start_s": starts,
            "end_s": [*starts[1:], scenario.duration_s],
            "label": [stage.name for stage in stages],
        }
    )


def promises(slo) -> dict[str, float]:
    """Return the limits of a promise by the figure that they bind, seconds: {"ttft_p95": 15.0, ...}."""
    return {name.removesuffix("_s"): limit for name, limit in slo.model_dump().items() if name.endswith("_s")}


def waterfall_steps(figures: pd.DataFrame, stages: pd.DataFrame, service: str) -> pd.DataFrame:
    """Return the stages of a service that have a cost as steps of `waterfall_chart`, with their trust."""
    found = figures[(figures.figure == WATERFALL_FIGURE) & (figures.service == service)].set_index("window")
    names = [name for name in stages.name if f"stage_{name}" in found.index]
    labels = stages.set_index("name").label
    rows = found.loc[[f"stage_{name}" for name in names]]
    steps = pd.DataFrame(
        {
            "name": names,
            "label": [labels[name] for name in names],
            "value": rows.value.to_numpy(float),
            "low": rows.low.to_numpy(float),
            "high": rows.high.to_numpy(float),
            "trust": rows.trust.to_list(),
        }
    )
    return steps[steps.value > 0].reset_index(drop=True)


def source_line(run: "Run") -> str:
    """Return the line under every chart: which run, what the bands are, on which rung of trust each stage stands."""
    scenario = run.summary["scenario"]
    figures = run.figures
    count = run.scenario.simulation.replications
    staged = figures[(figures.figure == WATERFALL_FIGURE) & figures.window.str.startswith("stage_")]
    rungs = dict(zip(staged.window.str.removeprefix("stage_"), staged.trust))
    lines = [
        f"Source: factory_sim {scenario['version']}, scenario {scenario['name']} (digest {scenario['digest']}, "
        f"seed {scenario['seed']}). Lines are P50, bands P10 to P90 of {count} replications.",
    ]
    by_trust = {trust: [name for name, rung in rungs.items() if rung == trust] for trust in TRUST_MARKS}
    said = [f"{trust}: {', '.join(names)}" for trust, names in by_trust.items() if names]
    if said:
        lines.append("Throughput profiles " + "; ".join(said) + ".")
    return "\n".join(lines)


def _subtitle(scenario: "Scenario", service: str | None) -> str:
    models = list(dict.fromkeys(item.model for item in scenario.services.values()))
    what = [scenario.name, *([service] if service else []), f"{scenario.site.gpus:,} GPUs", ", ".join(models[:3])]
    return " · ".join([*what, f"{scenario.duration_days:g} days from {scenario.start:%Y-%m-%d}"])
