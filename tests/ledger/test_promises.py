"""Latency promises of plans: counts from the histograms of a run, and the credits they bring."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from factory_sim.errors import PriceError
from factory_sim.histogram import histogram
from factory_sim.inputs.money import Money
from factory_sim.inputs.plans import LatencyPromise
from factory_sim.ledger.postings import post
from factory_sim.ledger.promises import column_names, with_promises
from factory_sim.ledger.statements import total_nusd

TIERS = [{"below": 0.99, "credit": 0.1}, {"below": 0.9, "credit": 0.25}]


def terms(**promise):
    sla = {"latency": [{"credits": TIERS} | promise]}
    return Money.model_validate({"plans": {"chat": {"output_usd_per_million": 10.0, "sla": sla}}})


def tables(windows, values, metric="tpot"):
    """Tables in which each window of the calendar is a played one of its own, with these values once a second."""
    played = np.arange(len(windows))
    latency = pd.concat(
        [
            histogram(own).assign(replication=r, window=n, metric=metric)
            for n, own, r in zip(played, values, windows.replication)
        ]
    )
    weights = windows[["replication", "start_s", "service", "stage"]].assign(window_played=played, instance_s=3600.0)
    return {"latency": latency, "weights": weights}


def share(windows, promise):
    kept, whole = column_names(promise)
    return windows[kept] / windows[whole]


def test_requests_within_a_limit_are_those_of_the_values_to_one_bin(make_windows):
    windows = make_windows(hours=3, replications=2)
    values = [np.random.default_rng(n).lognormal(np.log(0.02), 0.3, 4000) for n in range(6)]
    for limit in (0.012, 0.02, 0.05):
        money = terms(within_s=limit)
        [promise] = money.plans["chat"].sla.latency
        found = share(with_promises(windows, tables(windows, values), money), promise)
        exact = [np.mean(own <= limit) for own in values]
        in_bin = [np.mean(np.abs(own / limit - 1) < 0.01) for own in values]
        assert np.all(np.abs(found - exact) <= np.array(in_bin) + 1e-12)


def test_no_latency_promise_reads_no_histogram(make_windows):
    windows = make_windows()
    assert with_promises(windows, {}, Money()) is windows


def test_a_missed_promise_gives_part_of_the_month_back(make_windows):
    windows = make_windows(hours=10, output_tokens=1e6)
    fast, slow = np.full(100, 0.015), np.full(100, 0.030)
    for slow_hours, credit in ((0, 0.0), (1, 0.1), (2, 0.25)):
        values = [slow] * slow_hours + [fast] * (10 - slow_hours)
        money = terms(tokens_per_s=50)  # 0.02 s a token; one hour in ten too slow is 90 %, below 99 but not below 90
        bill = post(with_promises(windows, tables(windows, values), money), money, start=date(2026, 11, 1))
        assert total_nusd(bill, "revenue") / 1e9 == pytest.approx(100 * (1 - credit))


def test_months_are_judged_on_their_own(make_windows):
    windows = make_windows(hours=48, output_tokens=1e6)
    values = [np.full(10, 0.03)] * 24 + [np.full(10, 0.01)] * 24
    money = terms(tokens_per_s=50)
    bill = post(with_promises(windows, tables(windows, values), money), money, start=date(2026, 10, 31))
    assert total_nusd(bill, "revenue") / 1e9 == pytest.approx(240 * 0.75 + 240)


def test_a_run_without_the_counts_is_an_error_not_a_free_pass(make_windows):
    with pytest.raises(PriceError, match=r"money\.plans\.chat\.sla: the run holds no counts"):
        post(make_windows(), terms(within_s=0.02))


@pytest.mark.parametrize(
    ("promise", "message"),
    [
        ({}, "give within_s or tokens_per_s"),
        ({"within_s": 1, "tokens_per_s": 1}, "one of the two"),
        ({"metric": "ttft", "tokens_per_s": 1}, "goes with metric tpot"),
        ({"within_s": 0}, "greater than 0"),
    ],
)
def test_a_promise_has_one_limit(promise, message):
    with pytest.raises(ValidationError, match=message):
        LatencyPromise.model_validate({"credits": TIERS} | promise)
