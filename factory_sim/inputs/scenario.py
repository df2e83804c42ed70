"""The scenario schema: what the factory is. The attribute docstrings are the reference page; defaults live here only.

A scenario has no expressions and no conditions. Variations are named (``variants``) or given on the command line as
``path=value``; both are applied before validation, so every run folder holds one resolved scenario.
"""

import itertools
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from factory_sim.inputs import calendar_rules
from factory_sim.inputs.money import Money
from factory_sim.inputs.operations import (
    Autoscaler,
    Cooling,
    Event,
    Maintenance,
    Moment,
    Outages,
    Overflow,
    PowerCap,
    Spot,
    TrainingJob,
)
from factory_sim.inputs.parallelism import parse_parallelism
from factory_sim.records import Record
from factory_sim.units import DAY_S

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]



class Slo(Record):
    """What the service promises its users."""

    ttft_p95_s: PositiveFloat
    """Promised 95th percentile of the time to first token, seconds."""
    tpot_p95_s: PositiveFloat
    """Promised 95th percentile of the mean time per output token after the first, seconds."""


class System(Record):
    """A serving system by the facts that pick its measured profile; every instance of a stage is one such system."""

    gpu: Name
    """GPU, e.g. h200, b200, gb200 (`factory-sim profiles list`)."""
    engine: Name
    """Serving engine: trtllm, sglang or vllm."""
    precision: Name
    """Precision of weights and GEMMs: bf16, fp8, fp4 or int4."""
    parallelism: str
    """Short form as in the measured tables: `tp8pp1ep1dpaFr1`, or `P3x4-D4x8dep` for prefill and decode pools."""
    speculation: Literal["none", "mtp"] = "none"
    """Speculative decoding: none, or mtp (multi-token prediction)."""
    as_of: str | None = None
    """Date of the software (YYYY-MM-DD or YYYY-MM); the profile's newest when left out."""
    max_sequences: PositiveInt | None = None
    """Cap on the sequences that one worker runs at once; the profile's own when left out."""
    max_batched_tokens: PositiveInt | None = None
    """Token budget of one serving step; the profile's own when left out."""
    kv_cache_tokens: PositiveInt | None = None
    """KV cache of one worker, tokens; from memory less weights when left out."""
    profiles: str | None = None
    """Folder of own profiles that `profiles import` or `profiles fit` wrote; the packaged ones when left out."""


class Change(Record):
    """How a stage comes into being on the GPUs of the stage before it."""

    kind: Literal["initial", "restart", "replace"] = "restart"
    """`restart`: new software on the same GPUs; `replace`: other GPUs take their place; `initial`: there from the start."""
    duration_days: NonNegative = 0.5
    """Days over which the instances are changed, one batch after another."""
    downtime_minutes: NonNegative = 30.0
    """Minutes that the GPUs of a batch serve nobody: drain, load weights, warm up (and rack work when replaced)."""
    delay_days: NonNegative = 0.0
    """Mean delay of the hardware behind `from_day`, days, exponential, drawn once a replication."""


class Stage(Record):
    """One state of the fleet of a service, from a day on."""

    name: Name
    """Name of the stage, used in tables, charts and as `stage_<name>` window."""
    from_day: NonNegative
    """Day from the scenario's start on which the change to this stage begins."""
    system: System
    """The serving system that every instance runs."""
    gpus: PositiveInt
    """GPUs of the service in this stage; a multiple of the GPUs of one instance. Or give `replicas` instead."""
    change: Change = Change()
    """How the change is made."""

    @model_validator(mode="before")
    @classmethod
    def _gpus_of_replicas(cls, raw: Any) -> Any:
        """Turn `replicas` (instances) into GPUs."""
        if not isinstance(raw, dict) or "replicas" not in raw:
            return raw
        raw = dict(raw)
        replicas, parallelism = raw.pop("replicas"), (raw.get("system") or {}).get("parallelism")
        if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1:
            raise ValueError(f"replicas: {replicas!r} is not a whole number of instances, 1 or more")
        if isinstance(parallelism, str):
            raw["gpus"] = replicas * parse_parallelism(parallelism).gpus
        return raw


class Trace(Record):
    """Requests replayed from a file instead of drawn."""

    path: str
    """File with requests: Mooncake JSONL, agentic CSV, Azure CSV, or a user's own log (formats are recognised)."""
    time_scale: PositiveFloat = 1.0
    """Times between arrivals are multiplied by this; 0.5 plays twice as fast."""
    pacing: Literal["trace", "one_at_a_time"] = "trace"
    """`trace`: at the trace's own times, turns of a session after the answer and the think time before them;
    `one_at_a_time`: each request when the one before has left."""
    sessions_per_s: PositiveFloat = 0.02
    """Poisson rate at which sessions start where the file does not tell their starts (agentic traces)."""
    first: PositiveInt | None = None
    """Only this many requests of the file."""


class PrefixCache(Record):
    """Prompt blocks kept in KV memory for later requests with the same prefix, least recently used out first."""

    block_tokens: PositiveInt = 512
    """Tokens of a block where the traffic does not say (Mooncake hashes stand for 512)."""
    host_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens of a second tier (host memory or SSD) of each worker; 0: none."""
    host_s_per_token: NonNegative = 0.0
    """Seconds to load one token's KV from the second tier."""


class Scheduling(Record):
    """How workers order their work, and what they do when they cannot keep up."""

    order: Literal["chunked_prefill", "prefill_first"] = "chunked_prefill"
    """`chunked_prefill`: prompts share steps with decoding (vLLM v1); `prefill_first`: prompts have steps of their own
    while decoding waits (SGLang's default)."""
    preemption: Literal["recompute", "swap"] = "recompute"
    """What happens to the KV of a sequence that must give way: computed again, or copied to host memory and back."""
    swap_s_per_token: PositiveFloat = 3e-6
    """Seconds to copy one token's KV to host memory, and again back, with `swap` (a guess: 160 kB at 55 GB/s of PCIe 5)."""
    queue_limit: NonNegativeInt = 0
    """Waiting requests at one instance beyond which it turns new ones away; 0: no limit."""
    timeout_s: PositiveFloat | None = None
    """Seconds after which a request that was never scheduled gives up; none when left out."""
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    """How often a client whose request was turned away, timed out or lost tries again."""
    retry_after_s: PositiveFloat = 1.0
    """Wait before the first retry, seconds."""
    retry_backoff: Annotated[float, Field(ge=1.0, le=100.0)] = 2.0
    """Factor of that wait from one retry to the next."""
    signal_age_s: NonNegative = 0.0
    """The router sees the loads as they were at the last multiple of this time, seconds; 0: as they are."""


class Cancelled(Record):
    """Requests whose client goes away before the answer is finished."""

    share: Fraction
    """Share of the requests whose client may go away."""
    after_s: PositiveFloat
    """Mean time from arrival until it does, seconds, exponential; who is answered earlier is not cancelled."""


class Growth(Record):
    """Demand over time, as a multiple of the starting level."""

    kind: Literal["none", "exponential", "logistic", "launch"] = "none"
    """Shape of the growth; `launch`: nobody before `launch_day`, then adoption up to the level."""
    per_week: float = Field(default=0.0, gt=-1.0)
    """Exponential: growth a week (0.1 = +10 %). Logistic: initial growth a week."""
    ceiling: PositiveFloat = 10.0
    """Logistic: final level as a multiple of the start."""
    launch_day: NonNegative = 0.0
    """Launch: day on which the service opens."""
    adoption_days: PositiveFloat = 28.0
    """Launch: days from 10 to 90 % of the level, logistic (demand.csv: a new model stabilises within 2 to 6 weeks)."""
    seasonal: Fraction = 0.0
    """Amplitude of a yearly swing around the growth."""
    seasonal_peak_day: float = 0.0
    """Day, from the start, on which the swing is highest."""


class Churn(Record):
    """Users leave a service that keeps them waiting, and come back when it is better."""

    per_day: NonNegative = 0.05
    """Share of the users lost a day while no request is answered within the promise; in proportion below (a guess)."""
    tolerated: Fraction = 0.05
    """Share of requests outside the promise, or turned away, that nobody minds."""
    return_per_day: NonNegative = 0.01
    """Share of the lost users that come back a day while the promise is kept (a guess)."""


class Segment(Record):
    """Customers of a service that differ in what they want; the rest of the service's demand has no segment."""

    share: Fraction
    """Share of the demand at the start."""
    rhythm: str | dict[str, Any] | None = None
    """Daily and weekly shape; the service's own when left out."""
    growth: Growth = Growth()
    """Growth on top of the service's own."""
    price_elasticity: float | None = Field(default=None, le=0.0, ge=-10.0)
    """Elasticity to the price; the service's own when left out."""
    willing_usd_per_million: PositiveFloat | None = None
    """Median price that these customers pay at most, USD per million output tokens; they stay away above it."""
    willing_sigma: PositiveFloat = 0.8
    """Spread of that price over the customers: standard deviation of its log (a guess)."""


class Demand(Record):
    """Latent demand of a service: what users would ask for if nothing held them."""

    requests_per_s: PositiveFloat | None = None
    """Mean latent demand at the start, requests a second over the whole factory."""
    first_stage_capacity_multiple: PositiveFloat | None = None
    """The same as a multiple of what the first stage can serve within the promise (25: twenty-four times more waits)."""
    load: Annotated[float, Field(gt=0.0, le=2.0)] | None = None
    """The same as a fraction of the capacity of the fleet within its promise, kept at every stage."""
    rhythm: str | dict[str, Any] = "flat"
    """Daily and weekly shape: `flat`, a measured workload, or `{named: WORKLOAD, days: WORKLOAD, shift_h: 0}`."""
    growth: Growth = Growth()
    """Growth over the weeks."""
    growth_sigma_per_week: NonNegative = 0.0
    """Forecast error: standard deviation of the log of demand after one week, drawn once a replication."""
    users: PositiveInt = 100_000
    """Users behind the demand; a tokens-per-minute limit is stated per user."""
    patience_hours: NonNegative = 6.0
    """Mean time that unserved demand waits behind the limit before it is lost; 0: nobody waits."""
    price_elasticity: float = Field(default=0.0, le=0.0, ge=-10.0)
    """Constant elasticity of demand to the price relative to the first day's; 0: demand does not see the price."""
    series: str | None = None
    """Measured rate series instead of a rhythm (`servegen_m-large`, or a CSV file with columns t_s, requests_per_s);
    scaled so that its mean is the level; repeated when it is shorter than the scenario."""
    segments: dict[Name, Segment] = {}
    """Customer segments by name; their shares add up to at most 1."""
    churn: Churn | None = None
    """Answer to bad latency; without, users do not mind."""
    multihoming: Fraction = 0.0
    """Share of the demand that goes to another provider at once when it is not let in, instead of waiting."""

    @model_validator(mode="after")
    def _shares(self) -> "Demand":
        total = sum(segment.share for segment in self.segments.values())
        if total > 1 + 1e-9:
            raise ValueError(f"the shares of the segments add up to {total:g}, more than 1")
        return self

    @model_validator(mode="after")
    def _one_level(self) -> "Demand":
        given = [self.requests_per_s, self.first_stage_capacity_multiple, self.load]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of requests_per_s, first_stage_capacity_multiple, load")
        return self


class Traffic(Record):
    """What arrives at a service."""

    lengths: str | dict[str, Any] = "servegen_deepseek-r1"
    """Input and output lengths: a measured workload, or `{uniform: {isl: 1024, osl: 1024, low_fraction: 0.8}}`, `{fixed: {isl: .., osl: ..}}`."""
    arrivals: str | dict[str, Any] = "poisson"
    """Burstiness of arrivals: `poisson`, a measured trace (`azure2023_conv`), `{gamma: {cv: 2}}` or
    `{dispersion: {1: 1.4, 60: 16}, rate_per_s: 5.5}` (variance over mean of counts, by window in seconds)."""
    demand: Demand | None = None
    """Level, rhythm and growth of demand; needed unless a trace is replayed."""
    trace: Trace | None = None
    """Requests replayed from a file."""
    requests: PositiveInt | None = None
    """Exactly this many requests are played, unthinned, and the run ends drained."""
    reasoning: str | dict[str, Any] | None = None
    """Hidden reasoning before the answer: an effort level (none, low, medium, high, test_time_scaling), or
    `{factor: 10, max_output_tokens: 65536}` times the measured reasoning tokens. Lengths include measured reasoning;
    left out, they are played as they are and none of it is told apart."""
    class_shares: list[Fraction] = Field(default=[], max_length=16)
    """Priority classes within the service: share of the requests in each, most urgent first, adding up to 1."""
    cancelled: Cancelled | None = None
    """Clients that go away; none when left out."""
    common_prompts: dict[str, Any] | None = None
    """Common system prompts `{share: 0.8, groups: 20, tokens: 2000, skew: 1}`: share of the requests that begin with
    one, their number, tokens and the Zipf exponent of their popularity. Needs the service's `prefix_cache`."""

    @model_validator(mode="after")
    def _one_source(self) -> "Traffic":
        if (self.demand is None) == (self.trace is None):
            raise ValueError("give either demand or trace")
        return self

    @model_validator(mode="after")
    def _drawn_only(self) -> "Traffic":
        given = [name for name in ("reasoning", "class_shares", "cancelled", "common_prompts") if getattr(self, name)]
        if self.trace is not None and given:
            raise ValueError(f"{given[0]} is for drawn requests; a trace's requests are played as they are")
        if self.class_shares and abs(sum(self.class_shares) - 1.0) > 1e-6:
            raise ValueError(f"class_shares add up to {sum(self.class_shares):g}, not 1")
        return self


class Admission(Record):
    """Who is let in while capacity is short."""

    limit: Literal["none", "load_test"] = "load_test"
    """`load_test`: users are held to the tokens a minute that a load test of the stage sustained within the promise; `none`: all are let in."""
    headroom: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Share of the tested capacity that is given out."""
    user_tokens_per_minute: PositiveFloat | None = None
    """Most input plus output tokens a minute for one user of `demand.users`; on top of the limit above."""
    user_requests_per_minute: PositiveFloat | None = None
    """Most requests a minute for one user of `demand.users`; the tighter limit holds."""


class Service(Record):
    """One model served to one public."""

    model: str
    """Model name as in the catalogue, e.g. DeepSeek-R1."""
    slo: Slo
    """The promise."""
    traffic: Traffic
    """What arrives."""
    admission: Admission = Admission()
    """Limits while capacity is short."""
    prefix_cache: PrefixCache | None = None
    """Prefix caching for traffic that tells its prefixes (traces, common prompts); off when left out."""
    scheduling: Scheduling | None = None
    """Order of work, preemption, queue limits, time-outs and retries; chunked prefill without limits when left out."""
    context_window: Literal["refuse", "truncate"] = "truncate"
    """Drawn requests beyond the model's window: `truncate` cuts the prompt (then the answer) to fit, `refuse` turns the
    request away. A trace's are always turned away."""
    router: str = "least_outstanding"
    """Router over the instances of a stage: round_robin, random, least_outstanding, power_of_two, least_kv,
    session_affinity or prefix_aware."""
    price_path: Literal["held", "follows_cost"] = "held"
    """`held`: list prices stay; `follows_cost`: they move with the cost of a token at each stage's tested capacity."""
    stages: list[Stage] = Field(min_length=1)
    """States of the fleet in order of time."""
    site: Name = "main"
    """Site at which it runs."""
    priority: NonNegativeInt = 0
    """Urgency when power is short: 0 is cut last."""
    autoscaler: Autoscaler | None = None
    """How many instances serve; all that are installed when left out."""
    spot: Spot | None = None
    """Capacity beside the fleet that can be withdrawn."""
    spare_gpus: NonNegativeInt = 0
    """GPUs beside the fleet that stand ready to take the place of broken ones; paid for."""
    overflow: Overflow | None = None
    """Another service that gets what this one cannot let in."""

    @model_validator(mode="after")
    def _cache_for_prompts(self) -> "Service":
        if self.traffic.common_prompts is not None and self.prefix_cache is None:
            raise ValueError("traffic.common_prompts needs prefix_cache, e.g. prefix_cache: {block_tokens: 64}")
        return self

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: list[Stage]) -> list[Stage]:
        for earlier, later in itertools.pairwise(stages):
            if later.from_day <= earlier.from_day:
                raise ValueError(
                    f"stage {later.name!r} starts on day {later.from_day:g}, not after {earlier.name!r} on day {earlier.from_day:g}"
                )
            if earlier.from_day + earlier.change.duration_days > later.from_day:
                raise ValueError(
                    f"stage {later.name!r} starts before the change to {earlier.name!r} is finished (day {earlier.from_day + earlier.change.duration_days:g})"
                )
        if stages[0].from_day != 0:
            raise ValueError(f"the first stage must start on day 0, not {stages[0].from_day:g}")
        names = [stage.name for stage in stages]
        if len(set(names)) != len(names):
            raise ValueError("two stages have the same name")
        return stages


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
