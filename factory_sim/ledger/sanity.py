"""Prices that look wrong: absurd sizes, old dates. Words to show, never a change."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import cache
from importlib.resources import files

from factory_sim.errors import PriceError, closest
from factory_sim.inputs.money import Money, Rent
from factory_sim.inputs.prices import PriceBook, PriceRow, price_book, row_date
from factory_sim.ledger import tariffs
from factory_sim.ledger.bands import other_prices
from factory_sim.ledger.plan_facts import fact_columns
from factory_sim.ledger.plans import check_plan_names, output_rows, plans_of, token_rows
from factory_sim.units import DAY_S, HOUR_S

SPOT = "-spot"
"""End of the names of stages that hold spot capacity."""
STALE_AFTER = timedelta(days=365)
"""Prices older than this at the start of the scenario are called stale."""


@cache
def _plausible() -> dict[str, tuple[float, float, str]]:
    with files("factory_sim.data").joinpath("economics", "plausible.csv").open(encoding="utf-8", newline="") as file:
        return {row["unit"]: (float(row["low"]), float(row["high"]), row["hint"]) for row in csv.DictReader(file)}


def absurd_prices(rows: Sequence[PriceRow]) -> list[str]:
    """A sentence for each price outside what such a thing costs anywhere; zero and what derives from others is left alone."""
    found = []
    for row in sorted((row for row in rows if " <- " not in row.row), key=lambda row: row.row):
        low, high, hint = _plausible().get(row.unit, (0.0, float("inf"), ""))
        if row.value and not low <= row.value <= high:
            found.append(f"{row.row}: {row.value:g} {row.unit} looks wrong; {hint}")
    return found


def stale_prices(rows: Sequence[PriceRow], at: date | None) -> list[str]:
    """A sentence for each price (each plan once) that is more than a year older than the scenario, or carries no date."""
    found = []
    for row in sorted(rows, key=lambda row: row.row):
        when, plan = row_date(row.as_of), row.item == "plan"
        name = row.row.partition(" <- ")[2] or row.row if plan else row.row
        name = name.rpartition("/")[0] if plan else name
        if when is None:
            if row.trust != "assumption" and not plan:
                found.append(f"{name}: carries no date")
        elif at is not None and at - when > STALE_AFTER:
            years = (at - when).days / 365.25
            found.append(f"{name}: stale, of {row.as_of} and so {years:.1f} years old when the scenario starts")
    return list(dict.fromkeys(found))


def rehearse(money: Money, fleet: Sequence[tuple[str, str, str]], start: datetime | None, duration_days: float) -> None:
    """Price a made-up hour of every day of a scenario: what is wrong with its terms shows before it is played.

    ``fleet`` holds (service, stage, gpu) of everything that will run. Raises PriceError: a price that is missing, of
    the wrong unit or in a currency without a rate, a day without a plan or a price, a plan of no service.
    """
    import numpy as np
    import pandas as pd

    from factory_sim.ledger.postings import WINDOW_COLUMNS, post

    check_plan_names(money, sorted({service for service, _, _ in fleet}))
    stages = sorted({stage for _, stage, _ in fleet})
    for name in money.costs.compute_by_stage:
        if name not in stages:
            raise PriceError(f"money.costs.compute_by_stage.{name}: no stage of this name{closest(name, stages)}")
    for service, stage, gpu in fleet:
        terms = tariffs.compute_terms(money, gpu, stage)
        if stage.endswith(SPOT) and not (isinstance(terms, Rent) and terms.term_years == 0):
            raise PriceError(
                f"money.costs.compute: spot capacity of service '{service}' comes and goes, so it is rented without a "
                f"term; add compute_by_stage: {{{stage}: {{kind: rent, ...}}}}"
            )
    days = np.arange(max(math.ceil(duration_days), 1))
    service, stage, gpu = (np.repeat([entry[place] for entry in fleet], len(days)) for place in range(3))
    start_s = np.minimum(np.tile(days * DAY_S, len(fleet)), max(duration_days * DAY_S - HOUR_S, 0.0))
    table = dict.fromkeys(WINDOW_COLUMNS, 1.0) | {"replication": 0, "gpus": 1.0, "service": service, "stage": stage}
    table |= dict.fromkeys(("requests_within_slo", "requests_turned_away", "requests_lost"), 0.0)
    table |= dict.fromkeys(fact_columns(money), 0.5)
    table |= {"gpu": gpu, "start_s": start_s, "end_s": start_s + HOUR_S}
    post(pd.DataFrame(table), money, start=start)


def money_warnings(
    money: Money, gpus: Sequence[str], services: Sequence[str], at: date | None = None, book: PriceBook | None = None
) -> list[str]:
    """Warnings about the terms of a scenario before it is played: absurd and stale prices, services without a plan.

    Raises PriceError where a price is missing.
    """
    book = price_book() if book is None else book
    rows: dict[str, PriceRow] = {}
    for gpu in gpus:
        for stage in ("", *money.costs.compute_by_stage):
            terms = tariffs.compute_terms(money, gpu, stage)
            if isinstance(terms, Rent):
                found = list(tariffs.rent_path(terms, gpu, money, book).rows)
            else:
                found = tariffs.purchase_rows(terms, gpu, money, book)
            rows |= {row.row: row for row in found}
    owned = any(not isinstance(tariffs.compute_terms(money, gpu, ""), Rent) for gpu in gpus)
    for ref, name, unit in other_prices(money):
        # Under rent the energy price only values a memo line.
        if name != "energy" or owned or money.costs.energy.billed:
            row = tariffs.priced(ref, name, unit, money, book)
            rows[row.row] = row
    words = []
    for service in services:
        plans = plans_of(money, service)
        if not plans and not any(group.service == service for group in money.customers):
            words.append(f"money.plans: service '{service}' has no plan and earns nothing")
        for plan in plans:
            own = token_rows(plan, service, money) | output_rows(plan, service, money)
            for line, instead in (("cached_input_tokens", "input_tokens"), ("reasoning_tokens", "output_tokens")):
                if line in own and own[line].value == own[instead].value:
                    del own[line]  # one word for one price
            rows |= {row.row: row for row in own.values()}
            if not plan.list_price and not (plan.source and plan.as_of):
                lacks = " and ".join(n for n, given in (("source", plan.source), ("as_of", plan.as_of)) if not given)
                key = service if service in money.plans else "all"
                words.append(f"money.plans.{key}: prices without {lacks}; what has no source counts as an assumption")
    words = list(dict.fromkeys(words))  # a plan of several services is told once
    return words + absurd_prices(list(rows.values())) + stale_prices(list(rows.values()), at)
