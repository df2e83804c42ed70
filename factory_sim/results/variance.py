"""Which uncertainty makes the band: the variance of a money figure split by source."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import RunError, closest
from factory_sim.inputs.money import Money
from factory_sim.ledger.bands import draw_prices, vintages, with_vintage
from factory_sim.ledger.postings import post
from factory_sim.ledger.statements import totals
from factory_sim.results.explain import picked
from factory_sim.results.reprice import run_terms
from factory_sim.streams import stream
from factory_sim.units import MILLION

if TYPE_CHECKING:
    import pandas as pd

    from factory_sim.results.store import StoredRun

FIGURES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "cost": lambda table: table.cost,
    "revenue": lambda table: table.revenue,
    "margin": lambda table: table.margin,
    "cost_per_million_output_tokens": lambda table: table.cost / table.output_tokens * MILLION,
    "cost_per_million_tokens": lambda table: table.cost / (table.input_tokens + table.output_tokens) * MILLION,
}


def variance_split(
    windows: pd.DataFrame,
    terms: Money,
    figure: str = "cost_per_million_output_tokens",
    *,
    seed: int = 1,
    draws: int = 32,
    start: datetime | None = None,
) -> pd.DataFrame:
    """Variance of a figure by source: source, variance, share, low, high (the figure's P10 and P90 from it alone).

    Sources: the vintage of rents (each that all GPUs have is as likely), the ranges of single prices (``draws`` draws),
    and the replications (profile error, workload and demand, whatever the run drew), each with the others at their
    stated or mean value: main effects, whose shares add up to 1. Interactions are left out.
    """
    import pandas as pd

    if figure not in FIGURES:
        raise RunError(f"no variance split for '{figure}'{closest(figure, FIGURES)}")
    tokens = windows.groupby("replication")[["input_tokens", "output_tokens"]].sum()
    gpus = sorted(set(windows.gpu.astype(str)))
    services = sorted(set(windows.service.astype(str)))

    def values(money: Money) -> np.ndarray:
        table = totals(post(windows, money, start=start), ["replication"]).join(tokens)
        return FIGURES[figure](table).to_numpy(float)

    stated = values(terms)
    other_vintages = [with_vintage(terms, vintage) for vintage in vintages(terms, gpus)]
    ranges = terms.model_copy(update={"band": "ranges"})
    rng = stream(seed, "variance", figure)
    drawn = [draw_prices(ranges, rng, gpus=gpus, services=services) for _ in range(draws)]
    moved = [draw for draw in drawn if draw.drawn]
    found = {
        "price vintage": np.array([values(money).mean() for money in other_vintages]),
        "price ranges": np.array([values(money).mean() for money in moved]),
        "replications": stated,
    }
    rows = []
    for source, sample in found.items():
        spread = float(sample.var(ddof=1 if source != "price vintage" else 0)) if len(sample) > 1 else 0.0
        low, high = np.quantile(sample, [0.1, 0.9]) if len(sample) > 1 else (stated.mean(), stated.mean())
        rows.append([source, spread, float(low), float(high)])
    table = pd.DataFrame(rows, columns=["source", "variance", "low", "high"])
    total = table.variance.sum()
    table.insert(2, "share", table.variance / total if total > 0 else 0.0)
    return table


def explain_band(run: StoredRun, figure: str, window: str = "whole", service: str = "all") -> list[dict]:
    """The variance split of a figure of a stored run: source, variance, share, low, high of each."""
    stored = run_terms(run.scenario_yaml, str(run.folder / "scenario.yaml"))
    windows = picked(run.tables["windows"], window, service, run)
    table = variance_split(windows, stored.money, figure, seed=stored.seed, start=stored.start)
    return table.to_dict("records")
