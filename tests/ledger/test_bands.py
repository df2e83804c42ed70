"""Price bands: one vintage a draw, rows of one item together, the stated range as P10 and P90."""

import numpy as np
import pytest

from factory_sim.inputs.money import Money
from factory_sim.inputs.prices import PriceRow
from factory_sim.ledger.bands import draw_prices, one_sided, range_factor, vintages, with_vintage
from factory_sim.ledger.postings import post
from factory_sim.ledger.statements import totals
from factory_sim.streams import stream

GPUS = ["h200", "b200", "gb200"]


def draws(money, n=400, **more):
    rng = stream(7, "prices")
    return [draw_prices(money, rng, gpus=GPUS, **more) for _ in range(n)]


def test_a_draw_takes_one_vintage_for_all_gpus():
    money = Money()
    assert vintages(money, GPUS) == ("2026-04", "2026-06", "2026-07")
    assert vintages(money, [*GPUS, "vr200"]) == ("2026-07",)
    drawn = [draw.costs.compute.vintage for draw in draws(money, n=2000)]
    share = {vintage: drawn.count(vintage) / len(drawn) for vintage in sorted(set(drawn))}
    assert share == pytest.approx({"2026-04": 0.2, "2026-06": 0.2, "2026-07": 0.6}, abs=0.04)


def test_a_stratum_gives_each_vintage_its_share_among_few_replications():
    rng = stream(7, "prices")
    drawn = [draw_prices(Money(), rng, gpus=GPUS, stratum=(r + 0.5) / 8).costs.compute.vintage for r in range(8)]
    assert drawn.count("2026-07") == 5
    assert set(drawn) == {"2026-04", "2026-06", "2026-07"}


def test_a_vintage_at_the_end_of_all_says_that_ranges_lean_one_way():
    said = one_sided(Money(), GPUS)
    assert "2026-07, the dearest of the published vintages (2026-04, 2026-06, 2026-07)" in said
    assert "reach down" in said
    assert "cheapest" in one_sided(with_vintage(Money(), "2026-04"), ["h200"])
    assert one_sided(with_vintage(Money(), "2026-06"), ["h200"]) == ""
    assert one_sided(Money(band="ranges"), GPUS) == ""
    assert one_sided(Money.model_validate({"costs": {"compute": {"kind": "own"}}}), GPUS) == ""


def test_the_band_can_be_switched_off():
    for draw in draws(Money(band="none"), n=20):
        assert draw.costs.compute.vintage == "2026-07"
        assert draw.drawn == {}


def test_stated_prices_have_no_vintages():
    price = {"value": 2.0, "unit": "USD/GPU-h", "as_of": "2026-10-01", "source": "contract"}
    money = Money.model_validate({"costs": {"compute": {"prices": {gpu: [price] for gpu in GPUS}}}})
    assert vintages(money, GPUS) == ()


def test_ranges_are_the_tenth_and_ninetieth_percentile():
    row = PriceRow("r", "i", "s", 10.0, 8.0, 15.0, "USD/GPU-h", "", "2026", "guess", "guess")
    factors = np.array([range_factor(row, score) for score in stream(1, "z").standard_normal(20000)])
    assert np.quantile(10 * factors, [0.1, 0.5, 0.9]) == pytest.approx([8, 10, 15], rel=0.02)
    free = PriceRow("r", "i", "s", 10.0, 0.0, 15.0, "USD/GPU-h", "", "2026", "guess", "guess")
    assert range_factor(free, -1.2815515655446004) == pytest.approx(0.0, abs=1e-12)
    assert range_factor(free, -3.0) == 0.0


def test_owned_machines_draw_their_uncertain_prices_together():
    money = Money.model_validate({"costs": {"compute": {"kind": "own"}}})
    for draw in draws(money, n=50):
        factors = draw.drawn
        assert factors["purchase_price_market/h200/2026-06"] == pytest.approx(
            factors["purchase_price_market/b200/2026-06"]
        )
        assert factors["network_capex/gpu"] != factors["storage_capex/gpu"]


def test_a_plan_with_a_range_is_drawn():
    plan = {"output_usd_per_million": 2.0, "low": 0.5, "high": 2.0}
    money = Money.model_validate({"plans": {"chat": plan}})
    factors = [draw.drawn["plan/chat/output_tokens"] for draw in draws(money, services=["chat"])]
    assert np.quantile(factors, [0.1, 0.9]) == pytest.approx([0.5, 2.0], rel=0.15)


def test_draws_change_money_and_nothing_else(make_windows):
    windows = make_windows(hours=5)
    money = Money.model_validate({"plans": {"chat": {"output_usd_per_million": 2.0}}})
    rng = stream(3, "prices")
    posted = [post(windows, draw_prices(money, rng, gpus=["h200"])) for _ in range(8)]
    costs = {round(float(totals(p).cost.iloc[0]) / 40, 6) for p in posted}
    assert costs <= {1.60, 2.05, 2.90}
    assert len(costs) > 1
    for p in posted:
        assert (p.quantity == posted[0].quantity).all()


def test_a_vintage_can_be_asked_for(make_windows):
    cost = totals(post(make_windows(hours=1), with_vintage(Money(), "2026-04"))).cost.iloc[0]
    assert cost == pytest.approx(8 * 1.60)


def test_the_level_of_a_plan_moves_fees_and_customers_plans_too():
    plan = {"output_usd_per_million": 1.0, "low": 0.5, "high": 2.0, "subscription": {
        "fee_usd_per_month": 10, "allowance_tokens_per_month": 0}}  # fmt: skip
    money = Money.model_validate(
        {
            "plans": {"chat": plan, "deal": plan},
            "customers": [{"name": "a", "service": "chat", "plan": "deal", "share": 1}],
        }
    )
    draw = draw_prices(money, stream(1, "x"), gpus=["h200"], services=["chat"])
    factors = {
        draw.drawn[f"plan/{key}/{line}"] for key in ("chat", "deal") for line in ("output_tokens", "subscription")
    }
    assert len(factors) == 1
    assert factors != {1.0}
