"""From a demand forecast and a promise to GPUs, cost and margin by month, for several systems side by side."""

import math
from collections.abc import Mapping

import pandas as pd

from factory_sim.engine.load_test import load_test
from factory_sim.engine.resolve import planned_system
from factory_sim.errors import CapacityError, ScenarioError
from factory_sim.inputs.prices import price_book
from factory_sim.inputs.services import Slo, System
from factory_sim.model.workload import length_model, rate_shape
from factory_sim.units import DAY_S, HOUR_S, MILLION


def plan_fleet(
    forecast: pd.DataFrame,
    systems: Mapping[str, System],
    *,
    model: str,
    slo: Slo,
    lengths: str | Mapping = "servegen_deepseek-r1",
    rhythm: str | Mapping = "servegen_deepseek-r1",
    input_usd_per_million: float,
    output_usd_per_million: float,
    headroom: float = 0.9,
    vintage: str = "2026-07",
    seed: int = 1,
) -> pd.DataFrame:
    """Size a fleet for the busiest hour of every month and price it at market rent.

    `forecast` has month (any label), days and requests_per_s (mean over the month), and optionally
    requests_per_s_low, requests_per_s_high. One row a (month, system): requests_per_s_peak (mean times the peak of
    `rhythm`), instances = ceil(peak / (headroom x capacity)), gpus, output_tokens, rent_usd_per_gpu_hour, cost_usd,
    revenue_usd, margin_usd, cost_per_million_output_tokens, utilisation (mean demand over capacity). With _low and
    _high: gpus and cost_usd over the P10 and P90 of the profile's error together with the forecast's range, revenue_usd
    over the forecast's range, margin_usd over all four corners of both. Where a slow profile (P90) keeps the promise at
    no load, the upper end of the fleet is undefined (NA, NaN).

    Raises ScenarioError for a forecast without the columns, CapacityError where no load keeps the promise.
    """
    missing = [name for name in ("month", "days", "requests_per_s") if name not in forecast]
    if missing:
        raise ScenarioError(f"forecast: lacks the columns {', '.join(missing)}; it has {', '.join(forecast.columns)}")
    found = length_model(lengths)
    peak = rate_shape(rhythm).peak()
    rows = []
    for name, wanted in systems.items():
        system = planned_system(model, wanted)
        curve = load_test(system, found, slo.tpot_p95_s, router="least_outstanding", seed=seed)
        capacity = {f: curve.capacity_per_s(slo.ttft_p95_s, slo.tpot_p95_s, f) for f in (1.0, *system.tpot_band)}
        if capacity[1.0] <= 0:
            raise CapacityError(
                f"{name}: no load keeps p95 TTFT {slo.ttft_p95_s:g} s and p95 TPOT {slo.tpot_p95_s:g} s"
            )
        rent = price_book().find("rental_market", system.gpu, vintage).value
        sales = (input_usd_per_million * found.mean_isl + output_usd_per_million * found.mean_osl) / MILLION
        for month in forecast.to_dict("records"):
            row = {"month": month["month"], "system": name, "trust": system.trust}
            rows.append(row | _month(month, system, capacity, found.mean_osl, peak, headroom, rent, sales))
    counts = ["instances", "gpus", "gpus_low", "gpus_high"]
    return pd.DataFrame(rows).astype(dict.fromkeys(counts, "Int64"))


def _month(month, system, capacity, osl, peak, headroom, rent, sales_usd) -> dict:
    """Fleet, cost and earnings of one month; `sales_usd` is the revenue of a request."""
    seconds, mean = month["days"] * DAY_S, month["requests_per_s"]
    rates = {"low": month.get("requests_per_s_low", mean), "": mean, "high": month.get("requests_per_s_high", mean)}
    fast, slow = (capacity[factor] for factor in system.tpot_band)

    def instances(rate: float, each: float) -> float:
        return max(math.ceil(rate * peak / (headroom * each)), 1) if each > 0 else math.nan

    def cost(count: float) -> float:
        return count * system.gpus * seconds / HOUR_S * rent

    count, least, most = instances(mean, capacity[1.0]), instances(rates["low"], fast), instances(rates["high"], slow)
    revenue = {end: rate * seconds * sales_usd for end, rate in rates.items()}
    corners = [revenue[end] - cost(instances(rates[end], each)) for end in ("low", "high") for each in (fast, slow)]
    return {
        "requests_per_s": mean,
        "requests_per_s_peak": mean * peak,
        "instances": count,
        "gpus": count * system.gpus,
        "gpus_low": least * system.gpus,
        "gpus_high": most * system.gpus,
        "utilisation": mean / (count * capacity[1.0]),
        "output_tokens": mean * seconds * osl,
        "rent_usd_per_gpu_hour": rent,
        "cost_usd": cost(count),
        "cost_usd_low": cost(least),
        "cost_usd_high": cost(most),
        "revenue_usd": revenue[""],
        "revenue_usd_low": revenue["low"],
        "revenue_usd_high": revenue["high"],
        "margin_usd": revenue[""] - cost(count),
        "margin_usd_low": math.nan if math.isnan(most) else min(corners),
        "margin_usd_high": max(corner for corner in corners if not math.isnan(corner)),
        "cost_per_million_output_tokens": MILLION * cost(count) / (mean * seconds * osl),
    }
