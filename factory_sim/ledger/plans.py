"""Price plans: what usage is worth under a plan, token by token or output by output, with tiers, allowances and long contexts.

Usage, bills by month, and what is settled at their end stand in ``bills``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

import numpy as np

from factory_sim.errors import PriceError, closest
from factory_sim.inputs.money import Money
from factory_sim.inputs.plans import LongContext, Plan, plans_in_time
from factory_sim.inputs.prices import PriceRow, stated_basis
from factory_sim.ledger.accounts import revenue_accounts
from factory_sim.ledger.bills import NO_SOURCE, Months, Usage, credits, months_of, plan_row, top_ups
from factory_sim.ledger.entries import Calendar, Entries, entries
from factory_sim.ledger.long_context import column_name, listed_price, long_context
from factory_sim.units import MILLION

OUTPUT_UNITS = {"images": "image", "videos": "video", "video_seconds": "video-second"}
"""Line of a sale of images or videos -> what its price buys."""
TOKEN_LINES = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")


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


def check_plans_fit(money: Money, makes: Mapping[str, str]) -> None:
    """Raise PriceError where a plan cannot bill what its service makes ("tokens", "images" or "videos", by service)."""
    groups = [(group.service, group.plan or group.service) for group in money.customers]
    alone = [(name, name) for name in makes if name not in {service for service, _ in groups}]
    for service, key in [*groups, *alone]:
        where = f"money.plans.{key if key in money.plans else 'all'}"
        for plan in plans_of(money, key):
            _check_plan_fits(plan, where, service, makes[service])


def _check_plan_fits(plan: Plan, where: str, service: str, made: str) -> None:
    by_token = bool(token_prices(plan)) or plan.list_price is not None
    tokens = made == "tokens"
    lines = {"tokens": (), "images": ("images",), "videos": ("videos", "video_seconds")}[made]
    if (plan.output_prices and tokens and not by_token) or (
        not tokens and (by_token or plan.output_prices) and not set(lines) & set(plan.output_prices)
    ):
        keys = {"tokens": "input_usd_per_million and output_usd_per_million", "images": "image_usd",
                "videos": "video_usd or video_second_usd"}[made]  # fmt: skip
        raise PriceError(f"{where}: has no price of what service '{service}' makes ({made}); give {keys} under {service}")
    for promise in plan.sla.latency:
        if (promise.metric == "time_to_output") == tokens:
            right = "ttft, tpot or e2e" if tokens else "time_to_output"
            raise PriceError(f"{where}.sla.latency: service '{service}' makes {made}, so the metric is {right}")
    if tokens:
        return
    counted = {"long_context": plan.long_context, "volume": plan.volume, "free_tokens_per_month": plan.free_tokens_per_month}
    if wrong := [name for name, value in counted.items() if value]:
        raise PriceError(f"{where}.{wrong[0]}: counts tokens, and service '{service}' makes {made}")


def token_prices(plan: Plan) -> list[float]:
    """Token prices that a plan states itself."""
    stated = (plan.input_usd_per_million, plan.output_usd_per_million)
    return [price for price in stated if price is not None]


def token_rows(plan: Plan, key: str, money: Money) -> dict[str, PriceRow]:
    """Prices of a plan in USD per token, by line; lines that the plan does not price are absent."""
    dated = f"@{plan.valid_from}" if plan.valid_from else ""
    if plan.list_price:
        listed = listed_price(plan, key)
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


def output_rows(plan: Plan, key: str, money: Money) -> dict[str, PriceRow]:
    """Prices of a plan in USD per image, video or second of video, by line; those it does not state are absent."""
    dated = f"@{plan.valid_from}" if plan.valid_from else ""
    source, basis, rate = plan.source or NO_SOURCE, stated_basis(plan.source), _rate(plan, key, money)
    return {
        line: plan_row(f"plan/{key}{dated}/{line}", price * rate, f"USD/{OUTPUT_UNITS[line]}", plan, source, basis, money)
        for line, price in plan.output_prices.items()
    }


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
    """All entries of one plan: tokens, images and videos, requests, fees, top-ups and credits."""
    if not len(usage):
        return []
    return [
        replace(sheet, window=usage.window[sheet.window])
        for sheet in sell_elements(plan, key, usage, money, calendar)[0]
    ]


def sell_elements(plan: Plan, key: str, usage: Usage, money: Money, calendar: Calendar) -> tuple[list[Entries], Months]:
    """As ``sell``, with the element of usage instead of the window in each entry, and the bills behind them."""
    bill = months_of(usage, calendar)
    element = np.arange(len(usage))
    sheets = _token_entries(plan, key, usage, bill, money) + _output_entries(plan, key, usage, money)
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
    sheets += top_ups(plan, key, bill, sheets, rate, money)
    return sheets + credits(plan, key, usage, bill, sheets), bill


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
    element = np.arange(len(usage))
    sheets = []
    for line, row in rows.items() if usage.batch_shares else ():
        jobs = usage.batch_shares["input" if "input" in line else "output"]
        charged = _at(*_batch_price(plan, key, money, line, row, discount), " batch jobs")
        sheets += _priced(line, quantity[line] * jobs, (charged, usage.price_factor), element)
        quantity[line] = quantity[line] * (1.0 - jobs)
    segments = _segments(plan, sum(quantity.values()), bill)
    classes = _classes(plan)
    long = long_context(plan, key)
    for line, row in rows.items():
        contexts = _contexts(long, "input" if "input" in line else "output", usage, key)
        for segment, level, part in segments:
            for name, multiplier, tier_share in classes:
                for context, times, context_share in contexts:
                    share = tier_share * context_share
                    if not np.any(share):
                        continue
                    label = segment + name + context
                    factor = level * multiplier * times * discount
                    charged = row if factor == 1 and not label else _at(row, factor, label)
                    tokens = quantity[line] * share if part is None else quantity[line] * (part * share)
                    sheets += _priced(line, tokens, (charged, usage.price_factor), element)
    return sheets


def _classes(plan: Plan) -> list[tuple[str, float, float]]:
    """(label, multiplier, share) of the standard class and of each tier."""
    standard = 1 - sum(tier.share for tier in plan.tiers)
    tiers = [(f" {tier.name}", tier.multiplier, tier.share) for tier in plan.tiers]
    return [("", 1.0, standard if standard > 1e-12 else 0.0), *tiers]


def _output_entries(plan: Plan, key: str, usage: Usage, money: Money) -> list[Entries]:
    """Images, videos and seconds of video by traffic class; allowances count tokens and leave these alone."""
    discount = 1 - plan.commitment.discount if plan.commitment else 1.0
    element = np.arange(len(usage))
    sheets = []
    for line, row in output_rows(plan, key, money).items():
        if line not in usage.outputs:
            continue
        for name, multiplier, share in _classes(plan):
            if share:
                factor = multiplier * discount
                charged = row if factor == 1 and not name else _at(row, factor, name)
                sheets += _priced(line, usage.outputs[line] * share, (charged, usage.price_factor), element)
    return sheets


def _batch_price(
    plan: Plan, key: str, money: Money, line: str, row: PriceRow, discount: float
) -> tuple[PriceRow, float]:
    """Price row of batch jobs' tokens, and the factor on it: the list price's own where it has one."""
    if plan.list_price and plan.processing == "standard":
        batch = plan.model_copy(update={"processing": "batch"})
        try:
            return token_rows(batch, key, money)[line], discount
        except PriceError:  # the provider publishes no batch price
            pass
    return row, plan.batch_multiplier * discount


def _contexts(
    long: LongContext | None, side: str, usage: Usage, key: str
) -> list[tuple[str, float, float | np.ndarray]]:
    """(label, multiplier, part of the tokens) of normal and of long prompts."""
    if long is None:
        return [("", 1.0, 1.0)]
    share = getattr(long, f"share_of_{side}")
    if share is None:
        name = column_name(long.above_tokens, side)
        if name not in usage.long_shares:
            raise PriceError(
                f"money.plans.{key}.long_context: the run tells no lengths of prompts; state share_of_input and share_of_output"
            )
        share = usage.long_shares[name]
    return [("", 1.0, 1.0 - share), (" long context", getattr(long, f"{side}_multiplier"), share)]


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


def _priced(
    line: str, quantity: np.ndarray, price: tuple[PriceRow, np.ndarray | None], element: np.ndarray
) -> list[Entries]:
    row, factor = price
    if factor is None:
        return [entries(line, "", revenue_accounts(line), quantity, row, element)]
    levels, code = np.unique(factor, return_inverse=True)
    rows = tuple(row if level == 1 else _at(row, level, " as priced in the run") for level in levels)
    return [entries(line, "", revenue_accounts(line), quantity, (rows, code), element)]


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
