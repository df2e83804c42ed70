"""Hardware that nobody measured: the data sheet of the new GPU with the efficiencies of a measured predecessor.

Every physical term is priced at the new GPU's peak (`step_time.facts_at_peak`) and multiplied by what the predecessor
reaches of its own; fixed costs (launches, scheduling) stay. The band is that of a GPU never measured, widened by the
range of what the data sheet itself leaves open (guess rows of the catalogue).
"""

import csv
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from factory_sim.errors import ProfileError, closest
from factory_sim.inputs import catalog


@cache
def predecessors() -> dict[str, str]:
    """GPU -> the measured GPU whose efficiencies stand for it (`data/whatif/predecessors.csv`)."""
    with files("factory_sim.data").joinpath("whatif", "predecessors.csv").open(encoding="utf-8", newline="") as file:
        return {row["gpu"]: row["predecessor"] for row in csv.DictReader(file)}


def sheet_range(gpu: str, precision: str) -> tuple[float, float]:
    """Low and high factor on step times that the guesses in a GPU's data sheet leave open.

    The quantities that bound a step (memory bandwidth, dense peak of `precision`) at the ends of their ranges, both at
    once: a band for whatever mix of the two a step is. (1, 1) where all is published.
    """
    name, peak = (
        catalog.gpu(gpu).name,
        {"bf16": "dense_bf16", "fp16": "dense_bf16"}.get(precision, f"dense_{precision}"),
    )
    low, high = 1.0, 1.0
    for fact in catalog.facts():
        if fact.gpu != name or not fact.chosen or fact.quantity not in ("hbm_bandwidth", peak):
            continue
        if fact.value and fact.low and fact.high:
            low, high = min(low, fact.value / fact.high), max(high, fact.value / fact.low)
    return low, high


def stand_in(gpu: str, measured: Sequence[str], wanted: str | None = None) -> str | None:
    """Return the measured GPU whose efficiencies are taken for `gpu`: `wanted`, or the table's for one not measured.

    None: its own (or, for a GPU outside the table, those that all GPUs share). Raises ProfileError if `wanted` was
    never measured.
    """
    if wanted is not None:
        name = catalog.gpu(wanted).name
        if name not in measured:
            raise ProfileError(f"predecessor '{wanted}' was never measured{closest(name, measured)}")
        return name
    source = None if gpu in measured else predecessors().get(gpu)
    return source if source in measured else None
