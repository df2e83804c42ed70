"""Worth: cash when it moves, break-even points, and units that add up to the bill."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money
from factory_sim.ledger.entries import Calendar
from factory_sim.ledger.fleet import cohorts
from factory_sim.ledger.postings import _moment, post
from factory_sim.ledger.statements import totals, unit_costs
from factory_sim.ledger.units import content_units, power_figures, traffic_units, unit_economics
from factory_sim.ledger.worth import (
    break_even_day,
    break_even_tokens,
    break_even_utilisation,
    cash_by_period,
    cash_flows,
    cost_against_load,
    lost_sales,
    price_factor_for_margin,
    price_for_margin,
    revenue_ratio,
    tokens_ratio,
    worth,
)

PLAN = {"chat": {"input_usd_per_million": 10.0, "output_usd_per_million": 40.0}}
DAY_S, YEAR_S = 86400.0, 365.25 * 86400


def quote(value, unit):
    return {"value": value, "unit": unit, "as_of": "2026-10-01", "source": "test"}


def money(**costs):
    return Money.model_validate({"plans": PLAN, "costs": costs})


OWN = {
    "kind": "own", "server": {"h200": quote(30000, "USD/GPU"), "b200": quote(40000, "USD/GPU")},
    "network": quote(0, "USD/GPU"), "storage": quote(0, "USD/GPU"), "colocation": quote(0, "USD/kW-month"),
    "life_years": 5, "residual_fraction": 0.0, "maintenance_fraction_per_year": 0, "resale_fraction": 0.6,
}  # fmt: skip
FREE_POWER = {"price": quote(0, "USD/kWh")}


def swap(make_windows):
    """Eight H200 for ten days, replaced by eight B200 with two days in which both are there."""
    old = make_windows(hours=10, interval_s=DAY_S, gpu="h200", stage="old")
    new = make_windows(hours=12, interval_s=DAY_S, gpu="b200", stage="new")
    new = new.assign(start_s=new.start_s + 8 * DAY_S, end_s=new.end_s + 8 * DAY_S)
    return pd.concat([old, new], ignore_index=True)


def test_machines_are_followed_from_arrival_to_departure(make_windows):
    found = cohorts(swap(make_windows), money())
    assert [(c.gpu, c.gpus, c.arrived_s / DAY_S, c.first) for c in found] == [
        ("b200", 8, 8, False),
        ("h200", 8, 0, True),
    ]
    assert found[0].left_s is None
    assert found[1].left_s == 10 * DAY_S


def test_a_move_between_services_is_no_departure(make_windows):
    first = make_windows(hours=4, gpus=[8.0, 8.0, 4.0, 4.0], service="chat")
    second = make_windows(hours=4, gpus=[0.0, 0.0, 4.0, 4.0], service="code")
    found = cohorts(pd.concat([first, second], ignore_index=True), money())
    assert [(c.gpus, c.left_s) for c in found] == [(8.0, None)]


def test_services_and_jobs_whose_windows_begin_apart_hold_their_machines_together(make_windows):
    """Machines lent for two hours and a half, in windows of another rhythm: nobody came and nobody left."""
    service = make_windows(hours=6, gpus=[8.0, 8.0, 4.0, 4.0, 4.0, 8.0], service="chat")
    cuts = [0.0, 7200.0, 12600.0, 18000.0, 21600.0]
    job = make_windows(hours=4, gpus=[0.0, 4.0, 4.0, 0.0], service="tune", stage="tune")
    job = job.assign(start_s=cuts[:-1], end_s=cuts[1:])
    found = cohorts(pd.concat([service, job], ignore_index=True), money())
    assert [(c.gpus, c.arrived_s, c.left_s) for c in found] == [(8.0, 0.0, None)]


def test_spot_machines_that_leave_are_not_taken_for_owned_ones(make_windows):
    owned = make_windows(hours=4, gpus=8.0, stage="base")
    spot = make_windows(hours=4, gpus=[8.0, 0.0, 8.0, 8.0], stage="base-spot")
    terms = money(compute=OWN, compute_by_stage={"base-spot": {}}, energy=FREE_POWER)
    found = cohorts(pd.concat([owned, spot], ignore_index=True), terms)
    assert [(c.stage, c.gpus) for c in found if c.left_s is not None] == [("base-spot", 8.0)]
    postings = post(pd.concat([owned, spot], ignore_index=True), terms)
    assert (postings.line == "write_off").sum() == 0


def test_the_first_to_come_leave_first(make_windows):
    found = cohorts(make_windows(hours=4, gpus=[8.0, 12.0, 6.0, 2.0]), money())
    assert sorted((c.gpus, c.arrived_s, c.left_s or 0) for c in found) == [
        (2.0, 0.0, 10800.0), (2.0, 3600.0, 0), (2.0, 3600.0, 10800.0), (6.0, 0.0, 7200.0),
    ]  # fmt: skip


def test_owned_machines_that_leave_are_written_off_to_what_a_sale_brings(make_windows):
    postings = post(swap(make_windows), money(compute=OWN | {"age_years": {"h200": 2.0}}, energy=FREE_POWER))
    lost = postings[postings.line == "write_off"]
    book = 1 - (2 + 10 / 365.25) / 5
    assert lost.amount_nusd.sum() / 1e9 == pytest.approx(8 * 30000 * book * 0.4)
    assert set(lost.stage) == {"old"}


def test_a_commitment_costs_its_rest_and_no_commitment_costs_nothing(make_windows):
    windows = swap(make_windows)
    term = {"term_years": 1.0, "elapsed_years": 0.5}
    postings = post(windows, money(compute=term))
    rest = postings[postings.line == "commitment_rest"]
    assert rest.amount_nusd.sum() / 1e9 == pytest.approx(8 * 2.90 * (0.5 * 8766 - 240))
    assert "commitment_rest" not in set(post(windows, money()).line)


def test_cash_moves_when_it_is_paid(make_windows):
    terms = money(compute=OWN, energy=FREE_POWER)
    windows = swap(make_windows)
    flows = cash_flows(windows, post(windows, terms), terms)
    by_line = flows.groupby("line").usd.sum()
    assert by_line["machines"] == pytest.approx(-8 * 70000)
    assert by_line["resale"] == pytest.approx(8 * 30000 * (1 - 10 / 365.25 / 5) * 0.6)
    assert by_line["terminal_value"] == pytest.approx(8 * 40000 * (1 - 12 / 365.25 / 5))
    assert "depreciation" not in by_line
    assert by_line[["input_tokens", "output_tokens"]].sum() == pytest.approx(22 * 50.0)
    assert flows[flows.line == "machines"].time_s.tolist() == [0.0, 8 * DAY_S]


def test_worth_of_a_machine_that_earns_evenly():
    flows = pd.DataFrame(
        {"replication": 0, "time_s": np.arange(6) * YEAR_S, "line": "x", "usd": [-1000.0, *[300.0] * 5]}
    )
    table = worth(flows, 0.1).iloc[0]
    assert table.npv_usd == pytest.approx(-1000 + 300 * (1 - 1.1**-5) / 0.1)
    assert table.irr_per_year == pytest.approx(0.1524, abs=1e-4)
    assert table.payback_years == pytest.approx(10 / 3)
    hopeless = worth(flows.assign(usd=-1.0), 0.1).iloc[0]
    assert np.isnan(hopeless.irr_per_year)
    assert np.isnan(hopeless.payback_years)


def test_an_upfront_part_is_paid_on_the_first_day_and_the_total_is_the_same(make_windows):
    windows = make_windows(hours=10, interval_s=DAY_S)
    even = money(compute={"term_years": 1.0})
    upfront = money(compute={"term_years": 1.0, "upfront": 0.25})
    flows = [cash_flows(windows, post(windows, terms), terms) for terms in (even, upfront)]
    totals_usd = [part.usd.sum() for part in flows]
    assert totals_usd[0] == pytest.approx(totals_usd[1])
    first = flows[1][flows[1].time_s == 0]
    assert first.usd.sum() == pytest.approx(-0.25 * 8 * 2.90 * 8766)


def test_cash_by_period(make_windows):
    windows = make_windows(hours=4, interval_s=DAY_S, replications=2)
    terms = money()
    calendar = Calendar(_moment(date(2026, 10, 30)))
    flows = cash_flows(windows, post(windows, terms), terms)
    for period, days in (("month", 2), ("day", 1), ("week", 4)):
        table = cash_by_period(flows, period, calendar)
        assert table[table.line == "rent"].usd.to_numpy() == pytest.approx(-days * 8 * 24 * 2.90)


def test_break_even_utilisation():
    assert break_even_utilisation(0.5, revenue_usd=200, cost_usd=100) == pytest.approx(0.25)
    assert break_even_utilisation(0.5, revenue_usd=200, cost_usd=100, variable_usd=50) == pytest.approx(0.5 * 50 / 150)
    assert break_even_utilisation(0.5, revenue_usd=10, cost_usd=100, variable_usd=50) == np.inf


def test_cost_follows_one_over_utilisation():
    loads = np.array([0.02, 0.1, 0.5, 1.0])
    curve = cost_against_load(2.0, 3.6e6, loads)
    assert (curve * loads) == pytest.approx(np.full(4, 2.0 / 3.6))
    with pytest.raises(PriceError, match="load of zero"):
        cost_against_load(2.0, 1.0, [0.0])


def test_the_price_for_a_margin_gives_that_margin(make_windows):
    windows = make_windows(hours=10)
    before = totals(post(windows, money())).iloc[0]
    factor = price_factor_for_margin(before.revenue, before.cost, 0.6)
    after = post(windows, Money.model_validate({"plans": PLAN, "scale": {"sales": factor}}))
    assert totals(after).margin_fraction.iloc[0] == pytest.approx(0.6, rel=1e-6)
    cheap, dear = price_for_margin(before.cost, 1e7, 1e7, 0.6, output_to_input=4)
    assert dear == pytest.approx(4 * cheap)
    assert (cheap + dear) * 10 == pytest.approx(before.cost / 0.4)
    with pytest.raises(PriceError, match="margin of 1 "):
        price_factor_for_margin(1, 1, 1.0)


def test_a_training_run_is_paid_back_by_the_margin_of_its_tokens(make_windows):
    windows = make_windows(hours=10, interval_s=DAY_S, gpus=1.0, gpu_hours=0.0)
    terms = money()
    postings = post(windows, terms)
    margin = totals(postings).margin.iloc[0]
    assert margin == pytest.approx(500.0)
    assert break_even_tokens(1000.0, margin, 0.0, 20e6) == pytest.approx(40e6)
    assert break_even_tokens(1000.0, 0.0, 1.0, 20e6) == np.inf
    assert break_even_day(postings, 125.0, date(2026, 11, 1)) == (pytest.approx(2.5), date(2026, 11, 3))
    assert break_even_day(postings, 1000.0)[0] == pytest.approx(20.0)
    loss = post(make_windows(hours=10, interval_s=DAY_S, gpu_hours=192.0), terms)
    assert break_even_day(loss, 1e6) == (None, None)


def test_what_a_limit_costs_in_lost_sales(make_windows):
    windows = make_windows(hours=10, requests_turned_away=250.0)
    table = lost_sales(windows, post(windows, money()))
    assert table.lost_sales_usd["chat"] == pytest.approx(0.25 * 500)


def test_elasticity_identities():
    assert revenue_ratio(1 / 20, -1.11) == pytest.approx(1.39, abs=0.005)
    assert tokens_ratio(1 / 20, -1.0) == pytest.approx(20)
    assert revenue_ratio(0.5, -1.0) == pytest.approx(1.0)


def test_units_of_all_tokens_cost_the_whole_bill(make_windows):
    windows = make_windows(hours=10, gpu_hours_down=1.0)
    figures = unit_costs(windows, post(windows, money())).iloc[0]
    table = unit_economics(figures, traffic_units(figures, users=50.0)).set_index("unit")
    assert table.cost_usd["request"] * 10000 == pytest.approx(figures.cost)
    assert table.revenue_usd["request"] * 10000 == pytest.approx(figures.revenue)
    assert table.cost_usd["user"] * 50 == pytest.approx(figures.cost)
    assert table.cost_usd["conversation (4 requests)"] == pytest.approx(4 * table.cost_usd["request"])
    priced = unit_economics(figures, traffic_units(figures), price=(10.0, 40.0)).set_index("unit")
    assert priced.revenue_usd["request"] * 10000 == pytest.approx(figures.revenue)


def test_units_of_content_have_tokens(make_windows):
    windows = make_windows(hours=10)
    figures = unit_costs(windows, post(windows, money())).iloc[0]
    table = unit_economics(figures, content_units("qwen")).set_index("unit")
    assert table.input_tokens["image in (1024x1024)"] == 1225
    assert table.output_tokens["minute of speech out"] == 750
    assert (table.cost_usd > 0).all()
    assert traffic_units(figures.copy().replace({figures.requests_completed: 0.0})) == ()


def test_revenue_of_power(make_windows):
    windows = make_windows(hours=10)
    figures = unit_costs(windows, post(windows, money())).iloc[0]
    power = power_figures(figures, 10.0)
    assert power["revenue_per_gpu_hour"] == pytest.approx(500 / 80)
    # 12 kW at the meter.
    assert power["revenue_per_mw_year"] == pytest.approx(50.0 / 0.012 * 8766)
