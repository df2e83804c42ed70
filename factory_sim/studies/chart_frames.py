"""The tidy frames that the charts of a run draw: stages, promises, steps; computed here, drawn in reports."""

import pandas as pd

from factory_sim.inputs.scenario import Scenario
from factory_sim.results.run import Run
from factory_sim.studies.waterfall import waterfall
from factory_sim.units import DAY_S


def chart_frames(run: Run) -> dict:
    """Frames by the names that ``reports.charts.write_charts`` takes; stages and promise are the first service's."""
    scenario = run.scenario
    name = next(iter(scenario.services))
    return {
        "series": run.tables["series"],
        "stages": stages(scenario, name),
        "promises": promises(scenario, name),
        "steps": waterfall(run, service=name),
        "service": "all" if len(scenario.services) > 1 else name,
        "subtitle": scenario.name,
        "footnote": footnote(run),
    }


def stages(scenario: Scenario, service: str) -> pd.DataFrame:
    """Stages of a service: name, start_s, end_s, label."""
    found = scenario.services[service].stages
    starts = [stage.from_day * DAY_S for stage in found]
    ends = [*starts[1:], scenario.duration_s]
    rows = [(stage.name, start, end, stage.name) for stage, start, end in zip(found, starts, ends)]
    return pd.DataFrame(rows, columns=["name", "start_s", "end_s", "label"])


def promises(scenario: Scenario, service: str) -> dict[str, float]:
    """Promised limits in seconds by figure."""
    slo = scenario.services[service].slo
    return {"ttft_p95": slo.ttft_p95_s, "tpot_p95": slo.tpot_p95_s}


def footnote(run: Run) -> str:
    """What stands behind a run's charts, in a line."""
    about = run.summary["scenario"]
    trust = sorted({row["trust"] for row in run.summary["figures"] if row["window"] == "whole"})
    count = run.scenario.simulation.replications
    return (
        f"factory_sim {about['version']}, scenario {about['digest']}, seed {about['seed']}; "
        f"bands: P10-P90 over {count} replications with profile and price errors; step times {', '.join(trust)}"
    )
