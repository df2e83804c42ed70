"""One running service: its fleet, its demand, and what it last showed to those who decide about it."""

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import simpy

from factory_sim.engine.control.batch import JobQueue
from factory_sim.engine.control.demand import Backlog, DemandState
from factory_sim.engine.control.fleet import Count, Fleet
from factory_sim.engine.control.view import View
from factory_sim.engine.facts import Facts
from factory_sim.engine.journal import Journal
from factory_sim.engine.outputs import MAKES_TOKENS
from factory_sim.engine.resolve import ResolvedService, ResolvedStage
from factory_sim.histogram import quantile_rows
from factory_sim.inputs import catalog
from factory_sim.inputs.operations import ColdStart
from factory_sim.inputs.reliability import operation
from factory_sim.model.generation import GenerationSystem
from factory_sim.model.step_time import weight_bytes
from factory_sim.units import GIGABYTE_BYTES, HOUR_S

SPOT = "+spot"
"""Mark of the kinds of instance that are spot capacity."""
HISTORY = 4096
"""Intervals that a policy may look back on."""


@dataclass(frozen=True)
class Kind:
    """One kind of instance: a system, how fast it runs, and how tables call it."""

    key: str
    stage: ResolvedStage
    label: str
    """Stage in the tables."""
    factor: float = 1.0
    """Step times over those of the stage's profile: below 1 after an upgrade, above 1 with a defect."""


@dataclass
class Place:
    """State of one site: whether it has power, and how much it may draw."""

    env: simpy.Environment
    name: str
    lit: bool = True
    caps_w: list[float] = field(default_factory=list)
    """Caps of the curtailment calls that hold now, W at the meter."""
    rise_k: float = 0.0
    """Kelvin above the usual outside temperature."""
    cap_now_w: float = math.inf
    """Cap of the stretch that is being served, W."""
    rise_now_k: float = 0.0
    """Kelvin above the usual in that stretch."""
    jobs: list = field(default_factory=list)
    """Training jobs here."""
    training: dict[str, tuple[float, float]] = field(default_factory=dict)
    """job -> (IT power, nameplate power) of its GPUs, W."""
    pue: float = 1.0
    """PUE in the last stretch."""
    factor: float = 1.0
    """Step times at the clock last set over those at the full one."""
    dark: bool = False
    """Whether instances were switched off for want of power in the last stretch."""
    load: float = 1.0
    """IT power over nameplate in the last stretch."""

    def __post_init__(self) -> None:
        self.light = self.env.event()

    @property
    def training_w(self) -> float:
        """IT power of the training jobs here, W."""
        return sum(watts for watts, _ in self.training.values())

    @property
    def training_nameplate_w(self) -> float:
        """Nameplate power of their GPUs, W."""
        return sum(watts for _, watts in self.training.values())

    def trains(self, job: str, watts: float, nameplate_w: float) -> None:
        """Note what a training job draws."""
        self.training[job] = (watts, nameplate_w)

    def tell_jobs(self) -> None:
        """Wake the training jobs: power came or went."""
        for job in self.jobs:
            job.tell()

    def switch(self, lit: bool) -> None:
        """The whole site goes down or comes back."""
        self.lit = lit
        self.tell_jobs()
        if lit:
            event, self.light = self.light, self.env.event()
            event.succeed()


@dataclass
class Service:
    """State of one service in one replication."""

    env: simpy.Environment
    name: str
    resolved: ResolvedService
    replication: int
    fleet: Fleet
    demand: DemandState
    backlog: Backlog
    place: Place
    journal: Journal
    kinds: dict[str, Kind]
    current: str
    """Key of the kind of instance that changes, failures and scaling work on."""
    jobs: JobQueue | None = None
    """Batch jobs that wait; None where the service has none."""
    cold_start: ColdStart = field(default_factory=ColdStart)
    gone: list[str] = field(default_factory=list)
    """Stages that are over: what comes back from repair joins the current one."""
    changing: bool = False
    """A roll-out is going on: the autoscaler waits."""
    starting: int = 0
    """Instances on their way up for the autoscaler."""
    released: int = 0
    """Installed instances that are given back or lent."""
    spare_gpus: int = 0
    """Healthy GPUs that stand ready; counted as down in the fleet."""
    loose_gpus: int = 0
    """Healthy GPUs too few for an instance; counted as down in the fleet."""
    broken: deque = field(default_factory=deque)
    """(key, instances, GPUs needed) of instances that wait for healthy GPUs, first come first served."""
    retry_share: float = 0.0
    retried: float = 0.0
    """Requests lost in flight that will be asked again in the next stretch."""
    price_now: float = 1.0
    """Factor on list prices in the stretch that is being served."""
    launch_price: float = 1.0
    """Factor on list prices since the launch of a better model."""
    latest: list[tuple[float, Facts]] = field(default_factory=list)
    """Windows (with weights over instances) of the last stretch."""
    latest_by_kind: dict[str, list[tuple[float, Facts]]] = field(default_factory=dict)
    asked_per_s: float = 0.0
    served_per_s: float = 0.0
    history: list[tuple[float, float]] = field(default_factory=list)
    """(end of the interval, requests asked for a second), the last `HISTORY` at least."""
    capacities: dict[tuple[str, float], float] = field(default_factory=dict)
    """(key, slower) -> tested capacity of one instance; computed once."""
    starts_s: dict[str, float] = field(default_factory=dict)
    """key -> time to bring an instance up; computed once."""

    def begin(self, cap_w: float) -> None:
        """Begin a stretch: what holds now holds until its end, even if it changes at that very moment."""
        self.fleet.open()
        self.price_now = self.demand.price_factor * self.launch_price
        self.place.cap_now_w, self.place.rise_now_k = cap_w, self.place.rise_k

    def capacity_per_s(self, key: str, slower: float = 1.0) -> float:
        """Requests/s that one instance of a kind serves within the promise, at a clock that is `slower` by a factor."""
        if (key, slower) not in self.capacities:
            kind, slo = self.kinds[key], self.resolved.service.slo
            factor = float(kind.stage.slowdowns[self.replication]) * kind.factor * slower
            self.capacities[key, slower] = kind.stage.curve.capacity_per_s(slo.ttft_p95_s, slo.tpot_p95_s, factor)
        return self.capacities[key, slower]

    def number_at(self, key: str, rate_per_s: float) -> float:
        """Mean number of requests at one instance of a kind under a load, from its load test."""
        kind = self.kinds[key]
        return kind.stage.curve.number_at(rate_per_s, float(kind.stage.slowdowns[self.replication]) * kind.factor)

    def size(self, key: str | None = None) -> int:
        """GPUs of one instance of a kind (the current one)."""
        return self.kinds[key or self.current].stage.system.gpus

    def start_s(self, key: str | None = None) -> float:
        """Seconds to bring up one instance: weights over their bandwidth, engine, graphs."""
        key = key or self.current
        if key not in self.starts_s:
            self.starts_s[key] = self._cold_start_s(key)
        return self.starts_s[key]

    def _cold_start_s(self, key: str) -> float:
        system = self.kinds[key].stage.system
        if isinstance(system, GenerationSystem):
            weights = system.weight_bytes
        else:
            copies = sum(worker.count for worker in system.workers)
            weights = copies * sum(weight_bytes(catalog.model(system.model), system.precision))
        cold = self.cold_start
        bandwidth = operation("weights_bandwidth", cold.weights_gb_per_s) * GIGABYTE_BYTES
        return (
            weights / bandwidth
            + operation("engine_start", cold.engine_start_s)
            + operation("graph_capture", cold.graph_capture_s)
        )

    def come_up(self, key: str, instances: int, after_s: float, scaled: bool = False):
        """Bring instances up whose GPUs are down already; if their kind is gone by then, as the current one."""
        if scaled:
            self.starting += instances
        yield self.env.timeout(after_s)
        while not self.place.lit:
            yield self.place.light
        if scaled:
            self.starting -= instances
        gpus = instances * self.size(key)
        if key.endswith(SPOT) or self.kinds[key].stage.stage.name not in self.gone:
            self.fleet.shift(key, up=instances, down_gpus=-gpus)
        else:
            self.fleet.shift(key, down_gpus=-gpus)
            self.join(gpus)

    def join(self, gpus: int) -> None:
        """Healthy GPUs join the current kind as soon as they make up instances."""
        instances, left = divmod(self.loose_gpus + gpus, self.size())
        self.fleet.shift(self.current, up=instances, down_gpus=left - self.loose_gpus)
        self.loose_gpus = left

    def adopt(self, key: str) -> None:
        """From now on `key` is the current kind; idle, released, spare and loose GPUs of the old one become it."""
        old, self.current = self.current, key
        if self.kinds[old].stage is not self.kinds[key].stage:
            self.gone.append(self.kinds[old].stage.stage.name)
        size_old, size_new = self.size(old), self.size(key)
        idle, down = self.fleet.idle(old), self.spare_gpus + self.loose_gpus
        self.fleet.shift(old, idle=-idle, down_gpus=-down)
        instances, left = divmod(idle * size_old, size_new)
        self.fleet.shift(key, idle=instances, down_gpus=down + left)
        self.loose_gpus += left
        self.released = self.released * size_old // size_new

    def quantile(self, metric: str, q: float, key: str | None = None) -> float:
        """A quantile of a latency over the last stretch, seconds; NaN if nothing was served."""
        parts = self.latest if key is None else self.latest_by_kind.get(key, [])
        return mixture_quantile(parts, metric, q)

    def in_system(self) -> float:
        """Mean number of requests at one instance over the last stretch."""
        return sum(weight * facts.values["in_system"] for weight, facts in self.latest)

    def waits(self) -> float:
        """Requests that wait behind the limit."""
        return self.backlog.waiting


def mixture_quantile(parts: list[tuple[float, Facts]], metric: str, q: float) -> float:
    """Quantile of a weighted mixture of played windows, seconds."""
    held = [(weight, *facts.latency[metric]) for weight, facts in parts if len(facts.latency[metric][0])]
    if not held:
        return math.nan
    bins = np.unique(np.concatenate([bins for _, bins, _ in held]))
    counts = np.zeros((1, len(bins)))
    for weight, own, count in held:
        counts[0, np.searchsorted(bins, own)] += weight * np.asarray(count)
    return float(quantile_rows(bins, counts, (q,))[0, 0])


def view_of(
    service: Service,
    minimum: int,
    maximum: int,
    interval_s: float,
    target_load: float,
    latencies: bool = True,
    history: bool = True,
) -> View:
    """What the service shows to its autoscaler now; without `latencies` these are NaN (they take time to merge), and
    without `history` that is empty."""
    slo = service.resolved.service.slo
    first = "ttft" if service.resolved.makes == MAKES_TOKENS else "time_to_output"
    return View(
        service=service.name,
        time_s=service.env.now,
        hour_of_week=(service.demand.offset_h + service.env.now / HOUR_S) % 168.0,
        interval_s=interval_s,
        cold_start_s=service.start_s(),
        serving=service.fleet.up(service.current) + service.starting,
        starting=service.starting,
        minimum=minimum,
        maximum=maximum,
        asked_per_s=service.asked_per_s,
        served_per_s=service.served_per_s,
        waiting=service.waits(),
        capacity_per_s=service.capacity_per_s(service.current) * service.resolved.service.admission.headroom,
        in_system=service.in_system(),
        ttft_p95_s=service.quantile(first, 0.95) if latencies else math.nan,
        tpot_p95_s=service.quantile("tpot", 0.95) if latencies and first == "ttft" else math.nan,
        ttft_limit_s=slo.ttft_p95_s,
        tpot_limit_s=slo.tpot_p95_s,
        target_load=target_load,
        history=tuple(service.history[-HISTORY:]) if history else (),
    )


def up_of(counts: tuple[Count, ...]) -> dict[str, float]:
    """Instances that serve, by key."""
    return {count.key: count.up for count in counts}
