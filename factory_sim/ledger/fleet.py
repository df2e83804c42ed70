"""Machines that come and go: what leaving early costs, and when machines are paid for.

The number of GPUs of a kind on the same terms is summed over services, stages and jobs, so that a move between them is no
departure; days on which old and new machines overlap show both. Machines leave first in, first out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.inputs.money import Money, Own, Rent
from factory_sim.inputs.prices import PriceBook, PriceRow
from factory_sim.ledger import tariffs
from factory_sim.ledger.accounts import cost_accounts
from factory_sim.ledger.capital import book_value
from factory_sim.ledger.entries import Calendar, Entries, entries
from factory_sim.ledger.segments import segments
from factory_sim.units import HOUR_S, YEAR_S

if TYPE_CHECKING:
    import pandas as pd

_TOO_FEW = 1e-6


@dataclass(frozen=True)
class Cohort:
    """Machines of one kind that came together and leave together."""

    replication: int
    gpu: str
    stage: str
    """Stage in which they are last seen."""
    gpus: float
    arrived_s: float
    """Scenario time of arrival; 0 for those that are there from the start."""
    first: bool
    """There from the start of the scenario."""
    left_s: float | None
    """Scenario time at which they left; None if they stay to the end."""
    last_window: int
    """Row of the windows in which they are last seen."""


def cohorts(windows: pd.DataFrame, money: Money) -> list[Cohort]:
    """Machines by time of arrival and of departure, from the GPUs that all windows of a moment hold together.

    Windows of services and jobs need not begin together; machines of a kind on other terms (spot beside owned) are told
    apart.
    """
    found = []
    table = windows[["replication", "gpu", "stage", "start_s", "end_s", "gpus"]].reset_index(drop=True)
    table["row"] = np.arange(len(table))
    for replication, part in table.groupby("replication", sort=True):
        begin_s, end_s = float(part.start_s.min()), float(part.end_s.max())
        for gpu, own in part.groupby("gpu", observed=True, sort=True):
            for rows in _on_one_terms(own, str(gpu), money):
                moments, counts = _held(rows, end_s)
                found += _first_in_first_out(int(replication), str(gpu), rows, moments, counts, begin_s)
    return found


def _on_one_terms(own: pd.DataFrame, gpu: str, money: Money) -> list[pd.DataFrame]:
    """The windows of a kind of GPU, apart by the terms on which its stages hold it."""
    stages = own.stage.astype(str)
    terms = {stage: tariffs.compute_terms(money, gpu, stage) for stage in stages.unique()}
    distinct: list[Rent | Own] = []
    for each in terms.values():
        if each not in distinct:
            distinct.append(each)
    number = stages.map({stage: distinct.index(each) for stage, each in terms.items()})
    return [own[(number == n).to_numpy()] for n in range(len(distinct))]


def _held(rows: pd.DataFrame, end_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Moments at which windows begin or end (the end of the scenario aside), and the GPUs held from then on."""
    cut = segments(rows.start_s.to_numpy(float), rows.end_s.to_numpy(float))
    moments, counts = cut.edges_s, np.append(cut.total(rows.gpus.to_numpy(float)), 0.0)
    return moments[moments < end_s], counts[moments < end_s]


def _first_in_first_out(
    replication: int, gpu: str, own: pd.DataFrame, moments: np.ndarray, counts: np.ndarray, begin_s: float
) -> list[Cohort]:
    held: list[list[float]] = []
    done = []
    before = 0.0

    def closed(gpus: float, arrived_s: float, left_s: float | None, last: pd.Series) -> Cohort:
        return Cohort(replication, gpu, str(last.stage), gpus, arrived_s, arrived_s == begin_s, left_s, int(last.row))

    rows = own.sort_values(["start_s", "row"])
    starts = rows.start_s.to_numpy()
    for moment, count in zip(moments, counts):
        change = count - before
        before = count
        if change > _TOO_FEW:
            held.append([moment, change])
        while change < -_TOO_FEW and held:
            leaving = min(held[0][1], -change)
            last = rows.iloc[np.searchsorted(starts, moment, side="left") - 1]
            done.append(closed(leaving, held[0][0], float(moment), last))
            held[0][1] -= leaving
            change += leaving
            if held[0][1] <= _TOO_FEW:
                held.pop(0)
    return done + [closed(gpus, arrived, None, rows.iloc[-1]) for arrived, gpus in held]


def all_terms(money: Money) -> list[Rent | Own]:
    """All terms on which a scenario holds machines."""
    costs = money.costs
    return [costs.compute, *costs.compute_by_gpu.values(), *costs.compute_by_stage.values()]


def departure_entries(windows: pd.DataFrame, money: Money, book: PriceBook, calendar: Calendar) -> list[Entries]:
    """What leaving early costs: the rest of a rent's term, or the book value that a sale does not bring back.

    Posted at the last window of the machines. Terms without commitment cost nothing to leave.
    """
    if all(isinstance(rent, Rent) and rent.term_years == 0 for rent in all_terms(money)):
        return []
    made = []
    for cohort in cohorts(windows, money):
        if cohort.left_s is not None:
            made += _departure(cohort, money, book, calendar)
    return made


def _departure(cohort: Cohort, money: Money, book: PriceBook, calendar: Calendar) -> list[Entries]:
    terms = tariffs.compute_terms(money, cohort.gpu, cohort.stage)
    window = np.array([cohort.last_window])
    age_years = (cohort.left_s - cohort.arrived_s) / YEAR_S
    if isinstance(terms, Rent):
        elapsed = age_years + (terms.elapsed_years if cohort.first else 0.0)
        hours = max(terms.term_years - elapsed, 0.0) * YEAR_S / HOUR_S
        row = _rent_at(terms, cohort, money, book, calendar)
        amount = np.array([cohort.gpus * hours])
        return [entries("commitment_rest", "", cost_accounts("commitment_rest"), amount, row, window)]
    age_years += terms.age_years.get(cohort.gpu, 0.0) if cohort.first else 0.0
    lost = float(book_value(age_years, terms.life_years, terms.residual_fraction)) * (1 - terms.resale_fraction)
    made = []
    for row in tariffs.purchase_rows(terms, cohort.gpu, money, book):
        formula = f"{row.row} x book value after {age_years:.3g} years x (1 - {terms.resale_fraction:g} resale)"
        derived = replace(row.scaled(lost), row=f"write_off/{cohort.gpu} <- {row.row}", note=formula)
        made.append(entries("write_off", "", cost_accounts("write_off"), np.array([cohort.gpus]), derived, window))
    return made


def _rent_at(rent: Rent, cohort: Cohort, money: Money, book: PriceBook, calendar: Calendar) -> PriceRow:
    """Rent on the day of departure."""
    path = tariffs.rent_path(rent, cohort.gpu, money, book)
    if path.constant:
        return path.rows[0]
    # The last day on which the machines were paid for.
    day = calendar.day_numbers(np.array([cohort.left_s - 1.0]))
    return path.rows[int(path.codes(day, f"rent/{cohort.gpu}")[0])]


def machine_cash(
    windows: pd.DataFrame, money: Money, book: PriceBook, end_s: float
) -> list[tuple[int, float, str, float]]:
    """Cash of owned machines and up-front rents: (replication, time_s, line, dollars; payments negative).

    Machines that are there from the start enter at their book value, those that leave are sold at their part of the
    book value, and those that stay are worth their book value at the end (line ``terminal_value``).
    """
    flows = []
    if all(isinstance(rent, Rent) and not rent.upfront for rent in all_terms(money)):
        return flows
    for cohort in cohorts(windows, money):
        terms = tariffs.compute_terms(money, cohort.gpu, cohort.stage)
        if isinstance(terms, Own):
            flows += _owned_cash(cohort, terms, money, book, end_s)
        elif terms.upfront:
            flows += _upfront_cash(cohort, terms, money, book, end_s)
    return flows


def _owned_cash(cohort: Cohort, own: Own, money: Money, book: PriceBook, end_s: float) -> list[tuple]:
    price = sum(row.value for row in tariffs.purchase_rows(own, cohort.gpu, money, book)) * cohort.gpus
    age = own.age_years.get(cohort.gpu, 0.0) if cohort.first else 0.0
    lives = [(price, own.life_years, own.residual_fraction)]
    if own.colocation is None:
        facility = tariffs.priced(own.facility, "facility", "MW", money, book)
        lives.append((facility.value * tariffs.all_in_w(cohort.gpu) / 1e6 * cohort.gpus, own.facility_life_years, 0.0))
    flows = []
    for number, (paid, life, rest) in enumerate(lives):
        at = age if number == 0 else 0.0
        line = "machines" if number == 0 else "facility"
        flows.append((cohort.replication, cohort.arrived_s, line, -paid * float(book_value(at, life, rest))))
        leaves_s = end_s if cohort.left_s is None or number else cohort.left_s
        value = paid * float(book_value(at + (leaves_s - cohort.arrived_s) / YEAR_S, life, rest))
        if cohort.left_s is not None and number == 0:
            flows.append((cohort.replication, cohort.left_s, "resale", value * own.resale_fraction))
        else:
            flows.append((cohort.replication, end_s, "terminal_value", value))
    return flows


def _upfront_cash(cohort: Cohort, rent: Rent, money: Money, book: PriceBook, end_s: float) -> list[tuple]:
    """The part of the term's rent paid on arrival, and what of it is still unused at the end."""
    row = tariffs.rent_path(rent, cohort.gpu, money, book).rows[0]
    left_years = max(rent.term_years - (rent.elapsed_years if cohort.first else 0.0), 0.0)
    paid = rent.upfront * row.value * cohort.gpus * left_years * YEAR_S / HOUR_S
    gone_s = end_s if cohort.left_s is None else cohort.left_s
    used = min((gone_s - cohort.arrived_s) / YEAR_S / left_years, 1.0) if left_years else 1.0
    rest = 0.0 if cohort.left_s is not None else paid * (1 - used)
    return [(cohort.replication, cohort.arrived_s, "upfront", -paid), (cohort.replication, end_s, "prepaid", rest)]
