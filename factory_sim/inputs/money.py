"""What a scenario says about money: how capacity is paid for, and all its terms together (plans: ``plans.py``).

Only records; the ledger reads them. All prices name their currency; taxes are left out everywhere.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Tag,
    field_validator,
    model_validator,
)

from factory_sim.errors import PriceError, closest
from factory_sim.inputs.plans import CustomerGroup, Fraction, Plan, plans_in_time
from factory_sim.inputs.prices import CURRENCY, ExchangeRate, PriceRef, Quote, price_path
from factory_sim.records import Record

RentBasis = Literal[
    "rental", "hyperscaler_own", "neocloud_own", "on_demand", "reserved_1yr", "reserved_3yr", "spot", "contract_1yr",
    "operator",
]  # fmt: skip


class Rent(Record):
    """Pay by the GPU-hour. The rate contains power, cooling, host and network, so energy is a memo line."""

    kind: Literal["rent"] = "rent"
    basis: RentBasis = "rental"
    """Which published rate: ``rental`` (market rent; 3-year contract in the vintages of 2026-04 and 2026-06),
    ``hyperscaler_own`` or ``neocloud_own`` (published all-in cost of ownership per GPU-hour, 4-year life),
    ``on_demand``, ``reserved_1yr``, ``reserved_3yr`` (list prices), ``spot`` and ``contract_1yr`` (market indices),
    ``operator`` (what an operator assumed)."""
    vintage: Annotated[str, BeforeValidator(lambda given: str(given) if isinstance(given, int) else given)] = "2026-07"
    """Vintage of the table: 2026-04, 2026-06, 2026-07, or a year or date that the basis holds; never mixed."""
    prices: dict[str, tuple[Quote, ...]] = Field(default_factory=dict)
    """Own prices by GPU, USD/GPU-h or another currency; several dated ones are a path without gap or overlap."""
    upfront: Fraction = 0.0
    """Part of the whole term's rent that is paid on the first day (cash flow only, the cost is spread)."""
    term_years: NonNegativeFloat = 0.0
    """Length of the commitment, years; 0 means none. GPUs that leave before its end cost the rest of the term."""
    elapsed_years: NonNegativeFloat = 0.0
    """Part of the term that had passed when the scenario starts, for GPUs that are there from the start."""

    @field_validator("prices", mode="before")
    @classmethod
    def _one_price_is_a_path(cls, prices):
        """A single quote stands for a path of one."""
        if not isinstance(prices, dict):
            return prices
        return {gpu: (given,) if isinstance(given, dict | Quote) else given for gpu, given in prices.items()}

    @model_validator(mode="after")
    def _committed(self):
        if self.upfront and not self.term_years:
            raise ValueError("upfront is a part of the whole term's rent; give term_years")
        return self

    @model_validator(mode="after")
    def _paths(self):
        for gpu, quotes in self.prices.items():
            try:
                price_path(quotes, f"prices.{gpu}")
            except PriceError as error:
                raise ValueError(str(error)) from None
        return self


class Own(Record):
    """Buy the machines. Power, site, staff and upkeep come as lines of their own."""

    kind: Literal["own"] = "own"
    server: dict[str, PriceRef] = Field(default_factory=dict)
    """Price of one GPU with its server, by GPU, USD/GPU; else the newest published price of the GPU and a host."""
    network: PriceRef = "network_capex/gpu"
    """Scale-out network, USD/GPU."""
    storage: PriceRef = "storage_capex/gpu"
    """Storage, USD/GPU."""
    facility: PriceRef = "capex_per_mw_facility/ai-optimised-data-centre/2026-06"
    """Shell, power and cooling, USD/MW of IT power; not used with a colocation price."""
    colocation: PriceRef | None = None
    """Rent of space and power capacity instead of an own facility, USD/kW-month of IT nameplate power."""
    life_years: PositiveFloat = 5.0
    """Economic life of servers, network and storage, years (facility.csv: 3 to 7; large operators book 5 to 6)."""
    facility_life_years: PositiveFloat = 14.0
    """Economic life of the facility, years."""
    residual_fraction: Fraction = 0.1
    """Part of the server price left at the end of its life (assumptions.csv: residual_value/servers)."""
    cost_of_capital_per_year: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Weighted cost of capital, 1/year (assumptions.csv: cost_of_capital/operator)."""
    method: Literal["annuity", "straight_line"] = "annuity"
    """``annuity``: equal yearly payments that repay price less residual with interest. ``straight_line``: depreciation
    only; the cost of capital then shows in NPV alone."""
    age_years: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Age of the machines that are there from the start, by GPU, years; new without an entry."""
    resale_fraction: Fraction = 0.7
    """Part of the book value that machines fetch when they leave early; the rest is written off (assumptions.csv)."""
    maintenance: PriceRef | None = None
    """Support and spares, USD/GPU-year; without it a share of the purchase price."""
    maintenance_fraction_per_year: Fraction = 0.03
    """Support and spares as a share of the purchase price of servers and network, 1/year (assumptions.csv)."""


def _kind(terms: object) -> str:
    """``rent`` unless the terms say otherwise."""
    return terms.get("kind", "rent") if isinstance(terms, dict) else getattr(terms, "kind", "rent")


Compute = Annotated[Annotated[Rent, Tag("rent")] | Annotated[Own, Tag("own")], Discriminator(_kind)]


class TariffPeriod(Record):
    """Hours of the week with an energy price of their own."""

    from_hour: Annotated[float, Field(ge=0, lt=24)]
    """First hour of the day, scenario time zone."""
    until_hour: Annotated[float, Field(gt=0, le=24)]
    """Hour at which the period ends; smaller than from_hour means over midnight."""
    weekdays: tuple[Annotated[int, Field(ge=0, le=6)], ...] = (0, 1, 2, 3, 4, 5, 6)
    """Days on which it starts, Monday is 0."""
    price: PriceRef
    """Price of energy in the period, USD/kWh."""


class Energy(Record):
    """Electricity at the meter."""

    price: PriceRef = "electricity_price_industrial/us-oh/2025-04"
    """Price of energy, USD/kWh: a quote or a row of facility.csv."""
    periods: tuple[TariffPeriod, ...] = ()
    """Hours with another price; the first that fits applies."""
    demand_charge: PriceRef | None = None
    """Price of the highest interval of each month, USD/kW-month."""
    billed: bool | None = None
    """Whether energy is a cost. Without a value: yes for owned machines, no (memo line) where the rent contains it."""


class Carbon(Record):
    """Emissions of the electricity used."""

    intensity: PriceRef = "carbon_intensity/united-states/2023"
    """Lifecycle intensity, gCO2e/kWh."""
    price: PriceRef | None = None
    """Price of emissions, USD/t; without one the tonnes are reported only."""


class FixedCost(Record):
    """A cost per month that no quantity drives: a team, a contract, a licence for the site."""

    name: str
    """Name of the line in the statements."""
    price: PriceRef
    """USD/month or USD/year."""


class PaidSchedule(Record):
    """GPUs that are paid for by the hour of the day, whatever the run has in service: a contract, or what an operator
    published. Costs that go by the GPU-hour follow it; what the fleet of the run would cost stands beside, as
    ``cost_simulated_fleet``."""

    gpus_by_hour: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=24, max_length=24)]
    """GPUs of the whole factory in each hour of the day, 00:00 first, scenario time zone."""
    source: str
    """Where the schedule comes from."""

    @model_validator(mode="after")
    def _some(self):
        if not any(self.gpus_by_hour):
            raise ValueError("a schedule without GPUs pays for nothing; leave it out")
        return self


class TrainingCost(Record):
    """A training run whose cost is spread over the tokens that the model serves (tokens as investment)."""

    name: str
    """Name of the run."""
    service: str
    """Service whose tokens carry it."""
    price: Quote
    """What it cost, unit ``USD/run``: pretraining and post-training are two entries."""
    tokens_served: PositiveFloat
    """Input plus output tokens over which it is spread."""


class Costs(Record):
    """The cost side."""

    compute: Compute = Rent()
    """How GPUs are paid for."""
    compute_by_gpu: dict[str, Compute] = Field(default_factory=dict)
    """Exceptions by GPU."""
    compute_by_stage: dict[str, Compute] = Field(default_factory=dict)
    """Exceptions by stage of the scenario; before those by GPU."""
    schedule: PaidSchedule | None = None
    """GPUs paid for by the hour of the day instead of those of the run, where that is stated."""
    energy: Energy = Energy()
    """Electricity: a cost of owned machines, a memo line under rent."""
    carbon: Carbon | None = None
    """Emissions, where wanted."""
    staff: PriceRef | None = None
    """Operations staff, USD/MW-year of IT power; rents contain it, so it is charged only where stated."""
    software: PriceRef | None = None
    """Software licence, USD/GPU-year."""
    egress: PriceRef | None = None
    """Network traffic out, USD/GB."""
    bytes_per_output_token: PositiveFloat = 40.0
    """Bytes sent per output token (assumptions.csv: bytes_per_token/text)."""
    fixed: tuple[FixedCost, ...] = ()
    """Monthly costs of the whole factory."""
    training: tuple[TrainingCost, ...] = ()
    """Training runs amortised over tokens."""


def _currencies(node: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and currency of every price stated in a record."""
    if isinstance(node, Quote):
        yield path, node.unit.partition("/")[0] if re.match(CURRENCY, node.unit.partition("/")[0]) else "USD"
    elif isinstance(node, Plan):
        yield path, node.currency
    elif isinstance(node, Record):
        for name in type(node).model_fields:
            yield from _currencies(getattr(node, name), f"{path}.{name}" if path else name)
    elif isinstance(node, dict | tuple):
        for name, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _currencies(item, f"{path}.{name}")


class Scale(Record):
    """Multiply prices after the fact; amounts are rounded to the nano-dollar first, so doubling doubles exactly."""

    prices: PositiveFloat = 1.0
    """All prices, of costs and of sales."""
    costs: PositiveFloat = 1.0
    """All costs."""
    sales: PositiveFloat = 1.0
    """All sales."""
    lines: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Single lines of the statements: rent, energy, output_tokens, ..."""


class Money(Record):
    """Costs, plans and currencies of one scenario."""

    costs: Costs = Costs()
    """How capacity is paid for."""
    plans: dict[str, Plan | tuple[Plan, ...]] = Field(default_factory=dict)
    """Plan by service, or several plans in time; ``all`` is the plan of services not named."""
    customers: tuple[CustomerGroup, ...] = ()
    """Customers told apart, by group; the shares of a service must add up to 1. Services without are one customer."""
    rates: dict[str, ExchangeRate] = Field(default_factory=dict)
    """Exchange rates by currency code."""
    band: Literal["vintages", "ranges", "both", "none"] = "both"
    """What the price band spans: other published vintages of the same cost basis (one per draw, never mixed), the
    stated ranges of single prices, both, or nothing."""
    discount_per_year: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Discount rate of NPV, 1/year."""
    scale: Scale = Scale()
    """Multipliers for what-if questions."""
    drawn: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Multipliers of single price rows, filled in by the price band; not for scenario files."""
    users: NonNegativeInt | None = None
    """Users behind the traffic, for figures per user; those of the services' demand when left out."""

    @model_validator(mode="after")
    def _whole(self):
        shares: dict[str, float] = {}
        for group in self.customers:
            shares[group.service] = shares.get(group.service, 0.0) + group.share
            plan = group.plan or group.service
            if plan not in self.plans and "all" not in self.plans:
                raise ValueError(f"customers.{group.name}: there is no plan '{plan}'{closest(plan, self.plans)}")
        for service, share in shares.items():
            if abs(share - 1) > 1e-9:
                raise ValueError(f"customers: shares of service '{service}' add up to {share:g}, not 1")
        for key in self.plans:
            plans_in_time(self.plans, key)
        for path, currency in _currencies(self):
            if currency != "USD" and currency not in self.rates:
                raise ValueError(
                    f"{path}: price in {currency} and no rate for it; "
                    f"add money.rates.{currency}: {{usd: ..., as_of: ..., source: ...}}"
                )
        return self
