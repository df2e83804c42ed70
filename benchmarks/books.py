"""How long the books take: a month of 3 services and 3,000 customers, and a year of 8 replications.

    python benchmarks/books.py

Prints seconds and peak memory; asserts first that the work was done. Expected on two shared cores: the month under 2 s,
the year under 5 s and 700 MB in all, 250 MB of which are the libraries and the table of windows.
"""

import resource
import time
from datetime import date

import numpy as np
import pandas as pd

from factory_sim.inputs.money import Money
from factory_sim.ledger.postings import WINDOW_COLUMNS, keep_books
from factory_sim.ledger.statements import total_nusd, unit_costs

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
    start = time.perf_counter()
    done = work()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{name}: {time.perf_counter() - start:.2f} s, {done}, peak {peak_mb:,.0f} MB")


def month_of_customers() -> str:
    groups = [
        {"name": f"{name}-users", "service": name, "count": 1000, "share": 1.0, "concentration": 1.0}
        for name in SERVICES
    ]
    money = Money.model_validate({"plans": dict.fromkeys(SERVICES, PLAN), "customers": groups})
    kept = keep_books(windows(720, 1), money, start=date(2026, 10, 1))
    assert kept.invoices.groupby("group").customer.nunique().tolist() == [1000] * 3
    assert kept.invoices.amount_nusd.sum() == total_nusd(kept.postings, "revenue")
    return "2,160,000 customer-hours billed"


def year_of_replications() -> str:
    table = windows(8760, 8)
    plan = {name: value for name, value in PLAN.items() if name.endswith("million")}
    kept = keep_books(table, Money.model_validate({"plans": dict.fromkeys(SERVICES, plan)}), start=date(2026, 1, 1))
    figures = unit_costs(table, kept.postings, ["replication", "service"])
    assert len(figures) == 24
    return f"{len(kept.postings):,} postings"


if __name__ == "__main__":
    measure("month of 3 services and 3,000 customers", month_of_customers)
    measure("year of 3 services, 8 replications", year_of_replications)
