"""The variance split: each source alone, and shares that add up."""

import numpy as np
import pandas as pd
import pytest

from factory_sim.errors import RunError
from factory_sim.inputs.money import Money
from factory_sim.results.variance import explain_band, linear_fit, replication_effects, variance_split
from tests.made_up_run import store


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


def made(tokens, errors, drifts=None):
    """Windows of one stage with these tokens a replication, and the table of draws behind them."""
    n = len(tokens)
    table = pd.concat([windows(0.0)] * 2, ignore_index=True)[:n].assign(replication=np.arange(n), output_tokens=tokens)
    drifts = np.zeros(n) if drifts is None else drifts
    rows = [("profile_error", "s", errors), ("profile_error_ttft", "s", np.zeros(n)), ("demand_forecast", "", drifts)]
    draws = pd.concat(
        [
            pd.DataFrame({"replication": np.arange(n), "source": source, "service": "chat", "stage": stage, "value": v})
            for source, stage, v in rows
        ]
    )
    return table, draws


STATED = Money.model_validate(
    {
        "costs": {
            "compute": {"prices": {"h200": {"value": 2.0, "unit": "USD/GPU-h", "as_of": "2026-10-01", "source": "c"}}}
        }
    }
)


def test_what_the_error_of_the_profile_does_is_told_from_sampling():
    rng = np.random.default_rng(5)
    errors, noise = rng.normal(0, 0.1, 8), rng.normal(0, 0.02, 8)
    table, draws = made(1e6 * np.exp(-1.5 * errors), errors)
    assert share(variance_split(table, STATED, draws=draws))["profile error"] == pytest.approx(1, abs=1e-9)
    table, draws = made(1e6 * np.exp(-1.5 * errors + noise), errors)
    split = variance_split(table, STATED, draws=draws).set_index("source")
    assert split.share["workload sampling"] == pytest.approx(0.02**2 / (0.15**2 + 0.02**2), abs=0.03)
    assert split.share.sum() == pytest.approx(1)
    assert split.share["demand forecast"] == 0


def test_the_forecast_of_demand_is_told_from_the_profile():
    rng = np.random.default_rng(6)
    errors, drifts = rng.normal(0, 0.1, 12), rng.normal(0, 0.3, 12)
    weeks = 0.5 * 3600 / 604800
    table, draws = made(1e6 * np.exp(-errors + weeks * drifts * 100), errors, drifts)
    split = share(variance_split(table, STATED, "output_tokens", draws=draws))
    expected = np.var(errors) / (np.var(errors) + np.var(100 * weeks * drifts))
    assert split["profile error"] == pytest.approx(expected, abs=0.1)
    assert split["workload sampling"] == pytest.approx(0, abs=0.02)


def test_chance_correlation_counts_as_sampling():
    shares = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values, errors = rng.normal(5, 1, 8), rng.normal(0, 0.1, (8, 1))
        effects = {
            name: variance
            for name, variance, *_ in replication_effects(values, linear_fit(values, {"profile error": errors}))
        }
        shares.append(effects["profile error"] / sum(effects.values()))
        assert sum(effects.values()) == pytest.approx(values.var(ddof=1))
    assert np.mean(shares) < 0.12


def test_too_few_replications_are_not_told_apart():
    errors = np.array([0.1, -0.1, 0.05])
    table, draws = made(1e6 * np.exp(errors), errors)
    assert variance_split(table, STATED, draws=draws).source.tolist() == [
        "price vintage",
        "price ranges",
        "replications",
    ]


def test_a_stored_run_splits_money_ratios_and_latencies(small_run, tmp_path):
    from factory_sim.results.store import read_run, write_run

    write_run(
        tmp_path / "run", scenario_yaml=small_run.scenario_yaml, provenance=small_run.provenance,
        tables=small_run.tables, summary=small_run.summary,
    )  # fmt: skip
    run = read_run(tmp_path / "run")
    drawn = run.tables["draws"]
    assert set(drawn.source) == {"profile_error", "profile_error_ttft", "demand_forecast"}
    assert set(drawn.stage) == {"", "old", "new"}
    for figure in ("revenue", "cost_reduction_first_to_last_stage", "ttft_p95"):
        split = explain_band(run, figure)
        assert split[-1]["source"] == "replications"
        assert sum(row["share"] for row in split) == pytest.approx(1)
    with pytest.raises(RunError, match="did you mean 'ttft_p99'"):
        explain_band(run, "ttft_p96")


def test_a_run_without_draws_still_splits_off_its_prices(tmp_path):
    split = explain_band(store(tmp_path / "run"), "gross_margin")
    assert [row["source"] for row in split] == ["price vintage", "price ranges", "replications"]


def test_an_undefined_figure_has_no_variance():
    with pytest.raises(RunError, match="undefined in some replication"):
        variance_split(windows(0.1).assign(output_tokens=0.0), Money(), "cost_per_million_output_tokens")
