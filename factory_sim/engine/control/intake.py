"""Intake: what a service is asked for in a stretch, how much the limits let in, and what goes to another service."""

import math
from dataclasses import replace

import numpy as np

from factory_sim.engine.control.service import Service
from factory_sim.engine.control.stretch import Plan
from factory_sim.units import MINUTE_S


def ask(service: Service, start_s: float, end_s: float) -> Plan:
    """Latent demand of a stretch, with what is asked again after a failure."""
    counts = service.fleet.close()
    if service.jobs is not None:
        service.jobs.submit(start_s, end_s)
    capacity = {count.key: service.capacity_per_s(count.key) for count in counts}
    tested = sum(count.up * capacity[count.key] for count in counts)
    index = _price_index(service, counts, capacity, tested)
    demand = service.resolved.service.traffic.demand
    if demand.load:
        latent = demand.load * tested * service.demand.relative(start_s, end_s)
    else:
        latent = service.demand.latent(start_s, end_s, index)
    latent += service.retried / (end_s - start_s)
    service.retried = 0.0
    return Plan(service, counts, start_s, end_s, index, latent)


def _price_index(service: Service, counts, capacity: dict[str, float], tested: float) -> float:
    """List price over that of the first day: events, launches, and the cost of a token where the price follows it."""
    factor = service.price_now
    if service.resolved.service.price_path == "held":
        return factor
    first = service.resolved.stages[0]

    def cost(stage, capacity_per_s: float) -> float:
        return stage.rent_usd_per_gpu_hour * stage.system.gpus / capacity_per_s

    base = cost(first, first.capacity_per_s(service.resolved.service))
    of = {}
    for count in counts:
        kind = service.kinds[count.key]
        of[count.key] = cost(kind.stage, kind.stage.capacity_per_s(service.resolved.service)) / base * kind.factor
    if not tested:
        return factor
    return factor * sum(count.up * capacity[count.key] * of[count.key] for count in counts) / tested


def grant(plan: Plan) -> None:
    """Pass demand through the limit at the plan's clock and switched-off instances; nothing is booked yet."""
    service = plan.service
    spec = service.resolved.service
    demand, admission = spec.traffic.demand, spec.admission
    plan.up = up = _serving(plan)
    capacity = {key: service.capacity_per_s(key, plan.slower) for key in up}
    tested = sum(count * capacity[key] for key, count in up.items())
    limit = admission.headroom * tested if admission.limit == "load_test" else (math.inf if tested else 0.0)
    users = _limit_of_users(service, plan.latent_per_s + service.backlog.waiting / plan.seconds)
    plan.held_by_users = users < limit
    limit = min(limit, users)
    latent = plan.latent_per_s
    away = demand.multihoming * max(latent - limit, 0.0)
    backlog = replace(service.backlog)
    granted, lost = backlog.step(latent - away, limit, plan.seconds)
    plan.granted_per_s, plan.limit_per_s = granted, limit
    plan.lost, plan.waiting = lost + away * plan.seconds, backlog.waiting
    plan.rates = {key: granted * capacity[key] / tested if tested else 0.0 for key in up}
    plan.far = []


def _limit_of_users(service: Service, offered_per_s: float) -> float:
    """Requests/s that the limits of single users let in, all of them together; infinite without limits.

    Users are taken as alike, and any of them may be beyond the limit as long as all together are not; clients of known
    shares are held one by one, each to its share of what is offered (what waits is shared like the demand).
    """
    spec = service.resolved.service
    admission, users = spec.admission, spec.traffic.demand.users * service.demand.customers
    lengths = service.resolved.lengths
    by_tokens = (admission.user_tokens_per_minute or math.inf) / (lengths.mean_isl + lengths.mean_osl)
    each_per_s = min(by_tokens, admission.user_requests_per_minute or math.inf) / MINUTE_S
    shares = service.resolved.mix.client_shares
    if shares is None:
        return users * each_per_s
    asked_per_s = shares * offered_per_s
    held = asked_per_s > each_per_s
    return float(np.where(held, each_per_s, asked_per_s).sum()) if held.any() else math.inf


def overflow(plans: list[Plan]) -> None:
    """What one service cannot let in goes to another as far as that one has room."""
    by_name = {plan.service.name: plan for plan in plans}
    for plan in plans:
        rule = plan.service.resolved.service.overflow
        if rule is None:
            continue
        other = by_name[rule.to]
        room = max(other.limit_per_s - other.granted_per_s, 0.0) * plan.seconds
        waiting = plan.waiting + plan.lost
        moved = min(rule.share * waiting, room)
        if moved <= 0.0:
            continue
        from_lost = min(plan.lost, moved)
        plan.lost, plan.waiting, plan.sent = plan.lost - from_lost, plan.waiting - (moved - from_lost), moved
        scale = 1.0 + moved / plan.seconds / other.granted_per_s if other.granted_per_s > 0 else 0.0
        if scale:
            other.rates = {key: rate * scale for key, rate in other.rates.items()}
        else:
            up = {key: other.service.capacity_per_s(key, other.slower) for key in other.up}
            tested = sum(other.up[key] * value for key, value in up.items())
            other.rates = {key: moved / plan.seconds * value / tested for key, value in up.items()}
        other.granted_per_s += moved / plan.seconds
        other.received_per_s += moved / plan.seconds
        if rule.latency_s:
            other.far.append((rule.latency_s, moved / plan.seconds))


def _serving(plan: Plan) -> dict[str, float]:
    """Instances that serve, by key, without those switched off for want of power (the last kinds first)."""
    up, dark = {count.key: count.up for count in plan.counts if count.up > 0}, plan.dark
    for key in reversed(list(up)):
        off = min(up[key], dark)
        up[key], dark = up[key] - off, dark - off
    return {key: count for key, count in up.items() if count > 0}
