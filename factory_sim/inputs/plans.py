"""Price plans: what a service sells its tokens, images or videos at, to whom, and under which promises.

Only records; the ledger reads them. All prices name their currency; taxes are left out everywhere.
"""

from datetime import date
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from factory_sim.inputs.prices import CURRENCY
from factory_sim.records import Fraction, Record


class LongContext(Record):
    """Prices of requests whose prompt is longer than a threshold."""

    above_tokens: PositiveFloat
    """Prompt length above which the whole request is charged so, tokens."""
    input_multiplier: NonNegativeFloat = 2.0
    """Times the input price."""
    output_multiplier: NonNegativeFloat = 1.5
    """Times the output price."""
    share_of_input: Fraction | None = None
    """Part of input tokens in such requests; that of the requests played when left out."""
    share_of_output: Fraction | None = None
    """Part of output tokens in such requests; likewise."""


class ServiceTier(Record):
    """A class of traffic with a price of its own: batch, flex, priority."""

    name: str
    """batch, flex, priority, or any other."""
    multiplier: NonNegativeFloat
    """Times the standard price."""
    share: Fraction
    """Part of the service's tokens sold in this tier."""


class VolumeTier(Record):
    """A graduated discount: tokens of a month above a threshold."""

    above_tokens: PositiveFloat
    """Tokens of the month (input plus output, one customer) above which it applies."""
    multiplier: NonNegativeFloat
    """Times the standard price."""


class Subscription(Record):
    """A monthly fee that contains an allowance of tokens, shared between input and output."""

    fee_usd_per_month: NonNegativeFloat
    """Fee of one subscriber."""
    allowance_tokens_per_month: NonNegativeFloat
    """Tokens of a month contained in one fee, input and output together."""
    subscribers: NonNegativeFloat = 1.0
    """Paying subscribers of the service (or of one customer, where usage is by customer)."""
    overage: Literal["bill", "block"] = "bill"
    """Beyond the allowance: ``bill`` at the token prices, or ``block`` (nothing is billed). The
    run serves it all the same; ``admission.user_tokens_per_minute`` holds users back while it is played."""


class Commitment(Record):
    """A promise to spend, against a lower price."""

    usd_per_month: PositiveFloat
    """Spending promised; the shortfall is billed."""
    discount: Fraction = 0.0
    """Taken off all token prices."""


class CreditTier(Record):
    """Credit on a month's bill when a promise is missed by so much."""

    below: Fraction
    """Applies when the month's figure (availability, or share of requests within the promise) is below this."""
    credit: Fraction
    """Part of the month's bill given back."""


class LatencyPromise(Record):
    """A limit that a share of a month's requests must keep, such as 99 % above 50 tokens/s."""

    metric: Literal["ttft", "tpot", "e2e", "time_to_output"] = "tpot"
    """Time to first token, mean time per later token of a request, or the whole request; `time_to_output` of images and
    videos."""
    within_s: PositiveFloat | None = None
    """The limit, seconds."""
    tokens_per_s: PositiveFloat | None = None
    """The limit as output tokens a second of one request (tpot only): 50 means 0.02 s a token."""
    credits: tuple[CreditTier, ...] = Field(min_length=1)
    """Credits by the share of requests within the limit."""

    @model_validator(mode="after")
    def _one_limit(self):
        if (self.within_s is None) == (self.tokens_per_s is None):
            raise ValueError("give within_s or tokens_per_s, one of the two")
        if self.tokens_per_s is not None and self.metric != "tpot":
            raise ValueError(f"tokens_per_s goes with metric tpot; give within_s for {self.metric}")
        return self

    @property
    def limit_s(self) -> float:
        """The limit, seconds."""
        return self.within_s if self.within_s is not None else 1 / self.tokens_per_s


class Sla(Record):
    """Credits of a month: availability, latency, and requests served. The largest of those due applies."""

    availability: tuple[CreditTier, ...] = ()
    """Against the part of replica time that was up."""
    within_promise: tuple[CreditTier, ...] = ()
    """Against requests_within_slo / requests_completed."""
    latency: tuple[LatencyPromise, ...] = ()
    """Against the share of requests within limits of their own, whatever the service's promise; from the latency
    histograms of the run, so that they can be repriced."""
    served: tuple[CreditTier, ...] = ()
    """Against requests completed / (completed + turned away + lost)."""


class Plan(Record):
    """What one service sells its tokens, images or videos at."""

    input_usd_per_million: NonNegativeFloat | None = None
    """Price of a million input tokens, in ``currency``."""
    output_usd_per_million: NonNegativeFloat | None = None
    """Price of a million output tokens."""
    cached_input_usd_per_million: NonNegativeFloat | None = None
    """Price of a million cached input tokens; without one, the input price."""
    reasoning_usd_per_million: NonNegativeFloat | None = None
    """Price of a million reasoning tokens; without one, the output price."""
    request_usd: NonNegativeFloat = 0.0
    """Price of one completed request."""
    image_usd: NonNegativeFloat | None = None
    """Price of one generated image."""
    video_usd: NonNegativeFloat | None = None
    """Price of one generated video, however long."""
    video_second_usd: NonNegativeFloat | None = None
    """Price of a second of generated video, as it plays."""
    list_price: str | None = None
    """A provider's published prices instead: ``model@provider``, such as ``openai/gpt-oss-120b@groq``."""
    as_of: date | None = None
    """Day of the list price; also the date of the stated prices."""
    processing: Literal["standard", "batch", "flex", "priority"] = "standard"
    """Processing class of the list price."""
    currency: Annotated[str, Field(pattern=CURRENCY)] = "USD"
    """Currency of the prices, such as EUR; another than USD needs a rate in ``money.rates``."""
    source: str = ""
    """Where the prices come from. Prices without a source, or with one that begins with ``guess``, count as assumptions."""
    low: PositiveFloat | None = None
    """P10 of the price level, as a multiplier (0.8)."""
    high: PositiveFloat | None = None
    """P90 of the price level, as a multiplier (1.1)."""
    valid_from: date | None = None
    """First day, where a service has several plans in time."""
    valid_until: date | None = None
    """Day on which the next takes over (not included)."""
    long_context: LongContext | None = None
    """Dearer long prompts; with a list price the provider's thresholds and prices hold and only stated shares count."""
    tiers: tuple[ServiceTier, ...] = ()
    """Traffic classes; the rest of the tokens is standard."""
    batch_multiplier: NonNegativeFloat = 0.5
    """Times the standard price for tokens of the service's batch jobs (half at OpenAI, Anthropic and Google); with a list
    price the provider's own batch prices where it has them."""
    volume: tuple[VolumeTier, ...] = ()
    """Graduated discounts by month and customer."""
    free_tokens_per_month: NonNegativeFloat = 0.0
    """Tokens of a month (input plus output, one customer) that cost nothing."""
    subscription: Subscription | None = None
    minimum_usd_per_month: NonNegativeFloat = 0.0
    """Least bill of a month and customer."""
    commitment: Commitment | None = None
    sla: Sla = Sla()

    @model_validator(mode="after")
    def _billable(self):
        own = self.input_usd_per_million is not None or self.output_usd_per_million is not None
        if own and self.list_price:
            raise ValueError("give either token prices or list_price, not both")
        if self.list_price and "@" not in self.list_price:
            raise ValueError(f"list_price '{self.list_price}' is not model@provider, such as openai/gpt-oss-120b@groq")
        if self.list_price and self.as_of is None:
            raise ValueError("list_price needs as_of: the day whose prices are meant")
        if self.list_price and self.output_prices:
            raise ValueError("a list_price is of tokens; give either it or prices of images and videos")
        other = self.output_prices or self.request_usd or self.minimum_usd_per_month or self.commitment or self.subscription
        if not (own or self.list_price or other):
            raise ValueError("nothing in this plan can be billed; give token prices, a list_price, a price of images or videos, or a subscription")
        if self.subscription and self.subscription.subscribers == 0 and not (own or self.list_price):
            raise ValueError("a subscription without subscribers and without token prices can never be billed")
        if not self.list_price and not self._earns():
            raise ValueError(
                "every price of this plan is 0, so it can never be billed; leave a free service without plan"
            )
        if sum(tier.share for tier in self.tiers) > 1 + 1e-12:
            raise ValueError("the shares of the tiers add up to more than 1")
        if self.valid_from and self.valid_until and self.valid_until <= self.valid_from:
            raise ValueError(f"valid_until {self.valid_until} is not after valid_from {self.valid_from}")
        if [t.above_tokens for t in self.volume] != sorted({t.above_tokens for t in self.volume}):
            raise ValueError("volume tiers must rise")
        return self

    @property
    def output_prices(self) -> dict[str, float]:
        """Stated prices of images, videos and seconds of video, by their line in the books."""
        stated = {"images": self.image_usd, "videos": self.video_usd, "video_seconds": self.video_second_usd}
        return {line: price for line, price in stated.items() if price is not None}

    def _earns(self) -> bool:
        """Whether any stated price is above zero."""
        prices = [
            self.input_usd_per_million, self.cached_input_usd_per_million, self.output_usd_per_million,
            self.reasoning_usd_per_million, self.request_usd, self.minimum_usd_per_month, *self.output_prices.values(),
        ]  # fmt: skip
        fee = self.subscription.fee_usd_per_month * self.subscription.subscribers if self.subscription else 0
        return any(prices) or bool(fee) or self.commitment is not None


class CustomerGroup(Record):
    """Customers of a service that share a plan, each billed on its own."""

    name: str
    """Name of the group; its customers are name-1, name-2, ..."""
    service: str
    """Service that they use."""
    plan: str = ""
    """Plan that they are billed by (a key of ``plans``); the service's own plan without one."""
    count: PositiveInt = 1
    """Customers in the group."""
    share: Fraction
    """Part of the service's usage that is theirs."""
    concentration: NonNegativeFloat = 0.0
    """How uneven they are: usage of the n-th customer falls as n to the power of minus this (0: all alike)."""


def plans_in_time(plans: dict[str, Plan | tuple[Plan, ...]], key: str) -> tuple[Plan, ...]:
    """The plans under a key, one after another; ValueError for a gap or an overlap between them."""
    found = plans[key] if isinstance(plans[key], tuple) else (plans[key],)
    if len(found) == 1:
        return found
    if not found or any(plan.valid_from is None for plan in found):
        raise ValueError(f"plans.{key}: each of several plans needs valid_from")
    ordered = tuple(sorted(found, key=lambda plan: plan.valid_from))
    for earlier, later in pairwise(ordered):
        until = earlier.valid_until
        if earlier.valid_from == later.valid_from or (until and until > later.valid_from):
            raise ValueError(f"plans.{key}: two plans are valid on {later.valid_from}")
        if until and until < later.valid_from:
            raise ValueError(f"plans.{key}: no plan is valid between {until} and {later.valid_from}")
    return ordered
