"""Costs of the whole factory where services and jobs cut their windows at different times."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_sim.inputs.money import Money
from factory_sim.ledger.postings import post
from factory_sim.ledger.segments import segments


def quote(value, unit):
    return {"value": value, "unit": unit, "as_of": "2026-10-01", "source": "test"}


def two_rhythms(make_windows):
    """A service in hours and a job in one window of two hours and two of one, on four hours."""
    service = make_windows(hours=4, gpu_hours=[8.0, 8.0, 4.0, 4.0], facility_energy_j=3.6e6)
    job = make_windows(hours=3, service="tune", stage="tune", facility_energy_j=[2 * 3.6e6, 5 * 3.6e6, 3.6e6])
    job = job.assign(start_s=[0.0, 7200.0, 10800.0], end_s=[7200.0, 10800.0, 14400.0], gpu_hours=[0.0, 4.0, 4.0])
    return pd.concat([service, job], ignore_index=True)


def test_a_monthly_cost_is_owed_once_whatever_the_windows(make_windows):
    money = Money.model_validate({"costs": {"fixed": [{"name": "team", "price": quote(31 * 24, "USD/month")}]}})
    bill = post(two_rhythms(make_windows), money, start=date(2026, 10, 5))
    team = bill[bill.line == "fixed"].groupby(["service", "start_s"], observed=True).amount_nusd.sum() / 1e9
    assert team.sum() == pytest.approx(4.0)
    # In the last two hours the job holds half of the GPUs and bears half of the cost.
    assert team.loc["tune"].to_dict() == pytest.approx({7200.0: 0.5, 10800.0: 0.5})


def test_the_peak_is_that_of_all_windows_of_a_moment(make_windows):
    money = Money.model_validate(
        {
            "costs": {
                "energy": {
                    "billed": True,
                    "price": quote(0, "USD/kWh"),
                    "demand_charge": quote(31 * 24 / 4, "USD/kW-month"),
                }
            }
        }
    )
    bill = post(two_rhythms(make_windows), money, start=date(2026, 10, 5))
    charge = bill[bill.line == "demand_charge"]
    # kW by hour: 1 + 1, 1 + 1, 1 + 5, 1 + 1; the peak of six is owed for four hours of the month.
    assert charge.amount_nusd.sum() / 1e9 == pytest.approx(6.0)
    assert charge.start_s.tolist() == [7200.0, 7200.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9), st.floats(0, 100)), min_size=1, max_size=12))
def test_segments_sum_what_a_grid_sums(spans):
    start = np.array([first for first, _, _ in spans], dtype=float)
    end = start + np.array([length for _, length, _ in spans])
    rates = np.array([rate for _, _, rate in spans])
    cut = segments(start, end)
    total = cut.total(rates)
    for begin, length, sum_of in zip(cut.edges_s, cut.seconds, total):
        middle = begin + length / 2
        assert sum_of == pytest.approx(rates[(start <= middle) & (middle < end)].sum(), abs=1e-6)
    assert cut.over(cut.seconds) == pytest.approx(end - start)
