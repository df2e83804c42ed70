"""What `summary.json` must look like, as a JSON Schema that ships with the package and as laws no schema can say."""

import json
from collections import Counter
from functools import cache
from importlib.resources import files

SUMMARY_SCHEMA = "factory_sim.summary/1"
WHOLE_RUN_FIGURES = ("cost_reduction_first_to_last_week", "revenue_growth_first_to_last_week")


@cache
def summary_schema() -> dict:
    """Return the JSON Schema (draft 2020-12) of `factory_sim.summary/1`."""
    return json.loads(files("factory_sim.data").joinpath("schema", "summary-1.json").read_text(encoding="utf-8"))


def summary_problems(summary: dict) -> list[str]:
    """Return what is wrong with a summary, one line a problem, none if it keeps to `factory_sim.summary/1`.

    Beyond the schema: no figure twice for one window and service, low <= value <= high, the same unit for a figure
    everywhere, and every window's figures also for `service: all`, with the window `whole` among them.
    """
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(summary_schema())
    found = sorted(validator.iter_errors(summary), key=lambda error: list(map(str, error.path)))
    if found:
        return [f"{'.'.join(map(str, error.path)) or 'summary'}: {error.message}" for error in found]
    figures = summary["figures"]
    keys = Counter((row["figure"], row["window"], row["service"]) for row in figures)
    problems = [f"figures: {' / '.join(key)} is there {n} times" for key, n in keys.items() if n > 1]
    for row in figures:
        where = f"figures: {row['figure']} / {row['window']} / {row['service']}"
        low, value, high = row["low"], row["value"], row["high"]
        if value is None and not (low is None and high is None):
            problems.append(f"{where}: a band without a value")
        elif value is not None and not _ordered(low, value, high):
            problems.append(f"{where}: low {low}, value {value}, high {high} are not in order")
    units = {row["figure"]: row["unit"] for row in reversed(figures)}
    problems += [
        f"figures: {row['figure']} is in {units[row['figure']]} and in {row['unit']}"
        for row in figures
        if row["unit"] != units[row["figure"]]
    ]
    for figure, window, _ in keys:
        if (figure, window, "all") not in keys:
            problems.append(f"figures: {figure} / {window} has no row for service all")
    if "incomplete" not in summary and not any(window == "whole" for _, window, _ in keys):
        problems.append("figures: no row for window whole")
    return problems


def _ordered(low, value, high) -> bool:
    """Whether low <= value <= high up to rounding; a missing bound is none."""
    slack = 1e-9 * abs(value)
    return (low is None or low <= value + slack) and (high is None or value <= high + slack)
