"""`factory-sim report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="HTML file; default report.html in the run folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing FILE.")] = False,
) -> None:
    """Write a run as one web page: tables, charts, checks and sources in a single file that prints well."""
    from factory_sim.errors import RunError
    from factory_sim.reports.page import write_page
    from factory_sim.results.store import read_run

    stored = read_run(run)
    if out is not None and out.exists() and not force:
        raise RunError(f"{out}: is already there; give another name, or --force to replace it")
    print(write_page(stored, out or run / "report.html"))
