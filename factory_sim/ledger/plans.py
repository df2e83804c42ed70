"""Price plans: what usage is worth under a plan, with allowances, tiers, minimums and credits, month by month.

Usage is in arrays, one element per (window, payer): a payer is one customer, or the whole service where customers are
not told apart. Allowances, volume tiers, minimums and credits count per payer and calendar month.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from factory_sim.errors import PriceError, closest
from factory_sim.inputs.list_prices import list_price
from factory_sim.inputs.money import CreditTier, LongContext, Money, Plan, plans_in_time
from factory_sim.inputs.prices import PriceRow, stated_basis
from factory_sim.ledger.accounts import NANO, revenue_accounts, to_nano
from factory_sim.ledger.entries import Calendar, Entries, entries
from factory_sim.ledger.promises import column_names
from factory_sim.units import MILLION

NO_SOURCE = "stated in the scenario, without a source"
TOKEN_LINES = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")


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
            if name != "service_level"
        }
        level = None if level is None else {name: (good[keep], whole[keep]) for name, (good, whole) in level.items()}
        return Usage(**fields, service_level=level)


def plans_of(money: Money, key: str) -> tuple[Plan, ...]:
    """The plan (or plans in time) of a service; ``all`` stands for those not named, and none means no sales."""
    name = key if key in money.plans else "all"
    return plans_in_time(money.plans, name) if name in money.plans else ()


def check_plan_names(money: Money, services: list[str]) -> None:
    """Raise PriceError for a plan that nobody uses, or customers of a service that does not exist."""
    used = [*services, *(group.plan for group in money.customers if group.plan)]
    for name in money.plans:
        if name != "all" and name not in used:
            raise PriceError(f"money.plans.{name}: no service of this name{closest(name, services)}")
    for group in money.customers:
        if group.service not in services:
            near = closest(group.service, services)
            raise PriceError(f"money.customers.{group.name}: no service '{group.service}'{near}")
    for run in money.costs.training:
        if run.service not in services:
            near = closest(run.service, services)
            raise PriceError(f"money.costs.training.{run.name}: no service '{run.service}'{near}")


def token_rows(plan: Plan, key: str, money: Money) -> dict[str, PriceRow]:
    """Prices of a plan in USD per token, by line; lines that the plan does not price are absent."""
    dated = f"@{plan.valid_from}" if plan.valid_from else ""
    if plan.list_price:
        try:
            listed = list_price(plan.list_price, plan.as_of, plan.processing)
        except PriceError as error:
            raise PriceError(f"money.plans.{key}.{error}") from None
        per_million = {
            "input_tokens": listed.input_usd_per_million,
            "cached_input_tokens": listed.cached_input_usd_per_million,
            "output_tokens": listed.output_usd_per_million,
        }
        source, basis, name = listed.source, "list price", f"list/{plan.list_price}/{plan.processing}@{plan.as_of}"
    else:
        per_million = {
            "input_tokens": plan.input_usd_per_million,
            "cached_input_tokens": plan.cached_input_usd_per_million,
            "output_tokens": plan.output_usd_per_million,
            "reasoning_tokens": plan.reasoning_usd_per_million,
        }
        source, basis, name = plan.source or NO_SOURCE, stated_basis(plan.source), f"plan/{key}{dated}"
    for line, instead in (("cached_input_tokens", "input_tokens"), ("reasoning_tokens", "output_tokens")):
        if per_million.get(line) is None:
            per_million[line] = per_million[instead]
    rate = _rate(plan, key, money)
    rows = {}
    for line, value in per_million.items():
        if value is not None:
            rows[line] = plan_row(f"{name}/{line}", value * rate / MILLION, "USD/token", plan, source, basis, money)
    return rows


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


def _rate(plan: Plan, key: str, money: Money) -> float:
    if plan.currency == "USD":
        return 1.0
    if plan.currency not in money.rates:
        raise PriceError(
            f"money.plans.{key}: prices in {plan.currency} and no rate for it; "
            f"add money.rates.{plan.currency}: {{usd: ..., as_of: ..., source: ...}}"
        )
    return money.rates[plan.currency].usd


def sell(plan: Plan, key: str, usage: Usage, money: Money, calendar: Calendar) -> list[Entries]:
    """All entries of one plan: tokens, requests, fees, top-ups and credits."""
    if not len(usage):
        return []
    return [
        replace(sheet, window=usage.window[sheet.window])
        for sheet in sell_elements(plan, key, usage, money, calendar)[0]
    ]


def sell_elements(plan: Plan, key: str, usage: Usage, money: Money, calendar: Calendar) -> tuple[list[Entries], Months]:
    """As ``sell``, with the element of usage instead of the window in each entry, and the bills behind them."""
    bill = _months(usage, calendar)
    element = np.arange(len(usage))
    sheets = _token_entries(plan, key, usage, bill, money)
    rate = _rate(plan, key, money)
    source, basis = plan.source or NO_SOURCE, stated_basis(plan.source)
    if plan.request_usd:
        row = plan_row(f"plan/{key}/requests", plan.request_usd * rate, "USD/request", plan, source, basis, money)
        sheets += _priced("requests", usage.requests, (row, usage.price_factor), element)
    if plan.subscription:
        fee = plan.subscription.fee_usd_per_month * rate
        row = plan_row(f"plan/{key}/subscription", fee, "USD/month", plan, source, basis, money)
        months = bill.month_share * plan.subscription.subscribers
        sheets += _priced("subscription", months, (row, None), element)
    sheets += _top_ups(plan, key, bill, sheets, rate, money)
    return sheets + _credits(plan, key, usage, bill, sheets), bill


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


def _months(usage: Usage, calendar: Calendar) -> Months:
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


def _token_entries(plan: Plan, key: str, usage: Usage, bill: Months, money: Money) -> list[Entries]:
    """Tokens by line, segment of the month's volume, traffic class and length of context."""
    rows = token_rows(plan, key, money)
    quantity = {
        "input_tokens": usage.fresh_input,
        "cached_input_tokens": usage.cached_input,
        "output_tokens": usage.answer,
        "reasoning_tokens": usage.reasoning,
    }
    discount = 1 - plan.commitment.discount if plan.commitment else 1.0
    segments = _segments(plan, sum(quantity.values()), bill)
    standard = 1 - sum(tier.share for tier in plan.tiers)
    classes = [("", 1.0, standard if standard > 1e-12 else 0.0)]
    classes += [(f" {tier.name}", tier.multiplier, tier.share) for tier in plan.tiers]
    long = _listed_long_context(plan) if plan.list_price else plan.long_context
    element = np.arange(len(usage))
    sheets = []
    for line, row in rows.items():
        side = "input" if "input" in line else "output"
        contexts = [("", 1.0, 1.0)]
        if long is not None:
            share = getattr(long, f"share_of_{side}")
            contexts = [("", 1.0, 1 - share), (" long context", getattr(long, f"{side}_multiplier"), share)]
        for segment, level, part in segments:
            for name, multiplier, tier_share in classes:
                for context, times, context_share in contexts:
                    share = tier_share * context_share
                    if share == 0:
                        continue
                    label = segment + name + context
                    factor = level * multiplier * times * discount
                    charged = row if factor == 1 and not label else _at(row, factor, label)
                    tokens = quantity[line] * share if part is None else quantity[line] * (part * share)
                    sheets += _priced(line, tokens, (charged, usage.price_factor), element)
    return sheets


def _at(row: PriceRow, factor: float, label: str) -> PriceRow:
    scaled = row.scaled(factor)
    return replace(scaled, row=f"x{factor:g}{label} <- {row.row}", note=f"{row.row} times {factor:g}{label}")


def _segments(plan: Plan, tokens: np.ndarray, bill: Months) -> list[tuple[str, float, np.ndarray | None]]:
    """(label, multiplier, part of each element's tokens) of the month's running volume; what is free is left out.

    A payer's tokens are taken in order of time; the first ``free + allowance`` cost nothing, and volume tiers count
    from the first token of the month. The whole volume is one segment where nothing depends on it.
    """
    allowance = plan.free_tokens_per_month
    if plan.subscription:
        allowance += plan.subscription.allowance_tokens_per_month * plan.subscription.subscribers
    if not allowance and not plan.volume and not plan.subscription:
        return [("", 1.0, None)]
    blocked = plan.subscription is not None and plan.subscription.overage == "block"
    if blocked:
        return []
    after = np.empty(len(tokens))
    running = np.cumsum(tokens[bill.order])
    bills = bill.bill[bill.order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(bills) != 0]))
    before_bill = np.concatenate([[0.0], running])[starts]
    after[bill.order] = running - np.repeat(before_bill, np.diff(np.append(starts, len(bills))))
    before = after - tokens
    edges = [(0.0, 1.0), *((tier.above_tokens, tier.multiplier) for tier in plan.volume)]
    segments = []
    for number, (lower, multiplier) in enumerate(edges):
        upper = edges[number + 1][0] if number + 1 < len(edges) else np.inf
        lower = max(lower, allowance)
        if upper <= lower:
            continue
        inside = np.clip(after, lower, upper) - np.clip(before, lower, upper)
        with np.errstate(invalid="ignore", divide="ignore"):
            part = np.where(tokens > 0, inside / tokens, 0.0)
        label = f" above {lower:g} tokens" if lower > 0 else ""
        segments.append((label, multiplier, part))
    return segments


def _listed_long_context(plan: Plan) -> LongContext | None:
    """The provider's own long-context prices; the plan says how much of the traffic is that long."""
    listed = list_price(plan.list_price, plan.as_of, plan.processing)
    if listed.long_above_tokens is None:
        return None
    return LongContext(
        above_tokens=listed.long_above_tokens,
        input_multiplier=listed.long_input_usd_per_million / listed.input_usd_per_million,
        output_multiplier=listed.long_output_usd_per_million / listed.output_usd_per_million,
        share_of_input=plan.long_context.share_of_input if plan.long_context else 0.0,
        share_of_output=plan.long_context.share_of_output if plan.long_context else 0.0,
    )


def _priced(
    line: str, quantity: np.ndarray, price: tuple[PriceRow, np.ndarray | None], element: np.ndarray
) -> list[Entries]:
    row, factor = price
    if factor is None:
        return [entries(line, "", revenue_accounts(line), quantity, row, element)]
    levels, code = np.unique(factor, return_inverse=True)
    rows = tuple(row if level == 1 else _at(row, level, " as priced in the run") for level in levels)
    return [entries(line, "", revenue_accounts(line), quantity, (rows, code), element)]


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


def _top_ups(plan: Plan, key: str, bill: Months, sheets: list[Entries], rate: float, money: Money) -> list[Entries]:
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


def _credits(plan: Plan, key: str, usage: Usage, bill: Months, sheets: list[Entries]) -> list[Entries]:
    """Service credits of each month: the largest credit among the promises missed, as part of the month's bill."""
    promises = {name: getattr(plan.sla, name) for name in ("availability", "within_promise", "served")}
    promises |= {column_names(promise)[0]: promise.credits for promise in plan.sla.latency}
    promises = {name: tiers for name, tiers in promises.items() if tiers}
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
        note="part of the month's bill: " + "; ".join(f"{n}: {_terms(t)}" for n, t in promises.items()),
    )
    return _settled("sla_credit", amounts, bill, row)


def credit_fraction(level: np.ndarray, tiers: tuple[CreditTier, ...]) -> np.ndarray:
    """Part of the bill given back at a service level: the largest credit whose threshold the level is below."""
    credit = np.zeros(len(level))
    for tier in tiers:
        credit = np.where(level < tier.below, np.maximum(credit, tier.credit), credit)
    return credit


def _terms(tiers: tuple[CreditTier, ...]) -> str:
    return ", ".join(f"{tier.credit:g} below {tier.below:g}" for tier in tiers)


def valid_plan(plans: tuple[Plan, ...], days: np.ndarray | None, key: str) -> np.ndarray:
    """Number of the plan valid on each day (``date.toordinal``); an uncovered day is an error."""
    if len(plans) == 1 and plans[0].valid_from is None and plans[0].valid_until is None:
        return np.zeros(0 if days is None else len(days), dtype=int)
    first = np.array([(plan.valid_from or date.min).toordinal() for plan in plans])
    code = np.searchsorted(first, days, side="right") - 1
    until = np.array([(plan.valid_until or date.max).toordinal() for plan in plans])
    if (code < 0).any() or (days >= until[np.maximum(code, 0)]).any():
        bad = int(days[(code < 0) | (days >= until[np.maximum(code, 0)])][0])
        raise PriceError(f"money.plans.{key}: no plan is valid on {date.fromordinal(bad)}")
    return code
