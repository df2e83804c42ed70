"""The variance split: each source alone, and shares that add up."""

import numpy as np
import pandas as pd
import pytest

from factory_sim.errors import RunError
from factory_sim.inputs.money import Money
from factory_sim.results.variance import variance_split


def windows(spread):
    n = 6
    zero = dict.fromkeys(
        ("gpu_hours_down", "requests_completed", "input_tokens", "cached_input_tokens", "reasoning_tokens",
         "time_input_s", "time_idle_s", "facility_energy_j", "input_energy_j", "output_energy_j", "idle_energy_j"),
        0.0,
    )  # fmt: skip
    return pd.DataFrame(
        zero
        | {
            "replication": np.arange(n), "start_s": 0.0, "end_s": 3600.0, "service": "chat", "stage": "s",
            "gpu": "h200", "gpu_hours": 8.0, "time_output_s": 1.0,
            "output_tokens": 1e6 * (1 + spread * np.linspace(-1, 1, n)),
        }
    )  # fmt: skip


def share(table):
    return table.set_index("source").share


def test_without_spread_between_replications_the_vintage_makes_the_band():
    split = share(variance_split(windows(0.0), Money()))
    assert split.to_dict() == pytest.approx({"price vintage": 1.0, "price ranges": 0.0, "replications": 0.0})


def test_with_stated_prices_the_replications_make_the_band():
    price = {"value": 2.0, "unit": "USD/GPU-h", "as_of": "2026-10-01", "source": "contract"}
    money = Money.model_validate({"costs": {"compute": {"prices": {"h200": [price]}}}})
    assert share(variance_split(windows(0.2), money))["replications"] == pytest.approx(1.0)
    ranged = price | {"low": 1.0, "high": 4.0}
    money = Money.model_validate({"costs": {"compute": {"prices": {"h200": [ranged]}}}})
    split = variance_split(windows(0.01), money).set_index("source")
    assert split.share["price ranges"] > 0.99
    assert split.share.sum() == pytest.approx(1)
    assert split.low["price ranges"] < 16.0 < split.high["price ranges"]


def test_the_split_repeats_and_knows_its_figures():
    pd.testing.assert_frame_equal(variance_split(windows(0.1), Money()), variance_split(windows(0.1), Money()))
    with pytest.raises(RunError, match="did you mean 'cost'"):
        variance_split(windows(0.1), Money(), "costs")
