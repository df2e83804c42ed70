"""Supply: stages come into being, software is upgraded, hardware is delivered, nodes move between services."""

import math

import numpy as np
import simpy

from factory_sim.engine.control.service import SPOT, Kind, Service
from factory_sim.engine.journal import Journal
from factory_sim.engine.outputs import MAKES_TOKENS
from factory_sim.inputs.events import Delivery, Move, Upgrade
from factory_sim.inputs.operations import Maintenance
from factory_sim.inputs.scenario import Scenario
from factory_sim.inputs.services import Stage
from factory_sim.units import DAY_S, HOUR_S, MINUTE_S


def rollout(
    env: simpy.Environment,
    service: Service,
    before: Stage,
    stage: Stage,
    journal: Journal,
    interval_s: float,
    late_s: float,
    awaited: simpy.Event | None = None,
):
    """Move the GPUs of one stage to the next, one batch an interval, each out of service for the change's downtime.

    `awaited`: launch of the model that the stage serves, where it waits for one.
    """
    yield env.timeout(stage.from_day * DAY_S + late_s - env.now)
    if awaited is not None:
        yield awaited
    where, kind = f"{service.name}.{stage.name}", stage.change.kind
    start_s, service.changing = env.now, True
    if late_s:
        journal.note(env.now, "hardware_late", where, "delivery", f"{late_s / DAY_S:.1f} days late")
    batches = max(round(stage.change.duration_days * DAY_S / interval_s), 1)
    downtime_s = stage.change.downtime_minutes * MINUTE_S
    journal.note(env.now, "stage_begins", where, kind, f"{stage.gpus} GPUs in {batches} batches")
    spare = yield from _exchange(env, service, before, stage, batches, interval_s, downtime_s)
    service.adopt(stage.name)
    if spare:  # GPUs that instances which were broken or idle have left over
        service.fleet.shift(stage.name, down_gpus=-spare)
        service.join(spare)
    yield env.timeout(downtime_s)
    service.changing = False
    journal.note(env.now, "stage_complete", where, kind, f"after {(env.now - start_s) / HOUR_S:.1f} h")


def _exchange(
    env: simpy.Environment,
    service: Service,
    before: Stage,
    stage: Stage,
    batches: int,
    interval_s: float,
    downtime_s: float,
):
    """Take the instances of `before` out batch by batch, and bring those of `stage` up on the GPUs that are free then.

    Returns the GPUs left over.
    """
    fleet, start_s, new_size = service.fleet, env.now, service.size(stage.name)
    total, new = sum(fleet.up(key) for key in _old_kinds(service, stage)), stage.gpus // new_size
    returned = before.gpus - stage.gpus  # given back before any is changed; negative where GPUs are added
    spare, moved, begun = max(-returned, 0), 0, 0
    if spare:
        fleet.shift(stage.name, down_gpus=spare)
    for batch in range(1, batches + 1):
        olds = _old_kinds(service, stage)  # some begin on the way: instances that limp
        left = sum(fleet.up(key) for key in olds)
        taken, freed = _take(service, olds, left if batch == batches else math.ceil(batch * total / batches) - moved)
        moved += taken
        given_back = min(max(returned, 0), freed)
        returned -= given_back
        spare += freed - given_back
        bring = min(spare // new_size, new - begun)
        spare, begun = spare - bring * new_size, begun + bring
        fleet.shift(stage.name, down_gpus=freed - given_back)
        env.process(service.come_up(stage.name, bring, downtime_s))
        if batch < batches:
            yield env.timeout(start_s + batch * interval_s - env.now)
    return spare


def _of_fleet(service: Service, key: str) -> bool:
    """Whether a kind belongs to the fleet that changes (spot capacity follows on its own)."""
    return not key.endswith(SPOT)


def _old_kinds(service: Service, stage: Stage) -> list[str]:
    """Kinds of instances that `stage` replaces."""
    stays = {stage.name, *(each.stage.name for each in service.resolved.beside)}
    return [
        key for key in service.fleet.state
        if _of_fleet(service, key) and service.kinds[key].stage.stage.name not in stays
    ]  # fmt: skip


def _take(service: Service, keys: list[str], wanted: int) -> tuple[int, int]:
    """Take serving instances out, kind by kind; returns how many there were, and their GPUs."""
    taken = gpus = 0
    for key in keys:
        n = min(service.fleet.up(key), wanted - taken)
        if n:
            service.fleet.shift(key, up=-n)
            taken += n
            gpus += n * service.size(key)
    return taken, gpus


def deliver(
    env: simpy.Environment, service: Service, event: Delivery, scenario: Scenario, journal: Journal, late_s: float
):
    """GPUs arrive, late or not, and serve after commissioning."""
    yield env.timeout(event.time_s(scenario.start))
    if late_s:
        yield env.timeout(late_s)
        journal.note(env.now, "hardware_late", service.name, "delivery", f"{late_s / DAY_S:.1f} days late")
    instances, left = divmod(event.gpus, service.size())
    journal.note(
        env.now,
        "delivered",
        service.name,
        "delivery",
        f"{event.gpus} GPUs, {event.commissioning_hours:g} h to commission",
    )
    service.fleet.shift(service.current, down_gpus=event.gpus)
    if left:
        service.loose_gpus += left
    yield env.process(service.come_up(service.current, instances, event.commissioning_hours * HOUR_S))
    journal.note(env.now, "commissioned", service.name, "delivery", f"{instances} instances serve")


def move(env: simpy.Environment, giver: Service, taker: Service, event: Move, scenario: Scenario, journal: Journal):
    """Nodes leave one service, drained, and serve another."""
    yield env.timeout(event.time_s(scenario.start))
    wanted = math.ceil(event.gpus / giver.size())
    idle = min(giver.fleet.idle(giver.current), wanted)
    if idle:
        giver.fleet.shift(giver.current, idle=-idle)
    _, gpus = _take(giver, [key for key in giver.fleet.state if _of_fleet(giver, key)], wanted - idle)
    gpus += idle * giver.size()
    journal.note(env.now, "nodes_moved", f"{giver.name} to {taker.name}", "plan", f"{gpus} GPUs")
    taker.fleet.shift(taker.current, down_gpus=gpus)
    yield env.timeout(event.downtime_minutes * MINUTE_S)
    taker.fleet.shift(taker.current, down_gpus=-gpus)
    taker.join(gpus)


def upgrade(
    env: simpy.Environment, service: Service, event: Upgrade, scenario: Scenario, journal: Journal, number: int
):
    """Try new software on a few instances, then roll it over the rest, or take it back."""
    yield env.timeout(event.time_s(scenario.start))
    old = service.kinds[service.current]
    new = Kind(f"{old.key}^{number}", old.stage, old.label, old.factor / event.speedup)
    service.kinds[new.key] = new
    service.fleet.add_kind(new.key, old.stage.system.gpus)
    downtime_s, total = event.downtime_minutes * MINUTE_S, service.fleet.up(old.key)
    service.changing = True
    trial = min(max(round(event.canary_share * total), 1), total) if event.canary_share else 0
    if trial:
        journal.note(env.now, "canary_begins", service.name, "upgrade", f"{trial} of {total} instances")
        yield from _restart(env, service, old.key, new.key, trial, downtime_s)
        yield env.timeout(event.canary_hours * HOUR_S)
        metric = "tpot" if service.resolved.makes == MAKES_TOKENS else "time_to_output"
        ratio = service.quantile(metric, 0.5, new.key) / service.quantile(metric, 0.5, old.key)
        told = f"median {'TPOT' if metric == 'tpot' else 'time to output'} of the trial {ratio:.2f} times the others'"
        if ratio > event.worst_tpot:
            journal.note(env.now, "rolled_back", service.name, "upgrade", told)
            yield from _restart(env, service, new.key, old.key, service.fleet.up(new.key), downtime_s)
            service.changing = False
            return
        journal.note(env.now, "canary_passed", service.name, "upgrade", told)
    rest, batches = service.fleet.up(old.key), max(round(event.hours), 1)
    moved = 0
    for batch in range(1, batches + 1):
        take = min(math.ceil(batch * rest / batches) - moved, service.fleet.up(old.key))
        moved += take
        env.process(_restart(env, service, old.key, new.key, take, downtime_s))
        yield env.timeout(event.hours * HOUR_S / batches)
    service.adopt(new.key)
    service.changing = False
    journal.note(env.now, "upgraded", service.name, "upgrade", f"step times over {event.speedup:g}")


def _restart(env: simpy.Environment, service: Service, old: str, new: str, instances: int, downtime_s: float):
    """Drain instances of one kind and bring them back as another."""
    if not instances:
        return
    gpus = instances * service.size(old)
    service.fleet.shift(old, up=-instances)
    service.fleet.shift(new, down_gpus=gpus)
    yield env.process(service.come_up(new, instances, downtime_s))


def maintain(env: simpy.Environment, service: Service, rule: Maintenance, journal: Journal):
    """Take part of the fleet out for planned work, batch after batch, round after round."""
    clock_h = service.demand.offset_h % 24.0
    first_s = rule.first_day * DAY_S + ((rule.from_hour - clock_h) % 24.0) * HOUR_S
    yield env.timeout(first_s)
    while True:
        begun_s = env.now
        for _ in range(rule.batches):
            key = service.current
            instances = min(math.ceil(rule.share * service.fleet.up(key)), service.fleet.up(key))
            if instances and not service.changing:
                journal.note(
                    env.now, "maintenance", service.name, "plan", f"{instances} instances for {rule.hours:g} h"
                )
                service.fleet.shift(key, up=-instances, down_gpus=instances * service.size(key))
                env.process(service.come_up(key, instances, rule.hours * HOUR_S))
            yield env.timeout(rule.hours * HOUR_S)
        yield env.timeout(begun_s + rule.every_days * DAY_S - env.now)


def lateness_s(rng: np.random.Generator, mean_days: float, distribution: str = "exponential") -> float:
    """How late a delivery is, seconds."""
    draw = float(rng.standard_exponential())
    return mean_days * DAY_S * (draw if distribution == "exponential" else 1.0)
