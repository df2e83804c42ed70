"""Carbon intensity of the hour at a site, over its mean; the level is the money side's (`money.costs.carbon`)."""

import csv
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.inputs.operations import PowerCap
from factory_sim.units import HOUR_S


def carbon_multiplier(power: PowerCap | None, start: datetime, start_s: float, end_s: float) -> float:
    """Mean intensity over a stretch of a scenario that starts at `start`, over the mean of the day or of the series."""
    if power is None or not (power.carbon_by_hour or power.carbon_series):
        return 1.0
    if power.carbon_by_hour:
        first_s = start.hour * HOUR_S + start.minute * 60.0 + start.second
        return _mean(np.arange(25) * HOUR_S, np.array(power.carbon_by_hour), first_s + start_s, first_s + end_s)
    edges, relative = carbon_series(power.carbon_series)
    return _mean(edges, relative, start_s, end_s)


@cache
def carbon_series(path: str) -> tuple[np.ndarray, np.ndarray]:
    """(edges s, intensity over its mean) of a CSV file with columns t_s (from the scenario's start) and gco2e_per_kwh.

    The last value holds as long as the usual step, then the series begins again. Raises TraceError.
    """
    where = f"carbon series {path}"
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as lines:
            rows = [(float(row["t_s"]), float(row["gco2e_per_kwh"])) for row in csv.DictReader(lines)]
    except OSError as error:
        raise TraceError(f"{where}: cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError):
        raise TraceError(f"{where}: needs columns t_s (seconds) and gco2e_per_kwh (grams a kilowatt-hour)") from None
    times, values = np.array(rows).reshape(-1, 2).T
    steps = np.diff(times)
    usable = len(times) > 1 and np.all(steps > 0) and np.all(values >= 0) and np.all(np.isfinite(values)) and values.any()
    if not usable:
        raise TraceError(f"{where}: needs rising times and intensities that are not negative and not all zero")
    edges = np.append(times, times[-1] + np.median(steps)) - times[0]
    return edges, values / (float((values * np.diff(edges)).sum()) / edges[-1])


def _mean(edges: np.ndarray, values: np.ndarray, start_s: float, end_s: float) -> float:
    """Mean of a step function, repeated without end, between two times."""
    below = np.concatenate([[0.0], np.cumsum(values * np.diff(edges))])

    def area(time_s: float) -> float:
        rounds, rest = divmod(time_s, edges[-1])
        return rounds * below[-1] + float(np.interp(rest, edges, below))

    return (area(end_s) - area(start_s)) / (end_s - start_s)
