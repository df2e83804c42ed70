"""Stages come into being: software restarted batch by batch, racks replaced over days."""

import math

import simpy

from factory_sim.engine.control.fleet import Fleet
from factory_sim.engine.journal import Journal
from factory_sim.inputs.scenario import Stage
from factory_sim.units import DAY_S, HOUR_S, MINUTE_S


def rollout(
    env: simpy.Environment, fleet: Fleet, before: Stage, stage: Stage, journal: Journal, service: str, interval_s: float
):
    """Move the GPUs of one stage to the next, one batch an interval, each out of service for the change's downtime."""
    yield env.timeout(stage.from_day * DAY_S - env.now)
    start_s = env.now
    old_size, new_size = fleet.gpus_per_instance[before.name], fleet.gpus_per_instance[stage.name]
    old, new = fleet.up[before.name], stage.gpus // new_size
    batches = max(round(stage.change.duration_days * DAY_S / interval_s), 1)
    downtime_s = stage.change.downtime_minutes * MINUTE_S
    journal.note(
        env.now, "stage_begins", f"{service}.{stage.name}", stage.change.kind, f"{stage.gpus} GPUs in {batches} batches"
    )
    returned = before.gpus - stage.gpus  # given back before any is changed; negative where GPUs are added
    spare, moved, begun = max(-returned, 0), 0, 0
    if spare:
        fleet.shift(stage.name, down_gpus=spare)
    for batch in range(1, batches + 1):
        take = math.ceil(batch * old / batches) - moved
        freed = take * old_size
        given_back = min(max(returned, 0), freed)
        returned -= given_back
        moved, spare = moved + take, spare + freed - given_back
        bring = min(spare // new_size, new - begun)
        spare, begun = spare - bring * new_size, begun + bring
        fleet.shift(before.name, up=-take)
        fleet.shift(stage.name, down_gpus=freed - given_back)
        env.process(_come_up(env, fleet, stage.name, bring, new_size, downtime_s))
        if batch < batches:
            yield env.timeout(start_s + batch * interval_s - env.now)
    yield env.timeout(downtime_s)
    journal.note(
        env.now,
        "stage_complete",
        f"{service}.{stage.name}",
        stage.change.kind,
        f"after {(env.now - start_s) / HOUR_S:.1f} h",
    )


def _come_up(env: simpy.Environment, fleet: Fleet, stage: str, instances: int, size: int, downtime_s: float):
    """Bring a batch of instances up after its downtime."""
    yield env.timeout(downtime_s)
    fleet.shift(stage, up=instances, down_gpus=-instances * size)
