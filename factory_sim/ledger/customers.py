"""Customers told apart: each is billed on its own, and the ledger receives the sums by window.

Invoices (one line a customer, month and plan line) are the sub-ledger; postings carry the same amounts by window, so
both add up to the same nano-dollar. Customers are billed in blocks, so that memory does not grow with their number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.inputs.money import Money, Scale
from factory_sim.inputs.plans import CustomerGroup, Plan
from factory_sim.ledger.accounts import NANO
from factory_sim.ledger.bills import Months, Usage
from factory_sim.ledger.entries import Calendar, Entries, scaled_nusd
from factory_sim.ledger.plans import plans_of, sell_elements, valid_plan

if TYPE_CHECKING:
    import pandas as pd

_BLOCK = 200_000
"""Elements (windows times customers) billed at a time."""


@dataclass(frozen=True)
class Invoices:
    """Lines of invoices, as arrays of equal length."""

    group: str
    customer: np.ndarray
    """Number of the customer in its group, from 1."""
    replication: np.ndarray
    month: np.ndarray
    line: str
    amount_nusd: np.ndarray
    """A credit is negative."""


def shares(group: CustomerGroup) -> np.ndarray:
    """Part of the service's usage of each customer of the group, largest first."""
    weight = np.arange(1, group.count + 1, dtype=float) ** -group.concentration
    return group.share * weight / weight.sum()


def bill_group(
    group: CustomerGroup, usage: Usage, replication: np.ndarray, money: Money, calendar: Calendar
) -> tuple[list[Entries], list[Invoices]]:
    """Entries by window and invoice lines of all customers of a group; ``usage`` is that of the whole service."""
    key = group.plan or group.service
    plans = plans_of(money, key)
    dated = len(plans) > 1 or (plans and (plans[0].valid_from or plans[0].valid_until))
    code = valid_plan(plans, calendar.day_numbers(usage.start_s), key) if dated else np.zeros(len(usage), dtype=int)
    sheets: list[Entries] = []
    invoices: list[Invoices] = []
    for number, plan in enumerate(plans):
        part = usage.pick(code == number)
        if not len(part):
            continue
        made, lines = _bill_plan(group, plan, key, part, replication, money, calendar)
        sheets += made
        invoices += lines
    return sheets, invoices


def _bill_plan(
    group: CustomerGroup, plan: Plan, key: str, usage: Usage, replication: np.ndarray, money: Money, calendar: Calendar
) -> tuple[list[Entries], list[Invoices]]:
    part = shares(group)
    block = max(_BLOCK // len(usage), 1)
    totals: dict[tuple, _Sum] = {}
    invoices: list[Invoices] = []
    for first in range(0, len(part), block):
        some = part[first : first + block]
        spread = _spread(usage, some)
        sheets, bill = sell_elements(plan, key, spread, money, calendar)
        for sheet in sheets:
            name = (sheet.line, *(row.row for row in sheet.rows))
            totals.setdefault(name, _Sum(sheet, len(usage))).add(sheet, len(some))
        invoices += _invoices(group, first, len(some), usage, sheets, bill, replication, calendar)
    return [total.entries(usage.window) for total in totals.values()], invoices


def _spread(usage: Usage, part: np.ndarray) -> Usage:
    """Usage of several customers: element = window number times customers, plus the customer."""
    count = len(part)

    def times(values: np.ndarray) -> np.ndarray:
        return np.multiply.outer(values, part).ravel()

    level = usage.service_level
    if level is not None:
        level = {name: (np.repeat(good, count), np.repeat(whole, count)) for name, (good, whole) in level.items()}
    payer = (usage.payer[:, None] * count + np.arange(count)).ravel()
    return replace(
        usage,
        window=np.repeat(usage.window, count),
        payer=payer,
        start_s=np.repeat(usage.start_s, count),
        end_s=np.repeat(usage.end_s, count),
        fresh_input=times(usage.fresh_input),
        cached_input=times(usage.cached_input),
        answer=times(usage.answer),
        reasoning=times(usage.reasoning),
        requests=times(usage.requests),
        price_factor=None if usage.price_factor is None else np.repeat(usage.price_factor, count),
        service_level=level,
        long_shares={name: np.repeat(share, count) for name, share in usage.long_shares.items()},
        outputs={name: times(quantity) for name, quantity in usage.outputs.items()},
    )


class _Sum:
    """Running sums by window of one line at one price row, over blocks of customers."""

    def __init__(self, sheet: Entries, windows: int):
        self._sheet = sheet
        self._quantity = np.zeros(windows)
        self._amount = np.zeros(windows, dtype=np.int64)
        self._code = np.zeros(windows, dtype=np.int32)

    def add(self, sheet: Entries, customers: int) -> None:
        window = sheet.window // customers
        self._quantity += np.bincount(window, sheet.quantity, len(self._quantity))
        np.add.at(self._amount, window, sheet.amounts_nusd)
        self._code[window] = sheet.row_code

    def entries(self, window: np.ndarray) -> Entries:
        used = np.flatnonzero((self._quantity != 0) | (self._amount != 0))
        return replace(
            self._sheet,
            window=window[used],
            quantity=self._quantity[used],
            row_code=self._code[used],
            settled_nusd=self._amount[used],
        )


def _invoices(
    group: CustomerGroup, first: int, count: int, usage: Usage, sheets: list[Entries], bill: Months,
    replication: np.ndarray, calendar: Calendar,
) -> list[Invoices]:  # fmt: skip
    """Invoice lines of one block: amounts by bill and line."""
    last_window, customer = np.divmod(bill.last, count)
    month = calendar.month(usage.start_s)[last_window]
    own_replication = replication[usage.window[last_window]]
    sums: dict[str, np.ndarray] = {}
    for sheet in sheets:
        total = sums.setdefault(sheet.line, np.zeros(len(bill.last), dtype=np.int64))
        sign = -1 if sheet.debit.startswith("revenue:") else 1
        np.add.at(total, bill.bill[sheet.window], sign * sheet.amounts_nusd)
    return [
        Invoices(group.name, first + customer + 1, own_replication, month, line, total) for line, total in sums.items()
    ]


def invoice_table(invoices: list[Invoices], calendar: Calendar, scale: Scale) -> pd.DataFrame:
    """Invoices as a table: replication, group, customer, month, line, amount_nusd, usd."""
    import pandas as pd

    parts = [
        pd.DataFrame(
            {
                "replication": lines.replication,
                "group": lines.group,
                "customer": lines.customer,
                "month": lines.month,
                "line": lines.line,
                "amount_nusd": scaled_nusd(
                    lines.amount_nusd, scale.prices * scale.sales * scale.lines.get(lines.line, 1.0)
                ),
            }
        )
        for lines in invoices
    ]
    columns = ["replication", "group", "customer", "month", "line", "amount_nusd"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    table = table[table.amount_nusd != 0].reset_index(drop=True)
    table["usd"] = table.amount_nusd.astype(float) / NANO
    table["month"] = [calendar.month_name(int(month)) for month in table.month]
    return table
