"""Capital: annuities, depreciation, book values, and the worth of dated cash flows.

Rates are per year, lives and times in years, amounts in dollars. Worth comes from cash, never from depreciation.
"""

import math
from collections.abc import Sequence

import numpy as np

from factory_sim.errors import PriceError


def annuity(rate: float, life_years: float) -> float:
    """Yearly payment (at year ends) that repays one dollar over ``life_years`` at ``rate``: r / (1 - (1+r)^-n)."""
    if life_years <= 0:
        raise PriceError(f"a life of {life_years:g} years repays nothing; give the years over which capex is used")
    return 1 / life_years if rate == 0 else rate / -math.expm1(-life_years * math.log1p(rate))


def annuity_with_residual(rate: float, life_years: float, residual_fraction: float) -> float:
    """Yearly payment per dollar of price when a part of the price comes back at the end of the life.

    The payment repays the price less the present value of the residual: (1 - s (1+r)^-n) times the annuity.
    """
    return (1 - residual_fraction * (1 + rate) ** -life_years) * annuity(rate, life_years)


def straight_line(life_years: float, residual_fraction: float = 0.0) -> float:
    """Yearly depreciation per dollar of price: (1 - s) / n."""
    if life_years <= 0:
        raise PriceError(f"a life of {life_years:g} years cannot be depreciated; give the years of use")
    return (1 - residual_fraction) / life_years


def book_value(age_years: np.ndarray | float, life_years: float, residual_fraction: float = 0.0) -> np.ndarray:
    """Part of the price still in the books after straight-line depreciation, never below the residual."""
    age = np.asarray(age_years, dtype=float)
    return np.maximum(1 - age * straight_line(life_years, residual_fraction), residual_fraction)


def npv(rate: float, flows_usd: Sequence[float], times_years: Sequence[float] | None = None) -> float:
    """Net present value of cash flows at their times, in dollars of time zero.

    Without times the flows are a year apart from time zero on (as ``numpy_financial.npv``).
    """
    flows = np.asarray(flows_usd, dtype=float)
    times = np.arange(len(flows)) if times_years is None else np.asarray(times_years, dtype=float)
    if rate <= -1:
        raise PriceError(f"a discount rate of {rate:g} per year is not above -1")
    return float(np.sum(flows * (1 + rate) ** -times))


def irr(flows_usd: Sequence[float], times_years: Sequence[float] | None = None) -> float | None:
    """Internal rate of return of dated cash flows, per year: the rate at which their NPV is zero.

    None where there is no such rate above -99.99 %/year (all flows of one sign) or where it is above 10^6. With several
    sign changes of the flows more than one rate may exist; the one nearest to zero is returned.
    """
    from scipy.optimize import brentq

    flows = np.asarray(flows_usd, dtype=float)
    if not (flows > 0).any() or not (flows < 0).any():
        return None
    times = np.arange(len(flows)) if times_years is None else np.asarray(times_years, dtype=float)
    # In continuous rates the grid is even around zero from a total loss to a millionfold return.
    grid = np.concatenate([np.linspace(np.log(1e-4), 0, 400), np.linspace(0, np.log(1e6), 800)[1:]])
    # Each value is scaled by its largest discount factor: the sign is what matters, and nothing overflows.
    exponents = -np.outer(grid, times)
    values = np.sum(flows * np.exp(exponents - exponents.max(axis=1, keepdims=True)), axis=1)
    exact = grid[values == 0]
    turns = np.flatnonzero(values[:-1] * values[1:] < 0)

    def worth(log_rate: float) -> float:
        powers = -log_rate * times
        return float(np.sum(flows * np.exp(powers - powers.max())))

    roots = [*exact, *(brentq(worth, grid[i], grid[i + 1], xtol=1e-14, rtol=1e-14) for i in turns)]
    return float(np.expm1(min(roots, key=abs))) if roots else None


def payback_years(flows_usd: Sequence[float], times_years: Sequence[float] | None = None) -> float | None:
    """First time at which the cumulative cash flow is back at zero or above, having been below; None if never.

    Within a period the flow is taken as even, so the answer is interpolated.
    """
    flows = np.asarray(flows_usd, dtype=float)
    times = np.arange(len(flows), dtype=float) if times_years is None else np.asarray(times_years, dtype=float)
    order = np.argsort(times, kind="stable")
    times, total = times[order], np.cumsum(flows[order])
    below = np.flatnonzero(total < 0)
    if len(below) == 0:
        return 0.0
    back = np.flatnonzero((total >= 0) & (np.arange(len(total)) > below[0]))
    if len(back) == 0:
        return None
    i = back[0]
    return float(times[i - 1] + (times[i] - times[i - 1]) * -total[i - 1] / (total[i] - total[i - 1]))
