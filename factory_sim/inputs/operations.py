"""What a scenario says about running a factory: scaling, spares, failures, maintenance and power.

Only records. Figures that nobody publishes default to a row of `data/operations/` (`inputs/reliability.py`).
"""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from factory_sim.records import Fraction, Name, NonNegative, Record

Weekday = Annotated[int, Field(ge=0, le=6)]


class ColdStart(Record):
    """What it takes to bring one instance up from nothing."""

    weights_gb_per_s: PositiveFloat | None = None
    """Bandwidth over which the weights of one instance are loaded, GB/s (operations.csv: weights_bandwidth)."""
    engine_start_s: NonNegative | None = None
    """Start of the serving engine, seconds (operations.csv: engine_start)."""
    graph_capture_s: NonNegative | None = None
    """Capture of execution graphs and warm-up, seconds (operations.csv: graph_capture)."""


class ScheduledHours(Record):
    """Hours of the week with a size of their own."""

    from_hour: Annotated[float, Field(ge=0, lt=24)]
    """First hour of the day, scenario time."""
    until_hour: Annotated[float, Field(gt=0, le=24)]
    """Hour at which it ends; smaller than from_hour means over midnight."""
    weekdays: tuple[Weekday, ...] = (0, 1, 2, 3, 4, 5, 6)
    """Days on which it starts, Monday is 0."""
    instances: NonNegativeInt
    """Instances wanted."""


class Autoscaler(Record):
    """How many of the installed instances serve. GPUs beyond that are idle, given back, or lent to training."""

    policy: str = "fixed"
    """fixed, target_load, queue, promise, scheduled, predictive; a name given to `run(policies=...)`; or
    `file.py:function`, which runs only with `--allow-code`."""
    interval_minutes: Annotated[float, Field(gt=0, le=1440)] = 15.0
    """How often it decides."""
    minimum: NonNegativeInt = 1
    """Fewest instances; 0 allows scale to zero."""
    maximum: PositiveInt | None = None
    """Most instances; all that are installed when left out."""
    initial: NonNegativeInt | None = None
    """Instances that serve when the scenario starts; all that are installed when left out."""
    target_load: Annotated[float, Field(gt=0, le=1.5)] = 0.75
    """Load that target_load and predictive aim at, as a fraction of the tested capacity of an instance."""
    down_delay_minutes: NonNegative = 30.0
    """A smaller size must have been wanted for so long before it is taken."""
    schedule: tuple[ScheduledHours, ...] = ()
    """Sizes by hour for `scheduled`; outside all of them the maximum holds."""
    unneeded: Literal["idle", "release", "lend"] = "idle"
    """What becomes of GPUs that are not needed: `idle` (paid, powered), `release` (given back), `lend` (to a job)."""
    lend_to: Name | None = None
    """Training job that gets lent GPUs."""
    cold_start: ColdStart = ColdStart()
    """Time to bring an instance up."""
    deadline_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    """A user's own function must answer within this, seconds of real time."""

    @model_validator(mode="after")
    def _whole(self) -> "Autoscaler":
        if self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} exceeds maximum {self.maximum}")
        if self.initial is not None and self.initial < self.minimum:
            raise ValueError(f"initial {self.initial} is below minimum {self.minimum}")
        if self.initial is not None and self.maximum is not None and self.initial > self.maximum:
            raise ValueError(f"initial {self.initial} exceeds maximum {self.maximum}")
        if (self.unneeded == "lend") != (self.lend_to is not None):
            raise ValueError("unneeded: lend goes together with lend_to")
        if (self.policy == "scheduled") != bool(self.schedule):
            raise ValueError("policy: scheduled goes together with a schedule")
        return self


class Spot(Record):
    """Capacity beside the fleet that can be withdrawn; it runs the system of the stage that is current."""

    gpus: PositiveInt
    """Most GPUs at once; a multiple of the GPUs of one instance of every stage."""
    evictions_per_instance_day: NonNegative | None = None
    """Evictions of one running instance a day (operations.csv: spot_evictions)."""
    away_hours: NonNegative | None = None
    """Mean time until evicted capacity can be had again, hours (operations.csv: spot_away)."""
    notice_s: NonNegative | None = None
    """Warning before an eviction, seconds (operations.csv: spot_notice); requests that take longer are lost."""


class Overflow(Record):
    """What becomes of demand that the service cannot let in."""

    to: Name
    """Service that gets it, within that one's own limit."""
    share: Fraction = 1.0
    """Share of the demand that can go there."""
    latency_s: NonNegative = 0.0
    """Network time to the other service, seconds: in the time to first token of every request that goes there."""


class FailureClass(Record):
    """One kind of failure stated by the scenario."""

    scope: Literal["gpu", "node", "switch", "rack", "site"]
    """What fails: all its GPUs stop at once, and every instance that has one of them."""
    per_unit_year: NonNegative
    """Failures of one unit (GPU, node, ...) a year of operation; 0: never."""
    repair_hours: PositiveFloat
    """Mean time to repair, hours."""
    repair: Literal["exponential", "fixed"] = "exponential"
    """Distribution of the time to repair."""
    gpus: PositiveInt | None = None
    """GPUs of one unit; from the catalogue when left out (site: all)."""


class Outages(Record):
    """Failures and what is done against them."""

    classes: dict[Name, FailureClass] | tuple[Name, ...] = ("gpu_interruption", "gpu_permanent")
    """Names of `data/operations/failures.csv`, or own classes by name. The measured rates count interruptions of a
    synchronous training job; which ones each class holds stands in its row."""
    rate_multiplier: NonNegative = 1.0
    """Times all failure rates; 0: nothing fails."""
    repair_crews: PositiveInt | None = None
    """Repairs that can go on at once at a site; unlimited when left out."""
    retry_share: Fraction = 0.9
    """Share of the requests in flight on a failed instance that are asked again (without their KV cache)."""
    slow_share: Fraction = 0.0
    """Share of failures of single GPUs that leave the instance serving, but slower, until repair."""
    slow_factor: Annotated[float, Field(ge=1.0, le=20.0)] = 1.5
    """Step times of such a degraded instance, times."""


class Maintenance(Record):
    """Planned work: part of the fleet is out of service, batch after batch."""

    every_days: PositiveFloat
    """Days between the starts of two rounds."""
    first_day: NonNegative = 0.0
    """Day of the first round."""
    from_hour: Annotated[float, Field(ge=0, lt=24)] = 2.0
    """Hour of the day at which a round starts, scenario time."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the instances that are out at once."""
    hours: PositiveFloat = 2.0
    """Hours that a batch is out."""
    batches: PositiveInt = 1
    """Batches of a round, one after another."""


class Cooling(Record):
    """PUE by load and outside temperature::

        PUE = 1 + (pue - 1) * (fixed_share / load + 1 - fixed_share) * (1 + slope * max(0, outside - above))

    with `load` the IT power over the nameplate of the site's GPUs (at least `least_load`). At full load and below
    `above_c` it is the site's stated `pue`. The shape is a guess of ours; parameters default to operations.csv.
    """

    fixed_share: Fraction | None = None
    """Share of the overhead at full load that does not fall with load (operations.csv: cooling_fixed_share)."""
    slope_per_k: NonNegative | None = None
    """Growth of the overhead for each kelvin above `above_c` (operations.csv: cooling_slope)."""
    above_c: float = 18.0
    """Outside temperature up to which free cooling suffices, degrees Celsius."""
    outside_c: float = 15.0
    """Mean outside temperature."""
    daily_swing_c: NonNegative = 5.0
    """Half of the difference between 15:00 and 03:00, sinusoidal."""
    least_load: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Load below which the curve is not followed any further."""


class PowerCap(Record):
    """How a site keeps its power below what it is given."""

    mw: PositiveFloat | None = None
    """Cap on the facility's power, MW; without it only curtailment calls cap it."""
    by: Literal["frequency", "priority", "shed"] = "frequency"
    """`frequency`: all GPUs are clocked down alike, instances are switched off only at the lowest clock; `priority`:
    the least urgent service alone is clocked down, then switched off, before the next one is touched; `shed`:
    instances are switched off, least urgent first."""
    slowest: Annotated[float, Field(ge=1.0, le=4.0)] = 2.0
    """Step times at the lowest clock over those at the full one."""
    carbon_by_hour: tuple[NonNegative, ...] = ()
    """Carbon intensity of the 24 hours of the day relative to the yearly mean; empty: constant."""
    carbon_series: str | None = None
    """The same from a CSV file with columns t_s (seconds from the scenario's start) and gco2e_per_kwh, begun again at its
    end. Its shape counts; the mean level is `money.costs.carbon.intensity`."""

    @model_validator(mode="after")
    def _hours(self) -> "PowerCap":
        if self.carbon_by_hour and len(self.carbon_by_hour) != 24:
            raise ValueError(f"carbon_by_hour needs 24 numbers, found {len(self.carbon_by_hour)}")
        if self.carbon_by_hour and self.carbon_series:
            raise ValueError("give carbon_by_hour or carbon_series, not both")
        if self.carbon_by_hour and not any(self.carbon_by_hour):
            raise ValueError("carbon_by_hour: all 24 numbers are zero")
        return self
