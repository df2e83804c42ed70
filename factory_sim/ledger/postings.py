"""Postings: the journal of physical facts, priced. One row is one amount, debited and credited once.

``post`` is the way in. The amount of every posting is quantity times price, whole nano-dollars, and each names the
price row it used, so any total can be recomputed and explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import PriceError, closest
from factory_sim.inputs.money import Money
from factory_sim.inputs.plans import LatencyPromise
from factory_sim.inputs.prices import PriceBook, PriceRow, price_book
from factory_sim.ledger import customers
from factory_sim.ledger.accounts import COST_LINES, REVENUE_LINES
from factory_sim.ledger.bills import Usage
from factory_sim.ledger.costs import cost_entries, training_windows
from factory_sim.ledger.entries import Calendar, Entries, assemble, scale_of
from factory_sim.ledger.fleet import departure_entries
from factory_sim.ledger.plans import plans_of, sell, valid_plan
from factory_sim.ledger.promises import latency_promises, promise_levels

if TYPE_CHECKING:
    import pandas as pd

WINDOW_COLUMNS = (
    "replication", "start_s", "end_s", "service", "stage", "gpu", "gpu_hours", "gpu_hours_down", "requests_completed",
    "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "time_input_s", "time_output_s",
    "time_idle_s", "facility_energy_j", "input_energy_j", "output_energy_j", "idle_energy_j",
)  # fmt: skip
"""Columns of ``windows`` that pricing reads. Used where present: the request counts behind service credits, ``gpus``
(machines that leave before the end of their term or life), those of OUTPUT_COLUMNS, the columns of ``plan_facts`` (latency promises and long prompts), ``price_multiplier`` (prices that moved in the run),
``carbon_multiplier`` and ``trained_tokens`` (training jobs are a use of their own)."""

OUTPUT_COLUMNS = {"images": "images", "videos": "videos", "video_seconds": "video_s"}
"""Line of a sale of images or videos -> the column of windows that counts it."""


@dataclass(frozen=True)
class Books:
    """Postings with the price rows that they name."""

    postings: pd.DataFrame
    rows: dict[str, PriceRow]
    invoices: pd.DataFrame | None = None
    """Invoice lines of customers that are told apart: replication, group, customer, month, line, amount_nusd, usd."""

    def price_table(self) -> pd.DataFrame:
        """The price rows used, one per line: row, value, low, high, unit, as_of, basis, trust, source, note."""
        import pandas as pd

        columns = ("row", "value", "low", "high", "unit", "as_of", "basis", "trust", "source", "note")
        return pd.DataFrame(
            [[getattr(row, column) for column in columns] for _, row in sorted(self.rows.items())], columns=columns
        )


def post(
    windows: pd.DataFrame, terms: Money, *, start: date | datetime | None = None, book: PriceBook | None = None
) -> pd.DataFrame:
    """Price the windows of a run: costs, energy memo lines and sales, as postings.

    ``start`` is the day on which scenario time is zero; it is needed for price paths, hourly tariffs and calendar
    months (months have their mean length without it). Columns of the result: the keys that windows have (replication,
    start_s, end_s, week, service, stage), line, use (input, output, idle, down or nothing), debit, credit, quantity,
    unit, price_usd, amount_nusd (int64) and price_row.
    Raises PriceError for a price that is missing, ambiguous or in another currency without a rate.
    """
    return keep_books(windows, terms, start=start, book=book).postings


def keep_books(
    windows: pd.DataFrame, terms: Money, *, start: date | datetime | None = None, book: PriceBook | None = None
) -> Books:
    """As ``post``, and the price rows beside the postings."""
    missing = [column for column in WINDOW_COLUMNS if column not in windows]
    if missing:
        raise PriceError(f"windows lack the columns {', '.join(missing)}")
    for column in WINDOW_COLUMNS:
        if windows[column].dtype.kind == "f" and not np.isfinite(windows[column].to_numpy()).all():
            raise PriceError(f"windows: column {column} holds a value that is not a number")
    for line in terms.scale.lines:
        if line not in COST_LINES and line not in REVENUE_LINES:
            raise PriceError(f"money.scale.lines: no line '{line}'{closest(line, [*COST_LINES, *REVENUE_LINES])}")
    book = price_book() if book is None else book
    windows = windows.reset_index(drop=True)
    calendar = Calendar(_moment(start))
    sales, invoices = revenue_entries(windows, terms, calendar)
    costs = cost_entries(windows, terms, book, calendar)
    if "gpus" in windows:
        costs += departure_entries(windows, terms, book, calendar)
    kept = books(costs + sales, windows, terms)
    return replace(kept, invoices=customers.invoice_table(invoices, calendar, terms.scale)) if invoices else kept


def books(sheets: Sequence[Entries], windows: pd.DataFrame, terms: Money) -> Books:
    """Postings of ready entries, and the rows they name at the scale of the terms."""
    rows = {}
    for sheet in sheets:
        factor = scale_of(sheet, terms.scale)
        for row in sheet.rows if len(sheet.window) else ():
            rows[row.row] = row if factor == 1 else row.scaled(factor)
    return Books(assemble(sheets, windows, terms.scale), rows)


def _moment(start: date | datetime | None) -> datetime | None:
    if start is None or isinstance(start, datetime):
        return start
    return datetime.combine(start, time(0), tzinfo=UTC)


def revenue_entries(
    windows: pd.DataFrame, terms: Money, calendar: Calendar
) -> tuple[list[Entries], list[customers.Invoices]]:
    """Sales of every service under its plan, and the invoices of customers that are told apart."""
    sheets: list[Entries] = []
    invoices: list[customers.Invoices] = []
    replication = windows.replication.to_numpy(np.int64)
    training = training_windows(windows)
    for service, index in sorted(windows.groupby("service", observed=True, sort=True).indices.items()):
        if not service or training[index].all():
            # Spares and training jobs sell nothing, whatever the plan of all services.
            continue
        groups = [group for group in terms.customers if group.service == service]
        plans = plans_of(terms, service)
        if not groups and not plans:
            continue
        usage = usage_of(windows, np.sort(index), latency_promises(terms))
        for group in groups:
            made, lines = customers.bill_group(group, usage, replication, terms, calendar)
            sheets += made
            invoices += lines
        if not groups:
            sheets += _whole_service(plans, service, usage, terms, calendar)
    return sheets, invoices


def _whole_service(plans: tuple, service: str, usage: Usage, terms: Money, calendar: Calendar) -> list[Entries]:
    """Sales of a service that is one payer."""
    dated = len(plans) > 1 or plans[0].valid_from is not None or plans[0].valid_until is not None
    if not dated:
        return sell(plans[0], service, usage, terms, calendar)
    code = valid_plan(plans, calendar.day_numbers(usage.start_s), service)
    sheets = []
    for number, plan in enumerate(plans):
        sheets += sell(plan, service, usage.pick(code == number), terms, calendar)
    return sheets


def usage_of(windows: pd.DataFrame, index: np.ndarray, promises: Sequence[LatencyPromise] = ()) -> Usage:
    """Usage of the windows at ``index`` (one service), each replication one payer; with the latency ``promises`` kept."""
    part = windows.iloc[index]

    def column(name: str) -> np.ndarray:
        return part[name].to_numpy(float)

    cached, reasoning = column("cached_input_tokens"), column("reasoning_tokens")
    completed = column("requests_completed")
    paid = column("gpu_hours")
    level = {"availability": (paid - column("gpu_hours_down"), paid)}
    if "requests_within_slo" in part:
        level["within_promise"] = (column("requests_within_slo"), completed)
    if {"requests_turned_away", "requests_lost"} <= set(part.columns):
        level["served"] = (completed, completed + column("requests_turned_away") + column("requests_lost"))
    level |= promise_levels(part, promises)
    return Usage(
        window=index,
        payer=part.replication.to_numpy(np.int64),
        start_s=column("start_s"),
        end_s=column("end_s"),
        fresh_input=column("input_tokens") - cached,
        cached_input=cached,
        answer=column("output_tokens") - reasoning,
        reasoning=reasoning,
        requests=completed,
        price_factor=part.price_multiplier.fillna(1.0).to_numpy(float) if "price_multiplier" in part else None,
        service_level=level,
        batch_shares=_batch_shares(part),
        long_shares={str(name): column(name) for name in part if str(name).startswith("long_above_")},
        outputs={line: column(name) for line, name in OUTPUT_COLUMNS.items() if name in part and column(name).any()},
    )


def _batch_shares(part: pd.DataFrame) -> dict[str, np.ndarray]:
    """Part of the input and output tokens of windows that is batch jobs'; empty where there are no jobs."""
    if "batch_output_tokens" not in part or not part.batch_output_tokens.any():
        return {}
    shares = {}
    for side in ("input", "output"):
        whole = part[f"{side}_tokens"].to_numpy(float)
        jobs = part[f"batch_{side}_tokens"].to_numpy(float)
        shares[side] = np.divide(jobs, whole, out=np.zeros_like(jobs), where=whole > 0)
    return shares
