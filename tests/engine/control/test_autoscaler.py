"""Scaling: policies by name, cold starts, scale to zero, spot capacity, users' own code with its limits."""

import typing

import numpy as np
import pytest
from bed import another, play, scenario

from factory_sim.engine.control.autoscaler import AUTOSCALERS
from factory_sim.engine.control.view import View
from factory_sim.errors import ScenarioError, SimulationStopped
from factory_sim.model import queueing
from factory_sim.units import DAY_S, HOUR_S

DAILY = {"hours": [0.2] * 8 + [1.4] * 16}


def scaled(policy, **more):
    return {"autoscaler": {"policy": policy, "minimum": 2, "down_delay_minutes": 15, **more}}


def played(policy, demand=None, days=2, **more):
    demand = {"requests_per_s": 300, "rhythm": DAILY} | (demand or {})
    return play(scenario(demand, scaled(policy, **more), duration_days=days))


def mean_replicas(windows):
    return (windows.replicas * (windows.end_s - windows.start_s)).sum() / windows.end_s.max()


@pytest.mark.parametrize("policy", ["target_load", "queue", "promise", "predictive"])
def test_every_policy_follows_the_day_and_still_serves(policy):
    fixed, _ = played("fixed")
    windows, events = played(policy)
    assert {"scaled_up", "scaled_down"} <= set(events.kind)
    assert mean_replicas(windows) < 0.95 * mean_replicas(fixed)
    assert windows.requests_completed.sum() > 0.9 * fixed.requests_completed.sum()
    assert np.allclose(windows.groupby("start_s").gpus.sum(), 20)  # idle GPUs are still paid for


def test_released_gpus_are_not_paid_for():
    idle, _ = played("target_load")
    released, _ = played("target_load", unneeded="release")
    assert released.gpu_hours.sum() < 0.9 * idle.gpu_hours.sum()
    assert released.output_tokens.sum() == pytest.approx(idle.output_tokens.sum())


def test_fixed_is_no_autoscaler():
    plain, _ = play(scenario({"load": 0.5}))
    fixed, _ = play(scenario({"load": 0.5}, scaled("fixed")))
    assert plain.equals(fixed)


def test_schedule_holds_over_midnight():
    lines = [{"from_hour": 22, "until_hour": 6, "instances": 5}]
    windows, _ = played("scheduled", schedule=lines, down_delay_minutes=0)
    hours = windows.groupby(windows.start_s // HOUR_S).replicas.last()
    assert list(hours[[2, 5]]) == [5, 5]
    assert list(hours[[7, 12, 21]]) == [20, 20, 20]
    assert hours[23] == 5


def test_a_cold_start_takes_its_time():
    cold = {"weights_gb_per_s": 1e9, "engine_start_s": 1800, "graph_capture_s": 0}
    lines = [{"from_hour": 0, "until_hour": 6, "instances": 5}]
    windows, events = played("scheduled", schedule=lines, down_delay_minutes=0, cold_start=cold)
    asked = events[events.kind == "scaled_up"].time_s.iloc[0]
    up = windows[(windows.replicas == 20) & (windows.start_s > asked)].start_s.iloc[0]
    assert up - asked == pytest.approx(1800, abs=1)


def test_scale_to_zero_and_back():
    demand = {"requests_per_s": 50, "rhythm": {"hours": [0] * 12 + [1] * 12}, "patience_hours": 2}
    windows, _ = played("target_load", demand, minimum=0, unneeded="release")
    assert (windows.groupby("start_s").gpus.sum() == 0).any()
    assert windows.granted_requests.sum() > 0.95 * windows.latent_requests.sum()
    gap = windows.latent_requests.sum() - windows.granted_requests.sum() - windows.requests_lost_waiting.sum()
    assert gap == pytest.approx(windows.requests_waiting.iloc[-1], abs=1e-6 * windows.latent_requests.sum())


def test_spot_capacity_is_available_as_its_evictions_and_returns_say():
    spot = {"gpus": 20, "evictions_per_instance_day": 4, "away_hours": 2, "notice_s": 0}
    cold = {"policy": "fixed", "cold_start": {"weights_gb_per_s": 1e9, "engine_start_s": 0, "graph_capture_s": 0}}
    windows, events = play(scenario({"load": 0.5}, {"spot": spot, "autoscaler": cold}, duration_days=20))
    own = windows[windows.stage == "toy-spot"]
    up = (own.replicas * (own.end_s - own.start_s)).sum() / windows.end_s.max() / 20
    expected = queueing.availability(DAY_S / 4, 2 * HOUR_S)
    cycles = 20 * 20 * DAY_S / (DAY_S / 4 + 2 * HOUR_S)
    assert abs(up - expected) < 4 * expected * (1 - expected) * np.sqrt(2 / cycles)
    assert own.requests_lost.sum() > 0
    assert set(own.site) == {"cloud"}
    assert "spot_evicted" in set(events.kind)


def test_a_view_holds_no_future_and_no_answer_lengths():
    names = set(typing.get_type_hints(View))
    assert not {name for name in names if any(word in name for word in ("osl", "future", "length", "decode_steps"))}
    seen = []

    def policy(view, rule):
        seen.append((view.time_s, view.history[-1][0] if view.history else 0.0))
        return view.maximum

    play(scenario({"load": 0.5}, scaled("mine"), duration_days=1), policies={"mine": policy})
    assert seen
    assert all(last <= now for now, last in seen)


def test_policies_of_the_caller_replace_built_in_ones_byte_for_byte():
    own, _ = play(
        scenario({"requests_per_s": 300, "rhythm": DAILY}, scaled("mine")),
        policies={"mine": AUTOSCALERS["target_load"]},
    )
    built_in, _ = played("target_load")
    assert own.equals(built_in)


def write(path, body):
    file = path / "policy.py"
    file.write_text(f"import time\n\ndef decide(view, rule):\n    {body}\n")
    return f"{file}:decide"


def test_code_of_a_scenario_runs_only_when_allowed(tmp_path):
    spec = write(tmp_path, "return 3 if view.hour_of_week % 24 < 8 else view.maximum")
    scene = scenario({"requests_per_s": 50}, scaled(spec), duration_days=1)
    with pytest.raises(ScenarioError, match="run with --allow-code"):
        play(scene)
    windows, _ = play(scene, allow_code=True)
    assert windows.replicas.min() == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('broken')", r"services.chat.autoscaler.policy: raised RuntimeError: broken on day 0.010"),
        ("time.sleep(60)", r"gave no answer within 1 s on day 0.010; its process was ended"),
        ("return 'many'", r"answered \"'many'\" on day 0.010; a number of instances is needed"),
        ("return float('nan')", r"answered nan on day 0.010"),
        ("import os; os._exit(1)", r"its process ended on day 0.010"),
    ],
)
def test_a_policy_that_fails_ends_the_run_with_the_finished_part(tmp_path, body, message):
    scene = scenario({"requests_per_s": 50}, scaled(write(tmp_path, body), deadline_s=1.0), duration_days=1)
    with pytest.raises(SimulationStopped, match=message) as stopped:
        play(scene, allow_code=True)
    assert stopped.value.journal.incomplete.startswith("stopped on day 0.010")


def test_a_minimum_above_the_fleet_is_an_error():
    service = scaled("target_load", minimum=6)
    with pytest.raises(ScenarioError, match="6 instances exceed the 5 of stage toy"):
        play(scenario({"requests_per_s": 50}, service), sizes={"toy": 4})
    with pytest.raises(ScenarioError, match="exceed the fleet of 20 GPUs"):
        scenario({"requests_per_s": 50}, scaled("target_load", minimum=60))


def test_an_unknown_policy_is_named():
    with pytest.raises(ScenarioError, match="did you mean 'target_load'"):
        play(scenario({"requests_per_s": 50}, scaled("taget_load")))
    assert another()["model"] == "DeepSeek-R1"


def test_the_initial_fleet_serves_from_the_first_moment():
    windows, _ = played("target_load", unneeded="release", initial=7)
    first = windows[windows.start_s == 0]
    assert list(first.replicas) == [7]
    assert list(first.gpus) == [7]


def test_more_initial_instances_than_installed_are_named():
    with pytest.raises(ScenarioError, match="autoscaler.initial: 21 instances exceed the 20 of stage"):
        played("target_load", initial=21)


def test_an_initial_fleet_below_the_minimum_is_named():
    with pytest.raises(ScenarioError, match="initial 1 is below minimum 2"):
        played("target_load", initial=1)
