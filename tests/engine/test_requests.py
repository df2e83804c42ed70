"""What a scenario says of its requests and their scheduling reaches the kernel and shows in the figures."""

import math

import pytest

from factory_sim.engine.requests import pool_options, scheduling_options
from factory_sim.errors import ScenarioError
from factory_sim.inputs.overrides import parse_scenario
from factory_sim.results.run import run


def played(small_dict, requests=2000, **keys):
    service = small_dict["services"]["chat"]
    service["stages"] = service["stages"][:1]
    service["traffic"] |= {"requests": requests, **keys.pop("traffic", {})}
    service |= keys
    small_dict["duration_days"] = 7
    return parse_scenario(small_dict)


def figures(scenario) -> dict[str, float]:
    result = run(scenario)
    assert all(check["ok"] for check in result.summary["checks"])
    return {
        row["figure"]: row["value"]
        for row in result.summary["figures"]
        if (row["window"], row["service"]) == ("whole", "all")
    }


def test_a_load_test_turns_nobody_away(small_dict):
    rules = {"order": "prefill_first", "preemption": "swap", "queue_limit": 5, "timeout_s": 3, "retries": 2}
    service = played(small_dict, scheduling=rules).services["chat"]
    tested, full = scheduling_options(service), pool_options(service)
    assert tested == {"prefill_first": True, "swap_s_per_token": 3e-6, "signal_age_s": 0.0}
    assert (full["queue_limit"], full["timeout_s"], full["retries"]) == (5, 3.0, 2)
    assert pool_options(played(small_dict, scheduling={}).services["chat"])["timeout_s"] == math.inf


def test_reasoning_is_counted_and_delays_the_answer_but_not_the_first_token(small_dict):
    found = figures(played(small_dict, traffic={"reasoning": "medium"}))
    assert 0 < found["reasoning_tokens"] < found["output_tokens"]
    assert found["time_to_first_answer_token_p95"] > found["ttft_p95"]


def test_common_prompts_are_hit_no_more_often_than_they_are_sent(small_dict):
    common = {"share": 0.8, "groups": 4, "tokens": 512}
    found = figures(played(small_dict, traffic={"common_prompts": common}, prefix_cache={"block_tokens": 64}))
    sent = 0.8 * 512 * found["requests_arrived"] / found["input_tokens"]
    assert 0 < found["prefix_cache_hit_rate"] < 1.1 * sent


@pytest.mark.parametrize(
    ("traffic", "message"),
    [
        ({"class_shares": [0.5, 0.4]}, "add up to 0.9"),
        ({"common_prompts": {"share": 0.5, "groups": 2, "tokens": 64}}, "needs prefix_cache"),
        ({"cancelled": {"share": 1.5, "after_s": 1}}, "cancelled.share"),
    ],
)
def test_wrong_descriptions_are_refused(small_dict, traffic, message):
    with pytest.raises(ScenarioError, match=message):
        played(small_dict, traffic=traffic)
