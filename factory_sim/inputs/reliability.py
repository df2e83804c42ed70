"""The packaged tables of `data/operations/`: kinds of failure, and figures of operation that nobody publishes."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from factory_sim.errors import ScenarioError, closest
from factory_sim.inputs.prices import price_book
from factory_sim.units import DAY_S, HOUR_S

_HOURS = {"h": HOUR_S, "days": DAY_S}


@dataclass(frozen=True)
class FailureRow:
    """One kind of failure, resolved to numbers with their ranges."""

    name: str
    scope: str
    gpus: int | None
    """GPUs of one unit; None: all of a site."""
    per_unit_year: float
    rate_range: tuple[float, float]
    repair_s: float
    repair_range_s: tuple[float, float]
    repair: str
    """Distribution of the time to repair: exponential or fixed."""
    source: str
    note: str


@cache
def _rows(name: str) -> dict[str, dict[str, str]]:
    key = {"operations.csv": "item", "failures.csv": "name"}[name]
    with files("factory_sim.data").joinpath("operations", name).open(encoding="utf-8", newline="") as file:
        return {row[key]: row for row in csv.DictReader(file)}


def operation(item: str, stated: float | None = None) -> float:
    """`stated`, or the packaged value of an item of operations.csv in its unit there."""
    return _packaged(item) if stated is None else stated


@cache
def _packaged(item: str) -> float:
    return float(_rows("operations.csv")[item]["value"])


@cache
def failure_row(name: str) -> FailureRow:
    """A kind of failure by name; raises ScenarioError for an unknown one."""
    rows = _rows("failures.csv")
    if name not in rows:
        raise ScenarioError(f"outages.classes: '{name}' is not known{closest(name, rows)}")
    row = rows[name]
    rate, rate_range, rate_source = _figure(row, "per_unit_year", "rate", {"1/GPU-year": 1.0})
    repair, repair_range, repair_source = _figure(row, "repair_h", "repair", _HOURS, HOUR_S)
    return FailureRow(
        name,
        row["scope"],
        int(row["gpus"]) if row["gpus"] else None,
        rate,
        rate_range,
        repair,
        repair_range,
        row["repair"],
        "; ".join(dict.fromkeys((rate_source, repair_source))),
        row["note"],
    )


def _figure(row, value: str, stem: str, units: dict[str, float], own_unit: float = 1.0):
    """(value, (low, high), source) of a figure that stands here or in a row of facility.csv."""
    if row[f"{stem}_row"]:
        found = price_book().row(row[f"{stem}_row"])
        size = units[found.unit]
        low = found.value if found.low is None else found.low
        high = found.value if found.high is None else found.high
        return found.value * size, (low * size, high * size), found.source
    low, high = float(row[f"{stem}_low"]) * own_unit, float(row[f"{stem}_high"]) * own_unit
    return float(row[value]) * own_unit, (low, high), row["source"]
