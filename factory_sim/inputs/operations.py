"""What a scenario says about running a factory: scaling, spares, failures, power, and the events of its calendar.

Only records. Figures that nobody publishes default to a row of `data/operations/` (`inputs/reliability.py`).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from factory_sim.records import Record
from factory_sim.units import DAY_S

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Weekday = Annotated[int, Field(ge=0, le=6)]


def with_offset(moment: datetime) -> datetime:
    """The moment, if it names its UTC offset; time zones and daylight saving are not known inside."""
    if moment.tzinfo is None:
        raise ValueError("needs a UTC offset, e.g. 2026-07-06T00:00:00+00:00")
    return moment


Moment = Annotated[datetime, AfterValidator(with_offset)]


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
    """Network time to the other service, seconds. Not in any figure so far: times to first token leave it out."""


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
    the same, service by service, the least urgent first; `shed`: instances are switched off, least urgent first."""
    slowest: Annotated[float, Field(ge=1.0, le=4.0)] = 2.0
    """Step times at the lowest clock over those at the full one."""
    carbon_by_hour: tuple[NonNegative, ...] = ()
    """Carbon intensity of the 24 hours of the day relative to the yearly mean; empty: constant."""

    @model_validator(mode="after")
    def _hours(self) -> "PowerCap":
        if self.carbon_by_hour and len(self.carbon_by_hour) != 24:
            raise ValueError(f"carbon_by_hour needs 24 numbers, found {len(self.carbon_by_hour)}")
        return self


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
    """Rolled back if the median TPOT of the trial exceeds the others' times this, at the same relative load."""


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


class Rollouts(Record):
    """Answers that a reinforcement-learning step generates, played on the serving engine."""

    system: dict[str, Any]
    """Serving system of one roll-out instance, as in a stage."""
    lengths: str | dict[str, Any] = "servegen_deepseek-r1"
    """Prompt and answer lengths."""
    requests: PositiveInt
    """Answers generated in one step, over all GPUs of the job."""


class Launch(Record):
    """What a finished training job changes in a service: the better model enters."""

    service: Name
    """Service that gets the model."""
    after_days: NonNegative = 0.0
    """Days between the end of training and the launch: evaluation, red teaming."""
    demand_multiplier: PositiveFloat = 1.0
    """Times the demand, once adopted."""
    adoption_days: NonNegative = 14.0
    """Days of adoption, linear (demand.csv: stabilises within weeks)."""
    price_multiplier: PositiveFloat = 1.0
    """Times the list prices from the launch on."""


class TrainingJob(Record):
    """One training run on GPUs of its own, or on those that a service lends it."""

    gpu: Name
    """GPU, e.g. h100."""
    gpus: NonNegativeInt = 0
    """GPUs of its own; 0: only lent ones."""
    site: Name = "main"
    """Site."""
    kind: Literal["pretraining", "fine_tuning", "reinforcement"] = "pretraining"
    """What it is; reinforcement needs `rollouts`."""
    model: str | None = None
    """Model of the catalogue that is trained; its active parameters count."""
    params_active: PositiveFloat | None = None
    """Parameters used per token, where the model is not in the catalogue."""
    tokens: PositiveFloat | None = None
    """Tokens to train on; without: the compute-optimal number for the parameters."""
    over_trained: PositiveFloat = 1.0
    """Times the compute-optimal tokens (with `tokens` left out)."""
    steps: PositiveInt | None = None
    """Reinforcement: steps."""
    mfu: str | Annotated[float, Field(gt=0, le=1)] = "Llama 3.1-405B"
    """Model FLOPs utilisation: a measured run of `tokenization.csv`, or a number."""
    precision: Literal["bf16", "fp8"] = "bf16"
    """Precision of the matrix products; MFU is relative to its peak."""
    from_day: NonNegative = 0.0
    """Day on which it starts."""
    checkpoint_minutes: PositiveFloat | None = None
    """Time between check-points; without: the optimum of Young (1974) from write time and failures."""
    checkpoint_s: NonNegative | None = None
    """Time to write one while training waits, seconds (operations.csv: checkpoint_write)."""
    restart_s: NonNegative | None = None
    """From an interruption, or a change of size, to the next step, seconds (operations.csv: training_restart)."""
    pause_when_curtailed: bool = True
    """Whether it stands still while a curtailment call holds at its site."""
    rollouts: Rollouts | None = None
    """Answers generated in each step of reinforcement learning."""
    launch: Launch | None = None
    """What happens when it is finished."""

    @model_validator(mode="after")
    def _whole(self) -> "TrainingJob":
        if (self.model is None) == (self.params_active is None):
            raise ValueError("give exactly one of model and params_active")
        if (self.kind == "reinforcement") != (self.rollouts is not None and self.steps is not None):
            raise ValueError("reinforcement goes together with rollouts and steps")
        return self
