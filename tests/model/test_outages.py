"""Kinds of failure from the packaged tables: rates that count what they say, units and what they take down."""

import pytest

from factory_sim.errors import ScenarioError
from factory_sim.inputs.operations import Outages
from factory_sim.inputs.reliability import failure_row, operation
from factory_sim.model.outages import failure_kinds, instances_hit, interruptions_per_s, unit_gpus
from factory_sim.units import DAY_S, HOUR_S, YEAR_S


def test_sixteen_thousand_gpus_are_interrupted_as_often_as_published():
    kinds = failure_kinds(Outages(classes=("gpu_interruption",)))
    rate = interruptions_per_s(kinds, "h100", 16_384)
    assert 54 * DAY_S * rate == pytest.approx(419, rel=0.01)  # facility.csv: 419 unplanned in 54 days
    assert 1 / rate / HOUR_S == pytest.approx(3.1, rel=0.02)


def test_rates_of_zero_are_no_kind_at_all():
    assert failure_kinds(Outages(rate_multiplier=0)) == ()
    assert failure_kinds(None) == ()


def test_guesses_say_so_and_have_a_range():
    for name in ("node_host", "switch", "rack", "site"):
        row = failure_row(name)
        assert row.source == "guess"
        assert row.rate_range[0] < row.per_unit_year < row.rate_range[1]
    assert operation("engine_start", 7.0) == 7.0


def test_units_take_down_every_instance_that_has_one_of_their_gpus():
    rack = failure_kinds(Outages(classes=("rack",)))[0]
    assert unit_gpus(rack, "gb200") == 72
    assert instances_hit(72, 12) == 6
    assert instances_hit(1, 8) == 1
    assert rack.per_unit_s * YEAR_S == pytest.approx(0.2)


def test_an_unknown_class_is_named():
    with pytest.raises(ScenarioError, match="did you mean 'gpu_permanent'"):
        failure_kinds(Outages(classes=("gpu_permanant",)))
