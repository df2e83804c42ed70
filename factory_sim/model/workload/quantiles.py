"""Smooth monotone distributions through published quantiles, with the published mean.

Published workloads give quantiles (p1 to p99.9) and a mean, never the samples. `QuantileCurve` draws a monotone
curve of log(value) over the standard normal score through every quantile (monotone cubic Hermite, Fritsch and
Carlson 1980), extends it beyond the last one and bends it *between* the quantiles, by one shape parameter, until its
mean is the published one. The quantiles stay exactly where they were.
"""

from statistics import NormalDist

import numpy as np

from factory_sim.errors import TraceError

_GRID = 8193
_Z_MAX = NormalDist().inv_cdf(1 - 1e-9)
_LARGEST_BEND = 5.0  # below 5.196 = 1 / max of the slope of t^2 (1-t)^2: monotone for sure


def monotone_slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the slopes at the knots of the monotone cubic Hermite interpolant (Fritsch and Carlson, harmonic means).

    `x` (n >= 2) increases strictly; where `y` (n) turns or is flat the slope is 0.
    """
    width, secant = np.diff(x), np.diff(y) / np.diff(x)
    slopes = np.zeros_like(y, dtype=float)
    left, right = secant[:-1], secant[1:]
    inner = left * right > 0
    w1, w2 = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    left, right, w1, w2 = left[inner], right[inner], w1[inner], w2[inner]
    slopes[1:-1][inner] = (w1 + w2) * (left * right) / (w1 * right + w2 * left)
    slopes[0], slopes[-1] = secant[0], secant[-1]
    return slopes


def hermite(x: np.ndarray, y: np.ndarray, slopes: np.ndarray, at: np.ndarray, bend: float = 0.0) -> np.ndarray:
    """Evaluate the cubic Hermite interpolant of knots ``(x, y)`` with `slopes`; clamped outside the knots.

    `bend` moves the curve between its knots, up for positive values, and leaves knots and slopes alone: the place t
    in an interval becomes ``t + bend * t^2 (1-t)^2``. Monotone for ``abs(bend) < 5.19``.
    """
    piece = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    width = (x[1:] - x[:-1])[piece]
    t = np.clip((at - x[piece]) / width, 0.0, 1.0)
    t = t + bend * (t * (1 - t)) ** 2
    rest = 1 - t
    return (
        y[piece] * (1 + 2 * t) * rest**2
        + y[piece + 1] * t**2 * (3 - 2 * t)
        + slopes[piece] * width * t * rest**2
        - slopes[piece + 1] * width * t**2 * rest
    )


class QuantileCurve:
    """The distribution of one positive quantity: values over standard normal scores.

    `probabilities` and `values` are the published quantiles (increasing); `mean` the published mean or None. Below
    the first quantile the curve goes on at the slope of the first interval, never under `smallest`; above the last
    it follows the last slope of log(value) over log10(1-p) for `tail_decades` more decades of probability (p99.9 to
    p99.99) and is flat beyond: bounded, since published figures say nothing there. `largest` bounds it further.

    Raises TraceError if values fall, or if no monotone curve through the quantiles can have this mean.
    """

    def __init__(self, probabilities, values, mean=None, *, name="", smallest=1.0, largest=np.inf, tail_decades=1.0):
        p, v = np.asarray(probabilities, float), np.asarray(values, float)
        if len(p) < 2 or np.any(np.diff(p) <= 0) or p[0] <= 0 or p[-1] >= 1:
            raise TraceError(f"{name}: quantile probabilities must rise strictly within (0, 1), at least two; got {p}")
        if np.any(np.diff(v) < 0) or v[0] < 0:
            raise TraceError(f"{name}: quantile values must not fall and not be negative; got {v}")
        v = np.maximum(v, smallest)
        ratio = v[-1] / v[-2] if v[-2] > 0 else 1.0
        decades = np.log10((1 - p[-2]) / (1 - p[-1]))
        top = min(max(largest, v[-1]), v[-1] * ratio ** (tail_decades / decades))
        score = NormalDist().inv_cdf
        z = np.array([score(float(q)) for q in p] + [score(1 - (1 - float(p[-1])) * 10**-tail_decades)])
        y = np.log(np.append(v, top))
        bottom_z = min(z[0] - 1.5, score(1e-5))
        bottom = max(np.log(smallest), y[0] + (bottom_z - z[0]) * (y[1] - y[0]) / (z[1] - z[0]))
        self._z = np.concatenate([[bottom_z], z])
        self._y = np.concatenate([[bottom], y])
        self._slopes = monotone_slopes(self._z, self._y)
        self.scores = np.linspace(-_Z_MAX, _Z_MAX, _GRID)
        weight = np.exp(-0.5 * self.scores**2)
        self._weight = weight / weight.sum()
        bend = 0.0 if mean is None else self._find_bend(float(mean), name)
        self.values = self._curve(bend)
        self.values.setflags(write=False)
        self._rise = np.diff(self.values)

    def _curve(self, bend: float) -> np.ndarray:
        return np.exp(hermite(self._z, self._y, self._slopes, self.scores, bend))

    def _find_bend(self, mean: float, name: str) -> float:
        low, high = -_LARGEST_BEND, _LARGEST_BEND
        least, most = self.mean_range()
        if not least <= mean <= most:
            raise TraceError(
                f"{name}: a mean of {mean:g} does not fit these quantiles; smooth curves through them have means from "
                f"{least:g} to {most:g}"
            )
        for _ in range(60):
            middle = 0.5 * (low + high)
            if float(self._weight @ self._curve(middle)) < mean:
                low = middle
            else:
                high = middle
        return 0.5 * (low + high)

    def mean_range(self) -> tuple[float, float]:
        """Return the least and the largest mean that bending between the quantiles can give."""
        return tuple(float(self._weight @ self._curve(bend)) for bend in (-_LARGEST_BEND, _LARGEST_BEND))

    @property
    def mean(self) -> float:
        """The mean of the curve."""
        return float(self._weight @ self.values)

    def expectation(self, function) -> float:
        """The mean of ``function(value)``, e.g. of the rounded value."""
        return float(self._weight @ function(self.values))

    @property
    def largest(self) -> float:
        """The largest value that can be drawn."""
        return float(self.values[-1])

    def at(self, z: np.ndarray) -> np.ndarray:
        """Return the values at standard normal scores `z`."""
        place = (np.asarray(z, float) - self.scores[0]) * ((_GRID - 1) / (2 * _Z_MAX))
        np.clip(place, 0.0, _GRID - 1.000001, out=place)
        piece = place.astype(np.int32)
        place -= piece
        return self.values[piece] + place * self._rise[piece]
