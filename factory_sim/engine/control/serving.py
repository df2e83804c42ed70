"""Serving: demand through the limit, spread over the fleet, below the site's power, played and written down."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import simpy

from factory_sim.engine.control.carbon import carbon_multiplier
from factory_sim.engine.control.distance import farther
from factory_sim.engine.control.fleet import Count, Pulse
from factory_sim.engine.control.power import at_site, cap_w, clock_energy, keep_below, outside_c, pue_at, slow_downs
from factory_sim.engine.control.service import HISTORY, SPOT, Place, Service
from factory_sim.engine.facts import Facts, mixture
from factory_sim.engine.journal import Journal
from factory_sim.engine.rows import at_pue, no_values, window_facts
from factory_sim.engine.stage_pool import StagePool
from factory_sim.inputs.scenario import Scenario, Site
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
        plans = [_ask(service, start_s, end_s) for service in group.services]
        _play_within_power(counter, plans)
        for plan in plans:
            _conclude(counter, plan)


def _ask(service: Service, start_s: float, end_s: float) -> Plan:
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


def _grant(plan: Plan) -> None:
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


def _overflow(plans: list[Plan]) -> None:
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


def _play(counter: Counter, plans: list[Plan], probe: bool) -> None:
    """Grant, overflow and play a stretch, and write its rows (not yet into the journal)."""
    for plan in plans:
        _grant(plan)
    _overflow(plans)
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
        plan.rows = [_row(counter, plan, count, up.get(count.key, 0.0)) for count in _rows_of(plan)]
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


def _rows_of(plan: Plan) -> tuple[Count, ...]:
    """Kinds that get a row: all that hold a GPU, or the current one so that demand without a fleet is written too."""
    return plan.counts or (Count(plan.service.current, 0.0, 0.0, 0.0, 0.0),)


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


def _conclude(counter: Counter, plan: Plan) -> None:
    """Book a stretch: backlog, requests lost with failed instances, rows and weights, and what policies may see."""
    service, journal = plan.service, counter.journal
    service.backlog.waiting = plan.waiting
    lost = _lost_in_flight(plan)
    shares, scenario = _shares(plan), counter.scenario
    power = scenario.places[service.place.name].power
    carbon = carbon_multiplier(power, scenario.start, plan.start_s, plan.end_s)
    batch = _book_jobs(plan)
    for row, count, share in zip(plan.rows, _rows_of(plan), shares):
        up = row["instance_s"] / plan.seconds
        for weight, facts in plan.parts.get(count.key, []):
            journal.weights.append((plan.start_s, service.name, row["stage"], facts.window, weight * row["instance_s"]))
        row |= {
            "price_multiplier": plan.price_index,
            "granted_requests": plan.rates.get(count.key, 0.0) * up * plan.seconds,
            "latent_requests": (plan.latent_per_s + plan.received_per_s) * plan.seconds * share,
            "requests_lost_waiting": (plan.lost + plan.sent) * share,
            "requests_sent": plan.sent * share,
            "requests_waiting": plan.waiting * share,
            "limit_requests_per_s": plan.limit_per_s * share if share else 0.0,
            "capacity_requests": _capacity(service, count.key) * row["gpu_hours"] * HOUR_S,
            "carbon_multiplier": carbon,
        }
        row |= {name: number * share for name, number in batch.items()}
        away = plan.lost * share
        row["requests_lost_to_user_limits"] = away if plan.held_by_users else 0.0
        row["requests_arrived"] += away
        row["requests_turned_away"] = away + row.pop("requests_refused")
        gone = min(lost.get(count.key, 0.0), row["requests_completed"])
        row["requests_lost"] += gone
        row["requests_completed"] -= gone
        row["requests_within_slo"] = min(row["requests_within_slo"], row["requests_completed"])
        service.retried += gone * service.retry_share
        journal.windows.append(row)
    _remember(plan, lost)


def _book_jobs(plan: Plan) -> dict[str, float]:
    """Take the answered batch jobs out of the queue, and those whose deadline has passed."""
    queue = plan.service.jobs
    if queue is None:
        return {}
    queue.take(plan.jobs)
    return {
        "batch_requests_submitted": queue.per_s * plan.seconds,
        "batch_requests_dropped": queue.drop(plan.end_s),
        "batch_requests_waiting": queue.number(),
    }


def _capacity(service: Service, key: str) -> float:
    """Requests/s within the promise of each GPU of a kind, were it up and fully used, by the load test."""
    return service.capacity_per_s(key) / service.kinds[key].stage.system.gpus


def _shares(plan: Plan) -> list[float]:
    """Share of the service's demand that each row stands for: by capacity, evenly where nothing serves."""
    rows = _rows_of(plan)
    up = plan.up
    weights = [up.get(count.key, 0.0) * plan.service.capacity_per_s(count.key, plan.slower) for count in rows]
    total = sum(weights)
    return [weight / total for weight in weights] if total else [1.0 / len(rows)] * len(rows)


def _lost_in_flight(plan: Plan) -> dict[str, float]:
    """Requests that were on instances when these stopped, by key: as many as are in the system of one instance."""
    found = {}
    for key, instances in plan.service.fleet.take_failed().items():
        parts = plan.parts.get(key) or plan.service.latest_by_kind.get(key, [])
        found[key] = instances * mixture(parts)["in_system"] if parts else 0.0
    return found


def _remember(plan: Plan, lost: dict[str, float]) -> None:
    """Keep what policies see, and let users feel how they were served."""
    service = plan.service
    whole = sum(row["instance_s"] for row in plan.rows)
    service.latest = [
        (weight * row["instance_s"] / whole, facts)
        for row, count in zip(plan.rows, _rows_of(plan))
        for weight, facts in plan.parts.get(count.key, [])
    ]
    service.latest_by_kind = plan.parts
    service.asked_per_s, service.served_per_s = plan.latent_per_s, plan.granted_per_s
    service.history.append((plan.end_s, plan.latent_per_s))
    if len(service.history) >= 2 * HISTORY:
        del service.history[:HISTORY]
    churn = service.resolved.service.traffic.demand.churn
    if churn is not None:
        asked = sum(row["requests_arrived"] for row in plan.rows)
        kept = sum(row["requests_within_slo"] for row in plan.rows)
        service.demand.remember(churn, 1.0 - kept / asked if asked else 0.0, plan.seconds)
