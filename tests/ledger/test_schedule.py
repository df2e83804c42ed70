"""A stated schedule is paid instead of the run's fleet: exactly, by the hour, and the run's fleet stands beside."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money
from factory_sim.ledger.postings import post
from factory_sim.ledger.statements import totals
from factory_sim.results.figures import money_by_window

HOURLY = [100.0 + hour for hour in range(24)]


def money(**schedule):
    price = {"value": 2.0, "unit": "USD/GPU-h", "as_of": "2025-02-28", "source": "stated"}
    compute = {"kind": "rent", "prices": {"h200": price}}
    schedule = {"gpus_by_hour": HOURLY, "source": "made up"} | schedule
    return Money.model_validate({"costs": {"compute": compute, "schedule": schedule}, "band": "none"})


def simulated(postings):
    return money_by_window(postings).simulated_fleet_cost.sum()


def test_a_day_costs_the_sum_of_the_schedule_whatever_serves(make_windows):
    for gpu_hours in (1.0, 8.0, 5000.0):
        found = post(make_windows(hours=24, gpu_hours=gpu_hours), money(), start=datetime(2025, 2, 27, tzinfo=UTC))
        assert totals(found).cost.iloc[0] == pytest.approx(2 * sum(HOURLY), abs=1e-6)
        assert simulated(found) == pytest.approx(2 * 24 * gpu_hours, abs=1e-6)


def test_hours_are_those_of_the_scenarios_clock(make_windows):
    start = datetime(2025, 2, 27, 12, 30, tzinfo=timezone(timedelta(hours=8)))
    found = post(make_windows(hours=2), money(), start=start)
    by_window = found[found.debit.astype(str).str.startswith("cost:")].groupby("start_s").quantity.sum()
    assert list(by_window) == pytest.approx([112.5, 113.5])  # half an hour of 12:00 at 112, half of 13:00 at 113, ...


def test_long_windows_and_midnight_are_integrated(make_windows):
    start = datetime(2025, 2, 27, 23, tzinfo=UTC)
    found = post(make_windows(hours=3, interval_s=8 * 3600.0), money(), start=start)
    assert found[found.debit.astype(str).str.startswith("cost:")].quantity.sum() == pytest.approx(sum(HOURLY))


def test_services_bear_the_schedule_by_the_gpus_they_hold(make_windows):
    two = [make_windows(hours=4, service="a", gpu_hours=30.0), make_windows(hours=4, service="b", gpu_hours=10.0)]
    found = post(pd.concat(two, ignore_index=True), money(), start=datetime(2025, 2, 27, tzinfo=UTC))
    cost = money_by_window(found).groupby("service", observed=True).cost.sum()
    assert cost["a"] == pytest.approx(3 * cost["b"])
    assert cost.sum() == pytest.approx(2 * sum(HOURLY[:4]))


def test_each_replication_pays_the_whole_schedule(make_windows):
    found = post(make_windows(hours=24, replications=3), money(), start=datetime(2025, 2, 27, tzinfo=UTC))
    assert np.allclose(money_by_window(found).groupby("replication").cost.sum(), 2 * sum(HOURLY))


def test_a_schedule_equal_to_the_fleet_changes_no_cost(make_windows):
    windows, start = make_windows(hours=24), datetime(2025, 2, 27, tzinfo=UTC)
    found = post(windows, money(gpus_by_hour=[8.0] * 24), start=start)
    terms = money().model_copy(update={"costs": money().costs.model_copy(update={"schedule": None})})
    plain = post(windows, terms, start=start)
    assert totals(found).cost.iloc[0] == totals(plain).cost.iloc[0]
    assert "simulated_fleet_cost" not in money_by_window(plain)


def test_a_schedule_needs_24_hours_some_gpus_and_a_date(make_windows):
    with pytest.raises(ValidationError, match="24 items"):
        money(gpus_by_hour=[1.0] * 23)
    with pytest.raises(ValidationError, match="pays for nothing"):
        money(gpus_by_hour=[0.0] * 24)
    with pytest.raises(PriceError, match="schedule needs the date"):
        post(make_windows(), money())
