"""`factory-sim capacity`: the highest load that keeps the promise."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def capacity(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (YAML).", show_default=False)],
    settings: Annotated[
        list[str], typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the scenario.")
    ] = [],  # noqa: B006
    variant: Annotated[
        str | None, typer.Option("--variant", metavar="NAME", help="A variation named in the scenario.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of the first test.")] = None,
    tests: Annotated[int, typer.Option("--tests", metavar="N", help="Independent load tests a stage.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Load-test every stage: the highest load that keeps the promise, for one replica and for the fleet."""
    from factory_sim.inputs.overrides import load_scenario
    from factory_sim.studies.capacity import capacity as find

    seeded = [] if seed is None else [f"seed={seed}"]
    loaded = load_scenario(scenario, [*settings, *seeded], variant)
    table = find(loaded, tests)
    if as_json:
        units = {
            "requests_per_s": "requests/s",
            "output_tokens_per_s_per_gpu": "tokens/s",
            "ci": "95 % confidence",
            "band": "P10-P90",
        }
        rows = json.loads(table.to_json(orient="records", double_precision=15))
        sys.stdout.write(
            json.dumps({"schema": "factory_sim.capacity/1", "units": units, "stages": rows}, indent=1) + "\n"
        )
        return
    from rich.console import Console

    from factory_sim.reports.formatting import format_band, format_value
    from factory_sim.reports.tables import tidy_table

    shown = table[["service", "stage", "instances", "trust", "limited_by"]].copy()
    shown.insert(2, "requests/s an instance", [format_value(v, "") for v in table["requests_per_s"]])
    shown.insert(
        3,
        "95 % CI",
        [format_band(a, v, b, "") for a, v, b in zip(table["ci_low"], table["requests_per_s"], table["ci_high"])],
    )
    shown.insert(
        4,
        "P10-P90",
        [format_band(a, v, b, "") for a, v, b in zip(table["band_low"], table["requests_per_s"], table["band_high"])],
    )
    shown.insert(6, "fleet requests/s", [format_value(v, "") for v in table["fleet_requests_per_s"]])
    shown.insert(7, "tokens/s per GPU", [format_value(v, "") for v in table["output_tokens_per_s_per_gpu"]])
    Console(highlight=False).print(tidy_table(shown, title=f"{loaded.name}: highest load that keeps the promise"))
