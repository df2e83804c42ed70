"""`factory-sim inspect`: what is in a file or folder of results, traces or logs."""

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    path: Annotated[Path, typer.Argument(help="File or folder of benchmark results, traces or request logs.")],
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what a file of results, traces or logs holds, and what was dropped and why. Nothing is fitted."""
    from factory_sim.calibration.importers import as_json, as_text
    from factory_sim.calibration.importers import inspect as read

    found = read(path)
    if json_output:
        import json

        print(json.dumps(as_json(found), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(as_text(found))
