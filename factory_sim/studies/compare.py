"""Runs side by side: the same figures, and their ratios replication by replication under common random numbers."""

from collections.abc import Sequence

import pandas as pd

from factory_sim.errors import RunError
from factory_sim.results.figures import ratio_figures
from factory_sim.results.run import Run
from factory_sim.results.store import StoredRun


def compare(runs: Sequence[Run | StoredRun], names: Sequence[str] | None = None) -> pd.DataFrame:
    """Figures of every run with their ratio to the first run's.

    Columns: window, service, figure, run, value, low, high, unit, trust, ratio, ratio_low, ratio_high, paired. Where
    two runs have the same seed and number of replications, their random streams are common and the ratio is taken
    within each replication (``paired``); its band is then the P10 and P90 of those ratios. Otherwise it is that of all
    pairs of replications. `names` label the runs; their scenario names are taken when left out.
    """
    if len(runs) < 2:
        raise RunError("compare needs at least two runs")
    names = _unique([run.summary["scenario"]["name"] for run in runs] if names is None else list(names))
    base = runs[0]
    parts = []
    for run, name in zip(runs, names):
        figures = run.figures.assign(run=name)
        paired = _paired(base, run)
        ratios = ratio_figures(base.tables["replications"], run.tables["replications"], paired=paired)
        parts.append(figures.merge(ratios, on=["figure", "window", "service"], how="left").assign(paired=paired))
    columns = ["window", "service", "figure", "run", "value", "low", "high", "unit", "trust"]
    return pd.concat(parts, ignore_index=True)[[*columns, "ratio", "ratio_low", "ratio_high", "paired"]]


def _paired(first: Run | StoredRun, second: Run | StoredRun) -> bool:
    """Whether replication i of both runs used the same random streams."""
    one, two = first.summary["scenario"], second.summary["scenario"]
    counts = [run.tables["replications"]["replication"].nunique() for run in (first, second)]
    return one["seed"] == two["seed"] and one["version"] == two["version"] and counts[0] == counts[1]


def _unique(names: list[str]) -> list[str]:
    """The names, numbered where one comes twice."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]
