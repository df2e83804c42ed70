"""One invoice by hand for each feature of a plan."""

from datetime import date
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money
from factory_sim.inputs.plans import Plan
from factory_sim.ledger.bills import credit_fraction
from factory_sim.ledger.plans import check_plan_names
from factory_sim.ledger.postings import post
from factory_sim.ledger.statements import total_nusd, totals

MONTH_H = 730.5


def invoice(windows, start=None, rates=None, **plan):
    """Revenue in dollars by line."""
    money = Money.model_validate({"plans": {"chat": plan}} | ({"rates": rates} if rates else {}))
    postings = post(windows, money, start=start)
    revenue = postings[postings.credit.str.startswith("revenue") | (postings.debit == "revenue:sla_credit")]
    lines = revenue.groupby("line", observed=True).amount_nusd.sum() / 1e9
    return {str(line): float(usd) for line, usd in lines.items()}


def test_tokens_by_kind(make_windows):
    windows = make_windows(
        hours=1,
        input_tokens=5e6,
        cached_input_tokens=2e6,
        output_tokens=4e6,
        reasoning_tokens=1e6,
        requests_completed=100,
    )
    bill = invoice(
        windows, input_usd_per_million=1.0, cached_input_usd_per_million=0.1, output_usd_per_million=4.0,
        reasoning_usd_per_million=2.0, request_usd=0.01,
    )  # fmt: skip
    assert bill == pytest.approx(
        {
            "input_tokens": 3.0,
            "cached_input_tokens": 0.2,
            "output_tokens": 12.0,
            "reasoning_tokens": 2.0,
            "requests": 1.0,
        }
    )


def test_cached_and_reasoning_tokens_cost_what_their_kind_costs_unless_priced(make_windows):
    windows = make_windows(hours=1, input_tokens=5e6, cached_input_tokens=2e6, output_tokens=4e6, reasoning_tokens=1e6)
    bill = invoice(windows, input_usd_per_million=1.0, output_usd_per_million=4.0)
    assert bill["input_tokens"] + bill["cached_input_tokens"] == pytest.approx(5.0)
    assert bill["output_tokens"] + bill["reasoning_tokens"] == pytest.approx(16.0)


def test_batch_flex_and_priority(make_windows):
    tiers = [
        {"name": "batch", "multiplier": 0.5, "share": 0.4},
        {"name": "flex", "multiplier": 0.5, "share": 0.1},
        {"name": "priority", "multiplier": 2.0, "share": 0.2},
    ]
    bill = invoice(make_windows(hours=1), output_usd_per_million=10.0, tiers=tiers)
    # 0.3 standard + 0.5 at half + 0.2 at double.
    assert bill["output_tokens"] == pytest.approx(10.0 * (0.3 + 0.25 + 0.4))
    with pytest.raises(ValidationError, match="more than 1"):
        Plan(output_usd_per_million=1.0, tiers=[{"name": n, "multiplier": 0.5, "share": 0.6} for n in "ab"])


def test_long_context(make_windows):
    long = {
        "above_tokens": 200000,
        "input_multiplier": 2,
        "output_multiplier": 1.5,
        "share_of_input": 0.5,
        "share_of_output": 0.1,
    }
    bill = invoice(make_windows(hours=1), input_usd_per_million=3.0, output_usd_per_million=15.0, long_context=long)
    assert bill["input_tokens"] == pytest.approx(3.0 * (0.5 + 0.5 * 2))
    assert bill["output_tokens"] == pytest.approx(15.0 * (0.9 + 0.1 * 1.5))


def test_volume_tiers_are_graduated_and_begin_anew_each_month(make_windows):
    windows = make_windows(hours=48, input_tokens=0.0, output_tokens=1e6)
    volume = [{"above_tokens": 10e6, "multiplier": 0.8}, {"above_tokens": 20.5e6, "multiplier": 0.5}]
    bill = invoice(windows, start=date(2026, 10, 31), output_usd_per_million=1.0, volume=volume)
    # 24 million tokens in each of two months: 10 full, 10.5 at 0.8, 3.5 at 0.5.
    assert bill["output_tokens"] == pytest.approx(2 * (10 + 10.5 * 0.8 + 3.5 * 0.5))


def test_a_free_tier_comes_first(make_windows):
    windows = make_windows(hours=10, input_tokens=1e6, output_tokens=1e6)
    bill = invoice(windows, input_usd_per_million=1.0, output_usd_per_million=1.0, free_tokens_per_month=5e6)
    assert sum(bill.values()) == pytest.approx(20 - 5)


def test_a_subscription_shares_its_allowance_between_input_and_output(make_windows):
    windows = make_windows(hours=10, input_tokens=3e6, output_tokens=1e6)
    plan = {"fee_usd_per_month": 20, "allowance_tokens_per_month": 1e6, "subscribers": 10}
    bill = invoice(windows, input_usd_per_million=1.0, output_usd_per_million=4.0, subscription=plan)
    # 40 million used, 10 million free (the first 2.5 hours: 7.5 in, 2.5 out), the rest at token prices.
    assert bill["input_tokens"] == pytest.approx(30 - 7.5)
    assert bill["output_tokens"] == pytest.approx((10 - 2.5) * 4)
    assert bill["subscription"] == pytest.approx(20 * 10 * 10 / MONTH_H)


def test_a_blocking_subscription_bills_the_fee_alone(make_windows):
    plan = {"fee_usd_per_month": 20, "allowance_tokens_per_month": 1e6, "subscribers": 1, "overage": "block"}
    bill = invoice(make_windows(hours=10), output_usd_per_million=4.0, subscription=plan)
    assert set(bill) == {"subscription"}


def test_the_fee_of_a_month_does_not_depend_on_how_windows_cut_it(make_windows):
    plan = {"fee_usd_per_month": 730.5, "allowance_tokens_per_month": 1e12}
    one = invoice(make_windows(hours=10), subscription=plan)["subscription"]
    stages = pd.concat([make_windows(hours=10, stage="a"), make_windows(hours=10, stage="b")])
    assert one == pytest.approx(10.0)
    assert invoice(stages, subscription=plan)["subscription"] == pytest.approx(one)


def test_a_commitment_gives_a_discount_and_bills_the_shortfall(make_windows):
    windows = make_windows(hours=10, input_tokens=0.0, output_tokens=1e6)
    promise = {"usd_per_month": 730.5, "discount": 0.2}
    bill = invoice(windows, output_usd_per_million=0.5, commitment=promise)
    assert bill["output_tokens"] == pytest.approx(10 * 0.5 * 0.8)
    assert bill["commitment"] == pytest.approx(10 - 4)
    rich = invoice(windows, output_usd_per_million=50.0, commitment=promise)
    assert "commitment" not in rich


def test_a_minimum_bill_is_topped_up_month_by_month(make_windows):
    output = np.where(np.arange(48) < 24, 1e6, 0.0)
    windows = make_windows(hours=48, input_tokens=0.0, output_tokens=output)
    bill = invoice(windows, start=date(2026, 10, 31), output_usd_per_million=10.0, minimum_usd_per_month=310.0)
    # October's day: 240 USD against 310/31; November's day: nothing against 310/30.
    assert bill["output_tokens"] == pytest.approx(240)
    assert bill["minimum"] == pytest.approx(310 / 30)


def test_credits_give_back_part_of_the_months_bill(make_windows):
    sla = {"availability": [{"below": 0.999, "credit": 0.1}, {"below": 0.99, "credit": 0.25}]}
    for down, credit in ((0.0, 0.0), (8 * 0.005, 0.1), (8 * 0.05, 0.25)):
        bill = invoice(make_windows(hours=10, gpu_hours_down=down), output_usd_per_million=10.0, sla=sla)
        assert bill.get("sla_credit", 0.0) == pytest.approx(credit * 100)
    late = {"within_promise": [{"below": 0.99, "credit": 0.05}]}
    bill = invoice(make_windows(hours=10, requests_within_slo=980.0), output_usd_per_million=10.0, sla=late)
    assert bill["sla_credit"] == pytest.approx(5.0)
    refused = {"served": [{"below": 0.95, "credit": 0.2}]}
    bill = invoice(make_windows(hours=10, requests_turned_away=100.0), output_usd_per_million=10.0, sla=refused)
    assert bill["sla_credit"] == pytest.approx(20.0)


def test_a_credit_lowers_revenue(make_windows):
    sla = {"availability": [{"below": 0.999, "credit": 0.1}]}
    money = Money.model_validate({"plans": {"chat": {"output_usd_per_million": 10.0, "sla": sla}}})
    postings = post(make_windows(hours=10, gpu_hours_down=1.0), money)
    assert totals(postings).revenue.iloc[0] == pytest.approx(90.0)


def test_credits_deepen_with_the_miss():
    tiers = Plan.model_validate(
        {"request_usd": 1, "sla": {"served": [{"below": 0.9, "credit": 0.5}, {"below": 0.99, "credit": 0.1}]}}
    ).sla.served
    assert credit_fraction(np.array([1.0, 0.99, 0.98, 0.5]), tiers).tolist() == [0, 0, 0.1, 0.5]


def test_another_currency(make_windows):
    rates = {"EUR": {"usd": 1.2, "as_of": "2026-11-01", "source": "central bank"}}
    bill = invoice(make_windows(hours=1), rates=rates, output_usd_per_million=10.0, currency="EUR", request_usd=0.001)
    assert bill == pytest.approx({"output_tokens": 12.0, "requests": 1.2})
    with pytest.raises(ValidationError, match=r"plans\.chat: price in EUR.*money\.rates\.EUR"):
        invoice(make_windows(hours=1), output_usd_per_million=10.0, currency="EUR")


def test_plans_change_by_date(make_windows):
    plans = [
        {"output_usd_per_million": 4.0, "valid_from": "2026-10-01", "valid_until": "2026-11-02"},
        {"output_usd_per_million": 2.0, "valid_from": "2026-11-02"},
    ]
    money = Money.model_validate({"plans": {"chat": plans}})
    postings = post(make_windows(hours=48), money, start=date(2026, 11, 1))
    assert total_nusd(postings, "revenue") / 1e9 == pytest.approx(24 * 4 + 24 * 2)
    with pytest.raises(PriceError, match="no plan is valid on 2026-09-30"):
        post(make_windows(hours=48), money, start=date(2026, 9, 30))
    gap = [plans[0] | {"valid_until": "2026-10-15"}, plans[1]]
    with pytest.raises(ValidationError, match="no plan is valid between 2026-10-15 and 2026-11-02"):
        Money.model_validate({"plans": {"chat": gap}})
    overlap = [plans[0] | {"valid_until": "2026-12-01"}, plans[1]]
    with pytest.raises(ValidationError, match="two plans are valid on 2026-11-02"):
        Money.model_validate({"plans": {"chat": overlap}})


def test_prices_that_moved_in_the_run_are_charged_as_they_were(make_windows):
    windows = make_windows(hours=4, price_multiplier=[1.0, 1.0, 0.5, 0.25])
    bill = invoice(windows, output_usd_per_million=10.0)
    assert bill["output_tokens"] == pytest.approx(10 * 2.75)


def test_a_list_price_is_that_of_the_provider(make_windows):
    bill = invoice(make_windows(hours=1), list_price="openai/gpt-oss-120b@groq", as_of="2026-11-01")
    assert bill == pytest.approx({"input_tokens": 0.15, "output_tokens": 0.6})
    batch = invoice(make_windows(hours=1), list_price="gpt-4o@openai", as_of="2026-11-01", processing="batch")
    assert batch == pytest.approx({"input_tokens": 1.25, "output_tokens": 5.0})


def test_a_service_without_a_plan_sells_nothing_and_all_stands_for_the_rest(make_windows):
    windows = pd.concat([make_windows(hours=1, service="chat"), make_windows(hours=1, service="code")])
    only = Money.model_validate({"plans": {"chat": {"output_usd_per_million": 1.0}}})
    assert total_nusd(post(windows, only), "revenue") / 1e9 == pytest.approx(1.0)
    both = Money.model_validate(
        {"plans": {"chat": {"output_usd_per_million": 1.0}, "all": {"output_usd_per_million": 3.0}}}
    )
    assert total_nusd(post(windows, both), "revenue") / 1e9 == pytest.approx(4.0)
    with pytest.raises(PriceError, match="did you mean 'chat'"):
        check_plan_names(Money.model_validate({"plans": {"chta": {"output_usd_per_million": 1.0}}}), ["chat", "code"])


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({}, "nothing in this plan can be billed"),
        (
            {"subscription": {"fee_usd_per_month": 5, "allowance_tokens_per_month": 1, "subscribers": 0}},
            "never be billed",
        ),
        ({"list_price": "gpt-4o", "as_of": "2026-11-01"}, "model@provider"),
        ({"list_price": "gpt-4o@openai"}, "needs as_of"),
        ({"list_price": "gpt-4o@openai", "as_of": "2026-11-01", "input_usd_per_million": 1}, "not both"),
        ({"output_usd_per_million": -1}, "greater than or equal to 0"),
        ({"output_usd_per_million": float("nan")}, "finite"),
        ({"output_usd_per_million": 1, "price": 3}, "Extra inputs"),
        ({"output_usd_per_million": 1, "valid_from": "2026-11-02", "valid_until": "2026-11-01"}, "not after"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan, message):
    with pytest.raises(ValidationError, match=message):
        Plan.model_validate(plan)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 1e7), min_size=1, max_size=20),
    st.floats(0, 5e7),
    st.lists(st.tuples(st.floats(1, 5e7), st.floats(0, 2)), max_size=3, unique_by=lambda tier: tier[0]),
)
def test_graduated_prices_depend_on_the_months_total_alone(make_windows_of, tokens, free, volume):
    tiers = [{"above_tokens": above, "multiplier": times} for above, times in sorted(volume)]
    bill = invoice(make_windows_of(tokens), output_usd_per_million=1e3, volume=tiers, free_tokens_per_month=free).get(
        "output_tokens", 0.0
    )
    total = sum(tokens)
    edges = [(0.0, 1.0), *((tier["above_tokens"], tier["multiplier"]) for tier in tiers), (np.inf, 0.0)]
    expected = sum(
        max(min(total, upper) - max(lower, free), 0) * times for (lower, times), (upper, _) in pairwise(edges)
    )
    assert bill == pytest.approx(expected * 1e-3, rel=1e-6, abs=1e-6)


@pytest.fixture(scope="module")
def make_windows_of():
    def build(tokens):
        n = len(tokens)
        table = dict.fromkeys(
            ("gpu_hours", "gpu_hours_down", "requests_completed", "input_tokens", "cached_input_tokens",
             "reasoning_tokens",
             "time_input_s", "time_output_s", "time_idle_s", "facility_energy_j", "input_energy_j", "output_energy_j",
             "idle_energy_j"), np.zeros(n))  # fmt: skip
        table |= {"replication": 0, "service": "chat", "stage": "s", "gpu": "h200", "output_tokens": np.array(tokens)}
        return pd.DataFrame(table | {"start_s": np.arange(n) * 3600.0, "end_s": np.arange(1, n + 1) * 3600.0})

    return build


def test_long_prompts_at_a_list_price_cost_what_the_provider_asks(make_windows):
    share = {"above_tokens": 1, "share_of_input": 0.25, "share_of_output": 0.5}
    bill = invoice(make_windows(hours=1), list_price="gpt-5.4@openai", as_of="2026-11-01", long_context=share)
    assert bill == pytest.approx({"input_tokens": 0.75 * 2.5 + 0.25 * 5, "output_tokens": 0.5 * 15 + 0.5 * 22.5})


def test_capacity_of_no_service_sells_nothing(make_windows):
    plans = {"all": {"output_usd_per_million": 1.0, "minimum_usd_per_month": 100.0}}
    postings = post(make_windows(hours=2, service=""), Money.model_validate({"plans": plans}))
    assert total_nusd(postings, "revenue") == 0
    assert total_nusd(postings, "cost") > 0


def test_batch_jobs_are_sold_apart_at_their_own_price_and_leave_the_allowance_alone(make_windows):
    windows = make_windows(
        hours=1, input_tokens=6e6, output_tokens=3e6, batch_input_tokens=2e6, batch_output_tokens=1e6
    )
    prices = {"input_usd_per_million": 1.0, "output_usd_per_million": 4.0}
    bill = invoice(windows, **prices)
    assert bill == pytest.approx({"input_tokens": 4.0 + 0.5 * 2.0, "output_tokens": 8.0 + 0.5 * 4.0})
    bill = invoice(windows, **prices, batch_multiplier=0.25, free_tokens_per_month=1e9)
    assert bill == pytest.approx({"input_tokens": 0.5, "output_tokens": 1.0})
    listed = {"list_price": "gpt-4.1@openai", "as_of": "2026-01-01"}
    plain = invoice(windows.assign(batch_input_tokens=0.0, batch_output_tokens=0.0), **listed)
    half = invoice(windows, **listed)
    assert half["output_tokens"] == pytest.approx(plain["output_tokens"] * (2 + 0.5) / 3)
