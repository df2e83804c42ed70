"""A file of measurements against what we would have said: predictions row by row, errors, what was wrong with the file."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.calibration import accuracy, measurement_files
from factory_sim.calibration.error_report import report
from factory_sim.calibration.measurement_reader import Places, blocks
from factory_sim.errors import MeasurementError, closest
from factory_sim.inputs.measurements import REQUIRED, serving

if TYPE_CHECKING:
    import pandas as pd

ENERGY_MARKS = ("energy_per_output_token_j", "max_num_seqs", "avg_batch_size")
ONLINE_MARKS = ("request_rate_per_s", "ttft_mean_ms", "e2e_mean_ms", "workload")


def kind_of(columns, where: str) -> str:
    """Tell serving, energy or online tables apart by their columns; MeasurementError if none fits."""
    held = set(columns)
    if set(REQUIRED[:6]) <= held or {"ttft_ms", "tpot_ms"} <= held:
        return "serving"
    if sum(mark in held for mark in ENERGY_MARKS) >= 2:
        return "energy"
    if sum(mark in held for mark in ONLINE_MARKS) >= 2:
        return "online"
    missing = [name for name in REQUIRED if name not in held]
    raise MeasurementError(
        f"{where}: columns missing: {', '.join(missing)}; neither a serving, an energy nor an online table is recognised"
    )


def validate_file(path: Path, kind: str = "", folder: Path | None = None) -> "tuple[pd.DataFrame, dict, list[str]]":
    """Return (predictions, report, notes for the user) of a file of measurements of any size.

    Predictions: one row for each row of the file, in its order; a line that is no row, or one too many, has empty values
    and a reason. A row that stands there twice is predicted as often and judges once.
    """
    kind = kind or kind_of(next(blocks(path, 1)).table.columns, str(path))
    if kind in measurement_files.MEASURED:
        return _validate_values(path, kind)
    if kind != "serving":
        raise MeasurementError(f"kind '{kind}' is not known{closest(kind, ('serving', 'energy', 'online'))}")
    return _validate_serving(path, folder)


def _validate_values(path: Path, kind: str) -> "tuple[pd.DataFrame, dict, list[str]]":
    from factory_sim.calibration.energy_steps import validate_energy
    from factory_sim.calibration.online import validate_online

    values = measurement_files.judged_values(path, kind)
    found, errors = validate_energy(values.table) if kind == "energy" else validate_online(values.table)
    found = _row_by_row(found, values.source, values.reasons)
    return found, errors | _counts(found), [f"{path}: {text}" for text in values.told]


def _validate_serving(path: Path, folder: Path | None) -> "tuple[pd.DataFrame, dict, list[str]]":
    import pandas as pd

    complaints, places, reasons, known = measurement_files.Complaints(), Places(), {}, {}
    parts, actual, labels, undated = [], [], [], 0
    for block, rows, wrong in measurement_files.judged_blocks(path, complaints):
        part = accuracy.predict_normalised(rows, folder, known)
        judge = ~np.isin(np.arange(len(rows)), list(wrong))
        times = 1e3 * rows[["ttft_s", "tpot_s"]].to_numpy(float)
        actual.append(np.where(judge[:, None], times, np.nan))
        labels.append(rows[["mode", "model", "gpu", "backend", "precision"]])
        parts.append(part)
        places.add(block)
        reasons |= block.broken
        undated += int((rows.measured_on + rows.backend_version == "").sum())
    every, measured, told = pd.concat(parts, ignore_index=True), np.concatenate(actual), pd.concat(labels)
    by = {name: told[name].to_numpy() for name in ("mode", "model", "gpu")}
    by |= {"engine": told.backend.to_numpy(), "precision": told.precision.to_numpy(), "trust": every.trust.to_numpy()}
    columns = {name: (f"predicted_{name}_ms", f"{name}_low_ms", f"{name}_high_ms") for name in ("ttft", "tpot")}
    errors = report(every, dict(zip(columns, measured.T)), columns, by)
    notes = [f"{path}: {text}" for text in complaints.lines()]
    fitted = set(serving().measurement_id) & set(every.measurement_id) - {""}
    if fitted:
        notes.append(
            f"{len(fitted)} of these rows are in the packaged table that the profiles were fitted on; "
            "`profiles crossvalidate` has errors of rows left out"
        )
    if undated:
        notes.append(
            f"{undated} rows tell neither measured_on nor backend_version: predicted for the newest software, measured "
            "systems with the band of a load outside the measured range"
        )
    found = _row_by_row(every, places.all(), reasons)
    return found, errors | _counts(found), notes


def _row_by_row(found: "pd.DataFrame", source: np.ndarray, reasons: dict[int, str]) -> "pd.DataFrame":
    """The predictions of different rows as one for each row of the file; `reasons` by its number for those without."""
    if len(source) == len(found) and not reasons:
        return found
    out = found.reindex(source).reset_index(drop=True)
    text = [name for name in ("measurement_id", "trust", "profile") if name in out]
    lost = np.flatnonzero(source < 0)
    out.loc[lost, text] = ""
    out.loc[lost, "reason"] = [reasons[int(at) + 2] for at in lost]
    return out


def _counts(found: "pd.DataFrame") -> dict[str, int]:
    values = [name for name in found if name.startswith("predicted_")]
    return {"rows": len(found), "predicted": int(found[values].notna().all(axis=1).sum())}


def error_frame(report: dict) -> "pd.DataFrame":
    """The report of a validation as a flat table."""
    import pandas as pd

    rows = [{"by": "all", "value": "", "metric": metric} | found for metric, found in report["errors"].items()]
    for name, values in report["by"].items():
        for value, metrics in values.items():
            rows += [{"by": name, "value": value, "metric": metric} | found for metric, found in metrics.items()]
    return pd.DataFrame(rows)
