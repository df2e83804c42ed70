"""Published figures that the books must give back (docs/how-we-check-the-money.md tells the same)."""

import csv
import math
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from factory_sim.inputs.catalog import facts
from factory_sim.inputs.money import Money
from factory_sim.inputs.prices import price_book
from factory_sim.ledger.postings import post
from factory_sim.ledger.statements import totals, unit_costs
from factory_sim.ledger.worth import cost_against_load, revenue_ratio


def _operator():
    with files("factory_sim.data").joinpath("economics", "operator_economics.csv").open(encoding="utf-8") as file:
        return {row["item"]: float(row["value"]) for row in csv.DictReader(file) if row["value"]}


def test_the_sizing_course_needs_five_instances():
    book = price_book()
    demand = book.row("tco_example_demand/worked-example-of-nvidia-s-inference-sizing-course").value
    each = book.row("tco_example_throughput/one-instance-of-8-gpus-at-the-promise").value
    assert math.ceil(demand / each) == 5


def test_inferencex_formula_a_thousand_tokens_a_second(make_windows):
    # 1,000 tokens/s/GPU at 1.30 USD/GPU-h.
    windows = make_windows(hours=1, gpu="h100", gpus=1.0, gpu_hours=1.0, output_tokens=1000 * 3600.0)
    rent = {"kind": "rent", "basis": "hyperscaler_own", "vintage": "2026-04"}
    money = Money.model_validate({"costs": {"compute": rent}})
    figure = unit_costs(windows, post(windows, money)).cost_per_million_output_tokens.iloc[0]
    assert figure == pytest.approx(1.30 / (1000 * 3600) * 1e6, abs=1e-9)
    assert round(figure, 4) == 0.3611


def test_inferencex_formula_tokens_a_megawatt():
    power = next(f for f in facts() if f.gpu == "h100" and f.quantity == "all_in_utility_power")
    assert (power.value, power.unit) == (1.73, "kW/GPU")
    assert round(1000 / (power.value / 1000)) == 578_035


def test_the_operators_published_day(make_windows):
    day = _operator()
    output, given, cached = day["output_tokens"], day["input_tokens"], day["input_tokens_cached"]
    hours = day["nodes_average"] * 8 * 24
    windows = make_windows(
        hours=1, interval_s=86400.0, gpu="h800", gpus=hours / 24, gpu_hours=hours, input_tokens=given,
        cached_input_tokens=cached, output_tokens=output,
    )  # fmt: skip
    plan = {
        "input_usd_per_million": day["price_input_cache_miss"],
        "cached_input_usd_per_million": day["price_input_cache_hit"],
        "output_usd_per_million": day["price_output"],
    }
    rent = {"kind": "rent", "basis": "operator", "vintage": "2025-02"}
    money = Money.model_validate({"plans": {"chat": plan}, "costs": {"compute": rent}})
    books = totals(post(windows, money)).iloc[0]
    assert books.cost == pytest.approx(day["cost"])
    assert books.cost == pytest.approx(87_072)
    # The published sum is of unrounded token counts: the printed billions give it to 0.1 %.
    assert books.revenue == pytest.approx(day["revenue_theoretical"], rel=1e-3)
    assert books.margin_fraction == pytest.approx(0.845, abs=5e-4)
    assert books.margin / books.cost == pytest.approx(day["cost_profit_margin"], abs=0.01)
    figures = unit_costs(windows, post(windows, money)).iloc[0]
    assert figures.cost_per_million_tokens == pytest.approx(day["cost_per_million_tokens_total"], abs=1e-4)
    assert figures.cost_per_million_output_tokens == pytest.approx(
        day["cost_per_million_output_tokens_all_cost"], abs=1e-4
    )


def test_twenty_times_cheaper_and_twenty_five_times_the_revenue(make_windows):
    """At a held price 25 times the revenue is 25 times the tokens: at a 20th of the cost each, 1.25 times the money."""
    plan = {"chat": {"output_usd_per_million": 2.0}}
    first = make_windows(hours=1, input_tokens=0.0, output_tokens=1e6)
    last = make_windows(hours=1, input_tokens=0.0, output_tokens=25e6, gpu_hours=8.0 * 1.25)
    before, after = (
        unit_costs(windows, post(windows, Money.model_validate({"plans": plan}))).iloc[0] for windows in (first, last)
    )
    assert after.revenue / before.revenue == pytest.approx(25)
    assert before.cost_per_million_output_tokens / after.cost_per_million_output_tokens == pytest.approx(20)
    assert after.cost / before.cost == pytest.approx(1.25)


def test_full_pass_through_of_a_twentieth_at_the_published_elasticity():
    row = price_book().row("price_elasticity_of_token_demand/open-models-within-model-across-providers")
    assert row.value == -1.11
    assert round(revenue_ratio(1 / 20, row.value), 2) == 1.39


def test_one_h100_at_two_dollars_costs_as_one_over_its_load(make_windows):
    """From 2 % to 100 % of its load; the published study spans 0.21 to 15.25 USD over its models and loads."""
    loads = np.array([0.02, 0.05, 0.1, 0.25, 0.5, 1.0])
    full_tokens_per_h = 2.0 / 0.21 * 1e6
    price = {"value": 2.0, "unit": "USD/GPU-h", "as_of": "2026-07-01", "source": "market"}
    money = Money.model_validate({"costs": {"compute": {"prices": {"h100": [price]}}}})
    windows = make_windows(
        hours=len(loads), gpu="h100", gpus=1.0, gpu_hours=1.0, input_tokens=0.0,
        output_tokens=full_tokens_per_h * loads, time_input_s=0.0, time_output_s=3600 * loads,
        time_idle_s=3600 * (1 - loads),
    )  # fmt: skip
    figures = unit_costs(windows, post(windows, money), ["start_s"])
    assert figures.cost_per_million_output_tokens.to_numpy() * loads == pytest.approx(np.full(len(loads), 0.21))
    assert figures.cost_per_million_output_tokens.to_numpy() == pytest.approx(
        cost_against_load(2.0, full_tokens_per_h, loads)
    )
    # What the work itself costs does not depend on the load: the rest is idle.
    assert figures.attributed_cost_per_million_output_tokens.to_numpy() == pytest.approx(np.full(len(loads), 0.21))
    study = price_book().row("self_hosted_cost_of_output/one-h100-from-near-idle-to-full-load")
    assert (study.low, study.high) == (0.21, 15.25)
    assert figures.cost_per_million_output_tokens.max() < study.high


def test_a_published_cost_of_ownership_is_near_our_own_reckoning(make_windows):
    """Own machines, bottom up: between the hyperscaler's published all-in rate and 1.5 times the neocloud's."""
    windows = make_windows(hours=1, gpu="h200", facility_energy_j=8 * 1370 * 1.25 * 3600.0)
    own = {"kind": "own", "life_years": 4, "residual_fraction": 0.1, "cost_of_capital_per_year": 0.08}
    ours = totals(post(windows, Money.model_validate({"costs": {"compute": own}}))).cost.iloc[0] / 8
    book = price_book()
    published = [book.find(tier, "h200", "2026-06").value for tier in ("tco_hyperscaler", "tco_neocloud")]
    assert published[0] < ours < 1.5 * published[1]


def test_market_ratio_of_the_twenty_x_story():
    book = price_book()
    rent = pd.Series({gpu: book.find("rental_market", gpu, "2026-07").value for gpu in ("h200", "b200")})
    assert round(rent.b200 / rent.h200, 2) == 1.28
    # 25 times the tokens at 1.28 times the rent: 19.6 times cheaper a token.
    assert round(25 / (rent.b200 / rent.h200), 1) == 19.6
