"""`factory-sim run` and `compare`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

ScenarioFile = Annotated[Path, typer.Argument(help="Scenario file (YAML).", show_default=False)]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the scenario; may be given often.")
]


def run(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Run folder; default runs/<name>-<digest>.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed; the scenario's own when left out.")
    ] = None,
    settings: Settings = [],  # noqa: B006 (typer reads it)
    variant: Annotated[
        str | None, typer.Option("--variant", metavar="NAME", help="A variation named in the scenario.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the bytes of summary.json instead of tables.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    no_charts: Annotated[bool, typer.Option("--no-charts", help="Draw no charts.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run folder.")] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run policies that the scenario names as file.py:function.")
    ] = False,
) -> None:
    """Play a scenario, price it, check the laws, write the run folder and print the results by week and stage."""
    from factory_sim.inputs.overrides import load_scenario
    from factory_sim.inputs.provenance import digest
    from factory_sim.results.store import check_free

    seeded = [] if seed is None else [f"seed={seed}"]
    loaded = load_scenario(scenario, [*settings, *seeded], variant)
    folder = out or Path("runs") / f"{loaded.name}-{digest(loaded)}"
    check_free(folder, force=force)

    def progress(message: str) -> None:
        if not quiet:
            print(message, file=sys.stderr, flush=True)

    result = _played(scenario, loaded, folder, force, progress=progress, allow_code=allow_code)
    _write(folder, result, force=force, charts=None if no_charts else lambda charts: _draw(result, charts))
    if as_json:
        sys.stdout.buffer.write((folder / "summary.json").read_bytes())
        sys.stdout.flush()
    else:
        _print_report(result)
    progress(f"run folder: {folder}")
    failed = [check["check"] for check in result.summary["checks"] if not check["ok"]]
    if failed:
        print(f"error: laws broken: {', '.join(failed)} (details in {folder / 'summary.json'})", file=sys.stderr)
        raise typer.Exit(1)


def _played(file: Path, loaded, folder: Path, force: bool, **options):
    """The run; of one that is stopped on the way, what was played is written before the error goes on."""
    from factory_sim.errors import FactorySimError, SimulationStopped
    from factory_sim.results.run import run as play

    try:
        return play(loaded, **options)
    except SimulationStopped as stopped:
        kept = folder.with_name(f"{folder.name}.incomplete") if folder.exists() else folder
        _write(kept, stopped.run, force=force)
        stopped.args = (f"{file}: {stopped}; what was played before is in {kept}, marked incomplete",)
        raise
    except FactorySimError as error:
        error.args = (f"{file}: {error}", *error.args[1:])
        raise


def _print_report(result) -> None:
    from rich.console import Console

    from factory_sim.ledger.bands import one_sided
    from factory_sim.reports.tables import run_report

    Console(highlight=False).print(run_report(result.summary))
    note = one_sided(result.scenario.money, sorted(set(result.tables["windows"]["gpu"])))
    if note:
        print(note)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; the first is the base of the ratios.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for the comparison chart; none is drawn when left out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing charts.")] = False,
) -> None:
    """Put the figures of runs side by side, with ratios to the first and their bands."""
    import json

    from factory_sim.results.store import read_run
    from factory_sim.studies.compare import compare as side_by_side

    table = side_by_side([read_run(folder) for folder in runs])
    if out is not None:
        from factory_sim.cli.folders import fresh_folder
        from factory_sim.reports.charts import write_comparison

        whole = table[(table["window"] == "whole") & (table["service"] == "all")]
        with fresh_folder(out, force) as folder:
            write_comparison(folder, whole)
    if as_json:
        records = json.loads(table.to_json(orient="records", double_precision=15))
        print(json.dumps({"schema": "factory_sim.comparison/1", "figures": records}, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    from factory_sim.reports.tables import comparison_grid

    console = Console(highlight=False, soft_wrap=False)
    weeks = [window for window in dict.fromkeys(table["window"]) if window.startswith("week_")]
    for window in ["whole", *weeks[:1], *weeks[-1:]]:
        part = table[(table["window"] == window) & (table["service"] == "all")]
        console.print(comparison_grid(part, title=f"Runs compared: {window.replace('_', ' ')}"))


def _write(folder: Path, result, *, force: bool, charts=None) -> None:
    """Write a run, finished or not."""
    from factory_sim.results.store import write_run

    parts = {name: getattr(result, name) for name in ("scenario_yaml", "provenance", "tables", "summary")}
    write_run(folder, **parts, charts=charts, force=force)


def _draw(result, folder: Path) -> None:
    """Charts of a run."""
    from factory_sim.reports.charts import write_charts
    from factory_sim.studies.chart_frames import chart_frames

    write_charts(folder, **chart_frames(result))
