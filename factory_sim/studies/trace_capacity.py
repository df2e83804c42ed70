"""The highest load of a replayed trace, or of conversations, that keeps the promise.

Requests that wait for nobody come faster or slower. Of sessions there are more over the same span (copies of whole
sessions; conversations are drawn anew), or the same over a longer one: pauses and turns stay as they are. Every load
is played whole through the kernel, prefix cache and all; what arrives in the first fifth of the span warms up, and what
comes after the last start (sessions that thin out) is not counted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.engine.replay import traced_requests
from factory_sim.engine.requests import pool_options
from factory_sim.engine.resolve import ResolvedService, ResolvedStage
from factory_sim.errors import CapacityError, ScenarioError
from factory_sim.inputs.scenario import Scenario
from factory_sim.inputs.services import Service
from factory_sim.streams import stream

WARM_UP = 0.2
"""Share of the span of arrivals that warms up caches and batches."""
PRECISION = 1.02
"""Ratio of the loads between which the search ends."""
LEAST, MOST = 2.0**-12, 2.0**16
"""Multiples of the trace's own rate beyond which is not searched."""
MOST_REQUESTS = 1_000_000
"""Requests of one load beyond which sessions are not multiplied."""
FEWEST = 20
"""Requests that a window needs for percentiles to mean anything."""


@dataclass(frozen=True)
class TraceLoad:
    """What one test found: the highest load that keeps the promise."""

    requests_per_s: float
    """Requests a second over all instances of the stage."""
    multiple: float
    """The same as a multiple of the requests' own rate."""
    limited_by: str
    """Promise that the next higher load breaks: ttft or tpot."""
    requests_played: int


@dataclass
class _Search:
    """One draw of the requests of a trace, played at one load after another."""

    stage: ResolvedStage
    requests_at: Callable[[float], tuple[Requests, dict]]
    """The requests of a load, and the options of the pool that plays them."""
    least: float
    most: float
    router: str
    limits: tuple[float, float]
    slowdown: float
    played: int = 0

    def latencies(self, load: float) -> tuple[float, float, float]:
        """(p95 TTFT, p95 TPOT) in seconds and requests/s that come at `load` times the requests' own rate."""
        requests, options = self.requests_at(load)
        pool = Pool([(self.stage.system.scaled(self.slowdown), self.stage.instances)], router=self.router, **options)
        pool.offer(requests)
        pool.drain()
        done = pool.finished_rows()
        self.played += len(requests)
        last_s = float(_starts(requests).max())
        inside = (done["arrival_s"] >= WARM_UP * last_s) & (done["arrival_s"] <= last_s)
        rate = float(inside.sum() / ((1 - WARM_UP) * last_s)) if last_s > 0 else 0.0
        counted = inside & (done["status"] == 0)
        rows = done[counted]
        if len(rows) < FEWEST:
            raise CapacityError(
                f"only {len(rows)} of {len(requests)} requests are answered after the warm-up; a longer trace, or more "
                "sessions, are needed to test a load"
            )
        gaps = rows["osl"] - 1
        tpot = (rows["finish_s"] - rows["first_token_s"])[gaps > 0] / gaps[gaps > 0]
        ttft = rows["first_token_s"] - rows["arrival_s"]
        return float(np.quantile(ttft, 0.95)), float(np.quantile(tpot, 0.95)) if len(tpot) else 0.0, rate

    def highest(self, start: float) -> tuple[float, float, str]:
        """Highest load that keeps both promises, searched from `start` on, its rate, and the promise broken beyond."""
        low, high, rate, broken = None, None, 0.0, ""
        load = min(max(start, self.least), self.most)
        while low is None or high is None or high > PRECISION * low:
            ttft, tpot, now = self.latencies(load)
            missed = [name for name, found, most in zip(("ttft", "tpot"), (ttft, tpot), self.limits) if found > most]
            if missed:
                high, broken = load, missed[0]
                if load <= self.least:
                    raise CapacityError(
                        f"no load keeps the promise (p95 TTFT {self.limits[0]:g} s, p95 TPOT {1e3 * self.limits[1]:g} ms): "
                        f"even at {load:.2g} times its own rate p95 TTFT is {ttft:.3g} s and p95 TPOT {1e3 * tpot:.3g} ms"
                    )
            else:
                low, rate = load, now
                if load >= self.most:
                    return load, rate, "nothing"
            load = _next(low, high, self.least, self.most)
        return low, rate, broken


def _starts(requests: Requests) -> np.ndarray:
    """Times of arrival of the requests that wait for nobody, seconds."""
    return requests.arrival_s if requests.after is None else requests.arrival_s[requests.after < 0]


def _next(low: float | None, high: float | None, least: float, most: float) -> float:
    """The load to try between, or beyond, those known to keep and to break the promise."""
    if low is None:
        return max(high / 4, least)
    if high is None:
        return min(2 * low, most)
    return math.sqrt(low * high)


def trace_load(
    scenario: Scenario,
    service: ResolvedService,
    stage: ResolvedStage,
    test: int,
    slowdown: float = 1.0,
    start: float = 1.0,
) -> TraceLoad:
    """The highest load of a service's trace or conversations in test number `test` (other starts, ticks, answers).

    `slowdown` multiplies all step times; `start` is the multiple of the trace's rate tried first. Raises ScenarioError
    for requests without times and CapacityError where no load keeps the promise.
    """
    wanted, spec = service.service.traffic.trace, service.service
    where = f"services.{service.name}.traffic"
    if wanted is not None and wanted.pacing == "one_at_a_time":
        raise ScenarioError(f"{where}.trace.pacing: one_at_a_time is no load; a capacity needs pacing: trace")

    def requests_of(asked: Service) -> tuple[Requests, dict]:
        rng = stream(scenario.seed, "requests", service.name, stage.stage.name, f"replication {test}")
        requests, cache = traced_requests(scenario, replace(service, service=asked), stage, test, rng, turn=test > 0)
        return requests, pool_options(spec) | cache

    requests, options = requests_of(spec)
    sessions = requests.after is not None

    def requests_at(load: float) -> tuple[Requests, dict]:
        if sessions and load > 1.0:
            return requests_of(_more(spec, load))
        return replace(requests, arrival_s=requests.arrival_s / load), options

    most = max(MOST_REQUESTS / len(requests), 1.0) if sessions else MOST
    if _starts(requests).max() <= 0:
        raise ScenarioError(f"{where}: all requests arrive at once; a capacity needs a rate")
    limits = (spec.slo.ttft_p95_s, spec.slo.tpot_p95_s)
    search = _Search(stage, requests_at, LEAST, most, spec.router, limits, slowdown)
    try:
        load, rate, broken = search.highest(start)
    except CapacityError as error:
        raise CapacityError(f"services.{service.name}.stages.0 ({stage.stage.name}): {error}") from None
    return TraceLoad(rate, load, broken, search.played)


def _more(spec: Service, load: float) -> Service:
    """The service with so many times its sessions over the same span."""
    traffic = spec.traffic
    if traffic.chats is not None:
        sessions = max(round(traffic.chats.sessions * load), 1)
        more = {
            "chats": traffic.chats.model_copy(
                update={"sessions": sessions, "sessions_per_s": traffic.chats.sessions_per_s * load}
            )
        }
    else:
        more = {
            "trace": traffic.trace.model_copy(update={"scale": traffic.trace.scale * load, "scale_keeps": "dispersion"})
        }
    return spec.model_copy(update={"traffic": traffic.model_copy(update=more)})
