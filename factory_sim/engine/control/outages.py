"""Failures: units stop, requests in flight are lost, spares step in, crews repair."""

import numpy as np
import simpy

from factory_sim.engine.control.service import Kind, Place, Service
from factory_sim.engine.journal import Journal
from factory_sim.inputs import catalog
from factory_sim.inputs.events import Breakdown
from factory_sim.inputs.operations import Outages
from factory_sim.inputs.scenario import Scenario
from factory_sim.model.outages import FailureKind, instances_hit, unit_gpus
from factory_sim.units import HOUR_S


def fail_units(
    env: simpy.Environment,
    service: Service,
    kind: FailureKind,
    rules: Outages,
    most_gpus: int,
    rng: np.random.Generator,
    crews: simpy.Resource | None,
    journal: Journal,
):
    """Units of a service's fleet fail at random, each at its rate while it serves.

    Candidates come at the rate of `most_gpus` serving GPUs and are kept with the share that serve: an exact thinning of
    the Poisson stream, by which times of failure stay the same whatever the fleet does.
    """
    unit = unit_gpus(kind, service.kinds[service.current].stage.system.gpu)
    rate = kind.per_unit_s * most_gpus / unit
    while True:
        yield env.timeout(rng.exponential(1.0 / rate))
        place, slow, repair_s = rng.random(), rng.random(), kind.repair_time_s(rng)
        key = _at(service, place * most_gpus)
        if key is None:
            continue
        if kind.scope == "gpu" and slow < rules.slow_share:
            env.process(_limp(env, service, key, rules.slow_factor, repair_s, kind.name, journal))
            continue
        n = min(instances_hit(unit, service.size(key)), service.fleet.up(key))
        env.process(break_down(env, service, key, n, unit, repair_s, crews, kind.name, journal))


def _at(service: Service, gpu: float) -> str | None:
    """Kind of instance that holds the serving GPU of this number, counted over the fleet; None beyond the last."""
    for key in service.fleet.state:
        gpu -= service.fleet.up(key) * service.size(key)
        if gpu < 0:
            return key
    return None


def break_down(
    env: simpy.Environment,
    service: Service,
    key: str,
    instances: int,
    unit: int,
    repair_s: float,
    crews: simpy.Resource | None,
    cause: str,
    journal: Journal,
):
    """Instances stop; healthy spare GPUs take the place of the broken unit if there are any; the unit is repaired."""
    held = instances * service.size(key)
    needed = min(max(unit, _node(service, key) if cause == "gpu_permanent" else unit), held)
    journal.note(env.now, "failure", f"{service.name}.{service.kinds[key].label}", cause, f"{instances} instances stop")
    service.fleet.fail(key, instances)
    service.broken.append((key, instances, needed))
    replace_broken(env, service, journal)
    if crews is None:
        yield env.timeout(repair_s)
    else:
        with crews.request() as crew:
            yield crew
            yield env.timeout(repair_s)
    service.fleet.shift(key, broken_gpus=-needed)
    service.fleet.shift(service.current, down_gpus=needed)
    service.spare_gpus += needed
    journal.note(
        env.now, "repaired", f"{service.name}.{service.kinds[key].label}", cause, f"{needed} GPUs healthy again"
    )
    replace_broken(env, service, journal)


def _node(service: Service, key: str) -> int:
    """GPUs of one node: a GPU that must be swapped takes its node out."""
    return int(catalog.gpu(service.kinds[key].stage.system.gpu).gpus_per_node)


def replace_broken(env: simpy.Environment, service: Service, journal: Journal) -> None:
    """Healthy spares go to the instances that have waited longest; these start anew."""
    while service.broken and service.spare_gpus >= service.broken[0][2]:
        key, instances, needed = service.broken.popleft()
        healthy = instances * service.size(key) - needed
        service.spare_gpus -= needed
        service.fleet.shift(key, broken_gpus=-healthy, down_gpus=healthy)
        if key != service.current:
            service.fleet.shift(service.current, down_gpus=-needed)
            service.fleet.shift(key, down_gpus=needed)
        env.process(service.come_up(key, instances, service.start_s(key)))


def _limp(
    env: simpy.Environment, service: Service, key: str, factor: float, repair_s: float, cause: str, journal: Journal
):
    """One instance goes on, slower, until it is repaired in passing."""
    slow = f"{key}~slow"
    if key.endswith("~slow"):
        return
    if slow not in service.kinds:
        own = service.kinds[key]
        service.kinds[slow] = Kind(slow, own.stage, own.label, own.factor * factor)
        service.fleet.add_kind(slow, own.stage.system.gpus)
    service.fleet.shift(key, up=-1)
    service.fleet.shift(slow, up=1)
    journal.note(
        env.now,
        "degraded",
        f"{service.name}.{service.kinds[key].label}",
        cause,
        f"one instance {factor:g} times slower",
    )
    yield env.timeout(repair_s)
    if service.fleet.up(slow):
        service.fleet.shift(slow, up=-1)
        back = key if service.kinds[key].stage.stage.name not in service.gone else None
        if back:
            service.fleet.shift(key, up=1)
        else:
            service.fleet.shift(service.current, down_gpus=service.size(key))
            service.loose_gpus += service.size(key)
            service.join(0)


def stated_breakdown(env: simpy.Environment, service: Service, event: Breakdown, scenario: Scenario, journal: Journal):
    """A failure with a date: so many GPUs stop and come back after the stated hours."""
    yield env.timeout(event.time_s(scenario.start))
    key = max(service.fleet.state, key=lambda key: service.fleet.up(key) * service.size(key))
    n = min(instances_hit(event.gpus, service.size(key)), service.fleet.up(key))
    if n:
        yield env.process(
            break_down(env, service, key, n, event.gpus, event.hours * HOUR_S, None, "breakdown", journal)
        )


def lose_site(
    env: simpy.Environment, place: Place, services: list[Service], hours: float, cause: str, journal: Journal
):
    """A whole site goes dark: everything on it stops, and starts again when the power is back."""
    if not place.lit:
        return
    journal.note(env.now, "site_down", place.name, cause, f"for {hours:.1f} h")
    place.switch(False)
    stopped = []
    for service in services:
        for key in list(service.fleet.state):
            n = service.fleet.up(key)
            if n:
                service.fleet.fail(key, n)
                stopped.append((service, key, n))
    yield env.timeout(hours * HOUR_S)
    place.switch(True)
    journal.note(env.now, "site_up", place.name, cause, "instances start")
    for service, key, n in stopped:
        gpus = n * service.size(key)
        service.fleet.shift(key, broken_gpus=-gpus, down_gpus=gpus)
        env.process(service.come_up(key, n, service.start_s(key)))


def site_breakdown(
    env: simpy.Environment,
    place: Place,
    services: list[Service],
    event: Breakdown,
    scenario: Scenario,
    journal: Journal,
):
    """A site-wide failure with a date."""
    yield env.timeout(event.time_s(scenario.start))
    yield from lose_site(env, place, services, event.hours, "breakdown", journal)


def fail_site(
    env: simpy.Environment,
    place: Place,
    services: list[Service],
    kind: FailureKind,
    rng: np.random.Generator,
    journal: Journal,
):
    """A site is lost as a whole now and then."""
    while True:
        yield env.timeout(rng.exponential(1.0 / kind.per_unit_s))
        yield from lose_site(env, place, services, kind.repair_time_s(rng) / HOUR_S, kind.name, journal)
