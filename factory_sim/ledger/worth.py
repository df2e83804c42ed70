"""What a factory is worth: dated cash, NPV and IRR, break-even points, and the price that a margin needs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money, Rent
from factory_sim.inputs.prices import PriceBook, price_book
from factory_sim.ledger import fleet, tariffs
from factory_sim.ledger.accounts import NANO
from factory_sim.ledger.capital import irr, npv, payback_years
from factory_sim.ledger.entries import Calendar
from factory_sim.ledger.statements import kinds, signed_nusd, totals, with_period
from factory_sim.units import MILLION, YEAR_S

if TYPE_CHECKING:
    import pandas as pd

NOT_CASH = ("depreciation", "capital", "facility", "write_off", "training", "commitment_rest")
"""Cost lines that spread or revalue money paid at another time; their cash is that of the machines and runs."""


def cash_flows(
    windows: pd.DataFrame, postings: pd.DataFrame, terms: Money, *, book: PriceBook | None = None
) -> pd.DataFrame:
    """Dated cash: replication, time_s, line, usd (receipts positive).

    Running lines are paid at the end of their window. Capital goods are paid when they come (those there from the
    start at their book value), sold when they leave, and count at book value at the end of the scenario
    (``terminal_value``), so a short scenario is not charged for years that it does not play. Training runs are paid at
    the start. Depreciation and interest are no cash.
    """
    import pandas as pd

    book = price_book() if book is None else book
    end_s = float(windows.end_s.max())
    kind = kinds(postings)
    cash = (kind != "memo") & ~postings.line.isin(NOT_CASH).to_numpy()
    running = postings[cash]
    usd = signed_nusd(running) / NANO * np.where(kind[cash] == "cost", -1.0, 1.0) * _rent_share(running, terms)
    table = pd.DataFrame(
        {"replication": running.replication, "time_s": running.end_s, "line": running.line.astype(str), "usd": usd}
    )
    extra = fleet.machine_cash(windows, terms, book, end_s)
    for run in terms.costs.training:
        paid = tariffs.priced(run.price, f"training/{run.name}", "run", terms, book).value
        extra += [(int(r), 0.0, "training", -paid) for r in np.unique(windows.replication)]
    scale = terms.scale.prices * terms.scale.costs
    scaled = [(replication, time_s, line, usd * scale) for replication, time_s, line, usd in extra]
    whole = pd.concat([table, pd.DataFrame(scaled, columns=list(table.columns))], ignore_index=True)
    return whole.groupby(["replication", "time_s", "line"], sort=True, as_index=False).usd.sum()


def _rent_share(postings: pd.DataFrame, terms: Money) -> np.ndarray:
    """Part of each posting that is paid as it runs: rents less what was paid up front."""
    upfront = [t.upfront for t in fleet.all_terms(terms) if isinstance(t, Rent)]
    if not any(upfront):
        return np.ones(len(postings))
    share = np.ones(len(postings))
    rented = np.flatnonzero((postings.line == "rent").to_numpy())
    pairs = postings.iloc[rented][["stage", "price_row"]].astype(str)
    for (stage, row), index in pairs.reset_index(drop=True).groupby(["stage", "price_row"]).indices.items():
        gpu = row.split("/")[1].split("@")[0]
        own = tariffs.compute_terms(terms, gpu, stage)
        share[rented[index]] = 1.0 - (own.upfront if isinstance(own, Rent) else 0.0)
    return share


def worth(flows: pd.DataFrame, discount_per_year: float) -> pd.DataFrame:
    """NPV (USD), IRR (per year, NaN where none exists) and payback (years, NaN if never) of each replication."""
    import pandas as pd

    rows = []
    for replication, part in flows.groupby("replication", sort=True):
        dated = part.groupby("time_s").usd.sum()
        times, usd = dated.index.to_numpy() / YEAR_S, dated.to_numpy()
        rate, back = irr(usd, times), payback_years(usd, times)
        rows.append(
            {
                "replication": replication,
                "npv_usd": npv(discount_per_year, usd, times),
                "irr_per_year": np.nan if rate is None else rate,
                "payback_years": np.nan if back is None else back,
                "cash_usd": float(usd.sum()),
            }
        )
    return pd.DataFrame(rows)


def break_even_utilisation(utilisation: float, revenue_usd: float, cost_usd: float, variable_usd: float = 0.0) -> float:
    """Utilisation at which sales pay all costs, if sales and variable costs follow it: U fixed / (revenue - variable).

    Infinite where a token sold does not even pay its variable cost; above 1 means that a full factory loses money.
    """
    contribution = revenue_usd - variable_usd
    return utilisation * (cost_usd - variable_usd) / contribution if contribution > 0 else np.inf


def cost_against_load(cost_usd_per_h: float, tokens_per_h_at_full: float, loads: Sequence[float]) -> np.ndarray:
    """Cost per million tokens at each load (fraction of full): the hour's cost over the hour's tokens, so as 1/U."""
    load = np.asarray(loads, dtype=float)
    if (load <= 0).any():
        raise PriceError("a load of zero makes no tokens, whose cost is undefined; give loads above 0")
    return cost_usd_per_h / (tokens_per_h_at_full * load) * MILLION


def price_factor_for_margin(revenue_usd: float, cost_usd: float, margin_fraction: float) -> float:
    """Times all sales prices for a gross margin: cost / (1 - margin) / revenue, at unchanged demand."""
    if not 0 <= margin_fraction < 1:
        raise PriceError(f"a gross margin of {margin_fraction:g} is not in [0, 1)")
    if revenue_usd <= 0:
        raise PriceError("there are no sales whose prices could be scaled; give the service a plan")
    return cost_usd / (1 - margin_fraction) / revenue_usd


def price_for_margin(
    cost_usd: float, input_tokens: float, output_tokens: float, margin_fraction: float, output_to_input: float = 4.0
) -> tuple[float, float]:
    """(input, output) prices in USD per million tokens that give a gross margin, at a given ratio of the two."""
    if not 0 <= margin_fraction < 1:
        raise PriceError(f"a gross margin of {margin_fraction:g} is not in [0, 1)")
    weighted = input_tokens + output_to_input * output_tokens
    if weighted <= 0:
        raise PriceError("no tokens to price")
    base = cost_usd / (1 - margin_fraction) / weighted * MILLION
    return base, base * output_to_input


def tokens_ratio(price_ratio: float, elasticity: float) -> float:
    """Demand after a change of price under constant elasticity: price ratio to the power of the elasticity."""
    return price_ratio**elasticity


def revenue_ratio(price_ratio: float, elasticity: float) -> float:
    """Revenue after a change of price under constant elasticity, where capacity does not bind: r^(1 + e)."""
    return price_ratio ** (1 + elasticity)


def break_even_tokens(invested_usd: float, revenue_usd: float, cost_usd: float, tokens: float) -> float:
    """Tokens to serve until the margin per token has paid for a training run; infinite where there is no margin."""
    margin = (revenue_usd - cost_usd) / tokens if tokens else 0.0
    return invested_usd / margin if margin > 0 else np.inf


def break_even_day(
    postings: pd.DataFrame, invested_usd: float, start: date | datetime | None = None
) -> tuple[float | None, date | None]:
    """Scenario day on which the running margin (mean over replications) has paid for an investment, and its date.

    Beyond the scenario the margin of its last seven days goes on. (None, None) where it never pays. The amortisation
    of the training itself must not be among the postings' costs: leave ``training`` out of them first.
    """
    from datetime import timedelta

    running = totals(postings[~(postings.line == "training").to_numpy()], ["end_s"]).margin
    running = running / postings.replication.nunique()
    day, total = running.index.to_numpy() / 86400.0, np.cumsum(running.to_numpy())
    reached = np.flatnonzero(total >= invested_usd)
    if len(reached):
        i = reached[0]
        before, since = (total[i - 1], day[i - 1]) if i else (0.0, 0.0)
        when = since + (day[i] - since) * (invested_usd - before) / (total[i] - before)
    else:
        last = running[running.index > running.index.max() - 7 * 86400.0]
        span = min(day[-1], 7.0)
        pace = last.sum() / span
        if pace <= 0:
            return None, None
        when = day[-1] + (invested_usd - total[-1]) / pace
    first = start.date() if isinstance(start, datetime) else start
    return float(when), None if first is None else first + timedelta(days=float(when))


def lost_sales(windows: pd.DataFrame, postings: pd.DataFrame, by: Sequence[str] = ("service",)) -> pd.DataFrame:
    """What limits and full queues cost: requests turned away or lost, times the revenue of a completed one.

    Columns by group: the counts, revenue, lost_sales_usd, and lost_to_user_limits_usd: the part turned away while the
    tokens- or requests-per-minute limits of single users let in less than capacity would have.
    """
    keys = list(by)
    if "requests_lost_to_user_limits" not in windows:
        windows = windows.assign(requests_lost_to_user_limits=0.0)
    counted = ["requests_completed", "requests_turned_away", "requests_lost", "requests_lost_to_user_limits"]
    counts = windows.groupby(keys, observed=True)[counted].sum()
    table = counts.join(totals(postings, keys)[["revenue"]])
    each = table.revenue / table.requests_completed.where(table.requests_completed > 0)
    table["lost_sales_usd"] = (table.requests_turned_away + table.requests_lost) * each
    table["lost_to_user_limits_usd"] = table.requests_lost_to_user_limits * each
    return table


def cash_by_period(flows: pd.DataFrame, period: str, calendar: Calendar) -> pd.DataFrame:
    """Cash by period and line, mean over replications: period (number as in ``with_period``), line, usd."""
    count = flows.replication.nunique()
    # A payment at the very end of a window belongs to the period of that window.
    table = flows.assign(start_s=np.maximum(flows.time_s.to_numpy(float) - 1e-3, 0.0))
    table = with_period(table, period, calendar).groupby(["period", "line"], as_index=False).usd.sum()
    return table.assign(usd=table.usd / count)
