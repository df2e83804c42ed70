"""From quantities and prices to postings: the one place where a product of the two becomes an amount."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Scale
from factory_sim.inputs.prices import PriceRow
from factory_sim.ledger.accounts import to_nano
from factory_sim.units import DAY_S, HOUR_S, WEEK_S, YEAR_S

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("replication", "start_s", "end_s", "week", "service", "stage", "customer")
"""Columns that postings inherit from the quantities they price, where those have them."""

MEAN_MONTH_S = YEAR_S / 12


@dataclass(frozen=True)
class Entries:
    """Postings of one line for many windows: window index, quantity and price are arrays of equal length."""

    line: str
    use: str
    debit: str
    credit: str
    window: np.ndarray
    """Row numbers in the table of quantities."""
    quantity: np.ndarray
    unit: str
    rows: tuple[PriceRow, ...]
    """Price rows, in dollars per unit."""
    row_code: np.ndarray
    """Index into ``rows`` of each posting."""
    settled_nusd: np.ndarray | None = None
    """Amounts known otherwise (top-ups, credits)."""

    @property
    def amounts_nusd(self) -> np.ndarray:
        """Amount of each posting in whole nano-dollars: quantity times price, unless it is known otherwise."""
        return to_nano(self.quantity * self.price_usd) if self.settled_nusd is None else self.settled_nusd

    @property
    def price_usd(self) -> np.ndarray:
        """Dollars per unit of each posting; zero for a row that is not a price (an emission factor)."""
        values = [row.value if row.unit.startswith("USD/") else 0.0 for row in self.rows]
        if len(values) == 1:
            return np.full(len(self.window), values[0])
        return np.array(values)[self.row_code]


def entries(
    line: str,
    use: str,
    accounts: tuple[str, str],
    quantity: np.ndarray,
    rows: PriceRow | tuple[Sequence[PriceRow], np.ndarray],
    window: np.ndarray | None = None,
    unit: str | None = None,
) -> Entries:
    """Entries of one line; windows without quantity are left out.

    ``rows`` is one price row in USD per unit, or (price rows, index of each window into them). ``unit`` is what the
    price buys unless given.
    """
    quantity = np.asarray(quantity, dtype=np.float64)
    names, codes = ((rows,), np.zeros(len(quantity), np.int32)) if isinstance(rows, PriceRow) else rows
    window = np.arange(len(quantity)) if window is None else window
    unit = names[0].unit.removeprefix("USD/") if unit is None else unit
    keep = quantity != 0
    if not keep.all():
        window, quantity, codes = window[keep], quantity[keep], np.asarray(codes)[keep]
    return Entries(line, use, *accounts, window, quantity, unit, tuple(names), np.asarray(codes, dtype=np.int32))


def scale_of(sheet: Entries, scale: Scale) -> float:
    """Multiplier of a line: all prices, its side of the statement, and the line itself."""
    side = scale.costs if sheet.debit.startswith(("cost:", "memo:")) else scale.sales
    return scale.prices * side * scale.lines.get(sheet.line, 1.0)


def assemble(sheets: Sequence[Entries], quantities: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """Join the sheets into one table of postings (columns: KEYS present, then line, use, debit, credit, quantity, unit,
    price_usd, amount_nusd, price_row).

    Amounts are rounded to the nano-dollar at the unscaled price, then multiplied by their scale: a scale of two doubles
    every amount exactly.
    """
    import pandas as pd

    sheets = [sheet for sheet in sheets if len(sheet.window)]
    sizes = [len(sheet.window) for sheet in sheets]
    window = _joined([sheet.window for sheet in sheets], np.int64)
    table = {key: quantities[key].array.take(window) for key in KEYS if key in quantities}
    for name in ("line", "use", "debit", "credit", "unit"):
        table[name] = _labels([getattr(sheet, name) for sheet in sheets], sizes)
    table["quantity"] = _joined([sheet.quantity for sheet in sheets], np.float64)
    factors = [scale_of(sheet, scale) for sheet in sheets]
    table["price_usd"] = _joined([s.price_usd * f for s, f in zip(sheets, factors)], np.float64)
    table["amount_nusd"] = _joined([scaled_nusd(s.amounts_nusd, f) for s, f in zip(sheets, factors)], np.int64)
    table["price_row"] = _row_labels(sheets)
    order = ["line", "use", "debit", "credit", "quantity", "unit", "price_usd", "amount_nusd", "price_row"]
    return pd.DataFrame(table, columns=[key for key in KEYS if key in quantities] + order, copy=False)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.empty(0, dtype=dtype)


def scaled_nusd(amounts: np.ndarray, factor: float) -> np.ndarray:
    """Amounts times a factor in whole nano-dollars; exact for whole factors."""
    if factor == 1:
        return amounts
    return amounts * int(factor) if factor == int(factor) else np.rint(amounts * factor).astype(np.int64)


def _labels(values: list[str], sizes: list[int]) -> pd.Categorical:
    import pandas as pd

    names = sorted(set(values))
    index = {name: code for code, name in enumerate(names)}
    codes = np.repeat(np.array([index[value] for value in values], dtype=np.int16), sizes)
    return pd.Categorical.from_codes(codes, categories=names)


def _row_labels(sheets: list[Entries]) -> pd.Categorical:
    import pandas as pd

    names = sorted({row.row for sheet in sheets for row in sheet.rows})
    index = {name: code for code, name in enumerate(names)}
    parts = [np.array([index[row.row] for row in sheet.rows], dtype=np.int32)[sheet.row_code] for sheet in sheets]
    return pd.Categorical.from_codes(_joined(parts, np.int32), categories=names)


@dataclass(frozen=True)
class Calendar:
    """Months and hours of scenario time; without a start date months have their mean length (30.4375 days)."""

    start: datetime | None

    def month(self, start_s: np.ndarray) -> np.ndarray:
        """Number of the calendar month in which each moment lies, counted from year zero (or from the start)."""
        if self.start is None:
            return np.floor_divide(start_s, MEAN_MONTH_S).astype(np.int64)
        first, edges = self._edges(start_s)
        return first + np.searchsorted(edges, start_s, side="right") - 1

    def month_s(self, start_s: np.ndarray) -> np.ndarray:
        """Length of that month, seconds."""
        if self.start is None:
            return np.full(len(start_s), MEAN_MONTH_S)
        _, edges = self._edges(start_s)
        return np.diff(edges)[np.searchsorted(edges, start_s, side="right") - 1]

    def _edges(self, start_s: np.ndarray) -> tuple[int, np.ndarray]:
        """Number of the first month, and the scenario times at which months begin, past the last moment."""
        first = self.start.year * 12 + self.start.month - 1
        last_s = float(np.max(start_s, initial=0.0))
        edges, number = [], first
        while not edges or edges[-1] <= last_s:
            year, month = divmod(number, 12)
            edges.append((datetime(year, month + 1, 1, tzinfo=self.start.tzinfo) - self.start).total_seconds())
            number += 1
        return first, np.array(edges)

    def month_name(self, month: int) -> str:
        """``2026-11``, or ``month 1`` without a start date."""
        return f"month {month + 1}" if self.start is None else f"{month // 12}-{month % 12 + 1:02d}"

    def day_numbers(self, start_s: np.ndarray) -> np.ndarray:
        """Proleptic day number (``date.toordinal``) of each moment; needs a start date."""
        if self.start is None:
            raise PriceError("dated prices need the date on which the scenario starts")
        into_day = timedelta(hours=self.start.hour, minutes=self.start.minute, seconds=self.start.second)
        days = (start_s + into_day.total_seconds()) // DAY_S
        return self.start.date().toordinal() + days.astype(np.int64)

    def week_seconds(self, moment_s: np.ndarray) -> np.ndarray:
        """Seconds since Monday 00:00 of scenario time (not wrapped); needs a start date."""
        if self.start is None:
            raise PriceError("an hourly tariff or schedule needs the date on which the scenario starts")
        clock_s = self.start.hour * HOUR_S + self.start.minute * 60 + self.start.second
        return moment_s + self.start.weekday() * DAY_S + clock_s

    def share_in(self, start_s: np.ndarray, end_s: np.ndarray, in_period: np.ndarray) -> np.ndarray:
        """Part of each window that lies in the marked minutes of the week (bool array of 10,080)."""
        minute_s = 60.0
        total = np.concatenate([[0.0], np.cumsum(in_period)]) * minute_s
        grid = np.arange(len(total)) * minute_s

        def elapsed(moment_s: np.ndarray) -> np.ndarray:
            weeks, rest = np.divmod(self.week_seconds(moment_s), WEEK_S)
            return weeks * total[-1] + np.interp(rest, grid, total)

        return (elapsed(end_s) - elapsed(start_s)) / (end_s - start_s)
