"""MLPerf Inference results as published, on a page of their own.

By the usage rules of MLCommons these figures are never fitted, never an anchor, and never in one chart or ratio with
other figures (`data/measurements/README.md`). Nothing is derived from them here.
"""

from importlib.resources import files
from typing import TYPE_CHECKING

from factory_sim.errors import MeasurementError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "round", "division", "availability", "submitter", "system", "accelerator", "n_accelerators", "benchmark",
    "scenario", "metric_value", "metric_unit", "result_id", "source",
)  # fmt: skip
RETRIEVED = "2026-11"
FOOTNOTE = (
    "MLPerf\N{REGISTERED SIGN} Inference; version, division, benchmark, scenario, source and entry ID as in each row. "
    f"Retrieved from the results repositories named in the rows, {RETRIEVED}. Result not verified by MLCommons "
    "Association where it was changed or carries no ID. The MLPerf name and logo are registered and unregistered "
    "trademarks of MLCommons Association in the United States and other countries. All rights reserved. Unauthorized "
    "use strictly prohibited. See www.mlcommons.org for more information. Entries of different benchmark, scenario, "
    "division or chip count are not comparable, and none is comparable with figures of other origin."
)


def results(model: str = "", accelerator: str = "", scenario: str = "", version: str = "") -> "pd.DataFrame":
    """Return the published results that match, in the columns COLUMNS; MeasurementError if none does."""
    import pandas as pd

    with files("factory_sim.data").joinpath("measurements", "mlperf.csv").open("rb") as file:
        rows = pd.read_csv(file, low_memory=False)
    rows["source"] = rows.source_repo + "/" + rows.source_path
    keep = rows.model.str.lower().str.contains(model.lower(), regex=False)
    for name, wanted in (("accelerator_family", accelerator), ("scenario", scenario), ("round", version)):
        if wanted:
            keep &= rows[name].str.lower() == wanted.lower()
    if not keep.any():
        raise MeasurementError("no MLPerf\N{REGISTERED SIGN} result matches; leave out a filter")
    return rows.loc[keep, list(COLUMNS)].reset_index(drop=True)
