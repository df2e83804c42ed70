"""Serving: demand through the limit, spread over the fleet, below the site's power, played and written down."""

import math
from dataclasses import dataclass

import numpy as np
import simpy

from factory_sim.engine.control.booking import conclude
from factory_sim.engine.control.fleet import Count, Pulse
from factory_sim.engine.control.intake import ask, grant, overflow
from factory_sim.engine.control.power import at_site, cap_w, clock_energy, keep_below, outside_c, pue_at, slow_downs
from factory_sim.engine.control.service import SPOT, Place, Service
from factory_sim.engine.control.stretch import Counter, Plan, rows_of
from factory_sim.engine.facts import Facts, mixture
from factory_sim.engine.rows import at_pue, no_values, window_facts
from factory_sim.inputs.scenario import Site
from factory_sim.units import HOUR_S, MINUTE_S

EMPTY = 1e-6
"""Jobs below which a queue of batch jobs counts as empty."""
NOBODY_PER_S = 1e-9
"""Rate, requests/s at an instance, at which users' requests are played where there are none."""
CLOUD = "cloud"
"""Site of capacity that is rented by the hour; neither its power nor its space is the scenario's."""


@dataclass
class Group:
    """Services that must be served in step: they share a site's power, or demand flows between them."""

    services: list[Service]
    pulse: Pulse


def serve(env: simpy.Environment, counter: Counter, group: Group):
    """Let demand through the limits and play it, one stretch of constant rates and fleets after another."""
    scenario = counter.scenario
    interval_s = scenario.simulation.interval_minutes * MINUTE_S
    while env.now < scenario.duration_s:
        start_s = env.now
        for service in group.services:
            service.begin(cap_w(scenario.places[service.place.name], service.place))
        boundary = min((np.floor(start_s / interval_s + 1e-9) + 1) * interval_s, scenario.duration_s)
        yield env.timeout(boundary - start_s) | group.pulse.event
        end_s = env.now
        if end_s <= start_s:
            continue
        plans = [ask(service, start_s, end_s) for service in group.services]
        _play_within_power(counter, plans)
        for plan in plans:
            conclude(counter, plan)


def _play(counter: Counter, plans: list[Plan], probe: bool) -> None:
    """Grant, overflow and play a stretch, and write its rows (not yet into the journal)."""
    for plan in plans:
        grant(plan)
    overflow(plans)
    for plan in plans:
        up = plan.up
        plan.parts, plan.rows = {}, []
        hours = 0.0 if probe else plan.seconds
        if plan.service.resolved.beside and sum(plan.rates.values()) > 0.0:
            _serve_together(counter, plan, up, hours)
        else:
            for key, count in up.items():
                rate = plan.rates[key]
                pool = counter.pool(plan.service, key, plan.slower)
                plan.parts[key] = pool.serve(rate, hours, count) if rate > 0.0 else []
        if plan.service.jobs is not None:
            _fill(counter, plan, up, probe)
        if plan.far and not probe:
            plan.parts = {key: _with_distance(counter, plan, parts) for key, parts in plan.parts.items()}
        plan.rows = [_row(counter, plan, count, up.get(count.key, 0.0)) for count in rows_of(plan)]
    _at_pue(counter, plans)


def _serve_together(counter: Counter, plan: Plan, up: dict[str, float], hours: float) -> None:
    """Play kinds of instances behind one router, which spreads the demand over them."""
    total = sum(up.values())
    granted = sum(plan.rates[key] * count for key, count in up.items())
    found = counter.mixed_pool(plan.service, up, plan.slower).serve(granted / total, hours, total)
    plan.parts = {key: [(weight, facts.by_kind[key]) for weight, facts in found] for key in up}
    taken = {key: mixture(plan.parts[key])["requests_arrived"] * count for key, count in up.items()}
    scale = granted / max(sum(taken.values()), 1e-300)
    plan.rates = {key: taken[key] * scale / count for key, count in up.items()}


def _fill(counter: Counter, plan: Plan, up: dict[str, float], probe: bool) -> None:
    """Let waiting batch jobs into the instances for as much of the stretch as it takes to answer them."""
    left = plan.service.jobs.number()
    plan.jobs = 0.0
    for key, count in up.items():
        if left <= EMPTY:
            return
        pool = counter.pool(plan.service, key, plan.slower, filled=True)
        rate = max(plan.rates[key], NOBODY_PER_S)
        full = pool.serve(rate, 0.0 if probe else plan.seconds, count)
        possible = mixture(full)["batch_requests_completed"] * count * plan.seconds
        if possible <= 0.0:
            continue
        share = min(left / possible, 1.0)
        rest = plan.parts[key] or [(1.0, pool.idle_facts())]
        mixed = [(weight * share, facts) for weight, facts in full]
        plan.parts[key] = mixed + [(weight * (1.0 - share), facts) for weight, facts in rest if share < 1.0]
        left -= possible * share
        plan.jobs += possible * share


def _with_distance(counter: Counter, plan: Plan, parts: list[tuple[float, Facts]]) -> list[tuple[float, Facts]]:
    """The windows of a stretch with those of requests from another service apart, each later by its network time."""
    shares = [(delay_s, rate / plan.granted_per_s) for delay_s, rate in plan.far]
    here = 1.0 - sum(share for _, share in shares)
    found = [(weight * here, facts) for weight, facts in parts]
    for delay_s, share in shares:
        found += [(weight * share, counter.farther(plan.service, facts, delay_s)) for weight, facts in parts]
    return found


def _row(counter: Counter, plan: Plan, count: Count, up: float) -> dict:
    service = plan.service
    kind = service.kinds[count.key]
    pool = counter.pool(service, count.key, plan.slower) if up else None
    parts = plan.parts.get(count.key, [])
    values = mixture(parts) if parts else pool.idle_values() if pool else no_values()
    return window_facts(
        counter.scenario, service.name, kind.stage, values, plan.start_s, plan.end_s, up, count.down_gpus,
        counter.journal.replication, label=kind.label, site=_site_of(service, count.key), idle=count.idle,
        broken_gpus=count.broken_gpus, dark_gpus=(count.up - up) * kind.stage.system.gpus,
        clock_energy=clock_energy(plan.slower), pue=counter.scenario.places[service.place.name].pue,
    )  # fmt: skip


def _site_of(service: Service, key: str) -> str:
    """Where instances of a kind stand: at the service's site, spot capacity elsewhere."""
    return CLOUD if key.endswith(SPOT) else service.place.name


def _at_pue(counter: Counter, plans: list[Plan]) -> None:
    """Facility energy at the PUE that load and weather give; sets the sites' load."""
    for place, own in _by_place(plans):
        site = counter.scenario.places[place.name]
        rows = [row for plan in own for row in plan.rows if row["site"] == place.name]
        it_w = sum(row["it_energy_j"] for row in rows) / own[0].seconds + place.training_w
        if site.cooling is None:
            continue
        whole = at_site(own, place)
        place.load = it_w / whole if whole else 0.0
        pue = pue_at(site, place.load, _outside_c(site, place, own))
        place.pue = pue
        for row in rows:
            at_pue(row, pue)


def _by_place(plans: list[Plan]) -> list[tuple[Place, list[Plan]]]:
    """Plans by site, in order of first appearance."""
    found: dict[str, tuple[Place, list[Plan]]] = {}
    for plan in plans:
        found.setdefault(plan.service.place.name, (plan.service.place, []))[1].append(plan)
    return list(found.values())


def _play_within_power(counter: Counter, plans: list[Plan]) -> None:
    """Play the stretch, at lower clocks or with fewer instances where a site would draw more than it may."""
    capped = [(place, own, place.cap_now_w) for place, own in _by_place(plans)]
    for place, own, cap in capped:
        if math.isfinite(cap) and _most_w(counter, place, own) > cap:
            _find_clock(counter, plans, place, own, cap)
    _play(counter, plans, probe=False)
    for place, own, cap in capped:
        _note_power(counter, place, own, cap)


def _most_w(counter: Counter, place: Place, own: list[Plan]) -> float:
    """Watts at the meter that a site cannot exceed in a stretch: every GPU at board power, and the weather."""
    site = counter.scenario.places[place.name]
    return at_site(own, place) * pue_at(site, 1.0, _outside_c(site, place, own))


def _outside_c(site: Site, place: Place, own: list[Plan]) -> float:
    """Outside temperature in the middle of a stretch."""
    middle_h = (own[0].start_s + own[0].end_s) / 2 / HOUR_S + own[0].service.demand.offset_h
    return outside_c(site.cooling, middle_h % 24.0, place.rise_now_k)


def _find_clock(counter: Counter, plans: list[Plan], place: Place, own: list[Plan], cap: float) -> None:
    site = counter.scenario.places[place.name]

    def draw(slower: dict[int, float], dark: dict[int, float]) -> float:
        for index, plan in enumerate(own):
            plan.slower, plan.dark = slower[index], dark[index]
        _play(counter, plans, probe=True)
        return power_w(own, place)

    mode = site.power.by if site.power else "frequency"
    clocks = slow_downs(site.power)
    urgency = [plan.service.resolved.service.priority for plan in own]
    ups = [sum(count.up for count in plan.counts) for plan in own]
    slower, dark, _ = keep_below(cap, mode, clocks, urgency, draw, lambda index: ups[index])
    for index, plan in enumerate(own):
        plan.slower, plan.dark = slower[index], dark[index]


def power_w(own: list[Plan], place: Place) -> float:
    """Watts at the meter of a site in a played stretch, training included."""
    facility_j = sum(row["facility_energy_j"] for plan in own for row in plan.rows if row["site"] == place.name)
    return facility_j / own[0].seconds + place.training_w * place.pue


def _note_power(counter: Counter, place: Place, own: list[Plan], cap: float) -> None:
    """Write an event when a site starts or ends being held by its cap, or its clock changes."""
    slower, dark = max(plan.slower for plan in own), sum(plan.dark for plan in own)
    if (slower, dark > 0) == (place.factor, place.dark):
        return
    effect = f"steps take {slower:.2f} times as long, {dark:g} instances off" if slower > 1 or dark else "full clock"
    counter.journal.note(own[0].start_s, "power_capped" if slower > 1 or dark else "power_free", place.name,
                         f"cap {cap / 1e6:.3f} MW" if math.isfinite(cap) else "no cap", effect)  # fmt: skip
    place.factor, place.dark = slower, dark > 0
