"""Booking: a played stretch in the journal, and what is left of it: backlog, retries, and what policies may see."""

from factory_sim.engine.control.carbon import carbon_multiplier
from factory_sim.engine.control.service import HISTORY, Service
from factory_sim.engine.control.stretch import Counter, Plan, rows_of
from factory_sim.engine.facts import mixture
from factory_sim.units import HOUR_S


def conclude(counter: Counter, plan: Plan) -> None:
    """Book a stretch: backlog, requests lost with failed instances, rows and weights, and what policies may see."""
    service, journal = plan.service, counter.journal
    service.backlog.waiting = plan.waiting
    lost = _lost_in_flight(plan)
    shares, scenario = _shares(plan), counter.scenario
    power = scenario.places[service.place.name].power
    carbon = carbon_multiplier(power, scenario.start, plan.start_s, plan.end_s)
    batch = _book_jobs(plan)
    for row, count, share in zip(plan.rows, rows_of(plan), shares):
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
    rows = rows_of(plan)
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
        for row, count in zip(plan.rows, rows_of(plan))
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
