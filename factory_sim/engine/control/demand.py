"""Demand: what users would ask for, what the limit lets through, what waits behind it and what is lost."""

import math
from dataclasses import dataclass

from factory_sim.inputs.scenario import Demand, Growth
from factory_sim.units import WEEK_S


def latent_rate(
    demand: Demand, level_per_s: float, relative_rate: float, forecast_drift: float, time_s: float, price_index: float
) -> float:
    """Latent demand (requests/s) at `time_s` from the start: level x rhythm x growth x forecast error x price answer.

    `relative_rate` is the rhythm's mean over the interval, `forecast_drift` the replication's drift of log demand a
    week; the answer to price is ``price_index ** price_elasticity``.
    """
    weeks = time_s / WEEK_S
    answer = price_index**demand.price_elasticity if demand.price_elasticity else 1.0
    return level_per_s * relative_rate * growth(demand.growth, weeks) * math.exp(forecast_drift * weeks) * answer


def growth(shape: Growth, weeks: float) -> float:
    """Level of demand after some weeks over the level at the start."""
    if shape.kind == "exponential":
        return (1.0 + shape.per_week) ** weeks
    if shape.kind == "logistic":
        rate = math.log1p(shape.per_week) * shape.ceiling / max(shape.ceiling - 1.0, 1e-9)
        return shape.ceiling / (1.0 + (shape.ceiling - 1.0) * math.exp(-rate * weeks))
    return 1.0


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
            granted = min(latent_per_s * duration_s, limit_per_s * duration_s)
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
