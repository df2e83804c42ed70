"""`factory-sim timeline`: what happened in a run, as a table and as a chart."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def timeline(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    replication: Annotated[int, typer.Option("--replication", metavar="N", help="Replication to show.")] = 0,
    kinds: Annotated[
        list[str], typer.Option("--kind", metavar="KIND", help="Only events of this kind; may be given often.")
    ] = [],  # noqa: B006 (typer reads it)
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the chart and its hours as timeline.csv; none when left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as JSON.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing chart.")] = False,
) -> None:
    """Show every event and change of state of a run, with time, cause and effect."""
    import json

    import pandas as pd

    from factory_sim.errors import RunError, closest
    from factory_sim.results.store import read_run
    from factory_sim.results.timeline import course, spans

    stored = read_run(run, unfinished=True)
    if "incomplete" in stored.summary:
        print(f"{run}: is incomplete: {stored.summary['incomplete']}", file=sys.stderr)
    events = stored.tables["events"]
    held = sorted(events["replication"].unique())
    if replication not in held:
        raise RunError(f"{run}: has no replication {replication}; it has {held[0]} to {held[-1]}")
    events = events[events["replication"] == replication]
    for kind in kinds:
        if kind not in set(events["kind"]):
            raise RunError(f"{run}: no event of kind '{kind}'{closest(kind, sorted(set(events['kind'])))}")
    shown = events[events["kind"].isin(kinds)] if kinds else events
    if out is not None and not len(stored.tables["windows"]):
        raise RunError(f"{run}: nothing was served before the run was stopped; there is nothing to draw")
    if out is not None:
        from factory_sim.cli.folders import fresh_folder
        from factory_sim.reports.charts.timeline import timeline_chart

        series, windows = stored.tables["series"], stored.tables["windows"]
        latency = series[(series["service"] == "all") & series["figure"].str.startswith(("ttft", "tpot"))]
        hours = course(windows, replication, stored.tables["postings"])
        figure = timeline_chart(
            pd.concat([latency, hours], ignore_index=True), spans(windows, replication), shown,
            title=f"{stored.summary['scenario']['name']}: what happened",
            subtitle=f"replication {replication}; latencies over all replications",
        )  # fmt: skip
        with fresh_folder(out, force) as folder:
            for ending in ("png", "svg"):
                figure.savefig(folder / f"timeline.{ending}")
            hours.drop(columns=["low", "high", "service"]).to_csv(folder / "timeline.csv", index=False)
    if as_json:
        print(json.dumps({"schema": "factory_sim.timeline/1", "events": shown.to_dict("records")}, indent=1))
        return
    for event in shown.itertuples():
        day, rest = divmod(event.time_s, 86400.0)
        clock = f"day {int(day):3d} {int(rest // 3600):02d}:{int(rest % 3600 // 60):02d}"
        print(f"{clock}  {event.kind:20s} {event.subject:28s} {event.cause:16s} {event.effect}".rstrip())
