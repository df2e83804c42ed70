"""How wrong we are: predictions of rows that were not fitted, and errors of rows left out of the fit.

Schemes of leaving out, each with the rung of trust that it measures:

| scheme | left out together | rung |
| --- | --- | --- |
| concurrency | all runs of one configuration at one concurrency (ten folds) | interpolated, load |
| group | a configuration: model, GPU, engine, precision, mode, parallelism | parallelism |
| model_gpu | a model on one GPU | model_gpu |
| family | a model family | family |
| gpu | a GPU | gpu |

Each fold refits all effects without its rows, starting from the full fit, then plays the rows left out.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.calibration import benchmarks, fit
from factory_sim.calibration.error_report import errors
from factory_sim.errors import FactorySimError, MeasurementError
from factory_sim.inputs import catalog, profiles
from factory_sim.inputs.measurements import CONFIGURATION, COUNTS, SWITCHES, layout_of, normalise, serving
from factory_sim.model import serving as systems
from factory_sim.model import trust

if TYPE_CHECKING:
    import pandas as pd

CONCURRENCY_FOLDS = 10
REFIT_STEPS = 3
FEWEST_ROWS = 10
MEASURED_SHARE = 0.75
"""Width of the band of fitted points over that of left-out ones, so that it holds about four fifths of them."""
SCHEMES = ("concurrency", "group", "model_gpu", "family", "gpu")
SHIPPED = ("scheme", "measurement_id", "mode", "rung", "log_ttft_error", "log_tpot_error")
"""Columns of the residuals that the package holds."""
PREDICTION_COLUMNS = (
    "measurement_id", "predicted_ttft_ms", "ttft_low_ms", "ttft_high_ms", "predicted_tpot_ms", "tpot_low_ms",
    "tpot_high_ms", "trust", "profile", "reason",
)  # fmt: skip


MOST_PLAYED = 20_000
"""Configurations of one file that are played: a quarter of an hour, about."""
_CONFIGURED = (
    *CONFIGURATION, *COUNTS, *SWITCHES, "spec_decoding", "origin", "measured_on", "backend_version", "isl", "osl",
    "concurrency", "isl_longest", "osl_longest", "low_fraction", "problem",
)  # fmt: skip
"""Columns of a row that a prediction depends on."""
_NOTHING = (float("nan"),) * 6 + ("", "")


def predict_rows(table: "pd.DataFrame", folder: Path | None = None) -> "pd.DataFrame":
    """Predict each row of a table with the columns of serving.csv by playing its benchmark; nothing is fitted.

    Returns PREDICTION_COLUMNS, one row for each input row, in its order: milliseconds, the band (P10, P90) of the rung
    of trust, and a reason with empty values where a row cannot be predicted. `folder` holds other profiles than the
    packaged ones. Raises MeasurementError for missing columns.
    """
    return predict_normalised(normalise(table), folder)


def predict_normalised(
    rows: "pd.DataFrame", folder: Path | None = None, known: dict[tuple, tuple] | None = None
) -> "pd.DataFrame":
    """The same for rows in the form of `measurements.serving()`.

    A configuration that is met again is not played again; `known` keeps predictions from call to call. Once MOST_PLAYED
    configurations are known, others get a reason instead of a prediction.
    """
    import pandas as pd

    known, out = {} if known is None else known, []
    for row in rows.itertuples():
        key = tuple(None if value != value else value for value in (getattr(row, name) for name in _CONFIGURED))
        if key not in known:
            if len(known) >= MOST_PLAYED:
                out.append((*_NOTHING, f"not played: the file has more than {MOST_PLAYED:,} different configurations"))
                continue
            known[key] = _predict(row, folder)
        out.append(known[key])
    found = pd.DataFrame(out, columns=list(PREDICTION_COLUMNS[1:]))
    found.insert(0, "measurement_id", rows.measurement_id.to_numpy())
    return found


def _predict(row, folder: Path | None) -> tuple:
    if row.problem:
        return (*_NOTHING, row.problem)
    try:
        if row.spec_decoding != "unknown":
            return _of_speculation(row, "mtp" if row.spec_decoding == "mtp" else "none", folder)
        plain, model = _of_speculation(row, "none", folder), catalog.model(row.model).name
        if not any(group.speculation == "mtp" and group.model == model for group in profiles.groups(folder)):
            return (*plain[:-1], "speculation unknown: predicted without")
        drafted = _of_speculation(row, "mtp", folder)
    except FactorySimError as error:
        return (*_NOTHING, str(error))
    lows, highs = ([pick(plain[at], drafted[at]) for at in places] for pick, places in ((min, (1, 4)), (max, (2, 5))))
    reason = "speculation unknown: predicted without, band from without to with"
    return plain[0], lows[0], highs[0], plain[3], lows[1], highs[1], *plain[6:8], reason


def _of_speculation(row, speculation: str, folder: Path | None) -> tuple:
    """Prediction of a usable row with or without multi-token prediction."""
    model, gpu = catalog.model(row.model).name, catalog.gpu_name(row.gpu)
    engine = profiles.engine(row.backend).name
    layout = layout_of(row)
    in_flight = row.concurrency / layout.instances
    system = systems.serving_system(
        model, gpu, engine, row.precision, layout,
        speculation=speculation,
        as_of=fit.run_date(row) or None,
        concurrency=in_flight,
        load=(row.isl, row.osl, in_flight),
        max_sequences=int(np.ceil(in_flight)),
        origin=row.origin or "InferenceX",
        folder=folder,
    )  # fmt: skip
    if not fit.run_date(row):
        system = _of_unknown_software(system, layout.pooled, folder)
    played = benchmarks.play(
        system, row.isl_longest, row.osl_longest, row.low_fraction, int(row.concurrency), layout.instances
    )
    ttft, tpot = benchmarks.reported(played, benchmarks.DEFAULT)
    return (
        1e3 * ttft, *(1e3 * ttft * f for f in system.ttft_band),
        1e3 * tpot, *(1e3 * tpot * f for f in system.tpot_band),
        system.trust, system.profile, "",
    )  # fmt: skip


def _of_unknown_software(system: systems.ServingSystem, pooled: bool, folder: Path | None) -> systems.ServingSystem:
    """A measured system whose software is not told is taken as the newest, as far from measurement as a load outside
    the measured range."""
    if system.trust not in ("measured", "interpolated"):
        return system
    band = trust.band("load", pooled, folder)
    return replace(system, trust=trust.RUNGS["load"], ttft_band=band.ttft, tpot_band=band.tpot)


def folds(rows: "pd.DataFrame", scheme: str) -> np.ndarray:
    """Number of the fold in which each row is left out, by a scheme of this module."""
    if scheme == "concurrency":
        point = rows.groupby(["group_id", "spec_decoding", "concurrency"], sort=False).ngroup().to_numpy()
        order = np.random.default_rng(0).permutation(point.max() + 1)
        return order[point] % CONCURRENCY_FOLDS
    keys = {
        "group": ["group_id"],
        "model_gpu": ["model", "gpu"],
        "family": [rows.model.str.split("-").str[0]],
        "gpu": ["gpu"],
    }
    if scheme not in keys:
        raise MeasurementError(f"scheme '{scheme}' is not known; use one of {', '.join(SCHEMES)}")
    if scheme == "group":
        group = rows.groupby("group_id", sort=False).ngroup().to_numpy()
        profile = rows.groupby(["model", "gpu", "mode"], sort=False)["group_id"].transform(
            lambda ids: ids.groupby(ids, sort=False).ngroup()
        )
        return np.asarray(profile) % 12 if len(set(group)) > 24 else group
    return rows.groupby(keys[scheme], sort=False).ngroup().to_numpy()


def left_out(task: fit.Problem, scheme: str, progress=None) -> np.ndarray:
    """Return log (TTFT s, TPOT s) of each run played with effects that were fitted without its fold; NaN: not played.

    `task` must be fitted. `progress(done, folds)` is called after each fold.
    """
    number = folds(task.rows, scheme)
    out = np.full_like(task.measured, np.nan)

    def one(fold: int) -> tuple[np.ndarray, np.ndarray]:
        held = number == fold
        rest = fit.take(task, np.flatnonzero(~held))
        for _ in range(REFIT_STEPS):
            fit.gauss_newton(rest, np.array(fit.NOISE))
        away = fit.take(task, np.flatnonzero(held))
        fit.apply_effects(away, rest)
        return held, fit.play_runs(away)

    every = np.unique(number)
    with ThreadPoolExecutor(fit.THREADS) as pool:
        for done, (held, found) in enumerate(pool.map(one, every)):
            out[held] = found
            if progress:
                progress(done + 1, len(every))
    return out


def crossvalidate(
    rows: "pd.DataFrame | None" = None, schemes=SCHEMES, task: fit.Problem | None = None, progress=None
) -> "pd.DataFrame":
    """Leave out, refit, predict: one row for each (scheme, clean row left out).

    Columns: scheme, measurement_id, mode, model, gpu, backend, precision, rung, log_ttft_error, log_tpot_error (log of
    measured over predicted). `task` is the full fit; it is made from `rows` (all usable rows of the
    packaged table) when left out.
    """
    import pandas as pd

    if task is None:
        task = fit.fit(serving() if rows is None else rows)
    rungs = {"concurrency": "interpolated", "group": "parallelism"}
    parts = []
    for scheme in schemes:
        found = left_out(task, scheme, progress and (lambda done, of, scheme=scheme: progress(scheme, done, of)))
        clean = task.rows.clean.to_numpy() & np.isfinite(found).all(axis=1)
        part = task.rows.loc[clean, ["measurement_id", "mode", "model", "gpu", "backend", "precision"]].copy()
        part.insert(0, "scheme", scheme)
        part["rung"] = _edge(task.rows)[clean] if scheme == "concurrency" else rungs.get(scheme, scheme)
        part[["log_ttft_error", "log_tpot_error"]] = (task.measured - found)[clean]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _edge(rows: "pd.DataFrame") -> np.ndarray:
    """ "load" for the smallest and largest concurrency of a configuration at its lengths, else "interpolated"."""
    by = rows.groupby(["group_id", "spec_decoding", "isl", "osl"], sort=False).concurrency
    edge = (rows.concurrency == by.transform("min")) | (rows.concurrency == by.transform("max"))
    return np.where(edge, "load", "interpolated")


def accuracy_table(residuals: "pd.DataFrame") -> "pd.DataFrame":
    """Errors by scheme and mode, per cent: median, mean, p90 of TTFT and TPOT, rows, and coverage of the bands.

    Coverage is honest: each row is judged by a band made without any row of its model on its GPU, in any scheme.
    """
    import pandas as pd

    spans = {}
    for pair, part in residuals.groupby(["model", "gpu"], sort=False):
        others = residuals[(residuals.model != pair[0]) | (residuals.gpu != pair[1])]
        limits = {(row.rung, row.mode, row.metric): (row.low, row.high) for row in band_table(others).itertuples()}
        for metric in ("tpot", "ttft"):
            found = [limits[(rung, mode, metric)] for rung, mode in zip(part.rung, part["mode"])]
            spans.setdefault(metric, []).append(pd.DataFrame(found, index=part.index, columns=["low", "high"]))
    spans = {metric: pd.concat(parts) for metric, parts in spans.items()}
    out = []
    for (scheme, mode), part in residuals.groupby(["scheme", "mode"], sort=False):
        for metric in ("tpot", "ttft"):
            ratio = np.exp(part[f"log_{metric}_error"].to_numpy())
            low, high = spans[metric].loc[part.index].to_numpy().T
            out.append({"scheme": scheme, "mode": mode, "metric": metric} | errors(ratio, 1 + 0 * ratio, low, high))
    return pd.DataFrame(out)


def band_table(residuals: "pd.DataFrame") -> "pd.DataFrame":
    """P10 and P90 of measured over predicted by rung and mode: the bands that profiles ship with.

    The rung `measured` takes MEASURED_SHARE of the log width of `interpolated`: its rows were fitted. A rung with fewer than
    FEWEST_ROWS left-out rows takes the band of the rung before it.
    """
    import pandas as pd

    out = []
    for mode in ("agg", "disagg"):
        for metric in ("ttft", "tpot"):
            last = (0.0, 0.0)
            spans = {}
            for rung in list(trust.RUNGS)[1:]:
                part = residuals[(residuals["mode"] == mode) & (residuals.rung == rung)]
                part = part[f"log_{metric}_error"].to_numpy()
                if len(part) >= FEWEST_ROWS:
                    last = tuple(np.quantile(part, (0.1, 0.9)))
                spans[rung] = last
            spans = {"measured": tuple(MEASURED_SHARE * x for x in spans["interpolated"])} | spans
            for rung, (low, high) in spans.items():
                out.append(
                    {
                        "rung": rung, "mode": mode, "metric": metric,
                        "low": round(float(np.exp(min(low, 0.0))), 4), "high": round(float(np.exp(max(high, 0.0))), 4),
                    }
                )  # fmt: skip
    return pd.DataFrame(out)
