"""Errors and coverage of predictions against measurements, overall and by group: the JSON of `profiles validate`."""

import numpy as np


def errors(actual, predicted, low=None, high=None) -> dict[str, float | int | None]:
    """Return n, median, mean and p90 of absolute errors in per cent of `actual`, and coverage of [low, high], per cent.

    Rows without a finite positive measurement or a prediction are left out; figures of no row are None.
    """
    actual, predicted = np.asarray(actual, dtype=float), np.asarray(predicted, dtype=float)
    kept = np.isfinite(actual) & (actual > 0) & np.isfinite(predicted)
    if not kept.any():
        return {"n": 0, "median": None, "mean": None, "p90": None, "coverage": None}
    error = 100 * np.abs(predicted[kept] / actual[kept] - 1)
    inside = None
    if low is not None:
        low, high = np.asarray(low, dtype=float)[kept], np.asarray(high, dtype=float)[kept]
        inside = float(100 * np.mean((low <= actual[kept]) & (actual[kept] <= high)))
    return {
        "n": int(kept.sum()),
        "median": float(np.median(error)),
        "mean": float(np.mean(error)),
        "p90": float(np.quantile(error, 0.9)),
        "coverage": inside,
    }


def report(predictions, actual: dict, columns: dict[str, tuple[str, str, str]], by: dict) -> dict:
    """Return ``{"rows", "predicted", "errors": {metric: ...}, "by": {dimension: {value: {metric: ...}}}}``.

    `predictions`: DataFrame; `actual`: metric -> measured array; `columns`: metric -> names of its (value, low, high)
    columns; `by`: dimension -> label of each row.
    """

    measured = {metric: np.array([_number(value) for value in values]) for metric, values in actual.items()}

    def table(keep) -> dict:
        return {
            metric: errors(measured[metric][keep], *(predictions[c].to_numpy()[keep] for c in names))
            for metric, names in columns.items()
        }

    every = np.ones(len(predictions), dtype=bool)
    values = [names[0] for names in columns.values()]
    labels = {dimension: np.array([str(label) for label in told], dtype=object) for dimension, told in by.items()}
    return {
        "rows": len(predictions),
        "predicted": int(predictions[values].notna().all(axis=1).sum()),
        "errors": table(every),
        "by": {
            dimension: {label: table(told == label) for label in sorted(set(told))}
            for dimension, told in labels.items()
        },
    }


def _number(value) -> float:
    """The value as a float, NaN where it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
