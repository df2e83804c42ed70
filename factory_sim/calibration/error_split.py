"""Where predictions of left-out rows fail: the shipped residuals, split by what a row is or by what else was measured."""

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.calibration.error_report import errors
from factory_sim.errors import MeasurementError, closest
from factory_sim.inputs.measurements import serving

if TYPE_CHECKING:
    import pandas as pd

BY = ("elsewhere", "model", "gpu", "engine", "precision", "speculation")
ELSEWHERE = (
    "same engine and precision", "same engine, other precision", "same precision, other engine", "neither",
    "model on no other GPU",
)  # fmt: skip
"""What is measured of the same model, in the same mode, on GPUs other than the row's own."""


def elsewhere(rows: "pd.DataFrame") -> list[str]:
    """For each row of `measurements.serving()`, what was fitted of its model and mode on other GPUs: one of ELSEWHERE."""
    fitted = rows[(rows.problem == "") & (rows.spec_decoding != "unknown")]
    known: dict[tuple[str, str], set] = {}
    for row in fitted.itertuples():
        known.setdefault((row.model, row.mode), set()).add((row.gpu, row.backend, row.precision))
    return [_label(row, known.get((row.model, row.mode), set())) for row in rows.itertuples()]


def _label(row, known: set) -> str:
    others = {(engine, precision) for gpu, engine, precision in known if gpu != row.gpu}
    if not others:
        return ELSEWHERE[4]
    if (row.backend, row.precision) in others:
        return ELSEWHERE[0]
    if any(engine == row.backend for engine, _ in others):
        return ELSEWHERE[1]
    return ELSEWHERE[2] if any(precision == row.precision for _, precision in others) else ELSEWHERE[3]


def shipped_residuals() -> "pd.DataFrame":
    """The residuals of the package: log of measured over predicted of each clean row left out, by scheme."""
    import pandas as pd

    with files("factory_sim.data").joinpath("profiles", "residuals.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def split(residuals: "pd.DataFrame", scheme: str = "model_gpu", by: Sequence[str] = ("elsewhere",)) -> "pd.DataFrame":
    """Errors of one scheme by mode, metric and `by` (some of BY): columns of `accuracy_table` without coverage.

    `residuals` has the columns `accuracy.SHIPPED`. Raises MeasurementError for an unknown scheme or label.
    """
    import pandas as pd

    for name, known in [(scheme, tuple(residuals.scheme.unique()))] + [(one, BY) for one in by]:
        if name not in known:
            raise MeasurementError(f"'{name}' is not known{closest(name, known)}; use one of {', '.join(known)}")
    rows = serving()
    who = pd.DataFrame(
        {
            "measurement_id": rows.measurement_id, "elsewhere": elsewhere(rows), "model": rows.model, "gpu": rows.gpu,
            "engine": rows.backend, "precision": rows.precision, "speculation": rows.spec_decoding,
        }
    )  # fmt: skip
    part = residuals[residuals.scheme == scheme].merge(who, on="measurement_id", suffixes=("", "_of_row"))
    out = []
    for key, found in part.groupby(["mode", *by], sort=True):
        for metric in ("tpot", "ttft"):
            ratio = np.exp(found[f"log_{metric}_error"].to_numpy())
            told = errors(ratio, 1 + 0 * ratio)
            told.pop("coverage")
            out.append({"scheme": scheme} | dict(zip(("mode", *by), key)) | {"metric": metric} | told)
    return pd.DataFrame(out)
