"""Statements: the same money seen by line, by period, per token."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from factory_sim.errors import FactorySimError
from factory_sim.inputs.money import Money
from factory_sim.ledger.accounts import exact_sum_nusd
from factory_sim.ledger.entries import Calendar
from factory_sim.ledger.postings import _moment, post
from factory_sim.ledger.statements import profit_and_loss, totals, unit_costs, with_period

MONEY = Money.model_validate({"plans": {"chat": {"input_usd_per_million": 0.5, "output_usd_per_million": 2.0}}})


def test_what_a_token_costs_by_hand(make_windows):
    windows = make_windows(hours=10)
    figures = unit_costs(windows, post(windows, MONEY)).iloc[0]
    # 10 h x 8 GPUs x 2.90; a quarter of the time for input, half for output, a quarter idle.
    assert figures.cost == pytest.approx(232.0)
    assert figures.attributed_input == pytest.approx(58.0)
    assert figures.attributed_output == pytest.approx(116.0)
    assert figures.unattributed_idle == pytest.approx(58.0)
    assert figures.cost_per_million_output_tokens == pytest.approx(23.2)
    assert figures.cost_per_million_input_tokens == pytest.approx(23.2)
    assert figures.cost_per_million_tokens == pytest.approx(11.6)
    assert figures.attributed_cost_per_million_output_tokens == pytest.approx(11.6)
    assert figures.attributed_cost_per_million_input_tokens == pytest.approx(5.8)
    assert figures.fully_loaded_cost_per_million_output_tokens == pytest.approx(11.6 * 4 / 3)
    assert figures.revenue == pytest.approx(10 * 2.5)
    assert figures.margin == pytest.approx(25 - 232)
    assert figures.energy_kwh == pytest.approx(120)
    assert figures.energy_memo == pytest.approx(120 * 0.079)


def test_fully_loaded_costs_times_tokens_are_the_whole_bill(make_windows):
    windows = make_windows(hours=7, gpu_hours_down=1.0, output_tokens=np.arange(1, 8) * 1e5)
    figures = unit_costs(windows, post(windows, MONEY)).iloc[0]
    whole = figures.fully_loaded_cost_per_million_input_tokens * figures.input_tokens
    whole += figures.fully_loaded_cost_per_million_output_tokens * figures.output_tokens
    assert whole / 1e6 == pytest.approx(figures.cost)


def test_a_figure_that_is_undefined_is_nan(make_windows):
    windows = make_windows(output_tokens=0.0, input_tokens=0.0, time_input_s=0.0, time_output_s=0.0)
    figures = unit_costs(windows, post(windows, MONEY)).iloc[0]
    assert np.isnan(figures.cost_per_million_output_tokens)
    assert np.isnan(figures.margin_fraction)
    assert figures.cost > 0


def test_groups_add_up(make_windows):
    windows = pd.concat(
        [
            make_windows(hours=30, replications=2, stage="a"),
            make_windows(hours=30, replications=2, stage="b", gpu="b200"),
        ]
    )
    postings = post(windows, MONEY)
    whole = totals(postings).iloc[0]
    for by in (["stage"], ["replication"], ["week", "stage"], ["service"]):
        parts = totals(postings, by)
        assert parts.cost.sum() == pytest.approx(whole.cost, rel=1e-12)
        assert parts.revenue.sum() == pytest.approx(whole.revenue, rel=1e-12)
    lines = profit_and_loss(postings)
    assert lines[lines.kind == "cost"].usd.sum() == pytest.approx(whole.cost, rel=1e-12)
    assert set(lines.title) >= {"Rent of GPUs", "Output tokens"}


@pytest.mark.parametrize(("period", "count"), [("hour", 96), ("day", 4), ("week", 1), ("month", 2)])
def test_statements_by_period(make_windows, period, count):
    postings = post(make_windows(hours=96), MONEY, start=date(2026, 10, 30))
    calendar = Calendar(_moment(date(2026, 10, 30)))
    table = totals(with_period(postings, period, calendar), ["period"])
    assert len(table) == count
    assert table.cost.sum() == pytest.approx(96 * 8 * 2.9)
    if period == "month":
        assert [calendar.month_name(month) for month in table.index] == ["2026-10", "2026-11"]
        assert table.cost.tolist() == pytest.approx([48 * 8 * 2.9] * 2)


def test_an_unknown_period_is_refused(make_windows):
    with pytest.raises(FactorySimError, match="hour, day, week, month"):
        with_period(make_windows(), "year", Calendar(None))


def test_sums_are_exact_beyond_what_an_int64_holds():
    amounts = np.full(5000, 9_000_000_000_000_000_001, dtype=np.int64)
    assert exact_sum_nusd(amounts) == 5000 * 9_000_000_000_000_000_001


def test_months_have_their_length():
    calendar = Calendar(_moment(date(2026, 1, 31)))
    start_s = np.array([0.0, 86400.0, 86400.0 * 29])
    assert [calendar.month_name(month) for month in calendar.month(start_s)] == ["2026-01", "2026-02", "2026-03"]
    assert (calendar.month_s(start_s) / 86400).tolist() == [31, 28, 31]
