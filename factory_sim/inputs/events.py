"""The events of a scenario's calendar: what happens on a stated day, and why."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from factory_sim.records import Fraction, Moment, Name, NonNegative, Record
from factory_sim.units import DAY_S


class _Event(Record):
    """Something that happens at a stated time."""

    at_day: float | None = None
    """Day from the start of the scenario."""
    at: Moment | None = None
    """The same as a moment with its UTC offset."""

    @model_validator(mode="after")
    def _one_time(self):
        if (self.at_day is None) == (self.at is None):
            raise ValueError("give exactly one of at_day and at (a moment with its UTC offset)")
        return self

    def time_s(self, start: datetime) -> float:
        """Seconds from the start of the scenario."""
        return self.at_day * DAY_S if self.at is None else (self.at - start).total_seconds()


class Spike(_Event):
    """Demand of a service rises for a while and falls back."""

    kind: Literal["spike"]
    service: Name
    """Service."""
    multiplier: NonNegative
    """Times the demand at the peak; below 1 it is a dip."""
    ramp_hours: NonNegative = 0.5
    """Hours of rise, and again of fall, linear."""
    hours: PositiveFloat
    """Hours at the peak."""


class PriceChange(_Event):
    """List prices of a service are multiplied from now on."""

    kind: Literal["price_change"]
    service: Name
    """Service."""
    multiplier: PositiveFloat
    """Times the prices of the plan (not cumulative)."""


class Retirement(_Event):
    """A model is retired: its demand fades, and part of it moves to another service."""

    kind: Literal["retirement"]
    service: Name
    """Service whose model is retired."""
    fade_days: NonNegative = 7.0
    """Days until nobody asks for it any more, linear."""
    to: Name | None = None
    """Service that takes over."""
    share: Fraction = 0.8
    """Share of the demand that moves there."""


class Delivery(_Event):
    """More GPUs for a service, of its current stage."""

    kind: Literal["delivery"]
    service: Name
    """Service."""
    gpus: PositiveInt
    """GPUs that come; a multiple of the GPUs of one instance."""
    delay_days: NonNegative = 0.0
    """Mean delay behind the date, days, drawn once a replication."""
    delay: Literal["fixed", "exponential"] = "exponential"
    """Distribution of the delay."""
    commissioning_hours: NonNegative = 24.0
    """Hours from delivery to service: racking, burn-in, loading; paid for."""


class Move(_Event):
    """Nodes move from one service to another."""

    kind: Literal["move"]
    service: Name
    """Service that gives."""
    to: Name
    """Service that takes."""
    gpus: PositiveInt
    """GPUs, a multiple of an instance of both."""
    downtime_minutes: NonNegative = 30.0
    """Minutes until they serve."""


class Upgrade(_Event):
    """New software on the instances of the current stage, replica by replica, tried on a few first."""

    kind: Literal["upgrade"]
    service: Name
    """Service."""
    speedup: PositiveFloat
    """True effect: step times are divided by it (1.15 is 15 % faster, 0.8 is a regression)."""
    hours: PositiveFloat = 12.0
    """Hours over which the instances are upgraded after the trial."""
    downtime_minutes: NonNegative = 20.0
    """Minutes that an instance is away: drain, restart, warm-up."""
    canary_share: Fraction = 0.05
    """Share of the instances upgraded first."""
    canary_hours: NonNegative = 6.0
    """Hours that they are watched."""
    worst_tpot: PositiveFloat = 1.05
    """Rolled back if the median TPOT of the trial (of images and videos the time to output) exceeds the others' times
    this, at the same relative load."""


class Breakdown(_Event):
    """A stated failure, beside or without random ones."""

    kind: Literal["breakdown"]
    service: Name | None = None
    """Service that is hit; with a site, all its services."""
    site: Name | None = None
    """Site that goes down as a whole."""
    gpus: PositiveInt | None = None
    """GPUs that stop (a rack: 72); with a site, all."""
    hours: PositiveFloat
    """Hours until they are back."""

    @model_validator(mode="after")
    def _where(self) -> "Breakdown":
        if (self.service is None) == (self.site is None):
            raise ValueError("give either service (with gpus) or site")
        if self.service is not None and self.gpus is None:
            raise ValueError("a breakdown in a service needs gpus")
        return self


class Curtailment(_Event):
    """The grid calls for less power for some hours (demand response)."""

    kind: Literal["curtailment"]
    site: Name = "main"
    """Site."""
    hours: PositiveFloat
    """Hours."""
    mw: PositiveFloat | None = None
    """Cap on the facility's power, MW."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """The same as a share of the site's cap, or of its nameplate power without one."""

    @model_validator(mode="after")
    def _one_cap(self) -> "Curtailment":
        if (self.mw is None) == (self.share is None):
            raise ValueError("give exactly one of mw and share")
        return self


class HeatWave(_Event):
    """The outside temperature rises; needs a site with `cooling`."""

    kind: Literal["heat_wave"]
    site: Name = "main"
    """Site."""
    days: PositiveFloat
    """Days."""
    rise_k: float
    """Kelvin above the usual temperature."""


Event = Annotated[
    Spike | PriceChange | Retirement | Delivery | Move | Upgrade | Breakdown | Curtailment | HeatWave,
    Field(discriminator="kind"),
]
