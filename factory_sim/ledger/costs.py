"""The cost side: windows of physical facts become entries of rent, capital, energy and overhead.

Attribution adds up to the bill: GPU-hours are split by the seconds that replicas spent on prompts, on answers and idle,
with hours that were down apart; energy is split by joules.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money, Own, PaidSchedule, Rent
from factory_sim.inputs.prices import PriceBook, PriceRow, resolve
from factory_sim.ledger import tariffs
from factory_sim.ledger.accounts import FLEET_BESIDE, cost_accounts, memo_accounts
from factory_sim.ledger.entries import Calendar, Entries, entries
from factory_sim.ledger.segments import borne, segments
from factory_sim.units import DAY_S, HOUR_S, KILOWATT_HOUR_J

if TYPE_CHECKING:
    import pandas as pd

Uses = dict[str, np.ndarray]
_WEEK_MINUTES = 7 * 24 * 60
_WORKED = ("input", "output", "idle")


def gpu_hours_by_use(windows: pd.DataFrame) -> Uses:
    """GPU-hours paid for, split into input, output, idle and down (and train); they add up to ``gpu_hours``.

    Hours that were up follow the replica-seconds of the window; hours of machines without any replica are idle.
    """
    paid = windows.gpu_hours.to_numpy(float)
    down = np.minimum(windows.gpu_hours_down.to_numpy(float), paid)
    split = _shared_out(paid - down, {use: windows[f"time_{use}_s"].to_numpy(float) for use in _WORKED})
    return _training_apart(split, windows) | {"down": down}


def _shared_out(whole: np.ndarray, parts: Uses) -> Uses:
    """The whole in proportion to the parts; idle where there are none."""
    total = sum(parts.values())
    some = total > 0
    share = whole / np.where(some, total, 1.0)
    split = {use: share * part for use, part in parts.items()}
    split["idle"] = np.where(some, split["idle"], whole)
    return split


def training_windows(windows: pd.DataFrame) -> np.ndarray:
    """Which windows belong to training jobs: those of a name under which tokens were trained."""
    if "trained_tokens" not in windows or not (windows.trained_tokens > 0).any():
        return np.zeros(len(windows), dtype=bool)
    names = set(windows.service[windows.trained_tokens > 0].astype(str))
    return windows.service.astype(str).isin(names).to_numpy()


def _training_apart(split: Uses, windows: pd.DataFrame) -> Uses:
    """What training jobs worked is a use of its own, so that it does not count as the cost of tokens served."""
    jobs = training_windows(windows)
    if not jobs.any():
        return split
    worked = np.where(jobs, split["input"] + split["output"], 0.0)
    served = {use: np.where(jobs, 0.0, split[use]) for use in ("input", "output")}
    return split | served | {"train": worked}


def energy_by_use(windows: pd.DataFrame) -> Uses:
    """Energy at the meter in kWh, split by the joules of input, output and idle; the three add up to the facility's."""
    whole = windows.facility_energy_j.to_numpy(float) / KILOWATT_HOUR_J
    split = _shared_out(whole, {use: windows[f"{use}_energy_j"].to_numpy(float) for use in _WORKED})
    return _training_apart(split, windows)


def cost_entries(windows: pd.DataFrame, money: Money, book: PriceBook, calendar: Calendar) -> list[Entries]:
    """All entries of the cost side, and memo entries of energy and emissions that the rent contains."""
    hours = gpu_hours_by_use(windows)
    paid = hours
    if money.costs.schedule is not None:
        paid = _scheduled(money.costs.schedule, windows, hours, calendar)
    sheets, owned = _compute_entries(windows, paid, money, book, calendar)
    if paid is not hours:
        sheets += _fleet_beside(windows, hours, paid, money, book, calendar)
    kilowatt_hours = energy_by_use(windows)
    billed = owned if money.costs.energy.billed is None else np.full(len(windows), money.costs.energy.billed)
    sheets += _energy_entries(windows, kilowatt_hours, billed, money, book, calendar)
    sheets += _carbon_entries(windows, kilowatt_hours, money, book)
    sheets += _fixed_entries(windows, hours, money, book, calendar)
    sheets += _traffic_entries(windows, money, book)
    return sheets


def _compute_entries(
    windows: pd.DataFrame, hours: Uses, money: Money, book: PriceBook, calendar: Calendar
) -> tuple[list[Entries], np.ndarray]:
    """Rent or ownership of each (GPU, stage), and which windows run on owned machines."""
    sheets: list[Entries] = []
    owned = np.zeros(len(windows), dtype=bool)
    start_s = windows.start_s.to_numpy(float)
    for (gpu, stage), index in windows.groupby(["gpu", "stage"], observed=True, sort=True).indices.items():
        terms = tariffs.compute_terms(money, gpu, stage)
        window = np.sort(index)
        if isinstance(terms, Own):
            owned[window] = True
            lines = tariffs.owned_lines(terms, gpu, money, book)
            lines += tariffs.overhead_lines(money, gpu, book)
        else:
            sheets += _rent_entries(terms, gpu, window, start_s, hours, money, book, calendar)
            lines = tariffs.overhead_lines(money, gpu, book)
        for line, row in lines:
            sheets += _by_use(line, hours, row, window)
    return sheets, owned


def _fleet_beside(
    windows: pd.DataFrame, hours: Uses, paid: Uses, money: Money, book: PriceBook, calendar: Calendar
) -> list[Entries]:
    """Memo of what the fleet of the run would cost more (or less, negative) than the schedule that is paid."""
    more = {use: hours[use] - paid[use] for use in hours}
    sheets, _ = _compute_entries(windows, more, money, book, calendar)
    accounts = dict(zip(("debit", "credit"), memo_accounts(FLEET_BESIDE)))
    return [replace(sheet, line=FLEET_BESIDE, use="", **accounts) for sheet in sheets]


def _rent_entries(
    rent: Rent, gpu: str, window: np.ndarray, start_s: np.ndarray, hours: Uses, money: Money, book: PriceBook,
    calendar: Calendar,
) -> list[Entries]:  # fmt: skip
    """Rent by the hour; along a price path each window pays the price of its first day."""
    path = tariffs.rent_path(rent, gpu, money, book)
    if path.constant:
        return _by_use("rent", hours, path.rows[0], window)
    codes = path.codes(calendar.day_numbers(start_s[window]), f"rent/{gpu}")
    return _by_use("rent", hours, (path.rows, codes), window)


def _by_use(
    line: str, split: Uses, rows: PriceRow | tuple[tuple[PriceRow, ...], np.ndarray], window: np.ndarray
) -> list[Entries]:
    return [
        entries(line, use, cost_accounts(line, use), quantity[window], rows, window) for use, quantity in split.items()
    ]


def _energy_entries(
    windows: pd.DataFrame, kilowatt_hours: Uses, billed: np.ndarray, money: Money, book: PriceBook, calendar: Calendar
) -> list[Entries]:
    """Energy by tariff period where it is billed, a memo line elsewhere; the demand charge on each month's peak."""
    tariff = money.costs.energy
    base = tariffs.priced(tariff.price, "energy", "kWh", money, book)
    parts = [(base, np.ones(len(windows)))]
    if tariff.periods and billed.any():
        parts = _tariff_parts(windows, base, money, book, calendar)
    sheets = []
    paying, contained = np.flatnonzero(billed), np.flatnonzero(~billed)
    for use, quantity in kilowatt_hours.items():
        for row, share in parts:
            amount = (quantity * share)[paying]
            sheets.append(entries("energy", use, cost_accounts("energy", use), amount, row, paying))
        sheets.append(entries("energy", use, memo_accounts("energy", use), quantity[contained], base, contained))
    if tariff.demand_charge is not None and billed.any():
        sheets += _demand_charge(windows, paying, money, book, calendar)
    return sheets


def _tariff_parts(
    windows: pd.DataFrame, base: PriceRow, money: Money, book: PriceBook, calendar: Calendar
) -> list[tuple[PriceRow, np.ndarray]]:
    """Price rows of the tariff and the part of each window that lies in each; energy within a window is even."""
    start_s, end_s = windows.start_s.to_numpy(float), windows.end_s.to_numpy(float)
    free = np.ones(_WEEK_MINUTES, dtype=bool)
    parts = []
    for number, period in enumerate(money.costs.energy.periods):
        inside = np.zeros(_WEEK_MINUTES, dtype=bool)
        first, last = round(period.from_hour * 60), round(period.until_hour * 60)
        for day in period.weekdays:
            length = (last - first) if last > first else last - first + 24 * 60
            inside[(day * 24 * 60 + first + np.arange(length)) % _WEEK_MINUTES] = True
        row = tariffs.priced(period.price, f"energy/period-{number + 1}", "kWh", money, book)
        parts.append((row, calendar.share_in(start_s, end_s, inside & free)))
        free &= ~inside
    rest = 1.0 - sum(share for _, share in parts)
    return [*parts, (base, np.where(np.abs(rest) < 1e-12, 0.0, rest))]


def _demand_charge(
    windows: pd.DataFrame, paying: np.ndarray, money: Money, book: PriceBook, calendar: Calendar
) -> list[Entries]:
    """Peak power of each month (all services and jobs together), charged to the windows of the peak by their energy.

    A month that the scenario covers in part pays that part.
    """
    row = tariffs.priced(money.costs.energy.demand_charge, "demand_charge", "kW-month", money, book)
    start_s, end_s = (windows[name].to_numpy(float) for name in ("start_s", "end_s"))
    kw = windows.facility_energy_j.to_numpy(float) / (end_s - start_s) / 1e3
    replication = windows.replication.to_numpy()
    window, quantity = [], []
    for number in np.unique(replication[paying]):
        own = paying[replication[paying] == number]
        cut = segments(start_s[own], end_s[own])
        power, month = cut.total(kw[own]), calendar.month(cut.edges_s[:-1])
        share = cut.seconds / calendar.month_s(cut.edges_s[:-1])
        for one in np.unique(month):
            inside = np.flatnonzero(month == one)
            peak = inside[np.argmax(power[inside])]
            there = own[(cut.first <= peak) & (peak < cut.behind)]
            window.append(there)
            quantity.append(kw[there] * share[inside].sum())
    charged, amount = np.concatenate(window), np.concatenate(quantity)
    return [entries("demand_charge", "", cost_accounts("demand_charge"), amount, row, charged)]


def _carbon_entries(windows: pd.DataFrame, kilowatt_hours: Uses, money: Money, book: PriceBook) -> list[Entries]:
    """Tonnes of CO2e: a cost where priced, a memo line otherwise.

    ``carbon_multiplier`` of the windows, where there, is the intensity of the hour over the mean of the row.
    """
    carbon = money.costs.carbon
    if carbon is None:
        return []
    intensity = tariffs.drawn(resolve(carbon.intensity, "carbon_intensity", book), money)
    if intensity.unit != "gCO2e/kWh":
        raise PriceError(f"{intensity.row}: unit is '{intensity.unit}' where gCO2e/kWh is needed")
    of_hour = intensity.value / 1e6
    if "carbon_multiplier" in windows:
        of_hour = of_hour * windows.carbon_multiplier.fillna(1.0).to_numpy(float)
    tonnes = {use: quantity * of_hour for use, quantity in kilowatt_hours.items()}
    if carbon.price is None:
        return [
            entries("carbon", use, memo_accounts("carbon", use), quantity, intensity, unit="t")
            for use, quantity in tonnes.items()
        ]
    row = tariffs.priced(carbon.price, "carbon_price", "t", money, book)
    return [entries("carbon", use, cost_accounts("carbon", use), quantity, row) for use, quantity in tonnes.items()]


def _fixed_entries(
    windows: pd.DataFrame, hours: Uses, money: Money, book: PriceBook, calendar: Calendar
) -> list[Entries]:
    """Monthly costs of the whole factory, spread at each moment over the windows that hold GPUs, by their number."""
    if not money.costs.fixed:
        return []
    months = borne(windows, lambda cut: cut.seconds / calendar.month_s(cut.edges_s[:-1]))
    split = _like(months, hours)
    sheets, every = [], np.arange(len(windows))
    for cost in money.costs.fixed:
        row = tariffs.priced(cost.price, f"fixed/{cost.name}", "month", money, book)
        sheets += _by_use("fixed", split, row, every)
    return sheets


def _like(amount: np.ndarray, hours: Uses) -> Uses:
    """An amount of each window, split as its GPU-hours are; idle where it has none."""
    whole = sum(hours.values())
    some = whole > 0
    split = {use: amount * quantity / np.where(some, whole, 1.0) for use, quantity in hours.items()}
    split["idle"] = np.where(some, split["idle"], amount)
    return split


def _scheduled(schedule: PaidSchedule, windows: pd.DataFrame, hours: Uses, calendar: Calendar) -> Uses:
    """GPU-hours of a stated schedule instead of the run's, borne by the windows and split as theirs are."""
    until = np.concatenate([[0.0], np.cumsum(schedule.gpus_by_hour)])

    def elapsed(moment_s: np.ndarray) -> np.ndarray:
        days, rest_s = np.divmod(calendar.week_seconds(moment_s), DAY_S)
        return days * until[-1] + np.interp(rest_s / HOUR_S, np.arange(25.0), until)

    return _like(borne(windows, lambda cut: np.diff(elapsed(cut.edges_s))), hours)


def _traffic_entries(windows: pd.DataFrame, money: Money, book: PriceBook) -> list[Entries]:
    """Costs that follow tokens: egress of answers, and training runs amortised over the tokens served."""
    sheets = []
    costs = money.costs
    output = windows.output_tokens.to_numpy(float)
    if costs.egress is not None:
        row = tariffs.priced(costs.egress, "egress", "GB", money, book)
        gigabytes = output * costs.bytes_per_output_token / 1e9
        sheets.append(entries("egress", "output", cost_accounts("egress", "output"), gigabytes, row))
    for run in costs.training:
        row = tariffs.training_row(run, money, book)
        window = np.flatnonzero((windows.service == run.service).to_numpy())
        for use in ("input", "output"):
            tokens = windows[f"{use}_tokens"].to_numpy(float)[window]
            sheets.append(entries("training", use, cost_accounts("training", use), tokens, row, window))
    return sheets
