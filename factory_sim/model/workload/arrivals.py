"""When requests arrive: a stream of arrival times that can be taken slice by slice."""

from collections.abc import Mapping

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.model.workload.bursts import Burstiness, Swing, burstiness_model

_BLOCK = 1024


class _Renewal:
    """Points of a stationary gamma renewal process of rate 1, kept with probability `share` and rescaled to rate 1.

    A run of N gaps between kept points is gamma distributed with N times the shape, N geometric: exact thinning.
    """

    def __init__(self, rng: np.random.Generator, cv: float, share: float):
        self._rng, self._shape, self._share = rng, cv**-2, share
        self._points = self._block(first=True)

    def _block(self, last: float = 0.0, first: bool = False) -> np.ndarray:
        if self._shape == 1:
            return last + np.cumsum(self._rng.standard_exponential(_BLOCK))
        runs = self._rng.geometric(self._share, _BLOCK) if self._share < 1 else np.ones(_BLOCK, np.int64)
        gaps = self._rng.standard_gamma(self._shape * runs)
        if first:  # a stationary start sees the rest of a length-biased gap: its size has shape + 1
            rest = self._rng.random() * self._rng.standard_gamma(self._shape + 1)
            gaps[0] = rest + (self._rng.standard_gamma(self._shape * (runs[0] - 1)) if runs[0] > 1 else 0.0)
        return last + np.cumsum(gaps) * (self._share / self._shape)

    def take(self, until: float) -> np.ndarray:
        """Return the points before operational time `until` that were not taken yet."""
        taken = []
        while self._points[-1] < until:
            taken.append(self._points)
            self._points = self._block(self._points[-1])
        cut = int(np.searchsorted(self._points, until))
        taken.append(self._points[:cut])
        self._points = self._points[cut:]
        if len(self._points) == 0:
            self._points = self._block(taken[-1][-1])
        return np.concatenate(taken)


class _Level:
    """One swinging level: constant between the points of a Poisson process, drawn anew from a gamma distribution."""

    def __init__(self, rng: np.random.Generator, swing: Swing, start_s: float):
        self._rng, self._swing = rng, swing
        self._times, self._levels = np.array([start_s]), self._draw(1)

    def _draw(self, n: int) -> np.ndarray:
        shape = 1 / self._swing.variance
        return self._rng.standard_gamma(shape, n) / shape

    def path(self, start_s: float, end_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(times, levels)`` of the pieces that touch [start_s, end_s); the first begins at or before the
        start."""
        times, levels, last = [self._times], [self._levels], self._times[-1]
        while last < end_s:
            times.append(last + np.cumsum(self._rng.standard_exponential(_BLOCK) * self._swing.time_s))
            levels.append(self._draw(_BLOCK))
            last = times[-1][-1]
        self._times, self._levels = np.concatenate(times), np.concatenate(levels)
        old = int(np.searchsorted(self._times, start_s, side="right")) - 1
        self._times, self._levels = self._times[old:], self._levels[old:]
        cut = int(np.searchsorted(self._times, end_s))
        return self._times[:cut], self._levels[:cut]


class ArrivalStream:
    """Arrival times of one service, taken in slices; what a slice boundary cuts, the next slice continues.

    `rng` is the service's own stream. `whole_rate_per_s` is the mean rate of the whole service, at which dispersion
    is matched; `share` is the fraction of its requests that is simulated (thinned at random). Slices do not change
    the draws; the times agree to rounding however they are cut.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        burstiness: str | Mapping | Burstiness = "poisson",
        *,
        whole_rate_per_s: float,
        share: float = 1.0,
        start_s: float = 0.0,
    ):
        if not 0 < share <= 1:
            raise TraceError(f"share: a fraction above 0 and up to 1 is needed, got {share}")
        if not (np.isfinite(whole_rate_per_s) and whole_rate_per_s >= 0):
            raise TraceError(f"rate_per_s: a finite rate >= 0 is needed, got {whole_rate_per_s}")
        burst = burstiness_model(burstiness)
        swings = burst.at_rate(whole_rate_per_s)
        own, *children = rng.spawn(1 + len(swings))
        self._renewal = _Renewal(own, burst.cv, share)
        self._levels = [(s.weight, _Level(child, s, start_s)) for s, child in zip(swings, children)]
        self._share, self._operational = share, 0.0
        self.now_s = start_s
        """Time up to which arrivals were taken, seconds."""

    def take(self, until_s: float, rate_per_s: float | tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the arrival times in [now_s, until_s), sorted float64, and move on to `until_s`.

        `rate_per_s` is the rate of the *whole* service: a number, or ``(start_s, rate_per_s)`` arrays of a piecewise
        constant rate (times absolute, the first at or before `now_s`). Raises TraceError for a negative rate or a
        step back.
        """
        if until_s < self.now_s:
            raise TraceError(f"arrivals were already taken up to {self.now_s} s; cannot go back to {until_s} s")
        if until_s == self.now_s:
            return np.empty(0)
        starts, rates = (np.array([self.now_s]), np.array([rate_per_s])) if np.ndim(rate_per_s) == 0 else rate_per_s
        starts, rates = np.asarray(starts, float), np.asarray(rates, float)
        if np.any(~np.isfinite(rates)) or np.any(rates < 0) or starts[0] > self.now_s or np.any(np.diff(starts) <= 0):
            raise TraceError("rates must be finite and >= 0, their times rising and beginning at or before the slice")
        paths = [(weight, *level.path(self.now_s, until_s)) for weight, level in self._levels]
        inner = np.concatenate([starts, *(times for _, times, _ in paths)])
        inner = np.unique(inner[(inner > self.now_s) & (inner < until_s)])
        edges = np.concatenate([[self.now_s], inner, [until_s]])
        intensity = rates[np.searchsorted(starts, edges[:-1], side="right") - 1] * self._share
        if paths:
            swing = np.zeros(len(edges) - 1)
            for weight, times, levels in paths:
                swing += weight * levels[np.searchsorted(times, edges[:-1], side="right") - 1]
            intensity = intensity * swing
        passed = self._operational + np.concatenate([[0.0], np.cumsum(intensity * np.diff(edges))])
        points = self._renewal.take(passed[-1])
        self._operational, self.now_s = float(passed[-1]), until_s
        piece = np.minimum(np.searchsorted(passed, points, side="right") - 1, len(intensity) - 1)
        times = edges[piece] + (points - passed[piece]) / intensity[piece]
        return np.minimum(times, np.nextafter(until_s, -np.inf))


def arrival_times(
    rng: np.random.Generator,
    rate_per_s: float | tuple[np.ndarray, np.ndarray],
    duration_s: float,
    burstiness: str | Mapping | Burstiness = "poisson",
    *,
    share: float = 1.0,
) -> np.ndarray:
    """Return sorted arrival times in [0, duration_s), float64 seconds.

    `rate_per_s` is a number or ``(start_s, rate_per_s)`` arrays of a piecewise constant rate. `burstiness` as in
    `bursts.burstiness_model`. `share` < 1 simulates a random share of these requests; the dispersion that is
    matched is the whole's. See `ArrivalStream` to take arrivals slice by slice.
    """
    if not (np.isfinite(duration_s) and duration_s >= 0):
        raise TraceError(f"duration_s: a finite time >= 0 is needed, got {duration_s}")
    if np.ndim(rate_per_s) == 0:
        mean = float(rate_per_s)
    else:
        starts, rates = np.asarray(rate_per_s[0], float), np.asarray(rate_per_s[1], float)
        lengths = np.diff(np.append(np.minimum(starts, duration_s), duration_s))
        mean = float(rates @ lengths / max(lengths.sum(), 1e-300))
    return ArrivalStream(rng, burstiness, whole_rate_per_s=mean, share=share).take(duration_s, rate_per_s)


def index_of_dispersion(times_s: np.ndarray, window_s: float, duration_s: float | None = None) -> float:
    """Return variance over mean of the counts in whole windows of `window_s`; nan with fewer than two windows or no
    arrival."""
    end = float(times_s[-1]) if duration_s is None else duration_s
    windows = int(end / window_s)
    if windows < 2:
        return float("nan")
    counts = np.bincount((times_s[times_s < windows * window_s] / window_s).astype(np.int64), minlength=windows)[
        :windows
    ]
    return float(counts.var() / counts.mean()) if counts.any() else float("nan")
