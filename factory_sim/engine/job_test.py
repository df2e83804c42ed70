"""How far batch jobs may fill an instance: a load test with users and jobs, since long jobs weigh more than users' requests."""

from collections.abc import Callable

import numpy as np

from factory_sim.engine.facts import Facts
from factory_sim.engine.filled_pool import FilledPool
from factory_sim.engine.load_test import LatencyCurve
from factory_sim.errors import CapacityError
from factory_sim.histogram import quantile_rows
from factory_sim.inputs.services import Slo

USERS = (0.1, 0.5)
"""Users' loads of the test, over the tested capacity."""
LESS = 0.7
"""Factor from one number of requests that is tried to the next."""


def job_fill(curve: LatencyCurve, slo: Slo, wanted: float, pool_at: Callable[[int], FilledPool]) -> float:
    """Requests at one instance up to which jobs fill it, over those it holds at its tested capacity.

    The most up to `wanted` at which users keep the promise at every load of the test; `pool_at` makes the pool to test
    a number with. Raises CapacityError where jobs break the promise even if an instance takes one only when it is idle.
    """
    capacity = curve.capacity_per_s(slo.ttft_p95_s, slo.tpot_p95_s)
    number = curve.number_at(capacity)
    limit = max(round(wanted * number), 1)
    while not _keeps(pool_at(limit), slo, capacity):
        if limit == 1:
            raise CapacityError("jobs of these lengths break the users' promise even one at a time; make them shorter")
        limit = max(int(LESS * limit), 1)
    return min(wanted, limit / number)


def _keeps(pool: FilledPool, slo: Slo, capacity_per_s: float) -> bool:
    windows = [pool.play(load * capacity_per_s) for load in USERS]
    limits = {"ttft": slo.ttft_p95_s, "tpot": slo.tpot_p95_s}
    return all(_p95(facts, metric) <= limit for facts in windows for metric, limit in limits.items())


def _p95(facts: Facts, metric: str) -> float:
    bins, counts = facts.latency[metric]
    return float(quantile_rows(bins, np.asarray(counts)[None, :], (0.95,))[0, 0]) if len(bins) else 0.0
