"""Play a scenario from start to figures: `run(scenario) -> Run`. Nothing is printed or written here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pandas as pd

from factory_sim import __version__
from factory_sim.engine.control.autoscaler import check_policies
from factory_sim.engine.control.power import check_power
from factory_sim.engine.journal import Journal
from factory_sim.engine.journal import tables as journal_tables
from factory_sim.engine.parts import independent, joined
from factory_sim.engine.replay import is_finite, replay
from factory_sim.engine.resolve import resolve
from factory_sim.engine.simulate import simulate
from factory_sim.engine.threads import side_by_side
from factory_sim.errors import SimulationStopped
from factory_sim.inputs.overrides import scenario_yaml
from factory_sim.inputs.provenance import digest, provenance
from factory_sim.inputs.scenario import Scenario
from factory_sim.ledger.bands import draw_prices
from factory_sim.ledger.plan_facts import with_plan_facts
from factory_sim.ledger.plans import check_plans_fit
from factory_sim.ledger.postings import post
from factory_sim.ledger.sanity import money_warnings, rehearse
from factory_sim.results.checks import check
from factory_sim.results.draws import draws
from factory_sim.results.figures import figures, replications, series
from factory_sim.streams import stream

SCHEMA = "factory_sim.summary/1"


@dataclass(frozen=True)
class Run:
    """A finished run: the scenario, its tables, its summary and where its inputs came from."""

    scenario: Scenario
    scenario_yaml: str
    provenance: dict
    tables: dict[str, pd.DataFrame]
    """windows, weights, latency, events, requests, audits, draws, postings, series, replications."""
    summary: dict
    """The content of summary.json."""

    @property
    def figures(self) -> pd.DataFrame:
        """Figures as a table: figure, window, service, value, low, high, unit, trust."""
        return pd.DataFrame(self.summary["figures"])


def run(
    scenario: Scenario,
    *,
    progress: Callable[[str], None] = lambda message: None,
    threads: int | None = None,
    policies: Mapping[str, Callable] | None = None,
    allow_code: bool = False,
) -> Run:
    """Play all replications of `scenario`, price them, check the laws and return the run.

    `progress` receives short messages. `policies`: own autoscalers by name, functions of (View, Autoscaler) that return
    a number of instances; `allow_code`: the scenario may name `file.py:function`. Raises ScenarioError, ProfileError,
    CapacityError or PriceError before anything is played if the scenario cannot be, and SimulationStopped (with the
    finished part) if such a policy fails on the way.
    """
    check_policies(scenario, policies or (), allow_code)
    check_power(scenario)
    progress(f"{scenario.name}: load-testing every stage")
    services = resolve(scenario)
    fleet = [(service.name, stage.stage.name, stage.system.gpu) for service in services for stage in service.fleets]
    fleet += [(name, f"{stage}-spot", gpu) for name, stage, gpu in fleet if scenario.services[name].spot]
    check_plans_fit(scenario.money, {service.name: service.makes for service in services})
    rehearse(scenario.money, fleet, scenario.start, scenario.duration_days)
    gpus = sorted({gpu for *_, gpu in fleet})
    for warning in money_warnings(scenario.money, gpus, list(scenario.services), scenario.start.date()):
        progress(f"warning: {warning}")
    files = [found for service in services for found in service.files]
    for found in files:
        for line in found.report.lines():
            progress(f"{found.key}: {line}")
    count = scenario.simulation.replications
    progress(f"{scenario.name}: playing {count} replications of {scenario.duration_days:g} days")
    play = replay if is_finite(scenario) else partial(_until_stopped, policies=policies, allow_code=allow_code)
    parts = [tuple(s for s in services if s.name in names) for names in independent(scenario)]
    played = side_by_side(
        lambda turn: play(scenario, turn[1], turn[0]), [(r, part) for r in range(count) for part in parts], threads
    )
    journals = [joined(played[r * len(parts) : (r + 1) * len(parts)]) for r in range(count)]
    tables = journal_tables(journals) | {"draws": draws(services)}
    profiles = {s.system.name: s.system.profile for service in services for s in service.fleets}
    origins = provenance(scenario, profiles)
    stopped = next((journal for journal in journals if journal.incomplete), None)
    if stopped is not None:
        raise SimulationStopped(stopped.incomplete, stopped, _unfinished(scenario, tables, stopped.incomplete, origins))
    requests = int(tables["audits"]["arrived"].sum()) + sum(
        s.curve.requests_played for r in services for s in r.fleets if s.curve
    )
    progress(f"{scenario.name}: {requests:,} requests played; pricing and checking")
    tables["postings"], drawn = _postings(scenario, with_plan_facts(tables["windows"], tables, scenario.money))
    tables["series"] = series(tables, drawn)
    tables["replications"] = replications(tables, drawn)
    heading = _heading(scenario) | ({"files": [found.row() for found in files]} if files else {})
    found = {"figures": figures(tables).to_dict("records"), "checks": check(scenario, tables)}
    return Run(scenario, scenario_yaml(scenario), origins, tables, heading | found)


def _heading(scenario: Scenario) -> dict:
    """What a summary begins with."""
    name, seed = scenario.name, scenario.seed
    return {
        "schema": SCHEMA,
        "scenario": {"name": name, "digest": digest(scenario), "seed": seed, "version": __version__},
    }


def _until_stopped(scenario: Scenario, services, replication: int, **options) -> Journal:
    """The journal of a replication, also of one that was stopped on the way."""
    try:
        return simulate(scenario, services, replication, **options)
    except SimulationStopped as stopped:
        return stopped.journal


def _unfinished(scenario: Scenario, tables: dict[str, pd.DataFrame], reason: str, origins: dict) -> Run:
    """A run that was stopped: the tables of what was played, its course over time, and no figures."""
    if len(tables["windows"]):
        tables["postings"], drawn = _postings(scenario, with_plan_facts(tables["windows"], tables, scenario.money))
        tables["series"] = series(tables, drawn)
    summary = _heading(scenario) | {"incomplete": reason, "figures": [], "checks": []}
    return Run(scenario, scenario_yaml(scenario), origins, tables, summary)


def _postings(scenario: Scenario, windows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Postings at the stated prices, and with every replication's own draw of the uncertain ones."""
    gpus, services = sorted(set(windows["gpu"])), list(scenario.services)
    drawn = []
    for replication, rows in windows.groupby("replication", sort=True):
        rng = stream(scenario.seed, "prices", f"replication {replication}")
        place = (replication + 0.5) / scenario.simulation.replications
        terms = draw_prices(scenario.money, rng, gpus=gpus, services=services, stratum=place)
        drawn.append(post(rows, terms, start=scenario.start))
    return post(windows, scenario.money, start=scenario.start), pd.concat(drawn, ignore_index=True)
