"""Demand: what users would ask for, what the limit lets through, what waits behind it and what is lost."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.inputs import workloads
from factory_sim.inputs.traffic import Churn, Demand, Growth, Segment
from factory_sim.model.workload import rate_shape
from factory_sim.units import DAY_S, HOUR_S, WEEK_S, YEAR_S

EARLY = 0.02
"""Share that adopts a new service on its first day; the start of the logistic curve."""
LOGIT_90 = math.log(9.0)
"""Logistic curve: from 10 to 90 % takes twice this in units of its time constant."""


def latent_rate(
    demand: Demand, level_per_s: float, relative_rate: float, forecast_drift: float, time_s: float, price_index: float
) -> float:
    """Latent demand (requests/s) at `time_s` from the start: level x rhythm x growth x forecast error x price answer.

    `relative_rate` is the rhythm's mean over the interval, `forecast_drift` the replication's drift of log demand a
    week; the answer to price is ``price_index ** price_elasticity``.
    """
    weeks = time_s / WEEK_S
    answer = price_answer(demand.price_elasticity, price_index)
    return level_per_s * relative_rate * growth(demand.growth, weeks) * math.exp(forecast_drift * weeks) * answer


def price_answer(elasticity: float, price_index: float) -> float:
    """Demand relative to that at the first price, constant elasticity."""
    return price_index**elasticity if elasticity else 1.0


def growth(shape: Growth, weeks: float) -> float:
    """Level of demand after some weeks over the level at the start (over the full level, for a launch)."""
    level = 1.0
    if shape.kind == "exponential":
        level = (1.0 + shape.per_week) ** weeks
    elif shape.kind == "logistic":
        rate = math.log1p(shape.per_week) * shape.ceiling / max(shape.ceiling - 1.0, 1e-9)
        level = shape.ceiling / (1.0 + (shape.ceiling - 1.0) * math.exp(-rate * weeks))
    elif shape.kind == "launch":
        level = adopted(weeks * WEEK_S - shape.launch_day * DAY_S, shape.adoption_days * DAY_S)
    if shape.seasonal:
        turn = 2 * math.pi * (weeks * WEEK_S - shape.seasonal_peak_day * DAY_S) / YEAR_S
        level *= 1.0 + shape.seasonal * math.cos(turn)
    return level


def adopted(since_s: float, from_10_to_90_s: float) -> float:
    """Share that has adopted something `since_s` after it opened: logistic from 0, 10 to 90 % in the given time."""
    if since_s <= 0.0:
        return 0.0
    steepness = 2 * LOGIT_90 / from_10_to_90_s
    odds = EARLY / (1 - EARLY) * math.exp(min(steepness * since_s, 700.0))
    return odds / (1 + odds)


def spike_factor(multiplier: float, ramp_s: float, hold_s: float, start_s: float, end_s: float, at_s: float) -> float:
    """Mean factor of a spike at `at_s` over the interval: linear up within `ramp_s`, flat, linear down."""

    def area(until_s: float) -> float:
        t = until_s - at_s
        up = min(max(t, 0.0), ramp_s)
        total = up * up / (2 * ramp_s) if ramp_s else 0.0
        total += min(max(t - ramp_s, 0.0), hold_s)
        down = min(max(t - ramp_s - hold_s, 0.0), ramp_s)
        return total + (down - down * down / (2 * ramp_s) if ramp_s else 0.0)

    return 1.0 + (multiplier - 1.0) * (area(end_s) - area(start_s)) / (end_s - start_s)


def willing(segment: Segment, price_usd_per_million: float | None) -> float:
    """Share of a segment whose highest price is not below the price: lognormal around the median."""
    if segment.willing_usd_per_million is None or not price_usd_per_million:
        return 1.0
    distance = math.log(price_usd_per_million / segment.willing_usd_per_million) / segment.willing_sigma
    return 0.5 * math.erfc(distance / math.sqrt(2.0))


@dataclass(frozen=True)
class Series:
    """A measured rate series, relative to its mean, repeated for ever."""

    start_s: np.ndarray
    relative: np.ndarray
    period_s: float

    def mean_over(self, start_s: float, end_s: float) -> float:
        """Mean relative rate between two times; the rate is constant within each interval of the series."""
        return (self._area(end_s) - self._area(start_s)) / (end_s - start_s)

    def _area(self, time_s: float) -> float:
        rounds, rest = divmod(time_s, self.period_s)
        edges = np.append(self.start_s, self.period_s)
        total = np.concatenate([[0.0], np.cumsum(self.relative * np.diff(edges))])
        return float(rounds * total[-1] + np.interp(rest, edges, total))


@cache
def rate_series(name: str) -> Series:
    """A packaged series by name, or a file that `read_rates` reads, e.g. a CSV with columns t_s and requests_per_s.

    Raises TraceError.
    """
    if Path(name).suffix or Path(name).exists():
        from factory_sim.inputs.traces import read_rates

        try:
            found = read_rates(name)
        except TraceError as error:
            raise TraceError(f"rate series {error}") from None
        times, rates = found.start_s, found.rate_per_s
    else:
        times, rates = workloads.rate_series(name)
    steps = np.diff(times)
    if len(times) < 2 or np.any(steps <= 0) or np.any(rates < 0) or not np.all(np.isfinite(rates)) or rates.sum() <= 0:
        raise TraceError(f"rate series {name}: needs rising times and finite rates that are not all zero")
    spans = np.append(steps, np.median(steps))
    mean = float((rates * spans).sum() / spans.sum())
    return Series(times - times[0], rates / mean, float(spans.sum()))


@dataclass
class DemandState:
    """The running demand of one service: its curves, and what events and experience have made of it."""

    demand: Demand
    level_per_s: float
    drift: float
    """Drift of log demand a week in this replication."""
    relative: Callable[[float, float], float]
    """Mean of the rhythm over two scenario times, seconds."""
    offset_h: float
    """Hours from Monday 00:00 to the start of the scenario."""
    price_usd_per_million: float | None = None
    """List price of a million output tokens at the start, for willingness to pay."""
    price_factor: float = 1.0
    """Factor that price events put on the list prices."""
    customers: float = 1.0
    """Share of the users that have not left."""
    spikes: list[tuple[float, float, float, float]] = field(default_factory=list)
    """(start_s, multiplier, ramp_s, hold_s)"""
    launches: list[tuple[float, float, float]] = field(default_factory=list)
    """(start_s, multiplier, adoption_s): better models, adopted linearly."""
    fading: tuple[float, float] | None = None
    """(start_s, duration_s) of a retirement."""
    heirs_of: list[tuple["DemandState", float]] = field(default_factory=list)
    """(retired service, share of its demand that comes here)."""

    def latent(self, start_s: float, end_s: float, price_index: float) -> float:
        """Mean latent demand (requests/s) over an interval, before the limit."""
        own = self.before_retirement(start_s, end_s, price_index) * (1.0 - self.faded(start_s, end_s))
        for other, share in self.heirs_of:
            gone = other.faded(start_s, end_s)
            if gone:
                own += share * gone * other.before_retirement(start_s, end_s, other.price_factor)
        return own

    def before_retirement(self, start_s: float, end_s: float, price_index: float) -> float:
        """The same as if the service were never retired."""
        demand, weeks = self.demand, start_s / WEEK_S
        common = self.level_per_s * growth(demand.growth, weeks) * math.exp(self.drift * weeks) * self.customers
        rest = 1.0 - sum(segment.share for segment in demand.segments.values())
        rhythm = self.relative(start_s, end_s)
        total = rest * rhythm * price_answer(demand.price_elasticity, price_index) if rest > 1e-12 else 0.0
        for segment in demand.segments.values():
            total += segment.share * self._segment(segment, rhythm, start_s, end_s, price_index)
        for at_s, multiplier, ramp_s, hold_s in self.spikes:
            total *= spike_factor(multiplier, ramp_s, hold_s, start_s, end_s, at_s)
        for at_s, multiplier, adoption_s in self.launches:
            share = min(max((start_s - at_s) / adoption_s, 0.0), 1.0) if adoption_s else float(start_s >= at_s)
            total *= 1.0 + (multiplier - 1.0) * share
        return common * total

    def _segment(self, segment: Segment, rhythm: float, start_s: float, end_s: float, price_index: float) -> float:
        if segment.rhythm is not None:
            hours = self.offset_h + start_s / HOUR_S, self.offset_h + end_s / HOUR_S
            rhythm = rate_shape(segment.rhythm).mean_over(*hours)
        elasticity = self.demand.price_elasticity if segment.price_elasticity is None else segment.price_elasticity
        answer = price_answer(elasticity, price_index)
        if self.price_usd_per_million:
            answer *= willing(segment, self.price_usd_per_million * price_index)
        return rhythm * growth(segment.growth, start_s / WEEK_S) * answer

    def faded(self, start_s: float, end_s: float) -> float:
        """Share of the demand that a retirement has taken, mean over the interval."""
        if self.fading is None:
            return 0.0
        at_s, span_s = self.fading
        middle = 0.5 * (start_s + end_s)
        return min(max((middle - at_s) / span_s, 0.0), 1.0) if span_s else float(middle >= at_s)

    def remember(self, churn: Churn | None, missed: float, duration_s: float) -> None:
        """Users leave or return after an interval in which a share `missed` of the requests fell short."""
        if churn is None:
            return
        felt = max(missed - churn.tolerated, 0.0) / max(1.0 - churn.tolerated, 1e-9)
        days = duration_s / DAY_S
        if felt > 0.0:
            self.customers *= math.exp(-churn.per_day * felt * days)
        else:
            self.customers = 1.0 - (1.0 - self.customers) * math.exp(-churn.return_per_day * days)


@dataclass
class Backlog:
    """Demand that waits behind the limit, in requests; patience runs out at a constant hazard."""

    patience_s: float
    waiting: float = 0.0

    def step(self, latent_per_s: float, limit_per_s: float, duration_s: float) -> tuple[float, float]:
        """Advance by `duration_s`; return (granted requests/s, requests lost).

        New demand and what waits share the limit; what is left waits, and leaves at rate 1/patience. Exact for constant
        rates while a backlog stands (the queue decays exponentially to its balance); requests are conserved exactly:
        ``waiting' = waiting + latent - granted - lost``.
        """
        offered = latent_per_s * duration_s + self.waiting
        if self.patience_s <= 0.0:
            granted = min(offered, limit_per_s * duration_s)
            self.waiting = 0.0
            return granted / duration_s, offered - granted
        if offered <= limit_per_s * duration_s:
            self.waiting = 0.0
            return offered / duration_s, 0.0
        balance = (latent_per_s - limit_per_s) * self.patience_s
        stays = balance + (self.waiting - balance) * math.exp(-duration_s / self.patience_s)
        if stays < 0.0:
            stays = 0.0
        granted = limit_per_s * duration_s
        stays = min(stays, offered - granted)
        self.waiting, lost = stays, offered - granted - stays
        return granted / duration_s, lost
