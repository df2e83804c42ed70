"""From a demand forecast and a promise to GPUs, cost and margin by month, for several systems side by side."""

import math
from collections.abc import Mapping

import pandas as pd

from factory_sim.engine.load_test import load_test
from factory_sim.errors import CapacityError, ScenarioError
from factory_sim.inputs.prices import price_book
from factory_sim.inputs.scenario import Slo, System
from factory_sim.model.serving import serving_system
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
    `rhythm`), instances = ceil(peak / (headroom x capacity)), gpus, output_tokens, cost_usd, revenue_usd, margin_usd,
    cost_per_million_output_tokens, utilisation (mean demand over capacity), and gpus_low, gpus_high: the fleet under
    the P10 and P90 of the profile's error combined with the forecast's range.

    Raises ScenarioError for a forecast without the columns, CapacityError where no load keeps the promise.
    """
    missing = [name for name in ("month", "days", "requests_per_s") if name not in forecast]
    if missing:
        raise ScenarioError(f"forecast: lacks the columns {', '.join(missing)}; it has {', '.join(forecast.columns)}")
    found = length_model(lengths)
    peak = rate_shape(rhythm).peak()
    rows = []
    for name, wanted in systems.items():
        facts = wanted.model_dump(exclude={"gpu", "engine", "precision", "parallelism"})
        system = serving_system(model, wanted.gpu, wanted.engine, wanted.precision, wanted.parallelism, **facts)
        curve = load_test(system, found, slo.tpot_p95_s, router="least_outstanding", seed=seed)
        capacity = {f: curve.capacity_per_s(slo.ttft_p95_s, slo.tpot_p95_s, f) for f in (1.0, *system.tpot_band)}
        if capacity[1.0] <= 0:
            raise CapacityError(
                f"{name}: no load keeps p95 TTFT {slo.ttft_p95_s:g} s and p95 TPOT {slo.tpot_p95_s:g} s"
            )
        rent = price_book().find("rental_market", system.gpu, vintage).value
        for month in forecast.to_dict("records"):
            rows.append(_month(month, name, system, capacity, found.mean_isl, found.mean_osl, peak, headroom, rent))
    plan = pd.DataFrame(rows)
    plan["revenue_usd"] = (
        plan.pop("input_tokens") * input_usd_per_million + plan["output_tokens"] * output_usd_per_million
    ) / MILLION
    plan["margin_usd"] = plan["revenue_usd"] - plan["cost_usd"]
    plan["cost_per_million_output_tokens"] = MILLION * plan["cost_usd"] / plan["output_tokens"]
    return plan


def _month(month, name, system, capacity, isl, osl, peak, headroom, rent) -> dict:
    mean = month["requests_per_s"]
    low, high = month.get("requests_per_s_low", mean), month.get("requests_per_s_high", mean)
    fast, slow = (capacity[factor] for factor in system.tpot_band)

    def instances(rate: float, each: float) -> int:
        return max(math.ceil(rate * peak / (headroom * each)), 1) if each > 0 else 0

    count = instances(mean, capacity[1.0])
    seconds = month["days"] * DAY_S
    return {
        "month": month["month"],
        "system": name,
        "trust": system.trust,
        "requests_per_s": mean,
        "requests_per_s_peak": mean * peak,
        "instances": count,
        "gpus": count * system.gpus,
        "gpus_low": instances(low, fast) * system.gpus,
        "gpus_high": instances(high, slow) * system.gpus,
        "utilisation": mean / (count * capacity[1.0]),
        "input_tokens": mean * seconds * isl,
        "output_tokens": mean * seconds * osl,
        "cost_usd": count * system.gpus * seconds / HOUR_S * rent,
    }
