"""The price book: dated, sourced price rows, and the one place where units and currencies become dollars.

A row is one published (or guessed) figure. Several sources of one vintage become their median with the spread as range;
vintages are never mixed. A price that a scenario states itself is a ``Quote`` and must carry unit, date and source.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from factory_sim.errors import PriceError, closest
from factory_sim.records import Record

if TYPE_CHECKING:
    import numpy as np

TABLES = ("gpu_prices.csv", "facility.csv", "assumptions.csv", "demand.csv")

# What one unit holds of the unit that postings use for the same thing (right-hand side).
_UNIT_SIZE = {
    "GPU-h": ("GPU-h", 1.0),
    "GPU-year": ("GPU-h", 365.25 * 24),
    "GPU-month": ("GPU-h", 365.25 * 2),
    "kWh": ("kWh", 1.0),
    "MWh": ("kWh", 1e3),
    "kW-month": ("kW-month", 1.0),
    "kW-year": ("kW-month", 12.0),
    "MW-month": ("kW-month", 1e3),
    "MW-year": ("MW-year", 1.0),
    "MW": ("MW", 1.0),
    "W": ("MW", 1e-6),
    "kW": ("MW", 1e-3),
    "GPU": ("GPU", 1.0),
    "8-GPU server": ("GPU", 8.0),
    "rack": ("GPU", 72.0),
    "GB": ("GB", 1.0),
    "TB": ("GB", 1e3),
    "t": ("t", 1.0),
    "kg": ("t", 1e-3),
    "token": ("token", 1.0),
    "ktok": ("token", 1e3),
    "Mtok": ("token", 1e6),
    "million tokens": ("token", 1e6),
    "request": ("request", 1.0),
    "month": ("month", 1.0),
    "year": ("month", 12.0),
}
CURRENCY = r"^[A-Z]{3}$"
"""Pattern of a currency code."""


class Quote(Record):
    """A price (or other figure with a price's life) that a scenario states itself."""

    value: float
    """The figure, in ``unit``."""
    low: float | None = None
    """Lower end of its range (P10)."""
    high: float | None = None
    """Upper end of its range (P90)."""
    unit: str = Field(min_length=1)
    """For a price, currency and what it buys: ``USD/GPU-h``, ``EUR/kWh``, ``USD/kW-month``, ``USD/Mtok``."""
    as_of: date
    """Day on which the figure was true."""
    valid_from: date | None = None
    """First day of validity, in a price path."""
    valid_until: date | None = None
    """Day on which another price takes over (not included)."""
    source: str = Field(min_length=1)
    """Where it comes from: contract, page, tariff sheet; ``guess`` is a source."""
    note: str = ""
    """What a reader of the statement should know: terms, scope, what is not in it."""

    @model_validator(mode="after")
    def _consistent(self):
        if self.value < 0:
            raise ValueError(f"value is {self.value:g}; a price is not negative (a credit is a plan feature)")
        if (self.low is not None and self.low > self.value) or (self.high is not None and self.high < self.value):
            raise ValueError(f"value {self.value:g} lies outside its range low={self.low} high={self.high}")
        if self.valid_from and self.valid_until and self.valid_until <= self.valid_from:
            raise ValueError(f"valid_until {self.valid_until} is not after valid_from {self.valid_from}")
        return self


PriceRef = Quote | str
"""A price stated in the scenario, or the id of a row of the shipped tables
(``electricity_price_industrial/us-tx/2023``)."""


class ExchangeRate(Record):
    """What one unit of a currency was worth in dollars."""

    usd: float = Field(gt=0)
    """Dollars for one unit of the currency."""
    as_of: date
    """Day of the rate."""
    source: str = Field(min_length=1)
    """Where the rate comes from."""


@dataclass(frozen=True)
class PriceRow:
    """One figure of the price book."""

    row: str
    item: str
    scope: str
    value: float
    low: float | None
    high: float | None
    unit: str
    vintage: str
    as_of: str
    basis: str
    source: str
    note: str = ""

    @property
    def trust(self) -> str:
        """Class for explanations: measured, list price, estimate, stated or assumption."""
        if self.basis in ("guess", "assumption"):
            return "assumption"
        if self.basis in ("measured", "stated"):
            return self.basis
        if self.item in _LISTED or self.basis == "list price":
            return "list price"
        return "estimate"

    def scaled(self, factor: float) -> PriceRow:
        """The same row with value and range times ``factor``."""
        low, high = (None if bound is None else bound * factor for bound in (self.low, self.high))
        return replace(self, value=self.value * factor, low=low, high=high)


_LISTED = {
    "rental_on_demand", "rental_1yr", "rental_3yr_list", "rental_capacity_block", "rental_on_demand_market",
    "purchase_price_at_release", "purchase_price_observed", "electricity_price_industrial",
    "electricity_price_non_household", "colocation_price", "rental_assumed",
}  # fmt: skip


class PriceBook:
    """Rows by id, and lookups by item, scope and vintage."""

    def __init__(self, rows: Iterable[PriceRow]):
        self._rows = {row.row: row for row in rows}
        self._by_item: dict[tuple[str, str], list[PriceRow]] = {}
        for row in self._rows.values():
            self._by_item.setdefault((row.item, row.scope.lower()), []).append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> tuple[PriceRow, ...]:
        """All rows, in table order."""
        return tuple(self._rows.values())

    def row(self, row: str) -> PriceRow:
        """The row with this id; PriceError names the closest."""
        if row not in self._rows:
            raise PriceError(f"price row '{row}' is not in the price book{closest(row, self._rows)}")
        return self._rows[row]

    def vintages(self, item: str, scope: str) -> tuple[str, ...]:
        """Vintages that hold this item for this scope, oldest first."""
        return tuple(sorted({row.vintage for row in self._by_item.get((item, scope.lower()), ())}))

    def find(self, item: str, scope: str, vintage: str | None = None) -> PriceRow:
        """The figure of one item, scope and vintage.

        A vintage may be a prefix (``2025`` holds every date of 2025). Several sources of the vintage become one row:
        their median, with the lowest and highest as range. Without vintage the newest is taken.
        Raises PriceError that lists the vintages (or nearest scopes) that exist.
        """
        held = self._by_item.get((item, scope.lower()))
        if not held:
            scopes = sorted(s for i, s in self._by_item if i == item)
            if not scopes:
                known = sorted({i for i, _ in self._by_item})
                raise PriceError(f"no price item '{item}' in the price book{closest(item, known)}")
            raise PriceError(f"no '{item}' for '{scope}' in the price book{closest(scope.lower(), scopes)}")
        wanted = max(row.vintage for row in held) if vintage is None else vintage
        rows = [row for row in held if row.vintage == wanted or row.vintage.startswith(wanted + "-")]
        if not rows:
            have = ", ".join(self.vintages(item, scope))
            raise PriceError(f"'{item}' of '{scope}' has no vintage '{wanted}'; it has {have}")
        return rows[0] if len(rows) == 1 else _median(rows, wanted)


def _median(rows: Sequence[PriceRow], vintage: str) -> PriceRow:
    """One row for several sources of one vintage."""
    units = sorted({row.unit for row in rows})
    if len(units) > 1:
        raise PriceError(f"{rows[0].item} of {rows[0].scope} in {vintage} mixes units {', '.join(units)}")
    values = sorted(row.value for row in rows)
    middle = len(values) // 2
    value = values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
    lows = [row.value if row.low is None else row.low for row in rows]
    highs = [row.value if row.high is None else row.high for row in rows]
    return PriceRow(
        row=f"{rows[0].item}/{rows[0].scope}/{vintage}/median",
        item=rows[0].item,
        scope=rows[0].scope,
        value=value,
        low=min(lows),
        high=max(highs),
        unit=units[0],
        vintage=vintage,
        as_of=max(row.as_of for row in rows),
        basis="computed",
        source=f"median of {len(rows)} rows of {vintage}: " + "; ".join(row.row for row in rows),
    )


@cache
def price_book() -> PriceBook:
    """The shipped price book."""
    return PriceBook(row for table in TABLES for row in _read(table))


def _read(table: str) -> list[PriceRow]:
    with files("factory_sim.data").joinpath("economics", table).open(encoding="utf-8", newline="") as file:
        return [_price_row(entry, table) for entry in csv.DictReader(file)]


def _price_row(entry: Mapping[str, str], table: str) -> PriceRow:
    """Check one line of a table: a unit, a source, a date, and a figure or a range."""
    for column in ("row", "item", "unit", "source", "as_of"):
        if not entry[column]:
            raise PriceError(f"{table}: row '{entry['row']}' has no {column}")
    low, high = (float(entry[bound]) if entry[bound] else None for bound in ("low", "high"))
    if entry["value"]:
        value = float(entry["value"])
    elif low is not None and high is not None:
        value = math.copysign(math.sqrt(low * high), low) if low * high > 0 else (low + high) / 2
    else:
        value = next((bound for bound in (low, high) if bound is not None), math.nan)
    return PriceRow(
        row=entry["row"],
        item=entry["item"],
        scope=entry.get("gpu") or entry["scope"],
        value=value,
        low=low,
        high=high,
        unit=entry["unit"],
        vintage=entry.get("vintage") or entry["as_of"],
        as_of=entry["as_of"],
        basis=entry["basis"],
        source=entry["source"],
        note=entry["note"],
    )


def stated_basis(source: str) -> str:
    """``guess`` for a source that is empty or begins with that word, else ``stated``."""
    return "guess" if re.match(r"\s*(guess\b|$)", source, re.IGNORECASE) else "stated"


def quote_row(quote: Quote, name: str) -> PriceRow:
    """A stated price as a row of the book, called ``name``; a source that begins with guess makes it an assumption."""
    return PriceRow(
        row=name,
        item="stated",
        scope=name,
        value=quote.value,
        low=quote.low,
        high=quote.high,
        unit=quote.unit,
        vintage=str(quote.valid_from or quote.as_of),
        as_of=str(quote.as_of),
        basis=stated_basis(quote.source),
        source=quote.source,
        note=quote.note,
    )


def in_dollars(row: PriceRow, unit: str, rates: Mapping[str, ExchangeRate]) -> PriceRow:
    """The row as USD per ``unit`` (the unit of the posting), converting currency and size of the unit.

    Raises PriceError when the unit buys something else, or the currency has no rate.
    """
    currency, _, bought = row.unit.partition("/")
    if not re.match(CURRENCY, currency) or not bought:
        raise PriceError(f"{row.row}: unit '{row.unit}' is not currency/thing, such as USD/{unit}")
    factor = 1.0
    source = row.source
    if currency != "USD":
        if currency not in rates:
            raise PriceError(
                f"{row.row}: price in {currency} and no rate for it; "
                f"add money.rates.{currency}: {{usd: ..., as_of: ..., source: ...}}"
            )
        factor = rates[currency].usd
        source += f"; {currency} at {factor:g} USD ({rates[currency].source}, {rates[currency].as_of})"
    kind, size = _UNIT_SIZE.get(bought, (bought, 1.0))
    wanted, wanted_size = _UNIT_SIZE.get(unit, (unit, 1.0))
    if kind != wanted:
        raise PriceError(f"{row.row}: unit is '{row.unit}' where USD/{unit} is needed")
    return replace(row.scaled(factor * wanted_size / size), unit=f"USD/{unit}", source=source)


def resolve(ref: PriceRef, name: str, book: PriceBook) -> PriceRow:
    """The row behind a reference: the scenario's own quote (called ``name``) or a row id of the book."""
    return quote_row(ref, name) if isinstance(ref, Quote) else book.row(ref)


@dataclass(frozen=True)
class PricePath:
    """Prices one after another."""

    first_days: tuple[date, ...]
    """First day of each price, rising; ``date.min`` where there is no first day."""
    rows: tuple[PriceRow, ...]
    until: date
    """Day on which the last price ends (not included); ``date.max`` where it does not."""

    @property
    def constant(self) -> bool:
        """One price for ever."""
        return len(self.rows) == 1 and self.first_days[0] == date.min and self.until == date.max

    def codes(self, days: np.ndarray, name: str) -> np.ndarray:
        """Number of the row of each day (``date.toordinal``); PriceError for a day without a price."""
        import numpy as np

        firsts = np.array([day.toordinal() for day in self.first_days])
        codes = np.searchsorted(firsts, days, side="right") - 1
        if (codes < 0).any():
            raise PriceError(f"{name}: no price before {self.first_days[0]}, where the scenario already needs one")
        if (days >= self.until.toordinal()).any():
            raise PriceError(f"{name}: no price from {self.until} on, where the scenario still needs one")
        return codes


def price_path(quotes: Sequence[Quote], name: str) -> PricePath:
    """A dated path of prices; a gap or an overlap between them is an error. One quote without dates holds for ever."""
    if not quotes:
        raise PriceError(f"{name}: the list of prices is empty")
    if len(quotes) == 1:
        only = quotes[0]
        return PricePath((only.valid_from or date.min,), (quote_row(only, name),), only.valid_until or date.max)
    for quote in quotes:
        if quote.valid_from is None:
            raise PriceError(f"{name}: each price of a path needs valid_from")
    ordered = sorted(quotes, key=lambda quote: quote.valid_from)
    for earlier, later in pairwise(ordered):
        if earlier.valid_from == later.valid_from:
            raise PriceError(f"{name}: two prices are valid from {later.valid_from}")
        if earlier.valid_until and earlier.valid_until > later.valid_from:
            raise PriceError(
                f"{name}: prices overlap from {later.valid_from} to {earlier.valid_until}; "
                f"end the earlier with valid_until: {later.valid_from}"
            )
        if earlier.valid_until and earlier.valid_until < later.valid_from:
            raise PriceError(f"{name}: no price between {earlier.valid_until} and {later.valid_from}")
    rows = tuple(quote_row(quote, f"{name}@{quote.valid_from}") for quote in ordered)
    return PricePath(tuple(quote.valid_from for quote in ordered), rows, ordered[-1].valid_until or date.max)


def row_date(as_of: str) -> date | None:
    """Last day that an ``as_of`` text can mean (``2026``, ``2026-07``, ``2026-04..2026-07``); None if it has none."""
    found = re.findall(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", as_of)
    if not found:
        return None
    year, month, day = found[-1]
    if not month:
        return date(int(year), 12, 31)
    if not day:
        return date(int(year), int(month), 28)
    return date(int(year), int(month), int(day))
