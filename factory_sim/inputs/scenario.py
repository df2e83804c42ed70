"""The scenario schema: what the factory is. The attribute docstrings are the reference page; defaults live here only.

A scenario has no expressions and no conditions. Variations are named (``variants``) or given on the command line as
``path=value``; both are applied before validation, so every run folder holds one resolved scenario.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from factory_sim.inputs import calendar_rules
from factory_sim.inputs.events import Event
from factory_sim.inputs.money import Money
from factory_sim.inputs.operations import Cooling, Maintenance, Outages, PowerCap
from factory_sim.inputs.services import Service
from factory_sim.inputs.training_jobs import TrainingJob
from factory_sim.records import Fraction, Moment, Name, NonNegative, Record
from factory_sim.units import DAY_S


class Sampling(Record):
    """How much of the factory is played, and how exactly (design.md, Scale); the error is stated in the run."""

    mode: Literal["thinned", "whole"] = "thinned"
    """`thinned` over replicas and time, or `whole`: every instance of a stage and every second of it, from a steady start."""
    sequences_kept: PositiveInt = 600
    """Thinning over replicas keeps enough instances to hold about this many running sequences, and at least `instances_kept`."""
    instances_kept: PositiveInt = 4
    """Fewest instances of a stage that are played behind the router (or all, if the fleet has fewer); one that holds
    `sequences_kept` alone is enough, since pooling adds little to it."""
    warmup_s: NonNegative = 60.0
    """Played and dropped before a window that follows another load, seconds."""
    window_s: PositiveFloat = 600.0
    """Played and counted for one window, seconds, at most."""
    window_requests: PositiveInt = 10_000
    """A window ends once about this many requests have arrived, but not before `warmup_s`."""
    hours_per_window: PositiveFloat = 8.0
    """A played window stands for at most this many like hours of the calendar."""
    load_tolerance: Annotated[float, Field(gt=0.0, le=0.5)] = 0.08
    """A window is reused for hours whose load per instance lies within this fraction of a played one (interpolated between two)."""
    fleet_tolerance: Fraction = 0.005
    """Changes of a fleet that sum to less than this share of its instances do not cut an interval; their mean counts."""


class Simulation(Record):
    """Statistics of the run."""

    replications: PositiveInt = 8
    """Independent replications; bands are their P10 and P90."""
    interval_minutes: Annotated[float, Field(gt=0.0, le=1440.0)] = 60.0
    """Control interval: rates and fleet are constant within one."""
    sampling: Sampling = Sampling()
    """Thinning."""
    profile_error: bool = True
    """Draw each profile's systematic error once a replication."""


class Site(Record):
    """The place: how many GPUs fit, and what power costs there."""

    gpus: PositiveInt
    """GPUs that the site can hold."""
    pue: Annotated[float, Field(ge=1.0, le=3.0)] = 1.25
    """Power usage effectiveness: facility power over IT power (at full load and in cool weather, with `cooling`)."""
    cooling: Cooling | None = None
    """PUE by load and outside temperature; constant when left out."""
    power: PowerCap | None = None
    """Cap on power and what is done to keep it; needed for curtailment calls."""


class Scenario(Record):
    """An AI factory over some weeks."""

    name: Name
    """Name of the scenario; run folders are named by it."""
    question: str = ""
    """The planner's question that the scenario answers, in a sentence."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Seed of all named random streams."""
    start: Moment
    """First moment, with UTC offset; rhythms of the week count from it."""
    duration_days: PositiveFloat
    """Length of the scenario, days."""
    site: Site
    """The place, called `main`."""
    sites: dict[Name, Site] = {}
    """Further places by name."""
    services: dict[Name, Service] = Field(min_length=1)
    """Services by name."""
    money: Money = Money()
    """Prices, plans and costs."""
    events: list[Event] = []
    """What happens on stated days: spikes, deliveries, upgrades, failures, curtailment calls."""
    outages: Outages | None = None
    """Random failures; nothing fails when left out."""
    maintenance: Maintenance | None = None
    """Planned work on all fleets."""
    training: dict[Name, TrainingJob] = {}
    """Training jobs by name."""
    simulation: Simulation = Simulation()
    """Replications and thinning."""
    variants: dict[Name, dict[str, Any]] = {}
    """Named variations: path -> value, chosen with `--variant`."""

    def with_seed(self, seed: int) -> "Scenario":
        """The same scenario under another seed."""
        return self.model_validate(self.model_dump() | {"seed": seed})

    @property
    def duration_s(self) -> float:
        """Length of the scenario, seconds."""
        return self.duration_days * DAY_S

    @property
    def places(self) -> dict[str, Site]:
        """All sites by name; the first is `main`."""
        return {"main": self.site, **self.sites}

    @property
    def end(self) -> datetime:
        """Last moment of the scenario."""
        return self.start + timedelta(days=self.duration_days)

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        for name, service in self.services.items():
            for index, stage in enumerate(service.stages):
                where = f"services.{name}.stages.{index} ({stage.name})"
                if stage.from_day >= self.duration_days:
                    raise ValueError(
                        f"{where} starts on day {stage.from_day:g}, after the end of the scenario on day {self.duration_days:g}"
                    )
        calendar_rules.check(self)
        return self
