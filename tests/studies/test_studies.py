"""Studies: capacity, fleet plans, comparisons and waterfalls say what the runs under them say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from factory_sim.engine.resolve import resolve
from factory_sim.errors import RunError, ScenarioError
from factory_sim.inputs.overrides import parse_scenario
from factory_sim.inputs.services import Slo, System
from factory_sim.results.run import run
from factory_sim.studies.capacity import capacity
from factory_sim.studies.compare import compare
from factory_sim.studies.plan import plan_fleet
from factory_sim.studies.waterfall import waterfall

LENGTHS = {"uniform": {"isl": 512, "osl": 256, "low_fraction": 0.5}}


def test_capacity_has_a_confidence_interval_and_scales_to_the_fleet(small_scenario):
    table = capacity(small_scenario, tests=3)
    assert list(table.stage) == ["old", "new"]
    assert (table.ci_low < table.requests_per_s).all()
    assert (table.ci_high > table.requests_per_s).all()
    assert table.fleet_requests_per_s.to_numpy() == pytest.approx((table.requests_per_s * table.instances).to_numpy())
    assert (table.band_low <= table.requests_per_s * (1 + 1e-9)).all()


def test_load_at_capacity_keeps_the_promise_and_well_above_it_does_not(small_dict):
    service = small_dict["services"]["chat"]
    service["stages"] = service["stages"][:1]
    small_dict["simulation"] |= {"profile_error": False}
    shares = {}
    for load in (0.85, 1.5):
        service["traffic"]["demand"] = {"load": load}
        service["admission"] = {"limit": "none"}
        figures = run(parse_scenario(small_dict)).figures
        whole = figures[(figures.window == "whole") & (figures.service == "all")].set_index("figure").value
        shares[load] = whole["slo_attainment"]
    assert shares[0.85] > 0.95
    assert shares[1.5] < 0.9


def test_a_fleet_plan_covers_the_peak_with_the_fewest_instances_and_earns_what_tokens_sell_for():
    forecast = pd.DataFrame({"month": ["2026-08", "2026-09"], "days": [31, 30], "requests_per_s": [20.0, 60.0]})
    systems = {"b200": System(gpu="b200", engine="trtllm", precision="fp4", parallelism="tp4")}
    plan = plan_fleet(
        forecast,
        systems,
        model="DeepSeek-R1",
        slo=Slo(ttft_p95_s=10, tpot_p95_s=0.05),
        lengths=LENGTHS,
        rhythm="flat",
        input_usd_per_million=0.5,
        output_usd_per_million=2.0,
    )
    small, large = plan.to_dict("records")
    each = small["requests_per_s"] / (small["utilisation"] * small["instances"])
    assert large["instances"] == int(np.ceil(60.0 / (0.9 * each)))
    assert large["gpus_low"] <= large["gpus"] <= large["gpus_high"]
    assert small["margin_usd"] == pytest.approx(small["revenue_usd"] - small["cost_usd"])
    assert large["cost_usd"] == pytest.approx(large["gpus"] * 30 * 24 * 3.70)
    assert large["rent_usd_per_gpu_hour"] == 3.70
    for figure in ("cost_usd", "revenue_usd", "margin_usd"):
        assert large[f"{figure}_low"] <= large[figure] <= large[f"{figure}_high"]
    assert large["cost_usd_high"] == pytest.approx(large["gpus_high"] * 30 * 24 * 3.70)
    with pytest.raises(ScenarioError, match="requests_per_s"):
        plan_fleet(
            forecast.drop(columns="requests_per_s"),
            systems,
            model="DeepSeek-R1",
            slo=Slo(ttft_p95_s=10, tpot_p95_s=0.05),
            input_usd_per_million=0.5,
            output_usd_per_million=2.0,
        )


def test_a_fleet_whose_slow_profile_keeps_no_promise_is_undefined_not_empty(monkeypatch):
    forecast = pd.DataFrame({"month": ["a"], "days": [30], "requests_per_s": [20.0], "requests_per_s_high": [30.0]})
    system = SimpleNamespace(gpus=8, gpu="b200", trust="measured", tpot_band=(0.8, 1.5))
    curve = SimpleNamespace(capacity_per_s=lambda ttft, tpot, factor: {0.8: 5.0, 1.0: 4.0, 1.5: 0.0}[factor])
    monkeypatch.setattr("factory_sim.studies.plan.planned_system", lambda *args, **facts: system)
    monkeypatch.setattr("factory_sim.studies.plan.load_test", lambda *args, **facts: curve)
    wanted = {"x": System(gpu="b200", engine="trtllm", precision="fp4", parallelism="tp8")}
    plan = plan_fleet(
        forecast, wanted, model="m", slo=Slo(ttft_p95_s=1, tpot_p95_s=1), lengths={"fixed": {"isl": 100, "osl": 100}},
        rhythm="flat", input_usd_per_million=1, output_usd_per_million=1,
    )  # fmt: skip
    row = plan.iloc[0]
    assert row.gpus == 8 * 6
    assert row.gpus_low == 8 * 5
    assert pd.isna(row.gpus_high)
    assert np.isnan(row.cost_usd_high)
    assert np.isnan(row.margin_usd_low)
    assert row.margin_usd_high >= row.margin_usd


def test_comparing_a_run_with_itself_finds_no_difference(small_run):
    table = compare([small_run, small_run], names=["a", "b"])
    assert table.paired.all()
    assert (table.ratio.dropna() == 1).all()
    with pytest.raises(RunError, match="at least two"):
        compare([small_run])


def test_common_random_numbers_a_dearer_price_moves_revenue_only(small_run, small_dict):
    small_dict["money"]["plans"]["chat"] = {"input_usd_per_million": 1.0, "output_usd_per_million": 4.0}
    dearer = run(parse_scenario(small_dict))
    table = compare([small_run, dearer], names=["a", "b"]).query(
        "window == 'whole' and service == 'all' and run == 'b'"
    )
    ratio = table.set_index("figure").ratio
    assert ratio["revenue"] == pytest.approx(2.0, rel=1e-9)
    for figure in ("cost", "output_tokens", "ttft_p95", "energy"):
        assert ratio[figure] == 1.0


def test_the_steps_of_a_waterfall_multiply_to_the_whole_way(small_run):
    steps = waterfall(small_run)
    assert list(steps.name) == ["old", "new"]
    assert steps.factor.iloc[1] == pytest.approx(
        float(
            next(r for r in small_run.summary["figures"] if r["figure"] == "cost_reduction_first_to_last_stage")[
                "value"
            ]
        )
    )


def test_resolving_twice_gives_the_same_demand_in_every_variant(small_dict):
    base = resolve(parse_scenario(small_dict))[0]
    small_dict["services"]["chat"]["stages"] = small_dict["services"]["chat"]["stages"][:1]
    assert resolve(parse_scenario(small_dict))[0].level_per_s == base.level_per_s
