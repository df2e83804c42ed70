"""Rules between the parts of a scenario: names that exist, times within it, events that do not contradict each other.

Each broken rule is a ValueError that names the event, its time and what would be right.
"""

from itertools import combinations, pairwise

from factory_sim.errors import closest
from factory_sim.inputs.generation import promise_kind
from factory_sim.inputs.parallelism import parse_parallelism
from factory_sim.units import DAY_S, HOUR_S

WHILE = {
    "curtailment": ("hours", HOUR_S),
    "heat_wave": ("days", DAY_S),
    "upgrade": ("hours", HOUR_S),
    "breakdown": ("hours", HOUR_S),
}
"""Events of which two must not overlap at one subject, with the field that says how long they last."""


def check(scenario) -> None:
    """Raise ValueError for the first rule that `scenario` (a `Scenario`) breaks."""
    _names(scenario)
    if "main" in scenario.sites:
        raise ValueError("sites.main: the place `site` is called main already; give this one another name")
    for index, event in enumerate(scenario.events):
        _event(scenario, f"events.{index} ({event.kind})", event)
    _contradictions(scenario)
    for site in scenario.places:
        _gpus_fit(scenario, site)
    for day, index, event in _moments(scenario):
        if event.kind in ("delivery", "move"):
            _whole_instances(scenario, day, f"events.{index} ({event.kind})", event)
        if event.kind == "breakdown" and event.service:
            holds = gpus_held(scenario, event.service, day)
            if event.gpus > holds:
                raise ValueError(
                    f"events.{index} (breakdown) on day {day:g}: {event.gpus:,} GPUs stop, but {event.service} holds {holds:,}"
                )


def _whole_instances(scenario, day: float, where: str, event) -> None:
    """GPUs that are delivered or moved make up whole instances of the stage of the day, of both services."""
    for name in filter(None, (event.service, getattr(event, "to", None))):
        system = [stage for stage in scenario.services[name].stages if stage.from_day <= day][-1].system
        if getattr(system, "parallelism", None) is None:
            continue
        size = parse_parallelism(system.parallelism).gpus
        if event.gpus % size:
            raise ValueError(f"{where} on day {day:g}: {event.gpus:,} GPUs are no whole instances of {name} ({size} GPUs each)")


def _names(scenario) -> None:
    for name, service in scenario.services.items():
        where = f"services.{name}"
        _known(f"{where}.site", service.site, scenario.places)
        if service.overflow:
            _known(f"{where}.overflow.to", service.overflow.to, scenario.services)
            if service.overflow.to == name:
                raise ValueError(f"{where}.overflow.to: a service cannot overflow into itself")
            _alike(f"{where}.overflow.to", scenario, name, service.overflow.to)
        awaited = service.stages[-1].after_training
        if awaited is not None:
            at = f"{where}.stages.{len(service.stages) - 1} ({service.stages[-1].name}).after_training"
            _known(at, awaited, scenario.training)
            launch = scenario.training[awaited].launch
            if launch is None or launch.service != name:
                raise ValueError(f"{at}: training.{awaited} has no `launch` in service {name!r}")
        scaler = service.autoscaler
        if scaler and scaler.lend_to:
            _known(f"{where}.autoscaler.lend_to", scaler.lend_to, scenario.training)
        if scaler and scaler.minimum > min(stage.gpus for stage in service.stages):
            raise ValueError(
                f"{where}.autoscaler.minimum: {scaler.minimum} instances exceed the fleet of {min(s.gpus for s in service.stages)} GPUs"
            )
    for name, job in scenario.training.items():
        _known(f"training.{name}.site", job.site, scenario.places)
        if job.launch:
            _known(f"training.{name}.launch.service", job.launch.service, scenario.services)
        if name in scenario.services:
            raise ValueError(f"training.{name}: a service has that name too; tables could not tell them apart")
        if job.from_day >= scenario.duration_days:
            raise ValueError(
                f"training.{name}.from_day: day {job.from_day:g} is after the end of the scenario on day {scenario.duration_days:g}"
            )


def _known(where: str, name: str, known) -> None:
    if name not in known:
        raise ValueError(f"{where}: '{name}' is not in the scenario{closest(name, known)}")


def _alike(where: str, scenario, name: str, other: str) -> None:
    """Demand flows between services of tokens, or between services of images or videos, never from one to the other."""
    if promise_kind(scenario.services[name].slo) != promise_kind(scenario.services[other].slo):
        raise ValueError(f"{where}: one of {name!r} and {other!r} serves tokens, the other makes images or videos")


def _event(scenario, where: str, event) -> None:
    time_s = event.time_s(scenario.start)
    if not 0 <= time_s < scenario.duration_s:
        when = event.at.isoformat() if event.at else f"day {event.at_day:g}"
        side = "before the start" if time_s < 0 else "after the end"
        raise ValueError(
            f"{where} at {when} is {side}; the scenario runs from {scenario.start.isoformat()} for {scenario.duration_days:g} days"
        )
    for field, known in (("service", scenario.services), ("to", scenario.services), ("site", scenario.places)):
        name = getattr(event, field, None)
        if name is not None:
            _known(f"{where}.{field}", name, known)
    if getattr(event, "to", None) is not None and event.to == event.service:
        raise ValueError(f"{where}.to: is the service that gives; name another one")
    if event.kind == "retirement" and event.to is not None:
        _alike(f"{where}.to", scenario, event.service, event.to)
    if event.kind == "heat_wave" and scenario.places[event.site].cooling is None:
        raise ValueError(f"{where}: site {event.site!r} has no `cooling`, so that its temperature has no effect")


def _subject(event) -> str:
    return str(getattr(event, "service", None) or getattr(event, "site", None))


def _contradictions(scenario) -> None:
    """Two events on one subject at the same moment, or two that each claim it for the same time."""
    numbered = [(f"events.{i}", event, event.time_s(scenario.start)) for i, event in enumerate(scenario.events)]
    for (where, first, start), (other, second, later) in combinations(numbered, 2):
        if first.kind != second.kind or _subject(first) != _subject(second):
            continue
        if first.kind in WHILE:
            field, unit_s = WHILE[first.kind]
            ends = start + getattr(first, field) * unit_s, later + getattr(second, field) * unit_s
            if start < ends[1] and later < ends[0]:
                raise ValueError(
                    f"{other} contradicts {where}: two events '{first.kind}' on {_subject(first)} overlap "
                    f"(days {start / DAY_S:g} to {ends[0] / DAY_S:g} and {later / DAY_S:g} to {ends[1] / DAY_S:g})"
                )
        elif start == later and first.kind in ("spike", "price_change", "retirement"):
            raise ValueError(
                f"{other} contradicts {where}: two events '{first.kind}' on {_subject(first)} at the same time (day {start / DAY_S:g})"
            )
        elif first.kind == "retirement":
            raise ValueError(
                f"{other} contradicts {where}: {_subject(first)} is retired already (day {start / DAY_S:g})"
            )


def _gpus_fit(scenario, site: str) -> None:
    """GPUs of all services and jobs at a site, day by day of their changes, against what it holds."""
    days = {0.0} | {s.from_day for service in scenario.services.values() for s in service.stages}
    moments = _moments(scenario)
    days |= {day for day, _, event in moments if event.kind in ("delivery", "move")}
    own = sum(job.gpus + job.spare_gpus for job in scenario.training.values() if job.site == site)
    holds = scenario.places[site].gpus
    for day in sorted(days):
        held = own
        for name, service in scenario.services.items():
            gpus = _held(scenario, name, service, day, moments)
            if service.site == site:
                held += gpus + service.spare_gpus
        if held > holds:
            last = max((f"events.{i} ({e.kind})" for d, i, e in moments if d == day), default="the stages")
            raise ValueError(f"on day {day:g} ({last}) site {site!r} would have {held:,} GPUs; it holds {holds:,}")


def _moments(scenario) -> list[tuple]:
    """(day, number, event) in order of time."""
    moments = [(event.time_s(scenario.start) / DAY_S, index, event) for index, event in enumerate(scenario.events)]
    return sorted(moments, key=lambda item: item[:2])


def gpus_held(scenario, name: str, day: float) -> int:
    """GPUs of a service on a day, spares included, if deliveries come on time."""
    service = scenario.services[name]
    return _held(scenario, name, service, day, _moments(scenario)) + service.spare_gpus


def _held(scenario, name: str, service, day: float, moments) -> int:
    """GPUs of a service on a day: its stage, with deliveries and moves so far (until its next stage states anew)."""
    stage = [s for s in service.stages if s.from_day <= day][-1]
    peak = stage.gpus
    beside = sum(each.gpus for each in service.beside)
    for before, after in pairwise(service.stages):  # while GPUs are exchanged the larger fleet is there
        if after is stage and day < after.from_day + after.change.duration_days:
            peak = max(before.gpus, after.gpus)
    for moment, index, event in moments:
        if not stage.from_day <= moment <= day:
            continue
        if (event.kind == "delivery" and event.service == name) or (event.kind == "move" and event.to == name):
            peak += event.gpus
        elif event.kind == "move" and event.service == name:
            peak -= event.gpus
            if peak < 0:
                raise ValueError(
                    f"events.{index} (move) on day {moment:g}: {name} has {peak + event.gpus:,} GPUs left, not {event.gpus:,}; "
                    "the same replicas cannot move to two services"
                )
    return peak + beside
