"""Daily and weekly shapes keep every measured hour, are smooth and never negative."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_sim.errors import TraceError
from factory_sim.inputs import workloads
from factory_sim.model.workload.rhythm import rate_shape, rate_shape_names, shape_from


@pytest.mark.parametrize("name", rate_shape_names())
def test_named_shapes_have_mean_one_and_keep_every_hour(name):
    shape = rate_shape(name)
    hours = np.arange(168.0)
    assert shape.mean_over(0.0, 168.0) == pytest.approx(1.0, rel=1e-12)
    assert shape.mean_over(hours, hours + 1) == pytest.approx(shape.hourly, rel=1e-9)
    fine = shape(np.linspace(0, 168, 168 * 120 + 1))
    assert np.all(fine >= 0)
    assert np.max(np.abs(np.diff(fine))) < 0.05
    assert shape(0.0) == pytest.approx(shape(168.0))


def test_deepseek_hours_are_the_published_profile_every_day():
    published = workloads.statistics("servegen_deepseek-r1", "hour_of_trace_day_profile")
    profile = np.array([published[f"h{h:02d}"].number for h in range(24)])
    shape = rate_shape("servegen_deepseek-r1")
    for day in range(7):
        means = shape.mean_over(24 * day + np.arange(24.0), 24 * day + np.arange(1.0, 25.0))
        assert means == pytest.approx(profile / profile.mean(), rel=1e-9)


def test_weekly_profile_is_the_published_one():
    published = workloads.statistics("servegen_m-large", "day_profile")
    days = np.array([published[f"day{d}"].number for d in range(7)])
    shape = rate_shape("servegen_m-large")
    means = shape.mean_over(24.0 * np.arange(7), 24.0 * np.arange(1, 8))
    assert means == pytest.approx(days / days.mean(), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    hours=st.lists(st.floats(0, 10), min_size=24, max_size=24).filter(lambda h: sum(h) > 1),
    start=st.floats(0, 400),
    length=st.floats(0.01, 300),
)
def test_mean_over_is_the_integral_of_the_rate(hours, start, length):
    shape = shape_from("described", "test", hours)
    grid = start + (np.arange(4000) + 0.5) / 4000 * length
    assert shape.mean_over(start, start + length) == pytest.approx(np.mean(shape(grid)), abs=0.01, rel=0.01)


def test_shift_moves_the_shape_later():
    plain, moved = rate_shape("servegen_m-mid"), rate_shape({"named": "servegen_m-mid", "shift_h": 8})
    hours = np.linspace(0, 168, 500)
    assert moved(hours + 8) == pytest.approx(plain(hours), abs=1e-9)
    assert moved.mean_over(8.0, 20.0) == pytest.approx(plain.mean_over(0.0, 12.0))


def test_hours_of_one_workload_with_days_of_another():
    shape = rate_shape({"named": "servegen_deepseek-r1", "days": "servegen_m-large"})
    day_means = shape.mean_over(24.0 * np.arange(7), 24.0 * np.arange(1, 8))
    assert day_means == pytest.approx(
        rate_shape("servegen_m-large").mean_over(24.0 * np.arange(7), 24.0 * np.arange(1, 8))
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("servegen_deepseek", "did you mean"),
        ({"hours": [1] * 23}, "24"),
        ({"hours": [1] * 23 + [-1]}, "not negative"),
        ({"hours": [0] * 24}, "not all zero"),
        ({"hour": [1] * 24}, "hours"),
        ({"hours": [1] * 24, "day": [1] * 7}, "did you mean 'days'"),
        ({"named": "servegen_m-mid", "days": "servegen_deepseek-r1"}, "no weekly profile"),
    ],
)
def test_wrong_shapes_say_what_would_be_right(spec, message):
    with pytest.raises(TraceError, match=message):
        rate_shape(spec)
