"""What makes arrivals bursty: renewal gaps, and swings of the rate calibrated to measured dispersion.

A *burstiness* is a gamma renewal process (coefficient of variation `cv` of its gaps; 1 is Poisson) played in
operational time, under a rate that swings: ``rate(t) * sum_i weight_i * L_i(t)``. Each level ``L_i`` has mean 1, is
drawn anew from a gamma distribution at the points of a Poisson process of mean spacing `time_s`, and so has
covariance ``variance * exp(-t / time_s)``. With Poisson gaps that is a Markov-modulated Poisson process with a
continuum of states, whose index of dispersion of counts (variance over mean, in windows w, at mean rate r) is closed
form::

    IDC(w) = 1 + 2 r sum_i v_i T_i (1 - (1 - exp(-w/T_i)) T_i / w)          v_i = weight_i^2 variance_i

(integral of the covariance over the window: Cox and Lewis 1966, section 7.2). Calibration is a non-negative least
squares of the v_i to the measured dispersion at several windows and to the lag-1 correlation of counts per minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from factory_sim.errors import TraceError, closest
from factory_sim.inputs import workloads
from factory_sim.inputs.traces.trace import TraceReport
from factory_sim.units import MINUTE_S

SWING_TIMES_S = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Correlation times offered to the calibration; unused ones get weight 0. Choices of ours, not measured."""

MEASURED = ("azure2023_conv", "azure2023_code", "mooncake_conversation")
"""Traces with measured dispersion of counts."""


@dataclass(frozen=True)
class Swing:
    """One component of the rate's swings."""

    weight: float
    """Share of the mean rate; the weights of all swings sum to 1."""
    variance: float
    """Variance of the level, whose mean is 1."""
    time_s: float
    """Correlation time: mean time between new levels, seconds."""

    @property
    def covariance(self) -> float:
        """What the swing adds to the variance of the relative rate."""
        return self.weight**2 * self.variance


@dataclass(frozen=True)
class Burstiness:
    """How arrivals clump, at a reference rate."""

    name: str
    source: str
    cv: float = 1.0
    """Coefficient of variation of the gaps of the renewal process in operational time; 1 is Poisson."""
    swings: tuple[Swing, ...] = ()
    reference_rate_per_s: float | None = None
    """Rate at which the swings give the measured dispersion; None: the swings hold at every rate."""
    keep: str = "dispersion"
    """What stays when the rate differs from the reference: ``dispersion`` (a larger service has more independent
    customers: the index of dispersion of counts stays, relative swings shrink) or ``swings`` (all customers move
    together: relative swings stay, dispersion grows with the rate)."""
    reports: tuple[TraceReport, ...] = ()
    """What the reading of a user's file found, left out and mended."""

    def at_rate(self, whole_rate_per_s: float) -> tuple[Swing, ...]:
        """Return the swings of a whole service of this mean rate, requests per second."""
        if self.keep == "swings" or self.reference_rate_per_s is None or whole_rate_per_s <= 0:
            return self.swings
        factor = self.reference_rate_per_s / whole_rate_per_s
        return tuple(Swing(swing.weight, swing.variance * factor, swing.time_s) for swing in self.swings)

    def index_of_dispersion(self, window_s: float, rate_per_s: float, whole_rate_per_s: float | None = None) -> float:
        """Return the closed-form IDC of counts in windows of `window_s`, for Poisson gaps (cv = 1).

        `rate_per_s` may be a random share of a whole service of `whole_rate_per_s`: its excess over 1 is that
        share's.
        """
        if self.cv != 1:
            raise TraceError("the index of dispersion is closed form only for Poisson gaps (cv: 1)")
        whole = rate_per_s if whole_rate_per_s is None else whole_rate_per_s
        return 1 + rate_per_s * sum(s.covariance * _window_term(window_s, s.time_s) for s in self.at_rate(whole))


def _window_term(window_s: float, time_s: float) -> float:
    """Integral of exp(-|t-s|/T) over the window squared, over the window: 2 T (1 - (1 - exp(-w/T)) T / w)."""
    ratio = window_s / time_s
    return float(2 * time_s * (1 + np.expm1(-ratio) / ratio))


def _neighbour_term(window_s: float, time_s: float) -> float:
    """The same integral over two adjacent windows: T^2 (1 - exp(-w/T))^2 / w."""
    return float((time_s * np.expm1(-window_s / time_s)) ** 2 / window_s)


def non_negative_least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return x >= 0 that minimises ``|matrix x - target|``, by trying every support (few columns only).

    Exact and deterministic for up to about ten columns: 2^n small least-squares problems.
    """
    best, best_error = np.zeros(matrix.shape[1]), float(target @ target)
    for mask in range(1, 1 << matrix.shape[1]):
        columns = [k for k in range(matrix.shape[1]) if mask >> k & 1]
        if len(columns) > len(target):
            continue
        part, *_ = np.linalg.lstsq(matrix[:, columns], target, rcond=None)
        error = float(np.sum((matrix[:, columns] @ part - target) ** 2))
        if np.all(part > 0) and error < best_error * (1 - 1e-9):
            best, best_error = np.zeros(matrix.shape[1]), error
            best[columns] = part
    return best


def calibrate(
    name: str,
    source: str,
    rate_per_s: float,
    dispersion: Mapping[float, float],
    minute_correlation: float | None = None,
) -> Burstiness:
    """Return the swings whose IDC at `rate_per_s` fits `dispersion` (window in seconds -> IDC), relative errors
    alike.

    `minute_correlation` is the lag-1 correlation of counts per minute; it tells the slow swings from the trend.
    Dispersion below 1 (smoother than Poisson) cannot be made by swings and counts as 1.
    """
    windows = sorted(dispersion)
    if not windows or rate_per_s <= 0 or any(not (w > 0 and np.isfinite(dispersion[w])) for w in windows):
        raise TraceError(
            f"{name}: dispersion needs windows in seconds and finite values, and the rate must be positive"
        )
    rows = [[rate_per_s * _window_term(w, time) for time in SWING_TIMES_S] for w in windows]
    target = [max(dispersion[w] - 1, 0.0) for w in windows]
    scale = [1 / max(dispersion[w], 1.0) for w in windows]
    if minute_correlation is not None and MINUTE_S in dispersion:
        rows.append([rate_per_s * _neighbour_term(MINUTE_S, time) for time in SWING_TIMES_S])
        target.append(max(minute_correlation, 0.0) * dispersion[MINUTE_S])
        scale.append(1 / max(dispersion[MINUTE_S], 1.0))
    weight = np.array(scale)
    v = non_negative_least_squares(np.array(rows) * weight[:, None], np.array(target) * weight)
    used = [(cov, time) for cov, time in zip(v, SWING_TIMES_S) if cov > 0]
    total = sum(np.sqrt(cov) for cov, _ in used)
    # weights in proportion to sqrt(v): every level then has the same variance, the least possible largest one
    swings = tuple(Swing(float(np.sqrt(cov) / total), float(total**2), time) for cov, time in used)
    return Burstiness(name, source, 1.0, swings, rate_per_s)


@cache
def measured_burstiness(name: str) -> Burstiness:
    """Return the burstiness of a measured trace, calibrated to its packaged dispersion at 1, 10 and 60 s.

    Times of `mooncake_conversation` are multiples of 3 s, so only its 60 s window is used. Raises TraceError.
    """
    if name not in MEASURED:
        raise TraceError(f"burstiness: no dispersion is published for '{name}'{closest(name, MEASURED)}")
    rows = workloads.statistics(name, "index_of_dispersion_of_counts")
    windows = {float(key.removeprefix("window_").removesuffix("s")): row.number for key, row in rows.items()}
    if name == "mooncake_conversation":
        windows = {MINUTE_S: windows[MINUTE_S]}
    rate = workloads.statistics(name, "arrival_rate")["mean"].number / MINUTE_S
    correlation = workloads.statistics(name, "arrivals_per_minute")["lag1_autocorrelation"].number
    source = next(iter(rows.values())).source
    return calibrate(name, f"{source}; swings fitted to the dispersion of counts", rate, windows, correlation)


def burstiness_like(name: str, source: str, arrival_s: np.ndarray, windows_s=(1.0, 10.0, MINUTE_S)) -> Burstiness:
    """Return the burstiness of measured arrival times (sorted, seconds), calibrated to their dispersion in
    `windows_s`.

    Windows of which fewer than 20 fit into the span are left out, as are those finer than a coarse clock (a step
    that more than half of the requests share). Raises TraceError if no window is left.
    """
    times = np.asarray(arrival_s, float) - arrival_s[0] if len(arrival_s) else np.empty(0)
    span_s = float(times[-1]) if len(times) else 0.0
    gaps = np.diff(times)
    tick_s = float(np.min(gaps[gaps > 0], initial=np.inf)) if np.sum(gaps == 0) > len(times) / 2 else 0.0
    counts = {
        w: np.bincount((times[times < int(span_s / w) * w] / w).astype(np.int64), minlength=int(span_s / w))
        for w in windows_s
        if span_s / w >= 20 and w > 10 * tick_s
    }
    if not counts:
        raise TraceError(f"{name}: {len(times)} requests over {span_s:g} s are too few to measure their dispersion")
    dispersion = {w: float(n.var() / n.mean()) for w, n in counts.items()}
    minutes = counts.get(MINUTE_S)
    lag = float(np.corrcoef(minutes[:-1], minutes[1:])[0, 1]) if minutes is not None and minutes.std() > 0 else None
    return calibrate(name, source, len(times) / span_s, dispersion, lag)


def burstiness_model(spec: str | Mapping | Burstiness) -> Burstiness:
    """Return the burstiness that `spec` names or describes.

    ``poisson``; a trace (``azure2023_conv``, ``azure2023_code``, ``mooncake_conversation``); ``{gamma: {cv: 2}}``;
    ``{dispersion: {1: 1.4, 10: 3.9, 60: 16}, rate_per_s: 5.5}`` (index of dispersion of counts by window in seconds,
    as measured at that rate); ``{named: azure2023_conv, keep: swings}``. Raises TraceError.
    """
    if isinstance(spec, Burstiness):
        return spec
    if spec == "poisson":
        return Burstiness("poisson", "Poisson process")
    if isinstance(spec, str):
        return measured_burstiness(spec)
    kinds = ("gamma", "dispersion", "named", "trace")
    if not isinstance(spec, Mapping) or sum(kind in spec for kind in kinds) != 1:
        raise TraceError(f"burstiness: a name or a mapping with one of {', '.join(kinds)} is needed, got {spec!r}")
    for key in spec:
        if key not in (*kinds, "rate_per_s", "keep"):
            raise TraceError(f"burstiness: unknown key '{key}'{closest(str(key), [*kinds, 'rate_per_s', 'keep'])}")
    keep = spec.get("keep", "dispersion")
    if keep not in ("dispersion", "swings"):
        raise TraceError(f"burstiness.keep: 'dispersion' or 'swings' is needed, got {keep!r}")
    if "gamma" in spec:
        cv = spec["gamma"].get("cv") if isinstance(spec["gamma"], Mapping) else spec["gamma"]
        if isinstance(cv, bool) or not isinstance(cv, int | float) or not 0.05 <= cv <= 50:
            raise TraceError(f"burstiness.gamma.cv: a coefficient of variation from 0.05 to 50 is needed, got {cv!r}")
        return Burstiness(f"gamma_cv_{cv:g}", "gamma renewal process", float(cv))
    if "named" in spec:
        found = measured_burstiness(str(spec["named"]))
    elif "trace" in spec:
        found = _of_file(spec["trace"])
    else:
        windows = {float(window): float(value) for window, value in spec["dispersion"].items()}
        found = calibrate("dispersion", "as described in the scenario", float(spec.get("rate_per_s", 0)), windows)
    return replace(found, keep=keep)


def _of_file(spec) -> Burstiness:
    if not isinstance(spec, Mapping) or set(spec) != {"path"}:
        raise TraceError(f"burstiness.trace: {{path: FILE}} is needed, got {spec!r}")
    from factory_sim.inputs.traces import read_trace

    trace = read_trace(spec["path"])
    if trace.arrival_s is None or trace.session_relative:
        raise TraceError(f"{spec['path']}: has no times of arrival, so no burstiness can be measured")
    found = burstiness_like(trace.name, f"{trace.report.tool}: {trace.name}", trace.arrival_s)
    return replace(found, reports=(trace.report,))
