"""Laws of whole runs: doubled times, the elasticity identities, Erlang C in a pool that is scaled."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bed import SCENARIO, STAGE, resolved, scenario, system

from factory_sim.engine.journal import tables
from factory_sim.engine.load_test import load_test
from factory_sim.engine.simulate import simulate
from factory_sim.histogram import BINS_PER_OCTAVE, lower_edge
from factory_sim.inputs.overrides import parse_scenario
from factory_sim.model.queueing import mmc_wait_s
from factory_sim.model.serving import ServingSystem, StepCosts, Worker
from factory_sim.model.workload import length_model
from factory_sim.units import DAY_S


def doubled(times: float):
    """The toy factory with a failure, a scaled fleet, a backlog and a rollout, all its times multiplied."""
    raw = copy.deepcopy(SCENARIO) | {"duration_days": 2 * times}
    service = raw["services"]["chat"]
    service["slo"] = {"ttft_p95_s": 5 * times, "tpot_p95_s": 0.05 * times}
    service["traffic"]["demand"] = {
        "requests_per_s": 3000 / times,
        "patience_hours": 2 * times,
    }
    service["autoscaler"] = {
        "policy": "queue", "minimum": 4, "interval_minutes": 15 * times, "down_delay_minutes": 30 * times,
        "cold_start": {"weights_gb_per_s": 5 / times, "engine_start_s": 45 * times, "graph_capture_s": 60 * times},
    }  # fmt: skip
    change = {"kind": "restart", "duration_days": 0.25 * times, "downtime_minutes": 30 * times}
    service["stages"] = [STAGE, STAGE | {"name": "next", "from_day": 1.0 * times, "change": change}]
    raw["events"] = [
        {"kind": "breakdown", "service": "chat", "at_day": 0.4 * times, "gpus": 3, "hours": 5 * times},
        {"kind": "spike", "service": "chat", "at_day": 0.6 * times, "multiplier": 3, "hours": 4 * times,
         "ramp_hours": 0.5 * times},
    ]  # fmt: skip
    raw["simulation"]["interval_minutes"] = 60 * times
    sampling = raw["simulation"]["sampling"]
    raw["simulation"]["sampling"] = sampling | {
        "window_s": 20 * times, "warmup_s": 2 * times, "hours_per_window": 8 * times,
    }  # fmt: skip
    scene = parse_scenario(raw)
    slow = replace(system(1, times), name="toy")  # streams are named by it
    curve = load_test(
        slow, length_model({"fixed": {"isl": 64, "osl": 32}}), 0.05 * times, router="least_outstanding", seed=1,
        sequences=40,
    )  # fmt: skip
    (service,) = resolved(scene)
    stages = tuple(replace(stage, system=slow, curve=curve) for stage in service.stages)
    return tables([simulate(scene, (replace(service, stages=stages),), 0)])


def test_doubling_all_times_doubles_every_latency_exactly_in_a_whole_run():
    once, twice = doubled(1.0), doubled(2.0)
    latency, slow = once["latency"], twice["latency"]
    assert np.array_equal(latency["bin"] + BINS_PER_OCTAVE, slow["bin"])
    assert np.array_equal(latency["count"], 2 * slow["count"])  # counts are per second
    assert np.array_equal(2 * once["events"]["time_s"], twice["events"]["time_s"])
    assert list(once["events"]["kind"]) == list(twice["events"]["kind"])
    assert {"failure", "scaled_up", "stage_complete"} <= set(once["events"]["kind"])
    assert np.allclose(once["windows"]["requests_arrived"], twice["windows"]["requests_arrived"], rtol=1e-12)
    for column in ("requests_completed", "output_tokens", "requests_within_slo", "replicas"):
        assert np.array_equal(once["windows"][column], twice["windows"][column]), column
    assert np.array_equal(2 * once["windows"]["gpu_hours"], twice["windows"]["gpu_hours"])


def revenue(windows: pd.DataFrame) -> float:
    """Sales of a second at the prices of the moment, in units of the first day's price of an answer."""
    seconds = (windows.end_s - windows.start_s).sum()
    return float((windows.requests_completed * windows.price_multiplier).sum()) / seconds


def test_a_cost_cut_passed_through_raises_revenue_by_the_elasticity_where_capacity_does_not_bind():
    stages = [STAGE, STAGE | {"name": "cheap", "from_day": 1, "change": {"kind": "restart", "duration_days": 0.02}}]
    demand = {"requests_per_s": 30, "price_elasticity": -1.11}
    many = {"window_requests": 40_000, "window_s": 20_000, "hours_per_window": 1000, "sequences_kept": 40}
    scene = scenario(
        demand, {"stages": stages, "price_path": "follows_cost"}, duration_days=3,
        simulation={"replications": 1, "profile_error": False, "sampling": many},
    )  # fmt: skip
    (service,) = resolved(scene)
    cheap = replace(service.stages[1], rent_usd_per_gpu_hour=service.stages[0].rent_usd_per_gpu_hour / 20)
    windows = pd.DataFrame(simulate(scene, (replace(service, stages=(service.stages[0], cheap)),), 0).windows)
    before, after = windows[windows.end_s <= DAY_S], windows[windows.start_s >= 1.5 * DAY_S]
    assert after.price_multiplier.iloc[-1] == pytest.approx(1 / 20)
    assert revenue(after) / revenue(before) == pytest.approx(20**0.11, rel=0.02)  # sampling of requests
    asked = after.latent_requests.sum() / before.latent_requests.sum() * len(before) / len(after)
    assert asked / 20 == pytest.approx(20**0.11)
    assert pytest.approx(1.39, abs=0.005) == 20**0.11


def test_with_the_price_held_and_a_backlog_revenue_follows_capacity():
    windows = {}
    for gpus in (20, 40):
        scene = scenario({"requests_per_s": 9000}, {"stages": [STAGE | {"gpus": gpus}]})
        windows[gpus] = pd.DataFrame(simulate(scene, resolved(scene), 0).windows)
    assert revenue(windows[40]) == pytest.approx(2 * revenue(windows[20]), rel=1e-9)
    assert windows[40].requests_waiting.iloc[-1] > 0


SERVERS, STEP_S, MEAN_STEPS = 6, 0.01, 40


def line_of_servers() -> ServingSystem:
    """Its step does not depend on the batch, so that `SERVERS` sequences are as many servers."""
    base_s = np.r_[0.0, np.full(SERVERS, STEP_S)]
    worker = Worker("both", 1, 1, StepCosts(base_s, 0.0, 0.0, 0.0), 10**9, SERVERS, SERVERS)
    return replace(system(), workers=(worker,), name="servers")


def test_waits_in_a_scaled_pool_follow_erlang_c_at_every_size():
    schedule = [{"from_hour": 0, "until_hour": 12, "instances": 4}, {"from_hour": 12, "until_hour": 24, "instances": 8}]
    scaler = {"policy": "scheduled", "schedule": schedule, "minimum": 1, "interval_minutes": 60,
              "down_delay_minutes": 0}  # fmt: skip
    rate = 0.8 * 4 * SERVERS / (MEAN_STEPS * STEP_S)
    service = {
        "autoscaler": scaler, "router": "random", "admission": {"limit": "none"},
        "stages": [STAGE | {"gpus": 8}],
    }  # fmt: skip
    found = {4: [], 8: []}
    for seed in range(12):
        raw = copy.deepcopy(SCENARIO) | {"seed": seed, "duration_days": 1}
        raw["simulation"]["sampling"] |= {"window_requests": 60_000, "window_s": 9000, "warmup_s": 60}
        raw["services"]["chat"] |= copy.deepcopy(service)
        raw["services"]["chat"]["traffic"] = {
            "lengths": {"geometric": {"isl": 1, "mean_osl": MEAN_STEPS}},
            "demand": {"requests_per_s": rate, "patience_hours": 2},
        }
        scene = parse_scenario(raw)
        (resolved_service,) = resolved(scene)
        stage = replace(resolved_service.stages[0], system=line_of_servers())
        journal = simulate(scene, (replace(resolved_service, stages=(stage,)),), 0)
        played = tables([journal])
        for size, means in found.items():
            starts = played["windows"].query(f"replicas == {size}").start_s
            weights = played["weights"][played["weights"].start_s.isin(starts)]
            means.append(mean_sojourn_s(played["latency"], weights))
    for size, means in found.items():
        expected = mmc_wait_s(rate / size, MEAN_STEPS * STEP_S, SERVERS) + MEAN_STEPS * STEP_S
        error = np.std(means, ddof=1) / np.sqrt(len(means))
        assert abs(np.mean(means) - expected) < 4 * error + 3 * STEP_S, (size, np.mean(means), expected)
        assert 4 * error < 0.05 * expected, "too noisy to tell"


def mean_sojourn_s(latency: pd.DataFrame, weights: pd.DataFrame) -> float:
    """Mean time from arrival to the last token over some windows, from the middles of bins."""
    by_window = weights.groupby("window_played").instance_s.sum()
    rows = latency[(latency.metric == "e2e") & latency.window.isin(by_window.index)]
    bins = rows["bin"].to_numpy(np.int64)
    counts = rows["count"].to_numpy() * rows["window"].map(by_window).to_numpy()
    return float(np.average((lower_edge(bins) + lower_edge(bins + 1)) / 2, weights=counts))
