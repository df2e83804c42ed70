"""Bills: usage by payer and month, and what is settled at the end of one: top-ups, shortfalls and service credits.

Usage is in arrays, one element per (window, payer): a payer is one customer, or the whole service where customers are
not told apart. Minimums, commitments and credits count per payer and calendar month.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money
from factory_sim.inputs.plans import CreditTier, Plan
from factory_sim.inputs.prices import PriceRow, stated_basis
from factory_sim.ledger.accounts import NANO, revenue_accounts, to_nano
from factory_sim.ledger.entries import Calendar, Entries
from factory_sim.ledger.promises import column_names

NO_SOURCE = "stated in the scenario, without a source"


@dataclass(frozen=True)
class Usage:
    """Usage of one plan: arrays of equal length, in any order of time."""

    window: np.ndarray
    """Row in the table of windows that each element belongs to."""
    payer: np.ndarray
    """Number of the payer (replication and customer together)."""
    start_s: np.ndarray
    end_s: np.ndarray
    fresh_input: np.ndarray
    """Input tokens that were not cached."""
    cached_input: np.ndarray
    answer: np.ndarray
    """Output tokens that are not reasoning."""
    reasoning: np.ndarray
    requests: np.ndarray
    """Requests completed."""
    price_factor: np.ndarray | None = None
    """Times the plan's prices, where the run let prices move."""
    service_level: dict[str, tuple[np.ndarray, np.ndarray]] | None = None
    """(good, all) counts of each promise: availability, within_promise, served."""
    batch_shares: dict[str, np.ndarray] = field(default_factory=dict)
    """Part of the ``input`` and ``output`` tokens that is batch jobs'; empty where there are none."""
    long_shares: dict[str, np.ndarray] = field(default_factory=dict)
    """Part of the tokens in long prompts, by the name of its column."""
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    """Images, videos and seconds of video, by their line in the books; empty where none are made."""

    def __len__(self) -> int:
        return len(self.window)

    def pick(self, keep: np.ndarray) -> Usage:
        """The elements where ``keep`` is true."""
        if keep.all():
            return self
        level = self.service_level
        fields = {
            name: None if value is None else value[keep]
            for name, value in vars(self).items()
            if name not in ("service_level", "long_shares", "batch_shares", "outputs")
        }
        level = None if level is None else {name: (good[keep], whole[keep]) for name, (good, whole) in level.items()}
        shares = {name: share[keep] for name, share in self.long_shares.items()}
        outputs = {name: quantity[keep] for name, quantity in self.outputs.items()}
        batch = {side: share[keep] for side, share in self.batch_shares.items()}
        return Usage(**fields, service_level=level, long_shares=shares, batch_shares=batch, outputs=outputs)


def plan_row(name: str, value: float, unit: str, plan: Plan, source: str, basis: str, money: Money) -> PriceRow:
    """A price of a plan as a row of the price book, at the level that a price draw gave it."""
    low, high = plan.low, plan.high
    row = PriceRow(
        row=name,
        item="plan",
        scope=name,
        value=value,
        low=None if low is None else value * low,
        high=None if high is None else value * high,
        unit=unit,
        vintage=str(plan.as_of or ""),
        as_of=str(plan.as_of or ""),
        basis=basis,
        source=source,
    )
    factor = money.drawn.get(name, 1.0)
    return row if factor == 1.0 else row.scaled(factor)


@dataclass(frozen=True)
class Months:
    """How usage falls into bills: one bill per payer and month."""

    bill: np.ndarray
    """Number of the bill of each element."""
    month_share: np.ndarray
    """Part of the month that each element covers; elements of one payer at the same time share it."""
    covered: np.ndarray
    """Part of the month covered, by bill."""
    last: np.ndarray
    """Element at the end of each bill, which carries what is settled at the end of the month."""
    order: np.ndarray
    """Order of the elements by bill and time."""


def months_of(usage: Usage, calendar: Calendar) -> Months:
    """The bills that usage falls into."""
    month = calendar.month(usage.start_s)
    first = month.min()
    span = int(month.max() - first) + 1
    code = usage.payer.astype(np.int64) * span + (month - first)
    _, bill = np.unique(code, return_inverse=True)
    order = np.lexsort((usage.start_s, bill))
    in_order = bill[order]
    moment_changes = np.ones(len(order), dtype=bool)
    moment_changes[1:] = (np.diff(in_order) != 0) | (np.diff(usage.start_s[order]) != 0)
    moment = np.cumsum(moment_changes) - 1
    alone = 1.0 / np.bincount(moment)[moment]
    month_share = np.empty(len(order))
    month_share[order] = alone * ((usage.end_s - usage.start_s) / calendar.month_s(usage.start_s))[order]
    bills = int(in_order[-1]) + 1
    last = order[np.searchsorted(in_order, np.arange(bills), side="right") - 1]
    return Months(bill, month_share, np.bincount(bill, month_share, bills), last, order)


def _billed_nusd(bill: Months, sheets: list[Entries]) -> np.ndarray:
    """Amount of each bill so far, nano-dollars."""
    total = np.zeros(len(bill.last), dtype=np.int64)
    for sheet in sheets:
        np.add.at(total, bill.bill[sheet.window], sheet.amounts_nusd)
    return total


def _settled(line: str, amounts_nusd: np.ndarray, bill: Months, row: PriceRow) -> list[Entries]:
    """Entries at the end of each bill; quantity is the amount in the row's unit."""
    keep = amounts_nusd != 0
    if not keep.any():
        return []
    element, amounts = bill.last[keep], amounts_nusd[keep]
    quantity = amounts / NANO / row.value
    codes = np.zeros(len(amounts), dtype=np.int32)
    return [
        Entries(
            line, "", *revenue_accounts(line), element, quantity, row.unit.removeprefix("USD/"), (row,), codes, amounts
        )
    ]


def top_ups(plan: Plan, key: str, bill: Months, sheets: list[Entries], rate: float, money: Money) -> list[Entries]:
    """Shortfalls of the commitment and of the minimum bill; months covered in part owe that part."""
    owed = [("commitment", plan.commitment.usd_per_month)] if plan.commitment else []
    owed += [("minimum", plan.minimum_usd_per_month)] if plan.minimum_usd_per_month else []
    if not owed:
        return []
    billed = _billed_nusd(bill, sheets)
    made = []
    for line, usd_per_month in owed:
        row = plan_row(
            f"plan/{key}/{line}",
            usd_per_month * rate,
            "USD/month",
            plan,
            plan.source or NO_SOURCE,
            stated_basis(plan.source),
            money,
        )
        short = np.maximum(to_nano(row.value * bill.covered) - billed, 0)
        made += _settled(line, short, bill, row)
        billed = billed + short
    return made


def credits(plan: Plan, key: str, usage: Usage, bill: Months, sheets: list[Entries]) -> list[Entries]:
    """Service credits of each month: the largest credit among the promises missed, as part of the month's bill."""
    promises = {name: getattr(plan.sla, name) for name in ("availability", "within_promise", "served")}
    promises |= {column_names(promise)[0]: promise.credits for promise in plan.sla.latency}
    promises = {name: tiers for name, tiers in promises.items() if tiers}
    told = {column_names(p)[0]: f"share with {p.metric} within {p.limit_s:g} s" for p in plan.sla.latency}
    if not promises or usage.service_level is None:
        return []
    for name in promises:
        if name not in usage.service_level:
            raise PriceError(f"money.plans.{key}.sla: the run holds no counts for the promise '{name}'")
    credit = np.zeros(len(bill.last))
    for name, tiers in promises.items():
        good, whole = (np.bincount(bill.bill, counts, len(bill.last)) for counts in usage.service_level[name])
        with np.errstate(invalid="ignore", divide="ignore"):
            level = np.where(whole > 0, good / whole, 1.0)
        credit = np.maximum(credit, credit_fraction(level, tiers))
    billed = _billed_nusd(bill, sheets)
    amounts = np.rint(billed * credit).astype(np.int64)
    row = PriceRow(
        row=f"plan/{key}/sla_credit",
        item="plan",
        scope=key,
        value=1.0,
        low=None,
        high=None,
        unit="USD/USD",
        vintage=str(plan.as_of or ""),
        as_of=str(plan.as_of or ""),
        basis=stated_basis(plan.source),
        source=plan.source or NO_SOURCE,
        note="part of the month's bill: " + "; ".join(f"{told.get(n, n)} {_terms(t)}" for n, t in promises.items()),
    )
    return _settled("sla_credit", amounts, bill, row)


def credit_fraction(level: np.ndarray, tiers: tuple[CreditTier, ...]) -> np.ndarray:
    """Part of the bill given back at a service level: the largest credit whose threshold the level is below."""
    credit = np.zeros(len(level))
    for tier in tiers:
        credit = np.where(level < tier.below, np.maximum(credit, tier.credit), credit)
    return credit


def _terms(tiers: tuple[CreditTier, ...]) -> str:
    return ", ".join(f"gives {tier.credit:g} below {tier.below:g}" for tier in tiers)
