"""How demand moves over the day and the week: rates relative to their mean, smooth between the measured hours.

The published profiles count hours and days from the start of a trace whose clock time is not published. Here trace
hour 0 is *taken as* midnight and trace day 0 as Monday, unless a shift is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from factory_sim.errors import TraceError, closest
from factory_sim.inputs import workloads
from factory_sim.model.workload.quantiles import hermite, monotone_slopes

HOURS_A_WEEK = 168


@dataclass(frozen=True)
class RateShape:
    """A periodic relative rate with mean 1 over its week."""

    name: str
    """What was asked for."""
    source: str
    """Where the numbers come from, with what is assumed."""
    hourly: np.ndarray
    """float64, shape (168,): mean relative rate of each hour of the week, Monday 00:00 first; mean 1."""
    shift_h: float = 0.0
    """The shape is played this many hours later: 8 moves the value of 00:00 to 08:00."""

    def __call__(self, hours: np.ndarray | float) -> np.ndarray | float:
        """Return the relative rate at `hours` since Monday 00:00: continuous, never negative, mean 1."""
        edges, area, slopes = self._area
        at = (np.asarray(hours, float) - self.shift_h) % HOURS_A_WEEK
        piece = np.minimum(at.astype(int), HOURS_A_WEEK - 1)
        t = at - edges[piece]
        rise = area[piece + 1] - area[piece]
        rate = 6 * t * (1 - t) * rise + slopes[piece] * (1 - t) * (1 - 3 * t) + slopes[piece + 1] * t * (3 * t - 2)
        rate = np.maximum(rate, 0.0)
        return rate if np.ndim(hours) else float(rate)

    def mean_over(self, start_h: np.ndarray | float, end_h: np.ndarray | float) -> np.ndarray | float:
        """Return the exact mean relative rate between two times, hours since Monday 00:00 (any number of weeks)."""
        start, end = np.asarray(start_h, float), np.asarray(end_h, float)
        mean = (self._integral(end) - self._integral(start)) / (end - start)
        return mean if np.ndim(mean) else float(mean)

    def peak(self) -> float:
        """Return the highest relative rate of the week (on a grid of 5 minutes)."""
        return float(np.max(self(np.arange(0, HOURS_A_WEEK, 1 / 12))))

    def _integral(self, hours: np.ndarray) -> np.ndarray:
        edges, area, slopes = self._area
        shifted = hours - self.shift_h
        weeks = np.floor(shifted / HOURS_A_WEEK)
        return weeks * area[-1] + hermite(edges, area, slopes, shifted - weeks * HOURS_A_WEEK)

    @cached_property
    def _area(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Knots of the integrated rate: a monotone cubic through it keeps every hour's mean and never goes
        negative."""
        edges = np.arange(HOURS_A_WEEK + 1, dtype=float)
        area = np.concatenate([[0.0], np.cumsum(self.hourly)])
        wrapped = np.concatenate([[-self.hourly[-1]], area, [area[-1] + self.hourly[0]]])
        slopes = monotone_slopes(np.arange(-1.0, HOURS_A_WEEK + 2), wrapped)[1:-1]
        return edges, area, slopes


def shape_from(name: str, source: str, hours, days=None, shift_h: float = 0.0) -> RateShape:
    """Return the shape of 24 relative hours times 7 relative days (Monday first; None: all alike), or of 168
    hours."""
    hours = np.asarray(hours, float)
    days = np.ones(7) if days is None else np.asarray(days, float)
    if len(hours) not in (24, HOURS_A_WEEK) or len(days) != 7:
        raise TraceError(f"{name}: 24 (or 168) hours and 7 days are needed, got {len(hours)} and {len(days)}")
    week = (days[:, None] * hours[None, :]).ravel() if len(hours) == 24 else hours * np.repeat(days, 24)
    if not np.all(np.isfinite(week)) or np.any(week < 0) or week.sum() <= 0:
        raise TraceError(f"{name}: relative rates must be finite, not negative, and not all zero")
    week = week / week.mean()
    week.setflags(write=False)
    return RateShape(name, source, week, shift_h)


def rate_shape_names() -> list[str]:
    """Return the names that `rate_shape` knows."""
    return ["flat"] + [name for name in workloads.workload_names() if name.startswith("servegen_")]


def rate_shape(spec: str | Mapping, shift_h: float = 0.0) -> RateShape:
    """Return the daily and weekly shape that `spec` names or describes.

    ``flat``; ``servegen_deepseek-r1``, ``servegen_mm-image`` (one measured day: every day alike),
    ``servegen_m-large``, ``servegen_m-mid``, ``servegen_m-small`` (hour of the day times day of the week); or
    ``{hours: [24 numbers], days: [7 numbers], shift_h: 0}``, ``{named: NAME, days: NAME, shift_h: 8}`` (hours of one
    workload, days of another). Call it with hours since Monday 00:00. Raises TraceError.
    """
    if isinstance(spec, str):
        if spec == "flat":
            return shape_from("flat", "constant rate", np.ones(24), None, shift_h)
        if spec not in rate_shape_names():
            raise TraceError(f"rate shape: '{spec}' is not known{closest(spec, rate_shape_names())}")
        return shape_from(spec, *_published(spec), shift_h)
    if not isinstance(spec, Mapping) or not ({"hours", "named"} & set(spec)):
        raise TraceError(f"rate shape: a name, {{hours, days}} or {{named, days}} is needed, got {spec!r}")
    for key in spec:
        if key not in ("hours", "days", "named", "shift_h"):
            raise TraceError(
                f"rate shape: unknown key '{key}'{closest(str(key), ['hours', 'days', 'named', 'shift_h'])}"
            )
    shift_h = float(spec.get("shift_h", shift_h))
    source, hours, days = "as described in the scenario", spec.get("hours"), spec.get("days")
    if "named" in spec:
        source, hours, published_days = _published(str(spec["named"]))
        days = published_days if days is None else days
    if isinstance(days, str):
        other, _, days = _published(days)
        if days is None:
            raise TraceError(f"rate shape: '{spec['days']}' covers one day and has no weekly profile")
        source = f"{source} | days: {other}"
    return shape_from(str(spec.get("named", "described")), source, hours, days, shift_h)


def _published(name: str) -> tuple[str, list[float], list[float] | None]:
    hours = workloads.statistics(name, "hour_of_trace_day_profile")
    source = f"{hours['h00'].source}; trace hour 0 taken as midnight"
    profile = [hours[f"h{hour:02d}"].number for hour in range(24)]
    try:
        days = workloads.statistics(name, "day_profile")
    except TraceError:
        return f"{source}; one day measured, every day alike", profile, None
    return f"{source}, trace day 0 as Monday", profile, [days[f"day{day}"].number for day in range(7)]
