"""Kinds of failure as the engine plays them: hazards of units, and what one failure takes with it.

Times to failure are exponential (the published rates are counts over fleet-hours), so the failures of a fleet are one
Poisson stream whose rate is proportional to the units in operation. A broken instance cannot fail again, hence one
machine is up for MTBF / (MTBF + MTTR) of the time (`queueing.availability`).
"""

import math
from dataclasses import dataclass

import numpy as np

from factory_sim.inputs import catalog
from factory_sim.inputs.operations import Outages
from factory_sim.inputs.reliability import failure_row
from factory_sim.units import HOUR_S, YEAR_S


@dataclass(frozen=True)
class FailureKind:
    """One kind of failure at a site."""

    name: str
    scope: str
    gpus: int | None
    """GPUs of one unit; None: the catalogue's node, or all of a site."""
    per_unit_s: float
    """Failures of one unit a second of operation."""
    repair_s: float
    """Mean time to repair, seconds."""
    repair: str
    """exponential or fixed."""

    def repair_time_s(self, rng: np.random.Generator) -> float:
        """One time to repair, seconds."""
        draw = float(rng.standard_exponential())
        return self.repair_s * (draw if self.repair == "exponential" else 1.0)


def failure_kinds(outages: Outages | None) -> tuple[FailureKind, ...]:
    """All kinds that can happen, in the order of the scenario; none where the rates are zero. Raises ScenarioError."""
    if outages is None:
        return ()
    kinds = []
    if isinstance(outages.classes, tuple):
        for name in outages.classes:
            row = failure_row(name)
            kinds.append(FailureKind(name, row.scope, row.gpus, row.per_unit_year, row.repair_s, row.repair))
    else:
        for name, own in outages.classes.items():
            kinds.append(
                FailureKind(name, own.scope, own.gpus, own.per_unit_year, own.repair_hours * HOUR_S, own.repair)
            )
    scaled = [
        FailureKind(k.name, k.scope, k.gpus, k.per_unit_s * outages.rate_multiplier / YEAR_S, k.repair_s, k.repair)
        for k in kinds
    ]
    return tuple(kind for kind in scaled if kind.per_unit_s > 0.0)


def unit_gpus(kind: FailureKind, gpu: str) -> int | None:
    """GPUs of one unit of a kind of failure in a fleet of `gpu`; None for a whole site."""
    if kind.scope == "site":
        return None
    if kind.gpus is not None and kind.scope != "node":
        return kind.gpus
    if kind.scope == "gpu":
        return 1
    facts = catalog.gpu(gpu)
    return kind.gpus or int(facts.gpus_per_node) if kind.scope == "node" else int(max(facts.scale_up_domain_gpus, 8))


def instances_hit(unit: int, instance_gpus: int) -> int:
    """Instances that one failed unit stops, if instances are packed side by side: at least one."""
    return max(math.ceil(unit / instance_gpus), 1)


def interruptions_per_s(kinds: tuple[FailureKind, ...], gpu: str, gpus: int) -> float:
    """Interruptions a second of one synchronous job on `gpus` GPUs: every failure of any of its units stops it."""
    total = 0.0
    for kind in kinds:
        unit = unit_gpus(kind, gpu)
        total += kind.per_unit_s * (1.0 if unit is None else gpus / unit)
    return total
