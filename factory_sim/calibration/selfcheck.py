"""A small fixed sample of measured runs, fitted again: does calibration still do what the committed table says?

The table (`data/profiles/sample.csv`) holds the errors of left-out runs of the sample and a digest of all they depend on:
data, calibration and kernel. A change of any of these has to renew it (`factory-sim profiles selfcheck --write FILE`),
and a renewal in which an error has grown is visible in the change.
"""

import csv
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.calibration import accuracy, fit
from factory_sim.inputs.measurements import serving

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = (
    ("Llama-3.1-70B", "h200", "vllm", "fp8", "agg"),
    ("DeepSeek-R1", "h200", "trtllm", "fp8", "agg"),
    ("DeepSeek-R1", "b200", "trtllm", "fp8", "disagg"),
)
"""Model, GPU, engine, precision and mode of the runs in the sample."""
PLAYS = 2
TOLERANCE = 1.02
"""An error counts as grown beyond this factor: other machines round differently."""
DEPENDS_ON = (
    "data/measurements/serving.parquet", "data/profiles/terms.csv", "data/profiles/levels.csv",
    "data/profiles/engines.csv", "data/catalog", "calibration/fit.py", "calibration/closed_form.py",
    "calibration/covariance.py", "calibration/benchmarks.py", "calibration/accuracy.py", "calibration/selfcheck.py",
    "inputs/measurements.py", "inputs/parallelism.py", "inputs/profiles.py", "model/step_time.py", "model/serving.py",
    "engine/kernel",
)  # fmt: skip
"""Files and folders of the package that the errors depend on."""


def digest() -> str:
    """SHA-256 of all that the sample depends on, over names and contents (line ends normalised)."""
    total = hashlib.sha256()
    root = files("factory_sim")
    for name in DEPENDS_ON:
        place = root.joinpath(*name.split("/"))
        parts = sorted(place.iterdir(), key=lambda p: p.name) if place.is_dir() else [place]
        for part in parts:
            if part.is_file() and part.name.endswith((".py", ".csv", ".parquet")):
                content = part.read_bytes()
                if not part.name.endswith(".parquet"):
                    content = content.replace(b"\r\n", b"\n")
                total.update(f"{part.name}\n{len(content)}\n".encode() + content)
    return total.hexdigest()


def sample_rows() -> "pd.DataFrame":
    """The runs of the sample, as in `measurements.serving()`."""
    rows = serving()
    keys = zip(rows.model, rows.gpu, rows.backend, rows.precision, rows["mode"])
    return rows[[key in SAMPLE for key in keys]].reset_index(drop=True)


def measure() -> list[dict[str, str]]:
    """Fit the sample, leave out single concurrencies, and return the rows of the table."""
    task = fit.fit(sample_rows(), plays=PLAYS)
    found = accuracy.left_out(task, "concurrency")
    clean = task.rows.clean.to_numpy() & np.isfinite(found).all(axis=1)
    error = 100 * np.abs(np.expm1(found - task.measured))
    out = []
    for mode in ("agg", "disagg"):
        rows = clean & (task.rows["mode"] == mode).to_numpy()
        for column, metric in enumerate(("ttft", "tpot")):
            values = error[rows, column]
            out.append(
                {
                    "mode": mode,
                    "metric": metric,
                    "runs": str(len(values)),
                    "median_percent": f"{np.median(values):.4g}",
                    "mean_percent": f"{values.mean():.4g}",
                    "digest": digest(),
                }
            )
    return out


def committed() -> list[dict[str, str]]:
    """The table as it stands in the package."""
    with files("factory_sim.data").joinpath("profiles", "sample.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(rows: list[dict[str, str]], path) -> None:
    """Write a table that `measure` returned."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def complaints(now: list[dict[str, str]], before: list[dict[str, str]]) -> list[str]:
    """What differs from the committed table so that it must not pass; empty if all is well."""
    told = []
    if {row["digest"] for row in before} != {row["digest"] for row in now}:
        told.append(
            "data, calibration or kernel are not those of the committed table; if that is meant, renew it with "
            "`factory-sim profiles selfcheck --write factory_sim/data/profiles/sample.csv` and refit the profiles"
        )
    earlier = {(row["mode"], row["metric"]): row for row in before}
    for row in now:
        old = earlier.get((row["mode"], row["metric"]))
        if old is None:
            told.append(f"{row['mode']} {row['metric']}: not in the committed table")
            continue
        for column in ("median_percent", "mean_percent"):
            if float(row[column]) > TOLERANCE * float(old[column]):
                told.append(
                    f"{row['mode']} {row['metric']}: {column.replace('_percent', '')} error of left-out runs has grown "
                    f"from {old[column]} % to {row[column]} %"
                )
    return told
