"""Mergeable log-binned histograms of latencies: memory does not grow with the horizon, percentiles stay within 1 %.

A histogram is a tidy frame with one row a bin that holds something: `bin` (int32) and `count` (float64: a played
request may stand for several). Bin `b` covers the values from `2**(b/70)` up to, but not including, `2**((b+1)/70)`:
70 bins an octave, each 0.995 % wide. Values are split into mantissa and exponent, never passed through a logarithm,
so doubling every value moves every bin by exactly 70 and doubles every quantile to the last bit. Exact zeros have a
bin of their own, `ZERO_BIN`.

Counts add, so histograms of windows, services and replications merge in any order: exactly, as long as counts are
whole numbers.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

BINS_PER_OCTAVE = 70
ZERO_BIN = -(2**31)
"""Holds exact zeros, below every other bin: halving a latency never arrives here."""

EDGES = np.exp2(np.arange(BINS_PER_OCTAVE + 1) / BINS_PER_OCTAVE)
EDGES[-1] = 2.0


def bin_of(values) -> np.ndarray:
    """Return the bin of each value (int32, the shape of `values`).

    Raises ValueError for NaN, infinite and negative values: a latency that does not exist is not counted, and leaving
    it out is the caller's decision.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size and not (np.isfinite(values).all() and values.min() >= 0):
        raise ValueError("a histogram takes finite values >= 0; leave out what is undefined before adding")
    mantissa, exponent = np.frexp(values)
    within = np.searchsorted(EDGES, 2 * mantissa, side="right") - 1
    bins = BINS_PER_OCTAVE * (exponent.astype(np.int64) - 1) + within
    return np.where(values == 0, ZERO_BIN, bins).astype(np.int32)


def lower_edge(bins) -> np.ndarray:
    """Return the smallest value of each bin; the upper edge of bin `b` is `lower_edge(b + 1)`, zero for `ZERO_BIN`."""
    bins = np.asarray(bins, dtype=np.int64)
    octave, within = np.divmod(bins, BINS_PER_OCTAVE)
    known = bins > ZERO_BIN + 1  # the upper edge of ZERO_BIN is asked for as ZERO_BIN + 1
    return np.where(known, np.ldexp(EDGES[within], np.where(known, octave, 0).astype(np.int32)), 0.0)


def histogram(values, weights=None) -> pd.DataFrame:
    """Return the histogram of `values`: frame of `bin`, `count`, ordered by bin.

    weights: how many requests each value stands for (default 1), finite and not negative.
    """
    bins = bin_of(values).ravel()
    if weights is not None:
        weights = np.broadcast_to(np.asarray(weights, dtype=np.float64), bins.shape)
        if weights.size and not (np.isfinite(weights).all() and weights.min() >= 0):
            raise ValueError("weights of a histogram are finite and not negative")
    held, place = np.unique(bins, return_inverse=True)
    count = np.bincount(place, weights=weights, minlength=len(held)).astype(np.float64)
    return pd.DataFrame({"bin": held.astype(np.int32), "count": count})


def histogram_by(keys: pd.DataFrame, values, weights=None) -> pd.DataFrame:
    """Return one histogram for each distinct row of `keys`, as one tidy frame: the columns of `keys`, then `bin`,
    `count`.

    `keys` has one row a value; rows come ordered by key, then bin. The `latency` table of a run is made of these.
    """
    frame = keys.reset_index(drop=True).assign(bin=bin_of(values))
    frame["count"] = 1.0 if weights is None else np.asarray(weights, dtype=np.float64)
    return merge([frame], by=list(keys.columns))


def merge(histograms: Iterable[pd.DataFrame], by: Sequence[str] = ()) -> pd.DataFrame:
    """Return the sum of histograms, one for each distinct value of the columns `by` (none: one in all), ordered by
    key and bin.

    Columns that are neither in `by` nor `bin` and `count` are dropped: merging over replications means leaving
    `replication` out of `by`. No histogram at all gives an empty one.
    """
    columns = [*by, "bin"]
    frames = [frame[[*columns, "count"]] for frame in histograms]
    if not frames:
        return pd.DataFrame({**{name: [] for name in by}, "bin": np.array([], np.int32), "count": np.array([], float)})
    together = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    total = together.groupby(columns, sort=True, observed=True, dropna=False)["count"].sum().reset_index()
    return total.astype({"bin": np.int32, "count": np.float64})


def count(histogram: pd.DataFrame) -> float:
    """Return how many values a histogram holds."""
    return float(histogram["count"].sum())


def quantile(histogram: pd.DataFrame, q):
    """Return the `q`-quantile (0..1) of a histogram; an array of them if `q` is an array. NaN if the histogram is
    empty.

    Inside a bin the values are taken to lie evenly, so the result is off by at most the width of a bin, 0.995 %,
    against the inverse of the empirical distribution function.
    """
    ordered = histogram if histogram["bin"].is_monotonic_increasing else histogram.sort_values("bin")
    found = _quantile(ordered["bin"].to_numpy(), ordered["count"].to_numpy(), np.asarray(q, dtype=np.float64))
    return float(found) if np.ndim(found) == 0 else found


def quantiles_by(histograms: pd.DataFrame, by: Sequence[str], q: Sequence[float]) -> pd.DataFrame:
    """Return the quantiles `q` of the merged histogram of each group: columns `by`, then `q` and `value`, one row a
    quantile.

    A group's figures depend on its own rows only, to the last bit, whatever other groups the frame holds.
    """
    merged = merge([histograms], by)
    q = np.asarray(q, dtype=np.float64)
    if merged.empty:
        return pd.DataFrame({**{name: [] for name in by}, "q": np.array([], float), "value": np.array([], float)})
    same = (merged[list(by)] == merged[list(by)].shift()).all(axis=1).to_numpy() if by else np.arange(len(merged)) > 0
    starts = np.flatnonzero(~same)
    ends = np.append(starts[1:], len(merged))
    bins, counts = merged["bin"].to_numpy(), merged["count"].to_numpy()
    values = [_quantile(bins[start:end], counts[start:end], q) for start, end in zip(starts, ends)]
    groups = merged[list(by)].iloc[np.repeat(starts, len(q))].reset_index(drop=True)
    return groups.assign(q=np.tile(q, len(starts)), value=np.concatenate(values))


def _quantile(bins: np.ndarray, counts: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Quantiles of one histogram whose bins are in order."""
    if not ((q >= 0) & (q <= 1)).all():
        raise ValueError(f"a quantile lies between 0 and 1, not {q}")
    filled = counts > 0
    bins, counts = bins[filled], counts[filled]
    if not len(bins):
        return np.full(q.shape, np.nan)
    below = np.cumsum(counts)
    target = q * below[-1]
    at = np.minimum(np.searchsorted(below, target, side="left"), len(bins) - 1)
    share = np.clip((target - (below[at] - counts[at])) / counts[at], 0.0, 1.0)
    low, high = lower_edge(bins[at]), lower_edge(bins[at].astype(np.int64) + 1)
    return low + (high - low) * share


def quantile_rows(bins: np.ndarray, counts: np.ndarray, q: Sequence[float]) -> np.ndarray:
    """Return the quantiles `q` of many histograms over the same rising `bins`: shape (len(q), rows).

    `counts` has one histogram a row, shape (rows, bins); an empty row gives NaN. Within a bin values lie evenly.
    """
    bins = np.asarray(bins, dtype=np.int64)
    low, high = lower_edge(bins), lower_edge(bins + 1)
    below = np.cumsum(counts, axis=1)
    total = below[:, -1]
    found = np.full((len(q), len(counts)), np.nan)
    rows = np.flatnonzero(total > 0)
    for place, share in enumerate(q):
        target = share * total[rows]
        at = np.minimum((below[rows] < target[:, None]).sum(axis=1), len(bins) - 1)
        held = counts[rows, at]
        within = np.clip((target - (below[rows, at] - held)) / np.where(held > 0, held, 1.0), 0.0, 1.0)
        found[place, rows] = low[at] + (high[at] - low[at]) * within
    return found
