"""Reading rates over time: packaged series, tables of rates, folders of ServeGen's client data."""

import csv
from pathlib import Path

import numpy as np

from factory_sim.errors import TraceError, closest
from factory_sim.inputs import workloads
from factory_sim.inputs.logs import tables
from factory_sim.inputs.logs.files import open_bytes
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.logs.values import SECONDS_PER_UNIT, plain_name, split_unit
from factory_sim.inputs.traces.rate_series import RateSeries
from factory_sim.inputs.traces.servegen import read_servegen

TIME_NAMES = ("t", "time", "timestamp", "start", "offset")
RATE_SUFFIXES = {"_rps": 1.0, "_per_s": 1.0, "_rpm": 1 / 60, "_per_min": 1 / 60, "_per_h": 1 / 3600, "_qps": 1.0}
MOST_PER_S, LONGEST_SERIES_S = 1e12, 1e12
"""Rates and times beyond these are nonsense and refused."""


def packaged_rates(name: str) -> RateSeries:
    """Return a packaged rate series, e.g. ``servegen_m-large`` (one week) or ``servegen_deepseek-r1`` (one day).

    Raises TraceError if the name is not known.
    """
    start_s, rate_per_s = workloads.rate_series(name)
    source = workloads.statistics(name, "arrival_rate")["mean"].source
    empty = int(np.sum(rate_per_s == 0))
    notes = (f"{empty} windows are empty, probably gaps in the data",) if empty else ()
    return RateSeries(name, source, start_s, rate_per_s, float(start_s[-1] + (start_s[1] - start_s[0])), notes)


def read_rates(path: str | Path, column: str | None = None) -> RateSeries:
    """Read a rate series from a table: a time column with its unit (``t_s``, ``time_min``) and a rate column
    (``*_rps``, ``*_per_s``, ``*_rpm``, ``*_per_min``, ``*_per_h``), or ServeGen's ``chunk-i-trace.csv`` (no header:
    seconds, rate, ...).

    `column` picks one of several rates. Empty cells at the end end the series; within it they, negative and
    unreadable rates are refused; rows out of order are sorted and told. A folder of ServeGen's client data gives the
    sum of its clients. Raises TraceError.
    """
    if Path(path).is_dir():
        return read_servegen(path).rates
    try:
        return _read(path, column)
    except csv.Error as reason:
        raise TraceError(f"{path}: cannot be read as CSV: {reason}") from None


def _read(path: str | Path, column: str | None) -> RateSeries:
    complaints = Complaints()
    with open_bytes(path, TraceError) as source:
        names, headless = tables.header(source), None
        first = [] if source.parquet else tables.head_rows(source, 1)[0]
        if first and first[0] and _is_number(first[0][0]):
            names = headless = ["t_s", "rate_per_s", *(f"column_{k}" for k in range(2, len(names)))]
        time, seconds = _time_column(names, path)
        rate, per_s = _rate_column(names, column, path)
        frames = list(tables.blocks(source, {time, rate}, complaints, TraceError, headless))
        name = source.name
    return _series(name, path, frames, time, rate, seconds, per_s, complaints)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _time_column(names: list[str], path) -> tuple[str, float]:
    for name in names:
        stem, unit = split_unit(name)
        if unit and stem in TIME_NAMES:
            return name, SECONDS_PER_UNIT[unit]
    raise TraceError(f"{path}: no column of time with its unit (t_s, time_min, ...); found: {', '.join(names[:12])}")


def _rate_column(names: list[str], column: str | None, path) -> tuple[str, float]:
    rates = {name: factor for name in names for suffix, factor in RATE_SUFFIXES.items() if name.endswith(suffix)}
    if not rates:
        raise TraceError(f"{path}: no column of a rate (requests_per_s, chat_rps, ...); found: {', '.join(names[:12])}")
    if column is None:
        if len(rates) > 1:
            raise TraceError(f"{path}: has several rates, choose one of {', '.join(rates)}")
        return next(iter(rates.items()))
    for name in (plain_name(column), *(f"{plain_name(column)}{suffix}" for suffix in RATE_SUFFIXES)):
        if name in rates:
            return name, rates[name]
    raise TraceError(f"{path}: no rate column '{column}'{closest(column, rates)}")


def _series(name, path, frames, time, rate, seconds, per_s, complaints) -> RateSeries:
    import pandas as pd

    if not frames:
        raise TraceError(f"{path}: has no rows")
    frame = pd.concat(frames)
    t = pd.to_numeric(frame[time], errors="coerce").to_numpy("float64", na_value=np.nan)
    value = pd.to_numeric(frame[rate], errors="coerce").to_numpy("float64", na_value=np.nan)
    given = np.flatnonzero(np.isfinite(value))
    if len(given) < 2:
        raise TraceError(f"{path}: column {rate} needs at least two rates")
    t, value = t[: given[-1] + 1], value[: given[-1] + 1]
    bad = ~np.isfinite(t) | ~np.isfinite(value) | (value < 0) | (value > MOST_PER_S) | (np.abs(t) > LONGEST_SERIES_S)
    if bad.any():
        row = frame.index[int(np.argmax(bad))]
        raise TraceError(
            f"{path}: row {row}: a sensible time and a rate >= 0 are needed; found {frame.loc[row].to_dict()}"
        )
    t, value = t * seconds, value * per_s
    order = np.argsort(t, kind="stable")
    notes = list(complaints.notes())
    if np.any(np.diff(t) < 0):
        notes.append("repaired, rows out of order: sorted by time")
    t, value = t[order] - t.min(), value[order]
    if np.any(np.diff(t) == 0):
        raise TraceError(f"{path}: time {t[:-1][np.diff(t) == 0][0]:g} s is there more than once")
    width = float(np.median(np.diff(t)))
    jumps = int(np.sum(np.diff(t) > 1.5 * width))
    if jumps:
        notes.append(f"{jumps} windows are longer than the others: rows may be missing; the rate before holds")
    return RateSeries(f"{name}:{rate}", str(name), t, value, float(t[-1] + width), tuple(notes))
