"""Parts of a scenario that share nothing, so that they may be played side by side on threads of their own."""

from itertools import pairwise

from factory_sim.engine.journal import Journal
from factory_sim.inputs.scenario import Scenario


def linked(scenario: Scenario) -> list[list[str]]:
    """Names of services by group: those that share a site with a limited or variable supply, or demand, go together."""
    pairs = [(name, service.overflow.to) for name, service in scenario.services.items() if service.overflow]
    pairs += [(event.service, event.to) for event in scenario.events if event.kind == "retirement" and event.to]
    for name, place in scenario.places.items():
        called = any(event.kind in ("curtailment", "heat_wave") and event.site == name for event in scenario.events)
        if place.cooling or (place.power and place.power.mw) or called:
            pairs += _neighbours(scenario, name)
    return _joined(scenario, pairs)


def independent(scenario: Scenario) -> list[list[str]]:
    """Names of services by part: beyond `linked`, also those between which nodes move, or whose site has failures,
    breakdowns or training jobs. What happens in one part changes nothing in another."""
    pairs = [(first, second) for group in linked(scenario) for first, second in pairwise(group)]
    pairs += [(event.service, event.to) for event in scenario.events if event.kind == "move"]
    launches = any(job.launch for job in scenario.training.values())
    lends = any(service.autoscaler and service.autoscaler.lend_to for service in scenario.services.values())
    for name in scenario.places:
        broken = any(event.kind == "breakdown" and event.site == name for event in scenario.events)
        jobs = [job for job, spec in scenario.training.items() if spec.site == name]
        if scenario.outages or broken or jobs:
            pairs += _neighbours(scenario, name)
    if launches or lends:
        pairs += _chain(list(scenario.services))
    return _joined(scenario, pairs)


def joined(parts: list[Journal]) -> Journal:
    """One journal of the parts of a replication; played windows are numbered through, rows are in the order of time."""
    whole = Journal(parts[0].replication, incomplete=next((p.incomplete for p in parts if p.incomplete), ""))
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        shift = whole.windows_played
        whole.latency += [(number + shift, *row) for number, *row in part.latency]
        whole.weights += [(*row, number + shift, instance_s) for *row, number, instance_s in part.weights]
        whole.samples += [frame.assign(window=frame["window"] + shift) for frame in part.samples]
        whole.windows += part.windows
        whole.events += part.events
        whole.audits += part.audits
        whole.windows_played += part.windows_played
    whole.windows.sort(key=lambda row: row["start_s"])
    return whole


def _neighbours(scenario: Scenario, site: str) -> list[tuple[str, str]]:
    return _chain([name for name, service in scenario.services.items() if service.site == site])


def _chain(names: list[str]) -> list[tuple[str, str]]:
    return list(pairwise(names))


def _joined(scenario: Scenario, pairs: list[tuple[str, str]]) -> list[list[str]]:
    """Names of services in the scenario's order, those that a pair links in one group."""
    group = {name: number for number, name in enumerate(scenario.services)}
    for first, second in pairs:
        old, new = group[second], group[first]
        group = {name: new if number == old else number for name, number in group.items()}
    return [[name for name in group if group[name] == number] for number in dict.fromkeys(group.values())]
