"""From the first stage to the last: how many times cheaper each step made a token."""

from itertools import pairwise

import numpy as np
import pandas as pd

from factory_sim.results.figures import band
from factory_sim.results.run import Run
from factory_sim.results.store import StoredRun


def waterfall(
    run: Run | StoredRun, figure: str = "cost_per_million_output_tokens", service: str = "all"
) -> pd.DataFrame:
    """Steps of a figure over the stages of a run, in order.

    Columns: name, label, value, low, high, unit, trust and, from the second row on, factor, factor_low, factor_high:
    how many times smaller than the stage before, taken within each replication, so that errors common to both cancel.
    """
    figures = run.figures
    stages = figures[
        (figures["figure"] == figure) & (figures["service"] == service) & figures["window"].str.startswith("stage_")
    ]
    steps = stages.assign(name=stages["window"].str.removeprefix("stage_"))
    steps = steps.assign(label=steps["name"])[["name", "label", "value", "low", "high", "unit", "trust"]].reset_index(
        drop=True
    )
    table = run.tables["replications"]
    own = table[(table["figure"] == figure) & (table["service"] == service)]
    wide = own.pivot(index="replication", columns="window", values="value")
    columns = [f"stage_{name}" for name in steps["name"]]
    ratios = pd.DataFrame({after: wide[before] / wide[after] for before, after in pairwise(columns)})
    long = ratios.melt(ignore_index=False, var_name="window", value_name="value").reset_index().assign(figure="factor")
    banded = band(long, ["window"]).set_index("window").reindex(columns)
    return steps.assign(
        factor=np.asarray(banded["value"]), factor_low=np.asarray(banded["low"]), factor_high=np.asarray(banded["high"])
    )
