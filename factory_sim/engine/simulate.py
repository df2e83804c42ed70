"""Play a scenario: SimPy decides by the minute, the kernel serves by the token, the journal keeps the facts."""

import numpy as np
import simpy

from factory_sim.engine.control.demand import Backlog, latent_rate
from factory_sim.engine.control.fleet import Fleet
from factory_sim.engine.control.rollouts import rollout
from factory_sim.engine.facts import mixture
from factory_sim.engine.journal import Journal
from factory_sim.engine.resolve import ResolvedService, ResolvedStage
from factory_sim.engine.stage_pool import COUNTS, StagePool
from factory_sim.engine.watts import host_watts, idle_watts
from factory_sim.inputs.scenario import Scenario
from factory_sim.streams import stream
from factory_sim.units import DAY_S, HOUR_S, MINUTE_S, WEEK_S


def simulate(scenario: Scenario, services: tuple[ResolvedService, ...], replication: int) -> Journal:
    """Play one replication and return its journal. Replications share nothing and may run side by side."""
    env = simpy.Environment()
    journal = Journal(replication)
    interval_s = scenario.simulation.interval_minutes * MINUTE_S
    pools: list[StagePool] = []
    serving: list[simpy.Process] = []
    for service in services:
        fleet = Fleet(env, {stage.stage.name: stage.system.gpus for stage in service.stages})
        first = service.stages[0]
        fleet.shift(first.stage.name, up=first.instances)
        journal.note(
            0.0,
            "stage_begins",
            f"{service.name}.{first.stage.name}",
            "initial",
            f"{first.stage.gpus} GPUs from the start",
        )
        for before, after in zip(service.stages, service.stages[1:]):
            env.process(rollout(env, fleet, before.stage, after.stage, journal, service.name, interval_s))
        own = {stage.stage.name: _pool(scenario, service, stage, journal) for stage in service.stages}
        pools.extend(own.values())
        serving.append(env.process(serve(env, scenario, service, fleet, own, journal)))
    env.run(until=env.all_of(serving))
    for pool in pools:
        pool.drain()
        journal.audits.append(pool.audit())
    return journal


def serve(
    env: simpy.Environment,
    scenario: Scenario,
    service: ResolvedService,
    fleet: Fleet,
    pools: dict[str, StagePool],
    journal: Journal,
):
    """Let demand through the limit and play it, one stretch of constant rate and fleet after another."""
    demand, replication = service.service.traffic.demand, journal.replication
    interval_s = scenario.simulation.interval_minutes * MINUTE_S
    capacity = {s.stage.name: s.capacity_per_s(service.service, replication) for s in service.stages}
    index = _price_index(service)
    backlog = Backlog(demand.patience_hours * HOUR_S)
    offset_h = (
        scenario.start.weekday() * DAY_S + scenario.start.hour * HOUR_S + scenario.start.minute * MINUTE_S
    ) / HOUR_S
    headroom = service.service.admission.headroom
    while env.now < scenario.duration_s:
        start_s, counts = env.now, fleet.counts()
        boundary = min((np.floor(start_s / interval_s + 1e-9) + 1) * interval_s, scenario.duration_s)
        yield env.timeout(boundary - start_s) | fleet.changed
        end_s = env.now
        if end_s <= start_s:
            continue
        tested = sum(up * capacity[stage] for stage, up, _ in counts)
        price_index = sum(up * capacity[stage] * index[stage] for stage, up, _ in counts) / tested if tested else 1.0
        relative = service.rhythm.mean_over(offset_h + start_s / HOUR_S, offset_h + end_s / HOUR_S)
        if demand.load:
            latent = demand.load * tested * relative
        else:
            latent = latent_rate(
                demand, service.level_per_s, relative, service.forecast_drifts[replication], start_s, price_index
            )
        limit = headroom * tested if service.service.admission.limit == "load_test" else np.inf
        granted, lost = backlog.step(latent, limit, end_s - start_s)
        for stage, up, down_gpus in counts:
            share = up * capacity[stage] / tested if tested else 0.0
            rate = granted * share / up if up else 0.0
            row = _window_row(
                service, stage, pools[stage], start_s, end_s, up, down_gpus, rate, journal, scenario.site.pue
            )
            row |= {
                "price_multiplier": price_index,
                "granted_requests": rate * up * (end_s - start_s),
                "latent_requests": latent * (end_s - start_s) * (share if tested else 1.0 / len(counts)),
                "requests_lost_waiting": lost * (share if tested else 1.0 / len(counts)),
                "requests_waiting": backlog.waiting * (share if tested else 1.0 / len(counts)),
                "limit_requests_per_s": limit * share,
            }
            row["requests_arrived"] += row["requests_lost_waiting"]
            row["requests_turned_away"] = row["requests_lost_waiting"] + row.pop("requests_refused")
            journal.windows.append(row)


def _window_row(
    service, stage_name, pool: StagePool, start_s, end_s, up, down_gpus, rate, journal: Journal, pue: float
) -> dict:
    """One row of the journal: facts of the stretch, scaled to all instances that were up."""
    stage = next(s for s in service.stages if s.stage.name == stage_name)
    seconds = end_s - start_s
    parts = pool.serve(rate, seconds, up) if up and rate > 0.0 else []
    values = mixture(parts) if parts else pool.idle_values()
    instance_s = up * seconds
    for weight, facts in parts:
        journal.weights.append((start_s, service.name, stage_name, facts.window, weight * instance_s))
    gpu_s = instance_s * stage.system.gpus
    row = {
        "replication": journal.replication,
        "start_s": start_s,
        "end_s": end_s,
        "week": int(start_s // WEEK_S) + 1,
        "service": service.name,
        "stage": stage_name,
        "profile": stage.system.profile,
        "gpu": stage.system.gpu,
        "trust": stage.system.trust,
        "replicas": float(up),
        "gpus": float(up * stage.system.gpus + down_gpus),
        "gpu_hours": (gpu_s + down_gpus * seconds) / HOUR_S,
        "gpu_hours_down": down_gpus * seconds / HOUR_S,
        "busy_fraction": values["busy"],
        "time_input_s": values["input_time"] * instance_s,
        "time_output_s": values["output_time"] * instance_s,
        "time_idle_s": (1.0 - values["input_time"] - values["output_time"]) * instance_s,
        "instance_s": instance_s,
        "decode_sequences": values["decode_sequences"],
    }
    row |= {name: values[name] * instance_s for name in COUNTS}
    return (
        row
        | _energy(row, stage.system.gpu, gpu_s + down_gpus * seconds, down_gpus * seconds, pue)
        | {"reasoning_tokens": 0.0}
    )


def _energy(row: dict, gpu: str, gpu_s: float, down_gpu_s: float, pue: float) -> dict[str, float]:
    """Joules of the row's GPUs, with those that are down (idle), and of the whole facility: hosts added, times PUE."""
    down_j = idle_watts(gpu) * down_gpu_s
    gpu_j = row["input_energy_j"] + row["output_energy_j"] + row["idle_energy_j"] + down_j
    it_j = gpu_j + host_watts(gpu) * gpu_s
    return {
        "idle_energy_j": row["idle_energy_j"] + down_j,
        "gpu_energy_j": gpu_j,
        "it_energy_j": it_j,
        "facility_energy_j": it_j * pue,
    }


def _price_index(service: ResolvedService) -> dict[str, float]:
    """Price of each stage relative to the first stage's: 1, or the cost of a request at its tested capacity."""
    names = [stage.stage.name for stage in service.stages]
    if service.service.price_path == "held":
        return dict.fromkeys(names, 1.0)
    cost = [s.rent_usd_per_gpu_hour * s.system.gpus / s.capacity_per_s(service.service) for s in service.stages]
    return {name: value / cost[0] for name, value in zip(names, cost)}


def _pool(scenario: Scenario, service: ResolvedService, stage: ResolvedStage, journal: Journal) -> StagePool:
    """The pool of a stage in this replication, with its own random stream."""
    sampling = scenario.simulation.sampling
    capacity = stage.capacity_per_s(service.service)
    sequences = capacity * service.lengths.mean_osl * service.service.slo.tpot_p95_s
    kept = max(
        sampling.instances_kept if sequences < sampling.sequences_kept else 1,
        round(sampling.sequences_kept / max(sequences, 1.0)),
    )
    slowdown = float(stage.slowdowns[journal.replication])
    return StagePool(
        name=f"{service.name}.{stage.stage.name}",
        system=stage.system.scaled(slowdown),
        kept=min(kept, stage.instances),
        lengths=service.lengths,
        burstiness=service.burstiness,
        slo=service.service.slo,
        sampling=sampling,
        router=service.service.router,
        rng=stream(scenario.seed, "requests", service.name, stage.stage.name, f"replication {journal.replication}"),
        journal=journal,
        number_at=lambda rate: stage.curve.number_at(rate, slowdown),
        ttft_error=float(stage.ttft_errors[journal.replication]),
    )
