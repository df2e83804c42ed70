"""Customers: billed one by one, posted together, to the same nano-dollar."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from factory_sim.inputs.money import Money
from factory_sim.inputs.plans import CustomerGroup
from factory_sim.ledger import customers
from factory_sim.ledger.postings import keep_books
from factory_sim.ledger.statements import total_nusd

PLAN = {
    "input_usd_per_million": 0.5,
    "output_usd_per_million": 2.0,
    "volume": [{"above_tokens": 2e6, "multiplier": 0.5}],
    "minimum_usd_per_month": 500.0,
    "sla": {"availability": [{"below": 0.999, "credit": 0.1}]},
}


def books(windows, groups, **plans):
    return keep_books(windows, Money.model_validate({"plans": {"chat": PLAN} | plans, "customers": groups}))


def group(**given):
    return {"name": "users", "service": "chat", "share": 1.0} | given


def test_one_customer_with_everything_is_the_service(make_windows):
    windows = make_windows(hours=20, gpu_hours_down=0.1)
    alone = books(windows, [group()])
    whole = keep_books(windows, Money.model_validate({"plans": {"chat": PLAN}}))
    assert total_nusd(alone.postings, "revenue") == total_nusd(whole.postings, "revenue")
    assert total_nusd(alone.postings, "cost") == total_nusd(whole.postings, "cost")


@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_invoices_and_postings_agree_to_the_nano_dollar_whatever_the_block(make_windows, monkeypatch, block):
    monkeypatch.setattr(customers, "_BLOCK", block)
    windows = make_windows(hours=20, replications=2, gpu_hours_down=0.1, output_tokens=np.linspace(1e5, 5e6, 40))
    kept = books(windows, [group(count=7, concentration=1.0)])
    assert kept.invoices.amount_nusd.sum() == total_nusd(kept.postings, "revenue")
    assert kept.invoices.groupby("replication").customer.nunique().tolist() == [7, 7]


def test_each_customer_has_volume_and_minimum_of_its_own(make_windows):
    windows = make_windows(hours=10, input_tokens=0.0, output_tokens=1e6)
    kept = books(windows, [group(name="big", share=0.9), group(name="small", share=0.1)])
    bill = kept.invoices.groupby(["group", "line"]).usd.sum()
    # 9 million tokens: 2 at full price, 7 at half; 1 million: full price and the minimum on top.
    assert bill["big", "output_tokens"] == pytest.approx(2 * 2.0 + 7 * 1.0)
    assert bill["small", "output_tokens"] == pytest.approx(2.0)
    least = 500.0 * 10 / 730.5
    assert ("big", "minimum") not in bill
    assert bill["small", "minimum"] + 2.0 == pytest.approx(least)


def test_groups_may_have_plans_of_their_own(make_windows):
    windows = make_windows(hours=10, input_tokens=0.0, output_tokens=1e6)
    kept = books(
        windows,
        [group(name="list", share=0.5, plan="list"), group(name="deal", share=0.5, plan="deal", count=3)],
        list={"output_usd_per_million": 4.0},
        deal={"output_usd_per_million": 1.0},
    )
    bill = kept.invoices.groupby("group").usd.sum()
    assert bill["list"] == pytest.approx(20.0)
    assert bill["deal"] == pytest.approx(5.0)
    rows = set(kept.postings.price_row.astype(str))
    assert {"plan/list/output_tokens", "plan/deal/output_tokens"} <= rows


def test_services_without_customers_are_billed_as_one(make_windows):
    windows = pd.concat([make_windows(hours=5), make_windows(hours=5, service="code")])
    kept = books(windows, [group(count=2)], code={"output_usd_per_million": 1.0})
    by_service = kept.postings[kept.postings.credit.str.startswith("revenue:")].groupby("service").amount_nusd.sum()
    assert by_service["code"] / 1e9 == pytest.approx(5.0)


def test_shares_fall_by_rank_and_add_up():
    part = customers.shares(CustomerGroup(name="g", service="s", count=100, share=0.5, concentration=1.2))
    assert part.sum() == pytest.approx(0.5)
    assert (np.diff(part) < 0).all()


def test_shares_and_plans_are_checked():
    with pytest.raises(ValidationError, match=r"add up to 0\.9"):
        Money.model_validate({"plans": {"chat": PLAN}, "customers": [group(share=0.9)]})
    with pytest.raises(ValidationError, match="did you mean 'chat'"):
        Money.model_validate({"plans": {"chat": PLAN}, "customers": [group(plan="chta")]})


def test_invoices_and_postings_scale_together(make_windows):
    group = {"name": "u", "service": "chat", "share": 1.0, "count": 3}
    money = {"plans": {"chat": {"output_usd_per_million": 1.0}}, "customers": [group]}
    for scale in ({"prices": 2}, {"sales": 1.5, "lines": {"output_tokens": 2.0}}):
        kept = keep_books(make_windows(), Money.model_validate(money | {"scale": scale}))
        assert kept.invoices.usd.sum() == pytest.approx(total_nusd(kept.postings, "revenue") / 1e9)
