"""`factory-sim frontier`: measured and simulated throughput against speed per user."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def frontier(
    scenario: Annotated[Path, typer.Argument(help="Scenario file whose stages are shown.", show_default=False)],
    settings: Annotated[
        list[str], typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the scenario.")
    ] = [],  # noqa: B006
    variant: Annotated[str | None, typer.Option("--variant", metavar="NAME", help="A variation named in it.")] = None,
    service: Annotated[str | None, typer.Option("--service", help="Service; the first when left out.")] = None,
    isl: Annotated[int, typer.Option("--isl", help="Input length of the benchmark, tokens.")] = 1024,
    osl: Annotated[int, typer.Option("--osl", help="Output length of the benchmark, tokens.")] = 1024,
    speed: Annotated[float, typer.Option("--speed", help="Tokens/s per user at which stages are compared.")] = 30.0,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for the chart (PNG, SVG).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a folder made by this command.")] = False,
) -> None:
    """Play each stage as the benchmark did and show it on top of the measured points, its own group left out too."""
    from factory_sim.calibration.frontier import at_speed
    from factory_sim.errors import ProfileError, ScenarioError, closest
    from factory_sim.inputs.overrides import load_scenario
    from factory_sim.studies.frontier import scenario_frontier

    loaded = load_scenario(scenario, settings, variant)
    name = service or next(iter(loaded.services))
    if name not in loaded.services:
        raise ScenarioError(f"--service {name}: not in the scenario{closest(name, loaded.services)}")
    points, notes = scenario_frontier(loaded, name, isl, osl)
    for note in notes:
        print(note, file=sys.stderr)
    if points.empty:
        raise ProfileError(f"{scenario}: no stage of '{name}' has measured runs of {isl} + {osl} tokens")
    speeds = at_speed(points, speed)
    if out is not None:
        _draw(points, speeds, speed, loaded.name, out, force)
    if as_json:
        rows = json.loads(points.to_json(orient="records", double_precision=15))
        marks = json.loads(speeds.to_json(orient="records", double_precision=15))
        print(
            json.dumps(
                {"schema": "factory_sim.frontier/1", "points": rows, "at_speed": marks, "notes": notes}, indent=1
            )
        )
        return
    from rich.console import Console

    from factory_sim.reports.tables import tidy_table

    console = Console(highlight=False)
    console.print(
        tidy_table(_side_by_side(points), title=f"{loaded.name}: measured and simulated, {isl} + {osl} tokens")
    )
    wide = speeds.pivot(index="system", columns="kind", values="usd_per_million_output_tokens").reset_index()
    wide = wide.rename(columns={kind: f"{kind}, USD/M output tokens" for kind in ("measured", "simulated", "left_out")})
    console.print(tidy_table(wide, title=f"Frontier at {speed:g} tokens/s per user (log-linear between points)"))


def _side_by_side(points):
    """One line a measured run: measured, simulated and left-out throughput with their differences in per cent."""
    import pandas as pd

    keys = ["system", "concurrency", "measurement_id"]
    measured = points[points["kind"] == "measured"].set_index(keys)
    table = pd.DataFrame(
        {
            "tokens/s per user": measured["tokens_per_s_per_user"].round(1).astype(str),
            "measured tokens/s per GPU": measured["tokens_per_s_per_gpu"].round().astype(int),
        }
    )
    for kind, label in (("simulated", "simulated"), ("left_out", "own group left out")):
        part = points[points["kind"] == kind].set_index(keys).reindex(table.index)
        rates, differences = part["tokens_per_s_per_gpu"], 100 * part["difference"]
        table[label] = [f"{rate:,.0f} ({off:+.1f} %)" for rate, off in zip(rates, differences)]
    table["trust, left out"] = points[points["kind"] == "left_out"].set_index(keys).reindex(table.index)["trust"]
    return table.reset_index().drop(columns="measurement_id")


def _draw(points, speeds, speed: float, name: str, out: Path, force: bool) -> None:
    from factory_sim.cli.folders import fresh_folder
    from factory_sim.reports.charts import frontier_chart, save
    from factory_sim.studies.chart_frames import frontier_marks

    figure = frontier_chart(
        points,
        user_speed_tokens_per_s=speed,
        at_speed=frontier_marks(speeds),
        subtitle=name,
        footnote="Lines: played; markers: measured",
    )
    with fresh_folder(out, force) as folder:
        save(figure, folder, "frontier", ("svg", "png"))
