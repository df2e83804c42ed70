"""Finitely many requests, played whole: a drawn number of them, or a trace with its sessions and prefixes.

Nothing is thinned: every instance of the stage is played, every request is in the journal's counts, and the run ends
when the last one has left.
"""

import math
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np

from factory_sim.engine.journal import Journal
from factory_sim.engine.kernel import Requests
from factory_sim.engine.requests import cache_options, drawn_requests, pool_options
from factory_sim.engine.resolve import ResolvedService, ResolvedStage
from factory_sim.engine.rows import window_facts
from factory_sim.engine.stage_pool import StagePool
from factory_sim.engine.traces import played_trace
from factory_sim.errors import ScenarioError
from factory_sim.inputs.scenario import Scenario
from factory_sim.model.serving import decode_steps
from factory_sim.model.workload import arrival_times, request_arrays
from factory_sim.streams import stream
from factory_sim.units import DAY_S, MINUTE_S

WHOLE = (
    "requests_arrived", "requests_completed", "requests_refused", "requests_lost", "requests_within_slo",
    "input_tokens", "cached_input_tokens", "output_tokens",
)  # fmt: skip
"""Columns that are whole numbers where nothing is thinned; facts hold them as rates, which round."""


OFFERED = 1_000_000
"""Most requests that are given to a pool at once."""


def is_finite(scenario: Scenario) -> bool:
    """Whether the scenario plays finitely many requests. Raises ScenarioError where only some services do."""
    finite = [bool(s.traffic.trace or s.traffic.chats or s.traffic.requests) for s in scenario.services.values()]
    if any(finite) and not all(finite):
        raise ScenarioError(
            "services: either all services replay finitely many requests (trace, chats, requests) or none does"
        )
    for name, service in scenario.services.items():
        if finite[0] and len(service.stages) != 1:
            raise ScenarioError(f"services.{name}.stages: a replay plays one stage, found {len(service.stages)}")
    return finite[0]


def replay(scenario: Scenario, services: tuple[ResolvedService, ...], replication: int) -> Journal:
    """Play all requests of every service once and return the journal, one row per control interval and service."""
    journal = Journal(replication)
    for service in services:
        _replay_service(scenario, service, journal)
    return journal


def _replay_service(scenario: Scenario, service: ResolvedService, journal: Journal) -> None:
    stage = service.stages[0]
    rng = stream(scenario.seed, "requests", service.name, stage.stage.name, f"replication {journal.replication}")
    options = pool_options(service.service)
    if service.trace is None:
        requests = _drawn(service, stage, rng)
    else:
        requests, cache = traced_requests(scenario, service, stage, journal.replication, rng)
        options |= cache
        for line in service.trace.report.lines():
            journal.note(0.0, "trace", service.name, line, "")
    pool = StagePool(
        name=f"{service.name}.{stage.stage.name}",
        system=stage.system.scaled(float(stage.slowdowns[journal.replication])),
        kept=stage.instances,
        lengths=service.lengths,
        mix=service.mix,
        burstiness=service.burstiness,
        slo=service.service.slo,
        sampling=scenario.simulation.sampling,
        router=service.service.router,
        rng=rng,
        journal=journal,
        number_at=lambda rate: 0.0,
        ttft_error=float(stage.ttft_errors[journal.replication]),
        pool_options=options,
    )
    journal.note(0.0, "stage_begins", pool.name, "initial", f"{stage.stage.gpus} GPUs from the start")
    _play_out(scenario, service, stage, pool, requests)
    journal.audits.append(pool.audit())


def _play_out(
    scenario: Scenario, service: ResolvedService, stage: ResolvedStage, pool: StagePool, offered: Requests
) -> None:
    """Play until the pool is empty, one control interval after another, and write a row for each."""
    journal, interval_s = pool.journal, scenario.simulation.interval_minutes * MINUTE_S
    requests, parts = len(offered), _parts(offered)
    part = next(parts)
    del offered
    before, start_s, over = pool.pool.totals(), 0.0, False
    tested = stage.capacity_per_s(service.service, journal.replication) if stage.curve else math.nan
    capacity_per_s = tested * stage.instances
    while not over:
        end_s = start_s + interval_s
        while part is not None and part.arrival_s[0] <= end_s:
            pool.offer(part)
            part = next(parts, None)
        pool.pool.advance(end_s)
        after, done = pool.pool.totals(), pool.collect()
        over = after["arrived"] == requests and after["in_system"] == 0
        if over and len(done["finish_s"]):
            end_s = max(float(done["finish_s"].max()), start_s + 1.0)
        facts = pool.facts(requests / (end_s * stage.instances), end_s - start_s, before, after, done)
        pool.played_windows += 1
        row = window_facts(
            scenario, service.name, stage, facts.values, start_s, end_s, stage.instances, 0, journal.replication
        )
        row |= {name: float(round(row[name])) for name in WHOLE}
        arrived, instance_s = row["requests_arrived"], row["instance_s"]
        journal.windows.append(
            row
            | {
                "price_multiplier": 1.0,
                "granted_requests": arrived,
                "latent_requests": arrived,
                "requests_lost_waiting": 0.0,
                "requests_waiting": 0.0,
                "limit_requests_per_s": math.inf,
                "capacity_requests": capacity_per_s * (end_s - start_s),
                "requests_turned_away": row.pop("requests_refused"),
            }
        )
        journal.weights.append((start_s, service.name, stage.stage.name, facts.window, instance_s))
        before, start_s = after, end_s
    pool.clock_s = start_s


def _parts(requests: Requests) -> Iterator[Requests]:
    """The requests in parts of at most `OFFERED`, so that the pool holds few of those to come; whole where requests
    follow each other."""
    if requests.after is not None or len(requests) <= OFFERED:
        yield requests
        return
    columns = {f.name: getattr(requests, f.name) for f in fields(requests) if getattr(requests, f.name) is not None}
    ids, starts = columns.pop("block_ids", None), columns.pop("block_starts", None)
    for at in range(0, len(requests), OFFERED):
        rows = slice(at, at + OFFERED)
        part = {name: values[rows] for name, values in columns.items()}
        if ids is not None:
            own = starts[at : at + OFFERED + 1]
            part |= {"block_ids": ids[own[0] : own[-1]], "block_starts": own - own[0]}
        yield Requests(**part)


def _check_span(scenario: Scenario, name: str, last_s: float) -> None:
    """A trace longer than the scenario has most likely its times in another unit. Raises ScenarioError."""
    if last_s > scenario.duration_days * DAY_S:
        raise ScenarioError(
            f"services.{name}.traffic.trace: its last request arrives on day {last_s / DAY_S:,.0f}, after the "
            f"{scenario.duration_days:g} days of the scenario; are its times in the unit that the column says? If so, "
            "raise duration_days"
        )


def _drawn(service: ResolvedService, stage: ResolvedStage, rng: np.random.Generator) -> Requests:
    """Exactly `traffic.requests` requests at the rate of demand."""
    traffic, count = service.service.traffic, service.service.traffic.requests
    load = traffic.demand.load
    rate = load * stage.instances * stage.capacity_per_s(service.service) if load else service.level_per_s
    times = np.zeros(0)
    span_s = 1.02 * count / rate + 10.0 / rate
    while len(times) < count:
        more = arrival_times(rng, rate, span_s, service.burstiness)
        times = np.concatenate([times, (times[-1] if len(times) else 0.0) + more])
    cached = service.service.prefix_cache is not None
    return drawn_requests(rng, service.mix, stage.system, times[:count], cached=cached)


def traced_requests(
    scenario: Scenario, service: ResolvedService, stage: ResolvedStage, replication: int, rng: np.random.Generator,
    turn: bool = False,
) -> tuple[Requests, dict]:  # fmt: skip
    """The requests of a trace, and the options of the pool that plays them; `turn` as in `played_trace`."""
    wanted, cache = service.service.traffic.trace, service.service.prefix_cache
    trace = played_trace(scenario.seed, service.name, service.service, service.trace, replication, rng, turn)
    one_at_a_time = wanted is not None and wanted.pacing == "one_at_a_time"
    if one_at_a_time:
        trace = replace(trace, arrival_s=np.zeros(len(trace)))
    arrays = request_arrays(trace, closed_loop=not one_at_a_time)
    if one_at_a_time:
        arrays |= {"after": np.arange(-1, len(trace) - 1), "think_s": np.zeros(len(trace))}
    time_scale = wanted.time_scale if wanted is not None else 1.0
    for name in ("arrival_s", "think_s"):
        if name in arrays:
            arrays[name] = arrays[name] * time_scale
    _check_span(scenario, service.name, float(arrays["arrival_s"].max()))
    arrays["decode_steps"] = decode_steps(trace.osl, stage.system.tokens_per_step, rng)
    if cache is None or trace.block_ids is None:
        arrays = {key: values for key, values in arrays.items() if key not in ("block_ids", "block_starts")}
        return Requests(**arrays), {}
    return Requests(**arrays), cache_options(service.service, trace.block_tokens)
