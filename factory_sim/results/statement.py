"""Statements of a stored run by hour, day, week or month; unit economics; worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import RunError, closest
from factory_sim.inputs.prices import price_book
from factory_sim.ledger.accounts import NANO, line_title, statement_titles
from factory_sim.ledger.entries import Calendar
from factory_sim.ledger.makers import made_by, maker_services, of_tokens
from factory_sim.ledger.plan_facts import with_plan_facts
from factory_sim.ledger.postings import Books, keep_books
from factory_sim.ledger.statements import kinds, profit_and_loss, totals, unit_costs, with_period
from factory_sim.ledger.tariffs import priced
from factory_sim.ledger.units import content_units, power_figures, traffic_units, unit_economics
from factory_sim.ledger.worth import (
    break_even_day,
    break_even_tokens,
    break_even_utilisation,
    cash_by_period,
    cash_flows,
    cost_against_load,
    lost_sales,
    price_factor_for_margin,
    worth,
)
from factory_sim.results.reprice import RunTerms, run_terms
from factory_sim.units import HOUR_S, MILLION

if TYPE_CHECKING:
    import pandas as pd

    from factory_sim.results.store import StoredRun

VARIABLE_LINES = ("energy", "egress", "carbon")
"""Cost lines that follow the tokens served; the rest is there whether the factory is used or not."""


@dataclass(frozen=True)
class Accounts:
    """A stored run with its books at the stated prices."""

    terms: RunTerms
    windows: pd.DataFrame
    books: Books
    replications: int
    calendar: Calendar
    services: tuple[str, ...]


def accounts(run: StoredRun, service: str = "all") -> Accounts:
    """Price a stored run at its stated prices, for one service or all."""
    terms = run_terms(run.scenario_yaml, str(run.folder / "scenario.yaml"))
    windows = with_plan_facts(run.tables["windows"], run.tables, terms.money)
    books = keep_books(windows, terms.money, start=terms.start)
    count = windows.replication.nunique()
    if service != "all":
        names = sorted(set(windows.service.astype(str)))
        if service not in names:
            raise RunError(f"{run.folder}: no service '{service}'{closest(service, names)}")
        windows = windows[(windows.service.astype(str) == service).to_numpy()]
        postings = books.postings[(books.postings.service.astype(str) == service).to_numpy()]
        books = Books(postings, books.rows, books.invoices)
    services = tuple(sorted(map(str, windows.service.unique())))
    return Accounts(terms, windows, books, count, Calendar(terms.start), services)


def statement(found: Accounts, period: str = "week") -> pd.DataFrame:
    """Profit and loss: kind, title, then a column of dollars a period and their total (means over replications).

    Idle, failed and training capacity has lines of its own. Columns are numbered hours, days or weeks from the start
    (from 1), or calendar months.
    """
    table = profit_and_loss(with_period(found.books.postings, period, found.calendar), ["period"])
    table = table[table.kind != "memo"]
    table = table.assign(title=[line_title(str(line), str(use)) for line, use in zip(table.line, table.use)])
    wide = table.pivot_table(index=["kind", "title"], columns="period", values="usd", aggfunc="sum", fill_value=0.0)
    wide = wide / found.replications
    names = [_period_name(found, period, number) for number in wide.columns]
    wide.columns = names
    wide["total"] = wide.sum(axis=1)
    order = {title: place for place, title in enumerate(statement_titles())}
    wide = wide.reset_index()
    wide["kind"] = wide.kind.astype(str)
    return wide.sort_values("title", key=lambda titles: titles.map(order), kind="stable").reset_index(drop=True)


def cash(found: Accounts, period: str = "month") -> pd.DataFrame:
    """Cash by period and line: period, line, usd (mean over replications); periods are named as in ``statement``."""
    table = cash_by_period(cash_flows(found.windows, found.books.postings, found.terms.money), period, found.calendar)
    names = {number: _period_name(found, period, number) for number in table.period.unique()}
    return table.assign(period=table.period.map(names))


def _period_name(found: Accounts, period: str, number: int) -> str:
    return found.calendar.month_name(int(number)) if period == "month" else f"{period} {int(number) + 1}"


def unit_costs_by_period(found: Accounts, period: str = "week") -> pd.DataFrame:
    """What tokens and requests cost and earn in each period (the columns of ``unit_costs``, over all replications)."""
    table = unit_costs(
        with_period(found.windows, period, found.calendar),
        with_period(found.books.postings, period, found.calendar),
        ["period"],
    )
    table.index = [_period_name(found, period, number) for number in table.index]
    return table.rename_axis("period").reset_index()


def units(
    found: Accounts,
    family: str = "openai",
    requests_per_conversation: float = 4.0,
    requests_per_task: float = 20.0,
) -> pd.DataFrame:
    """Cost, revenue and margin of a request, conversation, task, user, page, image, minute of audio, second of video.

    Requests and users earn their part of all sales, fees and credits included; a page or an image the mean price that an
    input and an output token really fetched, discounts and cached prices included.
    """
    windows, postings = _of_tokens(found)
    if not len(windows):
        return _no_units(found)
    figures, sold = unit_costs(windows, postings).iloc[0], profit_and_loss(postings)
    return _units(found, figures, sold, family, requests_per_conversation, requests_per_task)


def _no_units(found: Accounts) -> pd.DataFrame:
    """The columns of ``units`` without a row: nothing here makes tokens."""
    return unit_economics(unit_costs(found.windows, found.books.postings).iloc[0], ())


def outputs(found: Accounts) -> pd.DataFrame:
    """What an image, a video and a second of video cost and earn: unit, count, cost_usd, revenue_usd, margin_usd of one
    (count: mean over replications). Empty where no service makes any."""
    import pandas as pd

    makers = maker_services(found.windows)
    rows = []
    for unit, made, column in (
        ("image", "images", "images"), ("video", "videos", "videos"), ("second of video", "videos", "video_s"),
    ):  # fmt: skip
        if made not in makers.values():
            continue
        count = float(found.windows[column].sum())
        sums = totals(found.books.postings[made_by(found.books.postings, makers, made)]).iloc[0]
        each = [usd / count if count else float("nan") for usd in (sums.cost, sums.revenue, sums.margin)]
        rows.append([unit, count / found.replications, *each])
    return pd.DataFrame(rows, columns=["unit", "count", "cost_usd", "revenue_usd", "margin_usd"])


def _of_tokens(found: Accounts) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Windows and postings of the services that make tokens."""
    makers, postings = maker_services(found.windows), found.books.postings
    return found.windows[of_tokens(found.windows, makers)], postings[of_tokens(postings, makers)]


def units_by_period(
    found: Accounts,
    period: str = "week",
    family: str = "openai",
    requests_per_conversation: float = 4.0,
    requests_per_task: float = 20.0,
) -> pd.DataFrame:
    """As ``units`` in each period: column ``period``, then those of ``units``."""
    import pandas as pd

    windows, postings = _of_tokens(found)
    if not len(windows):
        return _no_units(found).assign(period="")
    text = replace(found, windows=windows, books=replace(found.books, postings=postings))
    costs = unit_costs_by_period(text, period).set_index("period")
    sold = profit_and_loss(with_period(postings, period, found.calendar), ["period"])
    by_period = {_period_name(found, period, number): own for number, own in sold.groupby("period")}
    parts = []
    for name, figures in costs.iterrows():
        own = by_period.get(name, sold[:0])
        table = _units(found, figures, own, family, requests_per_conversation, requests_per_task)
        parts.append(table.assign(period=name)[["period", *table.columns]])
    return pd.concat(parts, ignore_index=True)


def _units(
    found: Accounts, figures: pd.Series, sold: pd.DataFrame, family: str, per_conversation: float, per_task: float
) -> pd.DataFrame:
    users = found.terms.money.users or sum(found.terms.users.get(name, 0.0) for name in found.services)
    traffic = traffic_units(figures, users * found.replications if users else None, per_conversation, per_task)
    return unit_economics(figures, traffic + content_units(family), mean_prices(figures, sold))


def mean_prices(figures: pd.Series, sold: pd.DataFrame) -> tuple[float, float]:
    """USD per million input and output tokens really fetched; ``sold`` is the profit and loss."""
    by_line = sold[sold.kind == "revenue"].groupby("line", observed=True).usd.sum()
    usd_in = by_line.get("input_tokens", 0.0) + by_line.get("cached_input_tokens", 0.0)
    usd_out = by_line.get("output_tokens", 0.0) + by_line.get("reasoning_tokens", 0.0)
    sides = ((usd_in, figures.input_tokens), (usd_out, figures.output_tokens))
    return tuple(float(usd / tokens * MILLION) if tokens else 0.0 for usd, tokens in sides)


def margins(found: Accounts) -> pd.DataFrame:
    """Gross margin by service, by plan and by group of customers: level, name, customers, revenue_usd, cost_usd,
    margin_usd, margin_fraction (means over replications).

    A group of customers bears its share of its service's costs, as of its tokens; a plan what its users bear. What no
    service uses (training jobs, spares) has a line where it costs.
    """
    import pandas as pd

    money = found.terms.money
    sums = totals(found.books.postings, ["service"]) / found.replications
    groups = customer_margins(found) if found.books.invoices is not None else None
    rows, plans = [], {}
    for service, own in sums.iterrows():
        rows.append(["service", str(service) or "(none)", 1, own.revenue, own.cost])
        if groups is None or str(service) not in set(groups.service):
            plan = str(service) if service in money.plans else "all" if "all" in money.plans and own.revenue else ""
            plans.setdefault(plan, []).append((own.revenue, own.cost))
    for group in groups.itertuples() if groups is not None else ():
        plans.setdefault(group.plan, []).append((group.revenue_usd, group.cost_usd))
    rows += [["plan", name, 1, *map(sum, zip(*parts))] for name, parts in plans.items() if name]
    if groups is not None:
        rows += [["customers", g.group, g.customers, g.revenue_usd, g.cost_usd] for g in groups.itertuples()]
    table = pd.DataFrame(rows, columns=["level", "name", "customers", "revenue_usd", "cost_usd"])
    table["margin_usd"] = table.revenue_usd - table.cost_usd
    table["margin_fraction"] = table.margin_usd / table.revenue_usd.where(table.revenue_usd != 0)
    return table


def customer_margins(found: Accounts) -> pd.DataFrame:
    """Gross margin of each group of customers: group, service, plan, customers, revenue_usd, cost_usd, margin_usd,
    margin_fraction (means over replications). A group bears its share of the service's costs, as of its tokens.
    """
    import pandas as pd

    if found.books.invoices is None:
        raise RunError("the scenario tells no customers apart; add money.customers")
    invoiced = found.books.invoices.groupby("group").usd.sum() / found.replications
    cost = totals(found.books.postings, ["service"]).cost / found.replications
    rows = []
    for group in found.terms.money.customers:
        if group.service in cost.index:
            revenue, own = float(invoiced.get(group.name, 0.0)), float(cost[group.service]) * group.share
            margin = revenue - own
            share = margin / revenue if revenue else float("nan")
            plan = group.plan or group.service
            rows.append([group.name, group.service, plan, group.count, revenue, own, margin, share])
    columns = ["group", "service", "plan", "customers", "revenue_usd", "cost_usd", "margin_usd", "margin_fraction"]
    return pd.DataFrame(rows, columns=columns)


LOADS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def load_curve(found: Accounts, loads: tuple[float, ...] = LOADS) -> pd.DataFrame:
    """The penalty of idle capacity: load, usd_per_million_output_tokens (of the services that make tokens).

    Load is requests completed over those that all GPUs paid for would serve within the promise (load test), not the busy
    share of time: a GPU that serves one request alone is busy and nearly empty. The mix of tokens stays, so fixed costs
    fall as 1/load and costs that follow tokens stay. Undefined (NaN) where the run tells no load.
    """
    import pandas as pd

    windows, postings = _of_tokens(found)
    found = replace(found, windows=windows, books=replace(found.books, postings=postings))
    tokens = float(windows.output_tokens.sum()) / found.replications
    load = load_of(windows)
    if not tokens or not load > 0:
        return pd.DataFrame({"load": loads, "usd_per_million_output_tokens": float("nan")})
    sums, variable = totals(postings).iloc[0] / found.replications, _variable_usd(found)
    hours = float(windows.end_s.max() - windows.start_s.min()) / HOUR_S
    fixed = cost_against_load((sums.cost - variable) / hours, tokens / load / hours, loads)
    return pd.DataFrame({"load": loads, "usd_per_million_output_tokens": fixed + variable / tokens * MILLION})


def load_of(windows: pd.DataFrame) -> float:
    """Requests completed over those that all GPUs paid for would serve within the promise; NaN where that is not told."""
    if "capacity_requests" not in windows:
        return float("nan")
    whole = float(windows.capacity_requests.sum())  # a trace at its own pace is not load-tested: nothing is told
    return float(windows.requests_completed.sum()) / whole if whole else float("nan")


def _variable_usd(found: Accounts) -> float:
    """Costs that follow tokens, mean over replications."""
    postings = found.books.postings
    variable = postings[(kinds(postings) == "cost") & postings.line.isin(VARIABLE_LINES).to_numpy()]
    return float(variable.amount_nusd.sum()) / NANO / found.replications


def key_figures(found: Accounts, margin_fraction: float | None = None) -> dict[str, float | str | None]:
    """NPV, IRR, payback, load and the load at which sales pay all costs (break-even utilisation), lost sales, revenue per GPU-hour and MW-year, emissions where the terms
    name an intensity, and training break-even.

    Medians over replications; None where undefined. ``margin_fraction`` adds the factor on sales prices that would
    give that gross margin at unchanged demand, and the mean prices of input and output tokens that it makes.
    """
    postings, windows, money = found.books.postings, found.windows, found.terms.money
    table = worth(cash_flows(windows, postings, money), money.discount_per_year)
    sums, load = totals(postings).iloc[0] / found.replications, load_of(windows)
    figures, lost = unit_costs(windows, postings).iloc[0], lost_sales(windows, postings)
    hours = float(windows.end_s.max() - windows.start_s.min()) / HOUR_S
    result: dict[str, float | str | None] = {
        "npv_usd": _median(table.npv_usd),
        "irr_per_year": _median(table.irr_per_year),
        "payback_years": _median(table.payback_years),
        "load": _known(load),
        "break_even_utilisation": _known(break_even_utilisation(load, sums.revenue, sums.cost, _variable_usd(found))),
        "lost_sales_usd": _known(float(lost.lost_sales_usd.sum()) / found.replications),
        "lost_sales_to_user_limits_usd": _known(float(lost.lost_to_user_limits_usd.sum()) / found.replications),
        **{name: _known(value) for name, value in power_figures(figures / found.replications, hours).items()},
    }
    emitted = (postings.line == "carbon").to_numpy()
    if emitted.any():
        result["emissions_t"] = float(postings.quantity[emitted].sum()) / found.replications
    result |= _training_figures(found, sums, float(figures.input_tokens + figures.output_tokens) / found.replications)
    if margin_fraction is not None:
        factor = float(price_factor_for_margin(sums.revenue, sums.cost, margin_fraction))
        prices = mean_prices(figures, profit_and_loss(postings))
        result["price_factor_for_margin"] = factor
        for side, price in zip(("input", "output"), prices):
            result[f"{side}_usd_per_million_for_margin"] = price * factor
    return result


def _training_figures(found: Accounts, sums: pd.Series, tokens: float) -> dict[str, float | str | None]:
    """When the margin has paid for the training runs: tokens, day of the scenario, and date."""
    postings, money = found.books.postings, found.terms.money
    invested = sum(
        priced(run.price, f"training/{run.name}", "run", money, price_book()).value for run in money.costs.training
    )
    if not invested:
        return {}
    training = postings[(postings.line == "training").to_numpy()]
    spread = float(training.amount_nusd.sum()) / NANO / found.replications
    day, on = break_even_day(postings, invested, found.terms.start)
    return {
        "break_even_tokens": _known(break_even_tokens(invested, sums.revenue, sums.cost - spread, tokens)),
        "break_even_day": day,
        "break_even_date": None if on is None else str(on),
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _median(values: pd.Series) -> float | None:
    held = values.dropna()
    return float(held.median()) if len(held) else None
