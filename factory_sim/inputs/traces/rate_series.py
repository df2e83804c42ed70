"""Rates over time that drive demand directly: requests per second in windows, measured or planned."""

from dataclasses import dataclass

import numpy as np

from factory_sim.errors import TraceError


@dataclass(frozen=True)
class RateSeries:
    """A piecewise constant rate."""

    name: str
    source: str
    start_s: np.ndarray
    """float64, rising: start of each window, seconds from the first."""
    rate_per_s: np.ndarray
    """float64 >= 0: requests per second in each window."""
    end_s: float
    """End of the last window, seconds."""
    notes: tuple[str, ...] = ()
    """What was mended or should be known."""

    @property
    def mean_per_s(self) -> float:
        """Mean rate over the whole series, requests per second."""
        return float(self.rate_per_s @ np.diff(self.start_s, append=self.end_s) / self.end_s)

    def scaled(self, mean_per_s: float) -> "RateSeries":
        """Return the series with another mean rate and the same relative shape."""
        if self.mean_per_s == 0:
            raise TraceError(f"{self.name}: is zero throughout and cannot be scaled")
        factor = mean_per_s / self.mean_per_s
        return RateSeries(self.name, self.source, self.start_s, self.rate_per_s * factor, self.end_s, self.notes)

    def mean_over(self, start_s: float, end_s: float, repeat: bool = True) -> float:
        """Return the mean rate between two times; beyond its end the series begins anew, or is 0 if not `repeat`."""
        area = np.concatenate([[0.0], np.cumsum(self.rate_per_s * np.diff(self.start_s, append=self.end_s))])
        edges = np.append(self.start_s, self.end_s)

        def until(t: float) -> float:
            rounds = np.floor(t / self.end_s) if repeat else 0.0
            return float(rounds * area[-1] + np.interp(t - rounds * self.end_s, edges, area))

        return (until(end_s) - until(start_s)) / (end_s - start_s)
