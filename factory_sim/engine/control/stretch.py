"""A stretch of constant rates and fleets: what each service does in it, and where it is played and written down."""

import math
from dataclasses import dataclass, field

from factory_sim.engine.control.distance import farther
from factory_sim.engine.control.fleet import Count
from factory_sim.engine.control.service import Service
from factory_sim.engine.facts import Facts
from factory_sim.engine.journal import Journal
from factory_sim.engine.stage_pool import StagePool
from factory_sim.inputs.scenario import Scenario


@dataclass
class Plan:
    """What one service does in one stretch."""

    service: Service
    counts: tuple[Count, ...]
    start_s: float
    end_s: float
    price_index: float
    latent_per_s: float
    slower: float = 1.0
    """Step times at the clock that power allows, over those at the full one."""
    dark: float = 0.0
    """Instances switched off for want of power."""
    received_per_s: float = 0.0
    """Demand that came over from other services."""
    far: list[tuple[float, float]] = field(default_factory=list)
    """(network time s, requests/s) of the part of it that has a network time."""
    sent: float = 0.0
    """Requests that went to other services."""
    up: dict[str, float] = field(default_factory=dict)
    """Instances that serve, by key, without those switched off (set when demand is granted)."""
    granted_per_s: float = 0.0
    limit_per_s: float = math.inf
    held_by_users: bool = False
    """The limits of single users are below what capacity lets in."""
    lost: float = 0.0
    waiting: float = 0.0
    rows: list[dict] = field(default_factory=list)
    parts: dict[str, list[tuple[float, Facts]]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    jobs: float = 0.0
    """Batch jobs answered."""

    @property
    def seconds(self) -> float:
        """Length of the stretch."""
        return self.end_s - self.start_s


@dataclass
class Counter:
    """Everything that serving needs besides the services: pools by kind and clock, the scenario, the journal."""

    scenario: Scenario
    journal: Journal
    pool_of: object
    """(service, key, slower, filled) -> StagePool, made when first asked for."""
    mixed_pool: object
    """(service, instances up by key, slower) -> MixedPool, likewise."""

    moved: dict[tuple[int, float], Facts] = field(default_factory=dict)
    """(window, network time s) -> the same window for requests from another service."""

    def farther(self, service: Service, facts: Facts, delay_s: float) -> Facts:
        """A played window for requests that are `delay_s` away; its latencies are written down once."""
        key = (facts.window, delay_s)
        if key not in self.moved:
            number = self.journal.next_window()
            self.moved[key] = farther(facts, delay_s, number, service.resolved.service.slo.ttft_p95_s)
            self.journal.latency += [(number, metric, *kept) for metric, kept in self.moved[key].latency.items()]
        return self.moved[key]

    def pool(self, service: Service, key: str, slower: float, filled: bool = False) -> StagePool:
        """The pool of a kind of instance at a clock, with or without batch jobs."""
        return self.pool_of(service, key, slower, filled)


def rows_of(plan: Plan) -> tuple[Count, ...]:
    """Kinds that get a row: all that hold a GPU, or the current one so that demand without a fleet is written too."""
    return plan.counts or (Count(plan.service.current, 0.0, 0.0, 0.0, 0.0),)
