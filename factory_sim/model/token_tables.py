"""The tables behind token counts: rules, rates and their sources."""

import csv
from functools import cache
from importlib.resources import files

from factory_sim.errors import ScenarioError, closest


@cache
def table_of(name: str) -> tuple[dict[str, str], ...]:
    """Rows of a table of ``data/tokenization``."""
    with files("factory_sim.data").joinpath("tokenization", name).open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def row_of(table: str, name: str, what: str, key: str = "name") -> dict[str, str]:
    """The row of a table with this name; ScenarioError names the closest. ``what`` says what the name is of."""
    rows = {row[key]: row for row in table_of(table)}
    if name not in rows:
        raise ScenarioError(f"{what} '{name}' is not known{closest(name, rows)}")
    return rows[name]


def number(row: dict[str, str], column: str) -> float | None:
    """The number in a column, None where it is empty."""
    return float(row[column]) if row[column] else None
