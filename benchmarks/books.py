"""How long the books take and what they hold in memory: a month of 3,000 customers, a billion requests, a year.

    python benchmarks/books.py

Prints seconds and peak memory, each in a process of its own; asserts first that the work was done. Budgets on two shared
cores: the month of customers under 2 s, the books of a billion requests under 500 MB, repricing a month under 1 s.
"""

import multiprocessing
import resource
import time
from datetime import date, datetime

import numpy as np
import pandas as pd

from factory_sim.inputs.money import Money
from factory_sim.ledger.postings import WINDOW_COLUMNS, keep_books
from factory_sim.ledger.statements import profit_and_loss, total_nusd, trial_balance, unit_costs
from factory_sim.results.reprice import RunTerms, drawn_postings, money_figures

SERVICES = ("chat", "code", "agent")
PLAN = {
    "input_usd_per_million": 0.55,
    "cached_input_usd_per_million": 0.14,
    "output_usd_per_million": 2.19,
    "volume": [{"above_tokens": 1e9, "multiplier": 0.8}],
    "minimum_usd_per_month": 10.0,
}


def windows(hours: int, replications: int) -> pd.DataFrame:
    """Hourly windows of every service."""
    rng = np.random.default_rng(1)
    replication, hour, service = (
        grid.ravel() for grid in np.meshgrid(range(replications), range(hours), range(len(SERVICES)), indexing="ij")
    )
    table = pd.DataFrame({name: rng.uniform(1e5, 1e9, len(hour)) for name in WINDOW_COLUMNS})
    table = table.assign(
        replication=replication, start_s=hour * 3600.0, end_s=(hour + 1) * 3600.0, stage="s", gpu="b200"
    )
    table["service"] = np.array(SERVICES)[service]
    table["gpu_hours"], table["gpu_hours_down"] = 800.0, 8.0
    table["cached_input_tokens"] = 0.3 * table.input_tokens
    table["reasoning_tokens"] = 0.2 * table.output_tokens
    return table


def measure(name: str, work) -> None:
    """Run the work in a fresh process, so that its peak of memory is its own."""
    process = multiprocessing.get_context("spawn").Process(target=_measured, args=(name, work))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name}: failed")


def _measured(name: str, work) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    done, budget_s, budget_mb = work()
    spent, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    held = all(budget is None or got <= budget for got, budget in ((cpu, budget_s), (peak_mb, budget_mb)))
    print(f"{name}: {spent:.2f} s ({cpu:.2f} s CPU), {done}, peak {peak_mb:,.0f} MB{'' if held else ' OVER BUDGET'}")


def month_of_customers() -> tuple:
    groups = [
        {"name": f"{name}-users", "service": name, "count": 1000, "share": 1.0, "concentration": 1.0}
        for name in SERVICES
    ]
    money = Money.model_validate({"plans": dict.fromkeys(SERVICES, PLAN), "customers": groups})
    kept = keep_books(windows(720, 1), money, start=date(2026, 10, 1))
    assert kept.invoices.groupby("group").customer.nunique().tolist() == [1000] * 3
    assert kept.invoices.amount_nusd.sum() == total_nusd(kept.postings, "revenue")
    return "2,160,000 customer-hours billed", 2.0, None


def billion_requests() -> tuple:
    """Four weeks of hours, 8 replications, three services, more than a billion requests: books, statement, trial balance."""
    table = windows(672, 8)
    table["requests_completed"] = 1.2e9 * 8 / len(table)
    table["requests_within_slo"] = 0.99 * table.requests_completed
    assert table.requests_completed.sum() / 8 > 1e9
    plan = {name: value for name, value in PLAN.items() if name.endswith("million")}
    plan["sla"] = {"within_promise": [{"below": 0.995, "credit": 0.05}]}
    kept = keep_books(table, Money.model_validate({"plans": dict.fromkeys(SERVICES, plan)}), start=date(2026, 10, 1))
    lines = profit_and_loss(kept.postings, ["service"])
    balance = trial_balance(kept.postings)
    assert (lines.line == "sla_credit").sum() == 3
    assert balance.balance_nusd.sum() == 0
    return f"{len(kept.postings):,} postings", None, 500.0


def month_repriced() -> tuple:
    """The same four weeks priced at stated prices and at eight draws, as `factory-sim reprice` does."""
    table = windows(672, 8).assign(replication=lambda t: t.replication)
    terms = RunTerms(
        "month", Money.model_validate({"plans": dict.fromkeys(SERVICES, PLAN)}), datetime(2026, 10, 1), 1, SERVICES, (), {}
    )
    start = time.process_time()
    postings = keep_books(table, terms.money, start=terms.start).postings
    figures = money_figures(table, postings, drawn_postings(table, terms.money, terms))
    spent = time.process_time() - start
    assert len(figures.window.unique()) == 6
    return f"{len(figures)} figures in {spent:.2f} s CPU", None, None


def year_of_replications() -> tuple:
    table = windows(8760, 8)
    plan = {name: value for name, value in PLAN.items() if name.endswith("million")}
    kept = keep_books(table, Money.model_validate({"plans": dict.fromkeys(SERVICES, plan)}), start=date(2026, 1, 1))
    figures = unit_costs(table, kept.postings, ["replication", "service"])
    assert len(figures) == 24
    return f"{len(kept.postings):,} postings", 5.0, None


if __name__ == "__main__":
    measure("month of 3 services and 3,000 customers", month_of_customers)
    measure("books of 1.2 billion requests", billion_requests)
    measure("four weeks repriced", month_repriced)
    measure("year of 3 services, 8 replications", year_of_replications)
