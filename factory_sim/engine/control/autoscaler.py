"""Scaling: how many of the installed instances serve, by a policy picked by name; and spot capacity beside them."""

import math
from bisect import bisect_left
from collections.abc import Iterable
from operator import itemgetter

import numpy as np
import simpy

from factory_sim.engine.control.service import SPOT, Kind, Service, view_of
from factory_sim.engine.control.user_policy import check_policy
from factory_sim.engine.control.view import View
from factory_sim.engine.journal import Journal
from factory_sim.errors import ScenarioError
from factory_sim.inputs.operations import Autoscaler, Spot
from factory_sim.inputs.reliability import operation
from factory_sim.inputs.scenario import Scenario
from factory_sim.units import DAY_S, HOUR_S, MINUTE_S, WEEK_S


def keep(view: View, rule: Autoscaler) -> int:
    """All that are installed."""
    return view.maximum


def follow_load(view: View, rule: Autoscaler) -> int:
    """As many as hold the load of the last interval at the target share of their tested capacity."""
    return math.ceil((view.asked_per_s + view.waiting / view.interval_s) / (view.target_load * view.capacity_per_s))


def follow_queue(view: View, rule: Autoscaler) -> int:
    """One more for every tenth of the fleet while requests wait or instances are full; one less while half empty."""
    step = max(1, round(0.1 * view.serving))
    load = view.served_per_s / (max(view.serving - view.starting, 1) * view.capacity_per_s)
    if view.waiting > 0.0 or load > 0.9:
        return view.serving + max(step, math.ceil(view.waiting / view.interval_s / view.capacity_per_s))
    return max(view.serving - step, 0) if load < view.target_load - 0.15 else view.serving


def keep_promise(view: View, rule: Autoscaler) -> int:
    """Grow by the larger overshoot of the promise, shrink slowly while both latencies are well within it."""
    worst = max(view.ttft_p95_s / view.ttft_limit_s, view.tpot_p95_s / view.tpot_limit_s)
    if math.isnan(worst):
        return view.minimum if view.asked_per_s == 0.0 else view.serving + 1
    if worst > 0.95 or view.waiting > 0.0:
        return math.ceil(view.serving * min(max(worst, 1.05), 2.0))
    return math.floor(0.95 * view.serving) if worst < 0.7 else view.serving


def follow_schedule(view: View, rule: Autoscaler) -> int:
    """What the timetable says for this hour."""
    day, hour = divmod(view.hour_of_week, 24.0)
    for line in rule.schedule:
        over_midnight = line.until_hour <= line.from_hour
        today = int(day) in line.weekdays and line.from_hour <= hour and (over_midnight or hour < line.until_hour)
        after = over_midnight and hour < line.until_hour and int(day - 1) % 7 in line.weekdays
        if today or after:
            return line.instances
    return view.maximum


def predict(view: View, rule: Autoscaler) -> int:
    """The load of the same time a week (or a day) ago, scaled by how this hour compares, when a start would be done."""
    if not view.history:
        return view.maximum
    ahead = view.time_s + view.cold_start_s + view.interval_s
    forecast = view.asked_per_s
    for back in (WEEK_S, DAY_S):
        if view.history[0][0] <= ahead - back - view.interval_s:
            then, now_then = _rate_at(view.history, ahead - back), _rate_at(view.history, view.time_s - back)
            trend = min(max(view.asked_per_s / now_then, 0.5), 2.0) if now_then > 0 else 1.0
            forecast = max(then * trend, 0.0)
            break
    wanted = max(forecast, view.asked_per_s) + view.waiting / view.interval_s
    return math.ceil(wanted / (view.target_load * view.capacity_per_s))


def _rate_at(history: tuple[tuple[float, float], ...], time_s: float) -> float:
    """Requests asked for a second in the interval that ended at `time_s` or next after it (else in the last one)."""
    return history[min(bisect_left(history, time_s, key=itemgetter(0)), len(history) - 1)][1]


AUTOSCALERS = {
    "fixed": keep,
    "target_load": follow_load,
    "queue": follow_queue,
    "promise": keep_promise,
    "scheduled": follow_schedule,
    "predictive": predict,
}

WITHOUT_LATENCIES = ("fixed", "target_load", "queue", "scheduled", "predictive")
"""Policies that do not look at latencies."""

WITHOUT_HISTORY = ("fixed", "target_load", "queue", "promise", "scheduled")
"""Policies that do not look back."""


def check_policies(scenario: Scenario, own: Iterable[str] = (), allow_code: bool = False) -> None:
    """Raise ScenarioError for the first autoscaler whose policy is not known (`own`: names of the caller's) or not allowed."""
    for name, service in scenario.services.items():
        if service.autoscaler:
            where = f"services.{name}.autoscaler.policy"
            check_policy(where, service.autoscaler.policy, [*AUTOSCALERS, *own], allow_code)


def autoscale(env: simpy.Environment, service: Service, rule: Autoscaler, decide, journal: Journal, job=None):
    """Resize the fleet once per interval, from what the service has just reported; shrink only after a delay."""
    interval_s, smaller_since = rule.interval_minutes * MINUTE_S, None
    while True:
        yield env.timeout(interval_s)
        if service.changing or not service.place.lit:
            continue
        fleet, key = service.fleet, service.current
        serving = fleet.up(key) + service.starting
        installed = serving + fleet.idle(key) + service.released
        most = min(rule.maximum or installed, installed)
        latencies = rule.policy not in WITHOUT_LATENCIES
        history = rule.policy not in WITHOUT_HISTORY
        view = view_of(service, min(rule.minimum, most), most, interval_s, rule.target_load, latencies, history)
        wanted = min(max(_whole(decide(view, rule), service, env.now), min(rule.minimum, most)), most)
        if wanted >= serving:
            smaller_since = None
        elif smaller_since is None:
            smaller_since = env.now
        if wanted > serving:
            _grow(env, service, rule, wanted - serving, journal, job)
        elif wanted < serving and env.now - smaller_since >= rule.down_delay_minutes * MINUTE_S:
            _shrink(service, rule, min(serving - wanted, fleet.up(key)), journal, job)


def begin(service: Service, rule: Autoscaler, journal: Journal, job=None) -> None:
    """Leave only the initial instances in service, before anything is served."""
    if rule.initial is not None:
        _shrink(service, rule, service.fleet.up(service.current) - rule.initial, journal, job)


def _whole(answer, service: Service, now_s: float) -> int:
    """The policy's answer as a number of instances, or an error that names service and time."""
    if (
        isinstance(answer, bool)
        or not isinstance(answer, (int, float, np.integer, np.floating))
        or not math.isfinite(answer)
        or answer < 0
    ):
        raise ScenarioError(
            f"services.{service.name}.autoscaler.policy: answered {answer!r} on day {now_s / DAY_S:.3f}; a number of instances is needed"
        )
    return math.ceil(answer)


def _grow(env: simpy.Environment, service: Service, rule: Autoscaler, more: int, journal: Journal, job) -> None:
    """Wake idle instances first, then take back what was released or lent."""
    key, size = service.current, service.size()
    idle = min(service.fleet.idle(key), more)
    back = min(service.released, more - idle)
    if idle + back == 0:
        return
    service.released -= back
    if job is not None and back:
        job.resize(-back * size)
    service.fleet.shift(key, idle=-idle, down_gpus=(idle + back) * size)
    env.process(service.come_up(key, idle + back, service.start_s(), scaled=True))
    journal.note(
        env.now, "scaled_up", service.name, rule.policy, f"+{idle + back} instances, {service.fleet.up(key)} serve"
    )


def _shrink(service: Service, rule: Autoscaler, fewer: int, journal: Journal, job) -> None:
    """Drain instances and leave them idle, give them back, or lend their GPUs to training."""
    if fewer <= 0:
        return
    key = service.current
    if rule.unneeded == "idle":
        service.fleet.shift(key, up=-fewer, idle=fewer)
    else:
        service.fleet.shift(key, up=-fewer)
        service.released += fewer
        if job is not None:
            job.resize(fewer * service.size())
    journal.note(
        service.env.now, "scaled_down", service.name, rule.policy, f"-{fewer} instances, {service.fleet.up(key)} serve"
    )


def keep_spot(
    env: simpy.Environment, service: Service, spot: Spot, rng: np.random.Generator, journal: Journal, site_gpus: int
):
    """Hold as much spot capacity as there is; lose instances at random, with notice, and get them back later."""
    size = service.size()
    rate = operation("spot_evictions", spot.evictions_per_instance_day) / DAY_S
    notice_s = operation("spot_notice", spot.notice_s)
    away_s = operation("spot_away", spot.away_hours) * HOUR_S
    key = _spot_kind(service)
    most = spot.gpus // size
    service.fleet.shift(key, up=most)
    journal.note(env.now, "spot_begins", service.name, "plan", f"{most} instances")
    while rate > 0.0:
        yield env.timeout(rng.exponential(1.0 / (rate * most)))
        chance, away = rng.random(), rng.exponential(away_s)
        key = _spot_kind(service)
        if chance * most >= service.fleet.up(key):
            continue
        residence_s = _residence_s(service, key)
        service.fleet.failed[key] = service.fleet.failed.get(key, 0) + math.exp(-notice_s / residence_s)
        service.fleet.shift(key, up=-1)
        journal.note(env.now, "spot_evicted", service.name, "market", f"one instance, back in {away / HOUR_S:.1f} h")
        env.process(_return(env, service, away))


def _return(env: simpy.Environment, service: Service, away_s: float):
    """Evicted capacity is offered again and started."""
    yield env.timeout(away_s)
    key = _spot_kind(service)
    service.fleet.shift(key, down_gpus=service.size(key))
    yield env.process(service.come_up(key, 1, service.start_s(key)))


def _spot_kind(service: Service) -> str:
    """Key of spot instances of the current stage; those of an older stage become it."""
    now = service.kinds[service.current]
    key = f"{now.label}{SPOT}"
    if key not in service.kinds:
        service.kinds[key] = Kind(key, now.stage, f"{now.label}-spot", 1.0)
        service.fleet.add_kind(key, now.stage.system.gpus)
        for old in [k for k in service.fleet.state if k.endswith(SPOT) and k != key]:
            gpus = service.fleet.up(old) * service.size(old)
            service.fleet.shift(old, up=-service.fleet.up(old))
            service.fleet.shift(key, up=gpus // service.size(key))
    return key


def _residence_s(service: Service, key: str) -> float:
    """Mean time that a request stays, from Little's law on the last stretch, seconds."""
    parts = service.latest_by_kind.get(key) or service.latest
    number = sum(weight * facts.values["in_system"] for weight, facts in parts)
    rate = sum(weight * facts.values["requests_completed"] for weight, facts in parts)
    return max(number / rate, 1e-3) if rate > 0 else 1.0
