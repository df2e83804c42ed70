"""Profiles as files: what `factory-sim profiles fit` writes and the package ships.

`effects.csv` is what predictions are made of. `index.csv` lists the measured configurations. `profiles/NAME.json` is
one profile to read: coefficients with units, fit range, error by region, sources and the points of its chart.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.calibration import fit
from factory_sim.inputs import profiles
from factory_sim.inputs.measurements import layout_of
from factory_sim.model import serving, step_time, trust

if TYPE_CHECKING:
    import pandas as pd


def write_profiles(task: fit.Problem, folder: Path) -> None:
    """Write the files of a fit into a folder (made if missing). Same fit, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    fit.effects_table(task).to_csv(folder / "effects.csv", index=False, float_format="%.4f", lineterminator="\n")
    errors = played_errors(task)
    index_table(task, errors).to_csv(folder / "index.csv", index=False, float_format="%.6g", lineterminator="\n")
    shown = folder / "profiles"
    shown.mkdir(exist_ok=True)
    for old in shown.glob("*.json"):
        old.unlink()
    for name, text in profile_pages(task, errors).items():
        (shown / f"{name}.json").write_text(text, encoding="utf-8")


def played_errors(task: fit.Problem) -> np.ndarray:
    """log measured over played (TTFT, TPOT) with the effects of the fit, shape (n, 2)."""
    fit.apply_effects(task, task)
    return task.measured - fit.play_runs(task)


def _labels(task: fit.Problem) -> "pd.DataFrame":
    """Rows of the fit with the names that groups go by."""
    rows = task.rows.copy()
    layouts = [layout_of(row) for row in rows.itertuples()]
    rows["layout"] = [trust.layout_name(layout) for layout in layouts]
    rows["in_flight"] = rows.concurrency / [layout.instances for layout in layouts]
    rows["speculation"] = rows.spec_decoding.where(rows.spec_decoding == "mtp", "none")
    rows["profile"] = [
        serving.profile_name(row.model, row.gpu, row.backend, row.precision) for row in rows.itertuples()
    ]
    return rows


_GROUP = ["profile", "model", "gpu", "backend", "precision", "mode", "layout", "speculation"]


def index_table(task: fit.Problem, errors: np.ndarray) -> "pd.DataFrame":
    """One row for each measured configuration, in the columns of `profiles.groups`."""
    import pandas as pd

    rows = _labels(task)
    rows["ttft_error"], rows["tpot_error"] = np.abs(np.expm1(-errors)).T
    out = []
    for key, part in rows.groupby(_GROUP, sort=True):
        dates = sorted(part.measured_on[part.measured_on != ""])
        points = sorted(set(zip(part.isl, part.osl, part.in_flight)))
        out.append(
            dict(zip(["profile", "model", "gpu", "engine", *_GROUP[4:]], key))
            | {
                "rows": len(part),
                "concurrency_least": part.in_flight.min(), "concurrency_most": part.in_flight.max(),
                "isl_least": part.isl.min(), "isl_most": part.isl.max(),
                "osl_least": part.osl.min(), "osl_most": part.osl.max(),
                "first_date": dates[0] if dates else "", "last_date": dates[-1] if dates else "",
                "tpot_error": part.tpot_error.median(), "ttft_error": part.ttft_error.median(),
                "points": " ".join("/".join(f"{x:g}" for x in point) for point in points),
            }
        )  # fmt: skip
    return pd.DataFrame(out)


def profile_pages(task: fit.Problem, errors: np.ndarray) -> dict[str, str]:
    """Return profile name -> JSON text of each profile of a fit."""
    rows = _labels(task)
    decode, prefill = task.parameters()
    units = {term.parameter: term.unit for term in profiles.terms()}
    pages = {}
    for name, part in rows.groupby("profile", sort=True):
        first = part.iloc[0]
        systems = []
        for (layout, speculation), group in part.groupby(["layout", "speculation"], sort=True):
            at = group.index[np.argmax(group.measured_on.to_numpy())]
            sides = {"decode" if task.runs.pooled[at] else "both": decode[at]}
            if task.runs.pooled[at]:
                sides["prefill"] = prefill[at]
            systems.append(
                {
                    "layout": layout,
                    "speculation": speculation,
                    "software": fit.run_date(task.rows.iloc[at]),
                    "coefficients": {
                        role: {key: float(f"{value:.4g}") for key, value in zip(step_time.PARAMETERS, values)}
                        for role, values in sides.items()
                    },
                    "range": {
                        column: [float(group[column].min()), float(group[column].max())]
                        for column in ("in_flight", "isl", "osl")
                    },
                    "error_percent": error_percent(errors[group.index]),
                }
            )
        page = {
            "profile": name,
            "model": first.model, "gpu": first.gpu, "engine": first.backend, "precision": first.precision,
            "rows": len(part),
            "units": units,
            "error_percent": error_percent(errors[part.index]),
            "systems": systems,
            "sources": sorted({_origin(row.source) for row in part.itertuples()}),
            "measurements": list(part.measurement_id),
            "points": {
                "layout": list(part.layout), "concurrency": [int(x) for x in part.concurrency],
                "isl": [int(x) for x in part.isl], "osl": [int(x) for x in part.osl],
                "measured_ttft_s": _short(np.exp(task.measured[part.index, 0])),
                "predicted_ttft_s": _short(np.exp((task.measured - errors)[part.index, 0])),
                "measured_tpot_s": _short(np.exp(task.measured[part.index, 1])),
                "predicted_tpot_s": _short(np.exp((task.measured - errors)[part.index, 1])),
            },
        }  # fmt: skip
        pages[name] = json.dumps(page, indent=1, allow_nan=False) + "\n"
    return pages


def _short(values) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def error_percent(errors: np.ndarray) -> dict[str, float]:
    """Median and P90 of absolute errors of TTFT and TPOT, per cent, on the rows that were fitted."""
    size = 100 * np.abs(np.expm1(-errors))
    return {
        f"{metric}_{kind}": round(float(value), 2)
        for index, metric in enumerate(("ttft", "tpot"))
        for kind, value in (("median", np.median(size[:, index])), ("p90", np.quantile(size[:, index], 0.9)))
    }


def _origin(source: str) -> str:
    """Source without the ids of single runs."""
    return source.split("; measured")[0].split("; workflow")[0].split("; id(s)")[0]
