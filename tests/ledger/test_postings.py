"""Postings: each amount once, from a quantity and a named price; the whole is the sum of its parts."""

from datetime import date, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money
from factory_sim.inputs.prices import price_book
from factory_sim.ledger.costs import energy_by_use, gpu_hours_by_use
from factory_sim.ledger.postings import keep_books, post
from factory_sim.ledger.statements import kinds, signed_nusd, total_nusd, totals, trial_balance, unit_costs

CHAT = {"chat": {"input_usd_per_million": 0.55, "output_usd_per_million": 2.19}}


def terms(**given):
    return Money.model_validate({"plans": CHAT} | given)


def usd(postings, kind):
    return total_nusd(postings, kind) / 1e9


def quote(value, unit, **more):
    return {"value": value, "unit": unit, "as_of": "2026-10-01", "source": "test"} | more


def test_rent_is_gpu_hours_times_the_published_rate(make_windows):
    postings = post(make_windows(hours=10), terms())
    assert usd(postings, "cost") == pytest.approx(10 * 8 * 2.90, abs=1e-6)
    rent = postings[postings.line == "rent"]
    assert set(rent.price_row) == {"rental_market/h200/2026-07"}
    assert rent.quantity.sum() == pytest.approx(80)


@pytest.mark.parametrize(
    ("basis", "vintage", "rate"),
    [
        ("hyperscaler_own", "2026-07", 1.22), ("hyperscaler_own", "2026-04", 1.41), ("neocloud_own", "2026-06", 1.59),
        ("rental", "2026-04", 1.60), ("rental", "2026-06", 2.05), ("rental", "2026-07", 2.90),
    ],
)  # fmt: skip
def test_the_published_cost_bases_are_there_by_name(make_windows, basis, vintage, rate):
    money = terms(costs={"compute": {"kind": "rent", "basis": basis, "vintage": vintage}})
    assert usd(post(make_windows(hours=1), money), "cost") == pytest.approx(8 * rate, abs=1e-6)


def test_a_basis_without_a_price_says_which_vintages_exist(make_windows):
    money = terms(costs={"compute": {"basis": "neocloud_own", "vintage": "2026-07"}})
    with pytest.raises(PriceError, match=r"2026-04, 2026-06.*compute\.prices\.h200"):
        post(make_windows(), money)


def test_an_idle_fleet_earns_nothing_and_still_pays_rent(make_windows):
    quiet = {
        name: 0.0 for name in ("input_tokens", "output_tokens", "requests_completed", "time_input_s", "time_output_s")
    }
    windows = make_windows(hours=5, time_idle_s=3600.0, **quiet)
    postings = post(windows, terms())
    assert usd(postings, "revenue") == 0
    assert set(postings[kinds(postings) == "cost"].use) == {"idle"}
    assert usd(postings, "cost") == pytest.approx(5 * 8 * 2.90, abs=1e-6)


def test_hours_without_any_replica_are_idle(make_windows):
    windows = make_windows(time_input_s=0.0, time_output_s=0.0, time_idle_s=0.0, gpu_hours_down=2.0)
    split = gpu_hours_by_use(windows)
    assert (split["down"] == 2.0).all()
    assert (split["idle"] == 6.0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_attribution_adds_up_to_the_bill_and_the_books_balance(seed):
    rng = np.random.default_rng(seed)
    n = 12
    hours = rng.uniform(0, 100, n)
    windows = pd.DataFrame(
        {
            "replication": rng.integers(0, 2, n), "start_s": np.arange(n) * 3600.0,
            "end_s": np.arange(1, n + 1) * 3600.0,
            "service": rng.choice(["chat", "code"], n), "stage": "s", "gpu": rng.choice(["h200", "b200"], n),
            "gpu_hours": hours, "gpu_hours_down": hours * rng.uniform(0, 1, n),
            "requests_completed": rng.uniform(0, 1e6, n),
            "input_tokens": rng.uniform(1e6, 1e9, n), "cached_input_tokens": rng.uniform(0, 1e6, n),
            "output_tokens": rng.uniform(1e6, 1e9, n), "reasoning_tokens": rng.uniform(0, 1e6, n),
            "time_input_s": rng.uniform(0, 1e4, n), "time_output_s": rng.uniform(0, 1e4, n),
            "time_idle_s": rng.uniform(0, 1e4, n), "facility_energy_j": rng.uniform(0, 1e10, n),
            "input_energy_j": rng.uniform(0, 1e9, n), "output_energy_j": rng.uniform(0, 1e9, n),
            "idle_energy_j": rng.uniform(0, 1e9, n),
        }
    )  # fmt: skip
    money = terms(
        costs={
            "compute": {"kind": "own"}, "staff": "staff/site", "software": "software_licence/gpu",
            "energy": {"demand_charge": "demand_charge/site"}, "egress": "network_egress/gb",
            "carbon": {"price": quote(50, "USD/t")}, "fixed": [{"name": "team", "price": quote(1e5, "USD/month")}],
            "training": [{"name": "pre", "service": "chat", "price": quote(1e6, "USD/run"), "tokens_served": 1e12}],
        }
    )  # fmt: skip
    kept = keep_books(windows, money)
    figures = unit_costs(windows, kept.postings).iloc[0]
    parts = figures.attributed_input + figures.attributed_output
    parts += figures.unattributed_idle + figures.unattributed_down + figures.unattributed_other
    parts += figures.unattributed_train
    assert parts == pytest.approx(figures.cost, rel=1e-12)
    balance = trial_balance(kept.postings)
    assert sum(balance.balance_nusd) == 0
    assert sum(balance.debit_nusd) == sum(int(a) for a in kept.postings.amount_nusd)
    # By an independent path: quantity times the value in the price table.
    again = kept.postings.quantity * kept.postings.price_row.astype(str).map(kept.price_table().set_index("row").value)
    sign = np.where(signed_nusd(kept.postings) < 0, -1, 1)
    cost = (again * sign)[kinds(kept.postings) == "cost"].sum()
    assert cost == pytest.approx(figures.cost, rel=1e-9)
    assert sum(gpu_hours_by_use(windows).values()) == pytest.approx(hours)
    assert sum(energy_by_use(windows).values()) == pytest.approx(windows.facility_energy_j.to_numpy() / 3.6e6)


def test_every_posting_names_a_price_row_that_exists(make_windows):
    kept = keep_books(make_windows(), terms(costs={"compute": {"kind": "own"}}))
    table = kept.price_table().set_index("row")
    assert set(kept.postings.price_row) == set(table.index)
    assert (table.source != "").all()
    bases = {row.row for row in price_book().rows()}
    stated = {name for name in table.index if name.startswith("plan/")}
    assert {name.split(" <- ")[-1] for name in table.index} - stated <= bases


def test_doubling_all_prices_doubles_the_ledger_exactly(make_windows):
    windows = make_windows(hours=50, output_tokens=np.linspace(1, 1e7, 50) / 3)
    for compute in ({"kind": "rent"}, {"kind": "own"}):
        once = post(windows, terms(costs={"compute": compute}))
        twice = post(windows, terms(costs={"compute": compute}, scale={"prices": 2}))
        assert (twice.amount_nusd == 2 * once.amount_nusd).all()
        assert (twice.quantity == once.quantity).all()
        sales = post(windows, terms(costs={"compute": compute}, scale={"sales": 2}))
        assert total_nusd(sales, "revenue") == 2 * total_nusd(once, "revenue")
        assert total_nusd(sales, "cost") == total_nusd(once, "cost")


def test_the_order_of_windows_does_not_matter(make_windows):
    windows = make_windows(hours=24, output_tokens=np.linspace(1e5, 1e7, 24))
    money = Money.model_validate(
        {"plans": {"chat": {"output_usd_per_million": 2.0, "volume": [{"above_tokens": 5e7, "multiplier": 0.5}]}}}
    )
    forwards = post(windows, money)
    backwards = post(windows.iloc[::-1], money)
    assert total_nusd(forwards, "revenue") == total_nusd(backwards, "revenue")


def test_energy_is_a_memo_under_rent_and_a_cost_when_owned(make_windows):
    windows = make_windows(hours=1)
    rented = post(windows, terms())
    assert set(kinds(rented)[rented.line == "energy"]) == {"memo"}
    owned = post(windows, terms(costs={"compute": {"kind": "own"}, "energy": {"price": quote(0.1, "USD/kWh")}}))
    energy = owned[owned.line == "energy"]
    assert energy.amount_nusd.sum() / 1e9 == pytest.approx(12 * 0.1)
    by_use = energy.set_index("use").quantity
    assert by_use["input"] == pytest.approx(3)
    assert by_use["output"] == pytest.approx(6)
    forced = post(windows, terms(costs={"energy": {"price": quote(0.1, "USD/kWh"), "billed": True}}))
    assert usd(forced, "cost") == pytest.approx(8 * 2.9 + 1.2)


def test_an_hourly_tariff_charges_each_hour_its_price(make_windows):
    tariff = {
        "price": quote(0.10, "USD/kWh"),
        "periods": [{"from_hour": 22, "until_hour": 6, "weekdays": [0, 1, 2, 3, 4], "price": quote(0.04, "USD/kWh")}],
    }
    money = terms(costs={"compute": {"kind": "own"}, "energy": tariff})
    monday = date(2026, 11, 2)
    postings = post(make_windows(hours=24), money, start=monday)
    cost = postings[postings.line == "energy"].groupby("start_s").amount_nusd.sum() / 1e9 / 12
    night = [cost[hour * 3600.0] for hour in (22, 23)]
    day = [cost[hour * 3600.0] for hour in range(22)]
    # Monday's small hours belong to Sunday night, which is not in the period.
    assert night == pytest.approx([0.04, 0.04])
    assert day == pytest.approx([0.10] * 22)
    # A window that crosses the border is split by time.
    wide = post(make_windows(hours=1, interval_s=4 * 3600.0), money, start=datetime(2026, 11, 2, 20))
    assert wide[wide.line == "energy"].amount_nusd.sum() / 1e9 == pytest.approx(12 * (0.10 + 0.04) / 2)
    with pytest.raises(PriceError, match="date on which the scenario starts"):
        post(make_windows(), money)


def test_demand_charge_is_on_the_peak_of_the_month(make_windows):
    energy_j = np.array([1.0, 5.0, 2.0]) * 3.6e6 * 100
    windows = make_windows(hours=3, facility_energy_j=energy_j)
    money = terms(costs={"compute": {"kind": "own"}, "energy": {"demand_charge": quote(10, "USD/kW-month")}})
    charge = post(windows, money)
    charge = charge[charge.line == "demand_charge"]
    assert len(charge) == 1
    # 500 kW over 3 of 730.5 hours of a mean month.
    assert charge.amount_nusd.sum() / 1e9 == pytest.approx(500 * 10 * 3 / 730.5)
    assert charge.start_s.iloc[0] == 3600.0


def test_a_price_path_is_followed_by_date(make_windows):
    path = [
        quote(3.0, "USD/GPU-h", valid_from="2026-10-01", valid_until="2026-11-02"),
        quote(2.0, "USD/GPU-h", valid_from="2026-11-02"),
    ]
    money = terms(costs={"compute": {"prices": {"h200": path}}})
    postings = post(make_windows(hours=48), money, start=date(2026, 11, 1))
    assert usd(postings, "cost") == pytest.approx(8 * 24 * (3.0 + 2.0))
    with pytest.raises(PriceError, match="no price before 2026-10-01"):
        post(make_windows(hours=48), money, start=date(2026, 9, 1))


@pytest.mark.parametrize(
    ("until", "message"), [("2026-10-20", "no price between"), ("2026-11-10", "overlap"), (None, None)]
)
def test_gaps_and_overlaps_of_a_path_are_errors(make_windows, until, message):
    first = quote(3.0, "USD/GPU-h", valid_from="2026-10-01")
    path = [first | ({"valid_until": until} if until else {}), quote(2.0, "USD/GPU-h", valid_from="2026-11-02")]
    if message is None:
        money = terms(costs={"compute": {"prices": {"h200": path}}})
        assert usd(post(make_windows(hours=1), money, start=date(2026, 11, 1)), "cost") == pytest.approx(24)
    else:
        with pytest.raises(ValidationError, match=rf"prices\.h200: .*{message}"):
            terms(costs={"compute": {"prices": {"h200": path}}})


def test_another_currency_needs_a_rate(make_windows):
    with pytest.raises(ValidationError, match=r"costs\.compute\.prices\.h200\.0: .*money\.rates\.EUR"):
        terms(costs={"compute": {"prices": {"h200": [quote(2.0, "EUR/GPU-h")]}}})
    rates = {"EUR": {"usd": 1.1, "as_of": "2026-10-01", "source": "central bank"}}
    money = terms(costs={"compute": {"prices": {"h200": [quote(2.0, "EUR/GPU-h")]}}}, rates=rates)
    assert usd(post(make_windows(hours=1), money), "cost") == pytest.approx(8 * 2.2)


def test_a_price_of_the_wrong_thing_is_an_error(make_windows):
    money = terms(costs={"compute": {"prices": {"h200": [quote(2.0, "USD/kWh")]}}})
    with pytest.raises(PriceError, match="USD/GPU-h is needed"):
        post(make_windows(hours=1), money)


def test_colocation_replaces_the_facility(make_windows):
    own = {"kind": "own", "colocation": quote(150, "USD/kW-month")}
    postings = post(make_windows(hours=1), terms(costs={"compute": own}))
    assert "facility" not in set(postings.line)
    cost = postings[postings.line == "colocation"].amount_nusd.sum() / 1e9
    assert cost == pytest.approx(8 * 1.370 * 150 / 730.5, rel=1e-6)


def test_ownership_costs_the_annuity_of_what_was_paid(make_windows):
    own = {
        "kind": "own", "server": {"h200": quote(30000, "USD/GPU")}, "network": quote(0, "USD/GPU"),
        "storage": quote(0, "USD/GPU"), "colocation": quote(0, "USD/kW-month"), "life_years": 4,
        "residual_fraction": 0.1,
        "cost_of_capital_per_year": 0.08, "maintenance_fraction_per_year": 0,
    }  # fmt: skip
    money = terms(costs={"compute": own, "energy": {"price": quote(0, "USD/kWh")}})
    yearly = (30000 - 3000 / 1.08**4) * 0.08 / (1 - 1.08**-4)
    assert usd(post(make_windows(hours=1), money), "cost") == pytest.approx(8 * yearly / 8766, rel=1e-8)
    straight = terms(costs={"compute": own | {"method": "straight_line"}, "energy": {"price": quote(0, "USD/kWh")}})
    assert usd(post(make_windows(hours=1), straight), "cost") == pytest.approx(8 * 27000 / 4 / 8766, rel=1e-8)


def test_a_gpu_without_a_purchase_price_asks_for_one(make_windows):
    with pytest.raises(PriceError, match="no published purchase price of GPU 'mi355x'"):
        post(make_windows(gpu="mi355x"), terms(costs={"compute": {"kind": "own"}}))


def test_terms_differ_by_gpu_and_by_stage(make_windows):
    windows = pd.concat([make_windows(hours=1, stage="old"), make_windows(hours=1, stage="new", gpu="b200")])
    money = terms(costs={"compute_by_gpu": {"b200": {"basis": "hyperscaler_own"}}})
    by_stage = totals(post(windows, money), ["stage"]).cost
    assert by_stage["old"] == pytest.approx(8 * 2.9)
    assert by_stage["new"] == pytest.approx(8 * 1.73)


def test_windows_without_a_needed_column_are_refused(make_windows):
    with pytest.raises(PriceError, match="lack the columns output_tokens"):
        post(make_windows().drop(columns="output_tokens"), terms())


def test_training_is_spread_over_the_tokens_served(make_windows):
    run = {"name": "pretraining", "service": "chat", "price": quote(5e6, "USD/run"), "tokens_served": 1e9}
    postings = post(make_windows(hours=2), terms(costs={"training": [run]}))
    training = postings[postings.line == "training"]
    assert training.amount_nusd.sum() / 1e9 == pytest.approx(4e6 / 1e9 * 5e6)
    assert set(training.use) == {"input", "output"}


def test_nothing_played_is_nothing_posted(make_windows):
    postings = post(make_windows().iloc[:0], terms())
    assert len(postings) == 0
    assert total_nusd(postings, "cost") == 0


def test_quantities_that_are_not_numbers_are_refused(make_windows):
    with pytest.raises(PriceError, match="column output_tokens holds a value that is not a number"):
        post(make_windows(output_tokens=[1.0, np.nan, 1.0, 1.0]), terms())


def test_an_amount_beyond_the_books_asks_for_the_unit(make_windows):
    absurd = terms(costs={"compute": {"prices": {"h200": [quote(1e10, "USD/GPU-h")]}}})
    with pytest.raises(PriceError, match="wrong unit"):
        post(make_windows(), absurd)


def test_a_scale_of_an_unknown_line_names_the_closest(make_windows):
    with pytest.raises(PriceError, match="did you mean 'rent'"):
        post(make_windows(), terms(scale={"lines": {"rents": 2.0}}))


def test_training_jobs_are_a_use_of_their_own_and_sell_nothing(make_windows):
    job = make_windows(
        hours=4, service="finetune", stage="finetune", trained_tokens=[1e9, 0.0, 1e9, 1e9], input_tokens=0.0,
        output_tokens=0.0, requests_completed=0.0, time_input_s=0.0, time_output_s=2700.0, time_idle_s=900.0,
    )  # fmt: skip
    serving = make_windows(hours=4, trained_tokens=0.0)
    plans = {"all": {"output_usd_per_million": 2.0, "minimum_usd_per_month": 1e6}}
    both, alone = (
        unit_costs(windows, post(windows, Money.model_validate({"plans": plans}))).iloc[0]
        for windows in (pd.concat([serving, job], ignore_index=True), serving)
    )
    assert both.unattributed_train == pytest.approx(4 * 8 * 2.90 * 0.75)
    assert both.unattributed_idle == pytest.approx(alone.unattributed_idle + 4 * 8 * 2.90 * 0.25)
    assert both.revenue == alone.revenue
    for figure in ("attributed_cost_per_million_output_tokens", "attributed_cost_per_million_input_tokens"):
        assert both[figure] == pytest.approx(alone[figure])
    assert both.cost == pytest.approx(2 * alone.cost)


def test_one_own_price_needs_no_list_and_gpus_go_by_any_name(make_windows):
    windows = make_windows(hours=1)
    single = terms(costs={"compute": {"prices": {"H200-SXM": quote(2.0, "USD/GPU-h")}}})
    assert usd(post(windows, single), "cost") == pytest.approx(16.0)
    alias = terms(costs={"compute_by_gpu": {"H200-SXM": {"basis": "hyperscaler_own"}}})
    assert usd(post(windows, alias), "cost") == pytest.approx(8 * 1.22)


def test_emissions_follow_the_intensity_of_the_hour(make_windows):
    intensity = quote(400, "gCO2e/kWh")
    windows = make_windows(hours=3, carbon_multiplier=[0.5, 1.0, np.nan])
    reported = post(windows, terms(costs={"carbon": {"intensity": intensity}}))
    tonnes = reported[reported.line == "carbon"]
    assert tonnes.quantity.sum() == pytest.approx(12 * 2.5 * 400 / 1e6)
    assert (tonnes.amount_nusd == 0).all()
    priced = post(windows, terms(costs={"carbon": {"intensity": intensity, "price": quote(100, "USD/t")}}))
    extra = usd(priced, "cost") - usd(reported, "cost")
    assert extra == pytest.approx(12 * 2.5 * 400 / 1e6 * 100, rel=1e-6)
