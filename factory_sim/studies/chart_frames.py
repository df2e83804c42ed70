"""The tidy frames that the charts of a run draw: stages, promises, steps; computed here, drawn in reports."""

import pandas as pd

from factory_sim.calibration.frontier import at_speed
from factory_sim.inputs.generation import OutputSlo
from factory_sim.inputs.scenario import Scenario
from factory_sim.results.run import Run
from factory_sim.studies.frontier import scenario_frontier
from factory_sim.studies.waterfall import waterfall
from factory_sim.units import DAY_S

USER_SPEED_TOKENS_PER_S = 30.0
"""Speed per user at which frontiers are compared in charts."""


def chart_frames(run: Run) -> dict:
    """Frames by the names that ``reports.charts.write_charts`` takes.

    One service: its stages, promise, steps and frontier. Several: each under ``by_service``.
    """
    scenario, names = run.scenario, list(run.scenario.services)
    frames = {"series": run.tables["series"], "subtitle": scenario.name, "footnote": footnote(run)}
    if len(names) > 1:
        of_each = {
            name: {"stages": stages(scenario, name), "promises": promises(scenario, name), "steps": _steps(run, name)}
            for name in names
        }
        return frames | {"service": "all", "by_service": of_each}
    (name,) = names
    points, _ = scenario_frontier(scenario, name)
    if len(points):
        frames |= {
            "frontier": points,
            "user_speed_tokens_per_s": USER_SPEED_TOKENS_PER_S,
            "at_speed": frontier_marks(at_speed(points, USER_SPEED_TOKENS_PER_S)),
        }
    own = {"stages": stages(scenario, name), "promises": promises(scenario, name), "steps": _steps(run, name)}
    return frames | own | {"service": name}


def frontier_marks(speeds: pd.DataFrame) -> dict[str, str]:
    """What each system costs at the marked speed, in words, by system: measured, else simulated."""
    marks = {}
    for system, part in speeds.groupby("system", sort=False):
        by_kind = part.set_index("kind")["usd_per_million_output_tokens"]
        known = [(kind, by_kind[kind]) for kind in ("measured", "simulated") if kind in by_kind and by_kind[kind] > 0]
        if known:
            marks[system] = f"${known[0][1]:.2f} ({known[0][0]})"
    return marks


def _steps(run: Run, service: str) -> pd.DataFrame | None:
    """The waterfall, where every stage has a cost of its tokens."""
    steps = waterfall(run, service=service)
    return steps if (steps["value"] > 0).all() else None


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
    if isinstance(slo, OutputSlo):
        return {"time_to_output_p95": slo.time_to_output_p95_s}
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
