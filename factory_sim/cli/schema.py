"""`factory-sim schema`: what a scenario file may say, and what the figures of a run mean."""

from typing import Annotated

import typer


def schema(
    part: Annotated[
        str,
        typer.Argument(
            help="scenario (all keys), figures, summary (JSON only), or one record such as Demand.",
            metavar="PART",
            show_default=False,
        ),
    ] = "scenario",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Schema instead of Markdown.")] = False,
) -> None:
    """Print the reference of scenario files or of figures, generated from the schema."""
    import json
    import sys

    from factory_sim.errors import ScenarioError
    from factory_sim.reports import reference

    if as_json:
        if part not in ("scenario", "summary"):
            raise ScenarioError(f"schema {part} --json: JSON Schema exists of scenario and summary")
        from factory_sim.results.schema import summary_schema

        found = reference.scenario_schema() if part == "scenario" else summary_schema()
        sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    elif part == "scenario":
        sys.stdout.write(reference.scenario_reference())
    elif part == "figures":
        sys.stdout.write(reference.figures_reference())
    else:
        sys.stdout.write(reference.record_reference(part))
