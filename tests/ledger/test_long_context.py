"""Long prompts: their part of the tokens from the requests that were played, and what they are charged."""

import pandas as pd
import pytest

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money
from factory_sim.ledger.long_context import column_name, measured_thresholds, with_long_shares
from factory_sim.ledger.plan_facts import fact_columns
from factory_sim.ledger.postings import post
from factory_sim.ledger.statements import total_nusd

LONG = {"above_tokens": 1000, "input_multiplier": 2.0, "output_multiplier": 3.0}


def terms(**long):
    plan = {"input_usd_per_million": 1.0, "output_usd_per_million": 10.0, "long_context": LONG | long}
    return Money.model_validate({"plans": {"chat": plan}})


def tables():
    """Two windows of chat with prompts of 500 and 1,500 tokens, one of another service with long ones only."""
    weights = {"replication": 0, "window_played": [1, 2, 3], "service": ["chat", "chat", "code"], "instance_s": 1.0}
    requests = {
        "replication": 0, "window": [1, 1, 2, 3], "isl": [500, 1500, 500, 9000], "osl": [100, 300, 100, 50],
    }  # fmt: skip
    return {"weights": pd.DataFrame(weights), "requests": pd.DataFrame(requests)}


def test_the_part_of_long_prompts_is_that_of_the_requests_played(make_windows):
    windows = with_long_shares(make_windows(hours=2), tables(), terms())
    assert windows[column_name(1000, "input")].tolist() == pytest.approx([0.6, 0.6])
    assert windows[column_name(1000, "output")].tolist() == pytest.approx([0.6, 0.6])


def test_long_prompts_are_charged_by_their_measured_part(make_windows):
    windows = with_long_shares(make_windows(hours=1), tables(), terms())
    bill = total_nusd(post(windows, terms()), "revenue") / 1e9
    assert bill == pytest.approx(1.0 * (0.4 + 0.6 * 2) + 10.0 * (0.4 + 0.6 * 3))
    stated = terms(share_of_input=0.6, share_of_output=0.6)
    assert total_nusd(post(make_windows(hours=1), stated), "revenue") / 1e9 == pytest.approx(bill)


def test_stated_parts_need_no_requests(make_windows):
    windows = make_windows()
    assert with_long_shares(windows, {}, terms(share_of_input=0.5, share_of_output=0.5)) is windows
    assert measured_thresholds(Money()) == []


def test_a_list_price_brings_its_own_threshold(make_windows):
    money = Money.model_validate({"plans": {"chat": {"list_price": "gpt-5.4@openai", "as_of": "2026-11-01"}}})
    assert measured_thresholds(money) == [272000]
    assert fact_columns(money) == ["long_above_272000_input", "long_above_272000_output"]
    windows = with_long_shares(make_windows(hours=1), tables(), money)
    assert total_nusd(post(windows, money), "revenue") / 1e9 == pytest.approx(2.5 + 15)


def test_a_run_without_lengths_is_an_error_not_a_low_bill(make_windows):
    with pytest.raises(PriceError, match="tells no lengths of prompts; state share_of_input"):
        post(make_windows(), terms())
