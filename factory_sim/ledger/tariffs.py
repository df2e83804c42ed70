"""Prices of a scenario's cost terms, looked up in the price book and turned into dollars per unit of posting.

Every function returns ``PriceRow`` records; a derived price (an annuity per GPU-hour, say) keeps the row it came from
in its id and its formula in the note.
"""

from dataclasses import replace
from datetime import date

from factory_sim.errors import PriceError
from factory_sim.inputs import catalog
from factory_sim.inputs.money import Money, Own, Rent, TrainingCost
from factory_sim.inputs.prices import PriceBook, PricePath, PriceRef, PriceRow, in_dollars, price_path, resolve
from factory_sim.ledger.capital import annuity, annuity_with_residual, straight_line
from factory_sim.units import HOUR_S, MEGAWATT_W, YEAR_S

YEAR_H = YEAR_S / HOUR_S
_MONTH_H = YEAR_H / 12

# Item of the price table behind each named basis, and the vintages in which it is published under another name.
_BASIS_ITEM = {
    "rental": "rental_market",
    "hyperscaler_own": "tco_hyperscaler",
    "neocloud_own": "tco_neocloud",
    "on_demand": "rental_on_demand",
    "reserved_1yr": "rental_1yr",
    "reserved_3yr": "rental_3yr_list",
    "spot": "rental_spot_index",
    "contract_1yr": "rental_1yr_contract_index",
    "operator": "rental_assumed",
}
_RENTAL_BEFORE_MARKET = ("2026-04", "2026-06")


def basis_item(basis: str, vintage: str) -> str:
    """Item of the price table that holds a named basis in a vintage."""
    if basis == "rental" and vintage in _RENTAL_BEFORE_MARKET:
        return "rental_3yr"
    return _BASIS_ITEM[basis]


def basis_vintages(basis: str, gpu: str, book: PriceBook) -> tuple[str, ...]:
    """Vintages in which a basis is published for a GPU."""
    found = set(book.vintages(_BASIS_ITEM[basis], gpu))
    if basis == "rental":
        found |= set(book.vintages("rental_3yr", gpu)) & set(_RENTAL_BEFORE_MARKET)
    return tuple(sorted(found))


def priced(ref: PriceRef, name: str, unit: str, money: Money, book: PriceBook) -> PriceRow:
    """A price reference in dollars per ``unit``, at the multiplier that a price draw gave its row.

    PriceError says where in the scenario the price stands.
    """
    try:
        return drawn(in_dollars(resolve(ref, name, book), unit, money.rates), money)
    except PriceError as error:
        raise PriceError(f"{_place(name)}: {str(error).removeprefix(f'{name}: ')}") from None


_PLACES = {
    "energy": "energy.price", "carbon_price": "carbon.price", "facility": "compute.facility",
    "network": "compute.network", "storage": "compute.storage", "colocation": "compute.colocation",
    "maintenance": "compute.maintenance",
}  # fmt: skip


def _place(name: str) -> str:
    """Path in the scenario of a price that is called ``name`` here."""
    kind, _, item = name.partition("/")
    if item.startswith("period-"):
        return f"money.costs.energy.periods.{int(item.removeprefix('period-')) - 1}.price"
    if kind in ("fixed", "training"):
        return f"money.costs.{kind}.{item}.price"
    if kind == "server":
        return f"money.costs.compute.server.{item}"
    return f"money.costs.{_PLACES.get(kind, kind)}"


def drawn(row: PriceRow, money: Money) -> PriceRow:
    """The row times the multiplier that a price draw gave it."""
    factor = money.drawn.get(row.row, 1.0)
    return row if factor == 1.0 else row.scaled(factor)


def compute_terms(money: Money, gpu: str, stage: str) -> Rent | Own:
    """How a GPU is paid for in a stage: the exception by stage, then by GPU, then the rule."""
    costs = money.costs
    if stage in costs.compute_by_stage:
        return costs.compute_by_stage[stage]
    return {catalog.gpu_name(name): terms for name, terms in costs.compute_by_gpu.items()}.get(gpu, costs.compute)


def rent_path(rent: Rent, gpu: str, money: Money, book: PriceBook) -> PricePath:
    """Rent of a GPU in USD/GPU-h over time; one price where it does not change."""
    own = {catalog.gpu_name(name): quotes for name, quotes in rent.prices.items()}
    if gpu in own:
        path = price_path(own[gpu], f"rent/{gpu}")
        try:
            rows = tuple(drawn(in_dollars(row, "GPU-h", money.rates), money) for row in path.rows)
        except PriceError as error:
            raise PriceError(f"money.costs.compute.prices.{gpu}: {str(error).partition(': ')[2]}") from None
        return replace(path, rows=rows)
    try:
        row = book.find(basis_item(rent.basis, rent.vintage), gpu, rent.vintage)
    except PriceError as error:
        have = ", ".join(basis_vintages(rent.basis, gpu, book)) or "none"
        raise PriceError(
            f"money.costs.compute: no price of basis '{rent.basis}', vintage '{rent.vintage}' for GPU '{gpu}' "
            f"(vintages that have one: {have}); give one under compute.prices.{gpu}"
        ) from error
    return PricePath((date.min,), (drawn(in_dollars(row, "GPU-h", money.rates), money),), date.max)


def all_in_w(gpu: str) -> float:
    """IT nameplate power of one GPU with its share of host and network, W."""
    facts = catalog.gpu(gpu)
    return facts.tdp_w + facts.host_share_w


def _derived(base: PriceRow, line: str, scope: str, factor: float, unit: str, formula: str) -> PriceRow:
    return replace(base.scaled(factor), row=f"{line}/{scope} <- {base.row}", unit=unit, note=formula)


def purchase_rows(own: Own, gpu: str, money: Money, book: PriceBook) -> list[PriceRow]:
    """Purchase prices of one GPU with server, network and storage, USD/GPU."""
    given = {catalog.gpu_name(name): ref for name, ref in own.server.items()}
    if gpu in given:
        rows = [priced(given[gpu], f"server/{gpu}", "GPU", money, book)]
    elif book.vintages("purchase_price_market", gpu):
        # The market price names the GPU alone, so a host is added.
        market = drawn(in_dollars(book.find("purchase_price_market", gpu), "GPU", money.rates), money)
        rows = [market, priced("host_capex/gpu", "host", "GPU", money, book)]
    elif book.vintages("rack_price", gpu):
        rows = [drawn(in_dollars(book.find("rack_price", gpu), "GPU", money.rates), money)]
    elif book.vintages("purchase_price_observed", gpu):
        rows = [drawn(in_dollars(book.find("purchase_price_observed", gpu), "GPU", money.rates), money)]
    else:
        raise PriceError(
            f"money.costs.compute.server: no published purchase price of GPU '{gpu}'; state one, such as "
            f"server: {{{gpu}: {{value: 50000, unit: USD/GPU, as_of: 2026-11-01, source: guess}}}}"
        )
    rows.append(priced(own.network, "network", "GPU", money, book))
    rows.append(priced(own.storage, "storage", "GPU", money, book))
    return rows


def owned_lines(own: Own, gpu: str, money: Money, book: PriceBook) -> list[tuple[str, PriceRow]]:
    """Cost lines of an owned GPU, each in USD/GPU-h: depreciation, capital, maintenance, facility or colocation."""
    lines = []
    rate, life, rest = own.cost_of_capital_per_year, own.life_years, own.residual_fraction
    wear = straight_line(life, rest)
    interest = annuity_with_residual(rate, life, rest) - wear
    bought = purchase_rows(own, gpu, money, book)
    for row in bought:
        formula = f"{row.row} x (1 - {rest:g}) / {life:g} years / {YEAR_H:g} h"
        lines.append(("depreciation", _derived(row, "depreciation", gpu, wear / YEAR_H, "USD/GPU-h", formula)))
        if own.method == "annuity" and interest:
            formula = f"{row.row} x (annuity at {rate:g}/year over {life:g} years less depreciation) / {YEAR_H:g} h"
            lines.append(("capital", _derived(row, "capital", gpu, interest / YEAR_H, "USD/GPU-h", formula)))
    if own.maintenance is not None:
        lines.append(("maintenance", priced(own.maintenance, "maintenance", "GPU-h", money, book)))
    elif own.maintenance_fraction_per_year:
        upkeep = own.maintenance_fraction_per_year
        for row in bought[:-1]:
            formula = f"{row.row} x {upkeep:g}/year / {YEAR_H:g} h"
            lines.append(("maintenance", _derived(row, "maintenance", gpu, upkeep / YEAR_H, "USD/GPU-h", formula)))
    return [*lines, _site_line(own, gpu, money, book)]


def _site_line(own: Own, gpu: str, money: Money, book: PriceBook) -> tuple[str, PriceRow]:
    """Facility or colocation of one GPU, USD/GPU-h, from its all-in IT power."""
    power_w = all_in_w(gpu)
    if own.colocation is not None:
        row = priced(own.colocation, "colocation", "kW-month", money, book)
        formula = f"{row.row} x {power_w:g} W / {_MONTH_H:g} h"
        return "colocation", _derived(row, "colocation", gpu, power_w / 1e3 / _MONTH_H, "USD/GPU-h", formula)
    row = priced(own.facility, "facility", "MW", money, book)
    years = own.facility_life_years
    yearly = annuity(own.cost_of_capital_per_year, years) if own.method == "annuity" else straight_line(years)
    formula = f"{row.row} x {power_w:g} W x {yearly:.6g}/year ({own.method}, {years:g} years) / {YEAR_H:g} h"
    return "facility", _derived(row, "facility", gpu, power_w / MEGAWATT_W * yearly / YEAR_H, "USD/GPU-h", formula)


def overhead_lines(money: Money, gpu: str, book: PriceBook) -> list[tuple[str, PriceRow]]:
    """Staff and software of one GPU in USD/GPU-h, where the scenario states them."""
    lines = []
    if money.costs.staff is not None:
        row = priced(money.costs.staff, "staff", "MW-year", money, book)
        power_w = all_in_w(gpu)
        formula = f"{row.row} x {power_w:g} W / {YEAR_H:g} h"
        factor = power_w / MEGAWATT_W / YEAR_H
        lines.append(("staff", _derived(row, "staff", gpu, factor, "USD/GPU-h", formula)))
    if money.costs.software is not None:
        lines.append(("software", priced(money.costs.software, "software", "GPU-h", money, book)))
    return lines


def training_row(run: TrainingCost, money: Money, book: PriceBook) -> PriceRow:
    """Cost of a training run per token served, USD/token."""
    row = priced(run.price, f"training/{run.name}", "run", money, book)
    formula = f"{row.row} / {run.tokens_served:g} tokens"
    return _derived(row, "training", run.name, 1 / run.tokens_served, "USD/token", formula)
