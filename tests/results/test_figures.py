"""Figures can be recomputed from the tables, windows add up, and every run keeps the laws."""

import numpy as np
import pandas as pd
import pytest

from factory_sim.engine.journal import METRICS
from factory_sim.histogram import quantile
from factory_sim.results.figures import band, is_step, percentiles, ratio_figures


def value(run, figure: str, window: str = "whole") -> float:
    figures = run.figures
    return float(
        figures[(figures.figure == figure) & (figures.window == window) & (figures.service == "all")].value.iloc[0]
    )


def per_replication(run, figure: str, window: str) -> pd.Series:
    table = run.tables["replications"]
    return (
        table[(table.figure == figure) & (table.window == window) & (table.service == "all")]
        .set_index("replication")
        .value
    )


def test_every_law_holds(small_run):
    assert [check["check"] for check in small_run.summary["checks"] if not check["ok"]] == []


@pytest.mark.parametrize("figure", ["output_tokens", "requests_arrived", "cost", "revenue", "gpu_hours", "energy"])
def test_stages_and_weeks_add_up_to_the_whole(small_run, figure):
    stages = per_replication(small_run, figure, "stage_old") + per_replication(small_run, figure, "stage_new")
    assert stages.to_numpy() == pytest.approx(per_replication(small_run, figure, "whole").to_numpy(), rel=1e-9)
    week = per_replication(small_run, figure, "week_1").to_numpy()
    assert week == pytest.approx(per_replication(small_run, figure, "whole").to_numpy(), rel=1e-9)


def test_cost_per_million_is_rent_over_tokens(small_run):
    windows = small_run.tables["windows"]
    rent = windows.gpu.map({"h200": 2.90, "b200": 3.70})
    by_hand = [
        (rows.gpu_hours * rent[rows.index]).sum() / rows.output_tokens.sum() * 1e6
        for _, rows in windows.groupby("replication")
    ]
    assert value(small_run, "cost_per_million_output_tokens") == pytest.approx(np.median(by_hand), rel=1e-9)


def test_revenue_is_tokens_times_list_price(small_run):
    windows = small_run.tables["windows"]
    sums = windows.groupby("replication")[["input_tokens", "output_tokens"]].sum()
    by_hand = sums.input_tokens * 0.5e-6 + sums.output_tokens * 2.0e-6
    assert value(small_run, "revenue") == pytest.approx(by_hand.median(), rel=1e-6)


def test_nothing_is_cached_where_nothing_caches(small_run):
    assert (small_run.tables["windows"].cached_input_tokens == 0).all()
    assert value(small_run, "prefix_cache_hit_rate") == 0


def test_gpu_hours_are_the_site_for_the_whole_time(small_run):
    assert value(small_run, "gpu_hours") == pytest.approx(48 * 48)


def test_percentiles_of_a_mixture_are_those_of_the_weighted_histogram(small_run):
    latency, weights = small_run.tables["latency"], small_run.tables["weights"]
    marked = weights.assign(window="all", service="all")
    found = percentiles(latency, marked)
    own = weights[weights.replication == 0].groupby("window_played").instance_s.sum()
    ttft = latency[(latency.replication == 0) & (latency.metric == METRICS[0])]
    counts = (ttft["count"] * ttft.window.map(own)).groupby(ttft.bin).sum()
    frame = pd.DataFrame({"bin": counts.index, "count": counts.to_numpy()})
    assert found.loc[("all", "all", 0), "ttft_p95"] == pytest.approx(quantile(frame, 0.95))


def test_latency_percentiles_rise(small_run):
    for metric in METRICS[:3]:  # the fourth is of services that reason
        values = [value(small_run, f"{metric}_{p}") for p in ("p50", "p95", "p99")]
        assert values == sorted(values)


def test_value_lies_within_its_band(small_run):
    figures = small_run.figures.dropna(subset=["value", "low", "high"])
    assert ((figures.low <= figures.value) & (figures.value <= figures.high)).all()


def test_a_run_over_itself_is_one(small_run):
    table = small_run.tables["replications"]
    ratios = ratio_figures(table, table, paired=True).dropna()
    assert (ratios.ratio == 1).all()
    assert (ratios.ratio_low == 1).all()


def test_demand_is_served_lost_or_still_waiting(small_run):
    windows = small_run.tables["windows"]
    last = windows.start_s == windows.groupby("replication").start_s.transform("max")
    for replication, rows in windows.groupby("replication"):
        waiting = rows[last[rows.index]].requests_waiting.sum()
        assert rows.latent_requests.sum() == pytest.approx(
            rows.granted_requests.sum() + rows.requests_lost_waiting.sum() + waiting, rel=1e-9
        ), replication


def test_the_band_of_no_rows_has_no_rows():
    empty = pd.DataFrame({"window": [], "figure": [], "value": []}).astype({"value": float})
    assert band(empty, ["window"]).columns.tolist() == ["window", "figure", "value", "low", "high"]
    assert band(empty, ["window"]).empty


def test_spot_capacity_beside_a_stage_is_no_step_of_the_service():
    assert is_step("stage_b200")
    assert not is_step("stage_b200-spot")
    assert not is_step("week_1")
