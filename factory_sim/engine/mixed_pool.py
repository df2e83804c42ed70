"""Instances of several systems behind one router, played in one pool of the kernel; what it says is told kind by kind."""

import copy
from dataclasses import dataclass, field

import numpy as np

from factory_sim.engine.facts import Facts
from factory_sim.engine.kernel import Pool
from factory_sim.engine.stage_pool import StagePool
from factory_sim.model.serving import ServingSystem


@dataclass(frozen=True)
class Group:
    """Like instances of a mixed pool."""

    key: str
    """Kind of instance (`control/service.py`)."""
    system: ServingSystem
    """Already multiplied by the replication's profile error."""
    kept: int
    """Instances played."""
    ttft_error: float
    """As `StagePool.ttft_error`."""
    cost: float
    """Cost of a request at the tested capacity, in any unit; what the router cost_aware prefers the least of."""
    promised: int
    """Requests in an instance's care at its tested capacity."""


@dataclass(kw_only=True)
class MixedPool(StagePool):
    """As `StagePool` for several groups: loads are means over all instances, `kept` is their number.

    Requests' steps are drawn for `system`, the one that gains fewest tokens a step, before they are routed; elsewhere they
    need fewer in proportion, so that acceptance does not vary there from request to request.
    """

    groups: tuple[Group, ...] = field(default=())

    def _new_pool(self) -> Pool:
        costly = {"costs": [g.cost for g in self.groups], "promise_outstanding": [g.promised for g in self.groups]}
        paces = [self.system.tokens_per_step / group.system.tokens_per_step for group in self.groups]
        options = self.pool_options | (costly if self.router == "cost_aware" else {})
        options |= {"paces": paces} if len(set(paces)) > 1 else {}
        return Pool([(g.system, g.kept) for g in self.groups], router=self.router, **options)

    def facts(self, rate: float, window_s: float, before: dict, after: dict, done: np.ndarray) -> Facts:
        """Facts of a window just played: of all instances as means, and kind by kind."""
        owner = np.repeat(np.arange(len(self.groups)), [group.kept for group in self.groups])
        instance = before["worker_instance"]
        here = self.pool.in_flight()
        by_kind = {}
        for number, group in enumerate(self.groups):
            mine = owner[instance] == number
            left = done[_of_group(done["instance"], owner, number)]
            inside = here[_of_group(here["instance"], owner, number)]
            first, last = (
                {name: value[mine] for name, value in totals.items() if np.ndim(value)} for totals in (before, after)
            )
            last |= self._counts(left, inside, window_s)
            first |= dict.fromkeys(last.keys() - first.keys(), 0)
            own_rate = rate * last["arrived"] * len(owner) / (group.kept * max(after["arrived"] - before["arrived"], 1))
            by_kind[group.key] = StagePool.facts(self._view(group), own_rate, window_s, first, last, left)
        first_of = next(iter(by_kind.values()))
        return Facts(first_of.window, rate, first_of.values, first_of.latency, by_kind)

    def _view(self, group: Group) -> StagePool:
        """This pool as if it had the instances of one group only."""
        view = copy.copy(self)
        view.system, view.kept, view.ttft_error = group.system, group.kept, group.ttft_error
        return view

    def _counts(self, left: np.ndarray, inside: np.ndarray, window_s: float) -> dict[str, float]:
        """A group's counters over a window from who left it and who is in it."""
        start_s = self.clock_s - window_s
        area_s = (left["finish_s"] - np.maximum(left["arrival_s"], start_s)).sum()
        area_s += (self.clock_s - np.maximum(inside["arrival_s"], start_s)).sum()
        names = ("completed", "rejected", "timed_out", "lost", "cancelled")
        found = {name: int((left["status"] == status).sum()) for status, name in enumerate(names)}
        arrived = int((left["arrival_s"] >= start_s).sum() + (inside["arrival_s"] >= start_s).sum())
        return found | {"arrived": arrived, "system_seconds": float(area_s)}

    def _peak_shares(self, totals: dict) -> dict[str, float]:
        owner = np.repeat(np.arange(len(self.groups)), [group.kept for group in self.groups])
        of = owner[totals["worker_instance"]]
        shares = [
            StagePool._peak_shares(
                self._view(group), {name: value[of == number] for name, value in totals.items() if np.ndim(value)}
            )
            for number, group in enumerate(self.groups)
        ]
        return {name: max(share[name] for share in shares) for name in shares[0]}


def _of_group(instance: np.ndarray, owner: np.ndarray, number: int) -> np.ndarray:
    """Which requests belong to a group by their last instance; those that none took count with the first."""
    return np.where(instance >= 0, owner[np.maximum(instance, 0)], 0) == number
