"""Price bands: draws of the prices that a figure rests on.

Two things are uncertain: which published vintage of a cost basis is nearest to what one will pay, and each single price
within its range. A draw takes one vintage for all GPUs (vintages are never mixed in a figure) and moves all rows of one
item together, since prices of one kind rise and fall together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from factory_sim.inputs.money import Money, Own, Rent
from factory_sim.inputs.plans import Plan
from factory_sim.inputs.prices import PriceBook, PriceRow, price_book
from factory_sim.ledger import tariffs
from factory_sim.ledger.bills import plan_row
from factory_sim.ledger.fleet import all_terms
from factory_sim.ledger.plans import output_rows, plans_of, token_rows

_Z10 = 1.2815515655446004
"""Standard normal quantile of 90 %."""
_STATED_SHARE = 0.6
"""Part of the draws that keep the stated vintage."""
_BANDED_BASES = ("rental", "hyperscaler_own", "neocloud_own")


def vintages(money: Money, gpus: Sequence[str], book: PriceBook | None = None) -> tuple[str, ...]:
    """Vintages in which every rented GPU of the scenario has a price of its basis; the stated vintage is among them.

    Empty where the basis is not published in vintages, or the scenario states its own prices.
    """
    book = price_book() if book is None else book
    found: set[str] | None = None
    for terms, rented in _rents(money, gpus):
        if terms.basis not in _BANDED_BASES:
            return ()
        for gpu in rented:
            held = set(tariffs.basis_vintages(terms.basis, gpu, book))
            found = held if found is None else found & held
    return tuple(sorted(found)) if found else ()


def _rents(money: Money, gpus: Sequence[str]) -> list[tuple[Rent, list[str]]]:
    """Rent terms in use and the GPUs they price from the tables."""
    used = []
    for terms in all_terms(money):
        if isinstance(terms, Rent):
            rented = [gpu for gpu in gpus if gpu not in terms.prices]
            if rented:
                used.append((terms, rented))
    return used


def with_vintage(money: Money, vintage: str) -> Money:
    """The same terms with every published rent taken from one vintage."""

    def moved(terms: Rent | Own) -> Rent | Own:
        return terms.model_copy(update={"vintage": vintage}) if isinstance(terms, Rent) else terms

    costs = money.costs
    update = {
        "compute": moved(costs.compute),
        "compute_by_gpu": {gpu: moved(terms) for gpu, terms in costs.compute_by_gpu.items()},
        "compute_by_stage": {stage: moved(terms) for stage, terms in costs.compute_by_stage.items()},
    }
    return money.model_copy(update={"costs": costs.model_copy(update=update)})


def one_sided(money: Money, gpus: Sequence[str], book: PriceBook | None = None) -> str:
    """A sentence where the stated vintage of rents is the dearest or cheapest of all, so that ranges lean one way."""
    book = price_book() if book is None else book
    rents = _rents(money, gpus)
    choices = vintages(money, gpus, book) if money.band in ("vintages", "both") else ()
    stated = {terms.vintage for terms, _ in rents}
    if len(stated) != 1 or len(choices) < 2 or not stated <= set(choices):
        return ""
    own = next(iter(stated))
    totals = {
        vintage: [tariffs.rent_path(terms, gpu, with_vintage(money, vintage), book).rows[0].value
                  for terms, rented in _rents(with_vintage(money, vintage), gpus) for gpu in rented]
        for vintage in choices
    }  # fmt: skip
    others = [values for vintage, values in totals.items() if vintage != own]
    for word, way, beyond in (("dearest", "down", np.greater_equal), ("cheapest", "up", np.less_equal)):
        if all(beyond(totals[own], values).all() for values in others):
            return (
                f"rents are those of {own}, the {word} of the published vintages ({', '.join(choices)}): "
                f"ranges of cost reach {way} from the value, hardly the other way"
            )
    return ""


def draw_prices(
    terms: Money,
    rng: np.random.Generator,
    *,
    gpus: Sequence[str],
    services: Sequence[str] = (),
    stratum: float | None = None,
    book: PriceBook | None = None,
) -> Money:
    """One draw of all uncertain prices: terms to post with.

    ``terms.band`` says what is drawn: the vintage of published rents (the stated one in 60 % of draws, so that it is
    the median; the others that hold a price for all ``gpus`` share the rest), the prices with a range (their row's
    value is the median, low and high the 10th and 90th percentile, log-normal on either side; rows of one item share
    one draw), both, or nothing. ``stratum`` in [0, 1) places the draw of the vintage: (r + 0.5) / n for replication r
    of n gives each vintage its share even among few replications. The same number of random values is taken whatever
    the terms.
    """
    book = price_book() if book is None else book
    pick = rng.random()
    pick = pick if stratum is None else stratum
    score = {item: float(rng.standard_normal()) for item in _items(book)}
    plan_score = float(rng.standard_normal())
    drawn = terms
    if terms.band in ("vintages", "both"):
        drawn = with_vintage(drawn, vintage) if (vintage := _drawn_vintage(terms, gpus, book, pick)) else drawn
    if terms.band not in ("ranges", "both"):
        return drawn
    factors = {row.row: range_factor(row, score[row.item]) for row in ranged_rows(drawn, gpus, book)}
    for key in [*services, *(group.plan for group in terms.customers if group.plan)]:
        for plan in plans_of(drawn, key):
            factors |= _plan_factors(plan, key, drawn, plan_score)
    return drawn.model_copy(update={"drawn": {name: factor for name, factor in factors.items() if factor != 1.0}})


def _drawn_vintage(money: Money, gpus: Sequence[str], book: PriceBook, pick: float) -> str | None:
    """Vintage at a place between 0 and 1: the stated one up to 0.6, then the others, oldest first."""
    choices = vintages(money, gpus, book)
    stated = {terms.vintage for terms, _ in _rents(money, gpus)}
    if len(stated) != 1 or not stated <= set(choices):
        return None
    others = [vintage for vintage in choices if vintage not in stated]
    if pick < _STATED_SHARE or not others:
        return None
    return others[int((pick - _STATED_SHARE) / (1 - _STATED_SHARE) * len(others))]


def _items(book: PriceBook) -> list[str]:
    return [*sorted({row.item for row in book.rows()}), "stated"]


def _plan_factors(plan: Plan, key: str, money: Money, score: float) -> dict[str, float]:
    """Multipliers of a plan's rows: its whole level of prices moves together, fees and minimums too."""
    rows = [*token_rows(plan, key, money).values(), *output_rows(plan, key, money).values()]
    for line in ("requests", "subscription", "minimum", "commitment"):
        rows.append(plan_row(f"plan/{key}/{line}", 1.0, "USD/USD", plan, "", "stated", money))
    return {row.row: range_factor(row, score) for row in rows}


def range_factor(row: PriceRow, score: float) -> float:
    """Multiplier of a row at a standard normal score: 1 at the median, low/value at P10, high/value at P90."""
    bound = row.high if score > 0 else row.low
    if bound is None or row.value <= 0:
        return 1.0
    if bound <= 0:
        # No logarithm below zero: the range is walked in a straight line and stops at zero.
        return max(0.0, 1 + abs(score) / _Z10 * (bound / row.value - 1))
    return math.exp(abs(score) / _Z10 * math.log(bound / row.value))


def ranged_rows(money: Money, gpus: Sequence[str], book: PriceBook) -> list[PriceRow]:
    """Rows with a range behind the cost terms of a scenario, each once."""
    plain = money.model_copy(update={"drawn": {}})
    rows: dict[str, PriceRow] = {}
    stages = ["", *money.costs.compute_by_stage]
    for gpu in gpus:
        for stage in stages:
            terms = tariffs.compute_terms(plain, gpu, stage)
            if isinstance(terms, Rent):
                found = list(tariffs.rent_path(terms, gpu, plain, book).rows)
            else:
                found = tariffs.purchase_rows(terms, gpu, plain, book)
                found += [tariffs.priced(terms.facility, "facility", "MW", plain, book)]
            rows |= {row.row: row for row in found}
    for ref, name, unit in other_prices(plain):
        row = tariffs.priced(ref, name, unit, plain, book)
        rows[row.row] = row
    return [row for row in rows.values() if row.low is not None or row.high is not None]


def other_prices(money: Money) -> list[tuple]:
    """Every price reference of the cost terms outside machines and facility: (reference, name, unit)."""
    costs = money.costs
    found = [(costs.energy.price, "energy", "kWh")]
    found += [(p.price, f"energy/period-{n + 1}", "kWh") for n, p in enumerate(costs.energy.periods)]
    found += [(costs.energy.demand_charge, "demand_charge", "kW-month"), (costs.staff, "staff", "MW-year")]
    found += [(costs.software, "software", "GPU-h"), (costs.egress, "egress", "GB")]
    if costs.carbon is not None:
        found.append((costs.carbon.price, "carbon_price", "t"))
    found += [(cost.price, f"fixed/{cost.name}", "month") for cost in costs.fixed]
    found += [(run.price, f"training/{run.name}", "run") for run in costs.training]
    owned = all_terms(money)
    found += [(o.colocation, "colocation", "kW-month") for o in owned if isinstance(o, Own)]
    found += [(o.maintenance, "maintenance", "GPU-h") for o in owned if isinstance(o, Own)]
    return [entry for entry in found if entry[0] is not None]
