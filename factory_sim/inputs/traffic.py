"""What a scenario says about the traffic of a service: demand over time, lengths and arrivals, or a trace."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from factory_sim.records import Fraction, Name, NonNegative, Record


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
    requests_per_s: PositiveFloat | None = None
    """Poisson rate at which requests arrive, in the order of the file, where it tells no times (data sets of benchmarks)."""
    first: PositiveInt | None = None
    """Only this many requests of the file."""
    scale: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """So many times the traffic over the same span; what stays is named by `scale_keeps`."""
    scale_keeps: Literal["dispersion", "swings", "gaps"] = "dispersion"
    """`dispersion`: more or fewer independent customers (copies turned round the span; whole customers left out), the
    index of dispersion of counts stays; `swings`: the same crowd, larger or smaller, its relative swings stay; `gaps`:
    the same requests in a shorter or longer time."""
    spread_ticks: bool = True
    """Where all times lie on a coarse grid (Mooncake: 3 s), requests arrive anywhere in the step after their tick, in
    the order of the file; the bursts at the ticks are the clock's, not the users'."""


class Chats(Record):
    """Conversations made instead of read: every turn sends all that was said before, and comes after the answer to the
    one before it and a pause."""

    sessions: PositiveInt
    """Conversations; all are played to their end."""
    sessions_per_s: PositiveFloat
    """Poisson rate at which they start."""
    like: Literal["agentic_claude_code"] | None = None
    """Turns, first prompts, growth by turn, answers and pauses resampled from this measured trace; instead of the
    lengths, turns and pauses below."""
    lengths: str | dict[str, Any] | None = None
    """New tokens of the user and tokens of the answer in each turn, as `traffic.lengths`."""
    mean_turns: Annotated[float, Field(ge=1.0)] | None = None
    """Mean number of turns, geometric."""
    think_median_s: PositiveFloat | None = None
    """Median pause between an answer and the next turn, seconds, log-normal; TraceLab's published 86 s when left out."""
    think_p90_s: PositiveFloat | None = None
    """90th percentile of that pause, seconds; in TraceLab's proportion to the median when left out."""
    system_tokens: NonNegativeInt = 0
    """System prompt that all conversations begin with, tokens."""
    max_context_tokens: NonNegativeInt = 0
    """A conversation ends before a prompt and its answer would exceed this; 0: no limit but the model's window, beyond
    which turns are turned away."""

    @model_validator(mode="after")
    def _measured_or_described(self) -> "Chats":
        described = [k for k in ("lengths", "mean_turns", "think_median_s", "think_p90_s") if getattr(self, k) is not None]
        if self.like is not None and described:
            raise ValueError(f"like brings its own {described[0]}; give either like, or lengths and mean_turns")
        if self.like is None and (self.lengths is None or self.mean_turns is None):
            raise ValueError("give either like, or lengths and mean_turns")
        return self


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
    """Measured rate series instead of a rhythm (`servegen_m-large`, or a table with columns such as t_s, requests_per_s);
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
    """Input and output lengths: a measured workload, or `{uniform: {isl: 1024, osl: 1024, low_fraction: 0.8}}`, `{fixed: {isl: .., osl: ..}}`,
    `{stretched: {lengths: WORKLOAD, mean_isl: .., mean_osl: ..}}` (a measured shape with other means)."""
    arrivals: str | dict[str, Any] = "poisson"
    """Burstiness of arrivals: `poisson`, a measured trace (`azure2023_conv`), `{gamma: {cv: 2}}` or
    `{dispersion: {1: 1.4, 60: 16}, rate_per_s: 5.5}` (variance over mean of counts, by window in seconds)."""
    demand: Demand | None = None
    """Level, rhythm and growth of demand; needed unless a trace or chats are played."""
    trace: Trace | None = None
    """Requests replayed from a file."""
    chats: Chats | None = None
    """Generated conversations, played as a trace would be; the hit rate of the prefix cache is a result."""
    requests: PositiveInt | None = None
    """Exactly this many requests are played, unthinned, and the run ends drained."""
    reasoning: str | dict[str, Any] | None = None
    """Hidden reasoning before the answer: an effort level (none, low, medium, high, test_time_scaling), or
    `{factor: 10, max_output_tokens: 65536}` times the measured reasoning tokens. Lengths include measured reasoning;
    left out, they are played as they are and none of it is told apart."""
    reading_tokens_per_s: PositiveFloat | None = None
    """Speed at which users read answers as they stream, tokens a second (250 words a minute: about 5.5); how long tokens
    wait for readers, and readers for tokens, are then figures."""
    class_shares: list[Fraction] = Field(default=[], max_length=16)
    """Priority classes within the service: share of the requests in each, most urgent first, adding up to 1."""
    clients: str | dict[str, Any] | None = None
    """Customers, of whom a few make most of the requests: a ServeGen workload with its published shares, or
    `{count: 500, skew: 1.1}` (Zipf). `admission.user_*_per_minute` then holds for each of them, and session_affinity
    keeps each at one instance (only where nothing is thinned)."""
    cancelled: Cancelled | None = None
    """Clients that go away; none when left out."""
    common_prompts: dict[str, Any] | None = None
    """Common system prompts `{share: 0.8, groups: 20, tokens: 2000, skew: 1}`: share of the requests that begin with
    one, their number, tokens and the Zipf exponent of their popularity. Needs the service's `prefix_cache`."""

    @model_validator(mode="after")
    def _one_source(self) -> "Traffic":
        if sum(source is not None for source in (self.demand, self.trace, self.chats)) != 1:
            raise ValueError("give exactly one of demand, trace, chats")
        return self

    @model_validator(mode="after")
    def _drawn_only(self) -> "Traffic":
        given = [name for name in ("reasoning", "class_shares", "cancelled", "common_prompts", "clients") if getattr(self, name)]
        if self.demand is None and given:
            raise ValueError(f"{given[0]} is for drawn requests; those of a trace or of chats are played as they are")
        if self.class_shares and abs(sum(self.class_shares) - 1.0) > 1e-6:
            raise ValueError(f"class_shares add up to {sum(self.class_shares):g}, not 1")
        return self
