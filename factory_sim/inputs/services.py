"""What a scenario says about a service: the promise, the serving systems of its stages, scheduling and admission."""

import itertools
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from factory_sim.inputs.generation import DiffusionSystem, OutputSlo, check_service, promise_kind, system_kind
from factory_sim.inputs.operations import Autoscaler, Overflow, Spot
from factory_sim.inputs.parallelism import parse_parallelism
from factory_sim.inputs.traffic import Traffic
from factory_sim.records import Name, NonNegative, Record


class Slo(Record):
    """What the service promises its users."""

    ttft_p95_s: PositiveFloat
    """Promised 95th percentile of the time to first token, seconds."""
    tpot_p95_s: PositiveFloat
    """Promised 95th percentile of the mean time per output token after the first, seconds."""


class Anchor(Record):
    """Published throughput that step times are held to (`factory-sim profiles anchors`)."""

    prefill: Name | None = None
    """Anchor of the prefill workers; their fitted step times when left out."""
    decode: Name | None = None
    """Anchor of the decode workers; their fitted step times when left out."""


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
    anchor: Anchor | None = None
    """Published throughput of each role that the fitted step times are scaled to; the system is then `estimated`."""
    uneven_ranks: bool = False
    """Play the ranks of data-parallel attention one by one: a step waits for the fullest, so that uneven lengths cost more than
    the even ones of the measured runs. Without, all lengths have the mean imbalance of those."""
    profiles: str | None = None
    """Folder of own profiles that `profiles import` or `profiles fit` wrote; the packaged ones when left out."""


AnySlo = Annotated[Annotated[Slo, Tag("tokens")] | Annotated[OutputSlo, Tag("outputs")], Discriminator(promise_kind)]
AnySystem = Annotated[
    Annotated[System, Tag("tokens")] | Annotated[DiffusionSystem, Tag("outputs")], Discriminator(system_kind)
]


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


class Instances(Record):
    """Instances of one serving system."""

    name: Name
    """Name used in tables, charts and as `stage_<name>` window."""
    system: AnySystem
    """The serving system that every instance runs: of a language model, or (engine: diffusion) of an image or video
    model."""
    gpus: PositiveInt
    """GPUs, a multiple of those of one instance. Or give `replicas` instead."""
    model: str | None = None
    """Model that is served here, where it is not the service's."""

    @model_validator(mode="before")
    @classmethod
    def _gpus_of_replicas(cls, raw: Any) -> Any:
        """Turn `replicas` (instances) into GPUs."""
        if not isinstance(raw, dict) or "replicas" not in raw:
            return raw
        raw = dict(raw)
        replicas, system = raw.pop("replicas"), raw.get("system") or {}
        if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1:
            raise ValueError(f"replicas: {replicas!r} is not a whole number of instances, 1 or more")
        told = raw.get("gpus")
        if system_kind(system) == "outputs":
            gpus = system.get("gpus", 1)
            raw["gpus"] = replicas * gpus if isinstance(gpus, int) else gpus
        elif isinstance(system.get("parallelism"), str):
            raw["gpus"] = replicas * parse_parallelism(system["parallelism"]).gpus
        if told not in (None, raw.get("gpus")):
            raise ValueError(f"replicas: {replicas} (of this system: {raw['gpus']} GPUs), but gpus: {told}; give one of the two")
        return raw


class Stage(Instances):
    """One state of the fleet of a service, from a day on."""

    from_day: NonNegative
    """Day from the scenario's start on which the change to this stage begins."""
    change: Change = Change()
    """How the change is made."""
    after_training: Name | None = None
    """Training job whose launch in this service this (last) stage waits for, from `from_day` on."""


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


class BatchJobs(Record):
    """Jobs that wait for idle capacity, first come first served, and are dropped when their deadline has passed."""

    requests_per_s: PositiveFloat
    """Jobs submitted a second, over the whole service, at any hour."""
    lengths: str | dict[str, Any] | None = None
    """Input and output lengths, as in `traffic.lengths`; the service's own when left out."""
    deadline_hours: PositiveFloat = 24.0
    """Hours from submission within which a job is answered, or dropped."""
    fill: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Requests at one instance up to which it takes jobs, over those it holds at its tested capacity, at most: a load test
    with users and jobs lowers it until the promise is kept (long jobs); less leaves more of the promise unused."""


class Admission(Record):
    """Who is let in while capacity is short."""

    limit: Literal["none", "load_test"] = "load_test"
    """`load_test`: users are held to the tokens a minute that a load test of the stage sustained within the promise; `none`: all are let in."""
    headroom: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Share of the tested capacity that is given out."""
    user_tokens_per_minute: PositiveFloat | None = None
    """Most input plus output tokens a minute for one user of `demand.users`, or one of `traffic.clients`; on top of the limit above."""
    user_requests_per_minute: PositiveFloat | None = None
    """Most requests a minute for one user of `demand.users`, or one of `traffic.clients`; the tighter limit holds."""


class Service(Record):
    """One model served to one public."""

    model: str
    """Model name as in the catalogue, e.g. DeepSeek-R1, or an image or video model, e.g. FLUX.1-dev."""
    slo: AnySlo
    """The promise: on tokens, or (`time_to_output_p95_s`) on finished images or videos."""
    traffic: Traffic
    """What arrives."""
    admission: Admission = Admission()
    """Limits while capacity is short."""
    batch: BatchJobs | None = None
    """Jobs with a deadline that fill what the service's users leave idle; none when left out."""
    prefix_cache: PrefixCache | None = None
    """Prefix caching for traffic that tells its prefixes (traces, common prompts); off when left out."""
    scheduling: Scheduling | None = None
    """Order of work, preemption, queue limits, time-outs and retries; chunked prefill without limits when left out."""
    context_window: Literal["refuse", "truncate"] = "truncate"
    """Drawn requests beyond the model's window: `truncate` cuts the prompt (then the answer) to fit, `refuse` turns the
    request away. A trace's are always turned away."""
    router: str = "least_outstanding"
    """Router over the instances of a stage, and those beside it: round_robin, random, least_outstanding, power_of_two,
    least_kv, session_affinity or prefix_aware; with `beside` also cost_aware (the cheapest system, by rent at its tested
    capacity, that has fewer requests than at that capacity)."""
    price_path: Literal["held", "follows_cost"] = "held"
    """`held`: list prices stay; `follows_cost`: they move with the cost of a token at each stage's tested capacity."""
    stages: list[Stage] = Field(min_length=1)
    """States of the fleet in order of time."""
    beside: list[Instances] = []
    """Instances of other systems (older GPUs, say) that serve from the first day to the last beside the stages, behind the
    same router."""
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

    @model_validator(mode="after")
    def _plays_hours(self) -> "Service":
        traffic = self.traffic
        finite = any(source is not None for source in (traffic.trace, traffic.chats, traffic.requests))
        if self.batch is not None and finite:
            raise ValueError("batch jobs fill the hours of a demand; a trace, chats or a number of requests have none to fill")
        if self.beside and finite:
            raise ValueError("beside: a trace, chats or a number of requests are played on one stage alone")
        if self.beside and self.batch is not None:
            raise ValueError("beside: batch jobs fill instances of one system; leave out one of `batch` and `beside`")
        if any(system_kind(each.system) != "tokens" for each in self.beside):
            raise ValueError("beside: is for systems of language models")
        names = [each.name for each in (*self.stages, *self.beside)]
        if len(set(names)) != len(names):
            raise ValueError("beside: a name stands twice among stages and beside")
        return self

    @model_validator(mode="after")
    def _tokens_or_outputs(self) -> "Service":
        check_service(self)
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
        for stage in stages[:-1] if len(stages) > 1 else stages:
            if stage.after_training:
                raise ValueError(f"stage {stage.name!r}: after_training is for the last of several stages")
        names = [stage.name for stage in stages]
        if len(set(names)) != len(names):
            raise ValueError("two stages have the same name")
        return stages
