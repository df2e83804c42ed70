"""Replays: every request is played, sessions wait for answers, hits of the prefix cache are counted exactly."""

from pathlib import Path

import numpy as np
import pytest

from factory_sim.errors import ScenarioError, TraceError
from factory_sim.inputs.overrides import load_scenario, parse_scenario
from factory_sim.inputs.traces import infinite_cache_hits, packaged_trace
from factory_sim.results.run import run

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def value(result, figure: str) -> float:
    row = next(
        r for r in result.summary["figures"] if (r["figure"], r["window"], r["service"]) == (figure, "whole", "all")
    )
    return row["value"]


def replayed(*settings: str):
    return run(load_scenario(SCENARIOS / "replay.yaml", list(settings)))


def test_one_at_a_time_with_room_for_all_hits_what_the_block_hashes_say():
    first = 1500
    result = replayed(
        f"traffic.trace.first={first}",
        "traffic.trace.pacing=one_at_a_time",
        "stages.0.system.kv_cache_tokens=100000000000",
    )
    trace = packaged_trace("mooncake_conversation").rows(np.arange(first))
    hits = infinite_cache_hits(trace)
    assert value(result, "prefix_cache_hit_rate") == pytest.approx(hits.sum() / trace.isl.sum(), rel=1e-12)
    assert value(result, "requests_arrived") == first
    assert all(check["ok"] for check in result.summary["checks"])


def test_a_cache_never_hits_more_than_an_unbounded_one_and_a_smaller_one_less():
    settings = ("traffic.trace.first=1500", "traffic.trace.pacing=one_at_a_time")
    unbounded = value(replayed(*settings, "stages.0.system.kv_cache_tokens=100000000000"), "prefix_cache_hit_rate")
    small = value(replayed(*settings, "stages.0.system.kv_cache_tokens=300000"), "prefix_cache_hit_rate")
    in_flight = value(replayed("traffic.trace.first=1500"), "prefix_cache_hit_rate")
    assert small < unbounded
    assert in_flight <= unbounded


def test_sessions_of_an_agent_find_their_own_prefix_and_too_long_prompts_are_turned_away():
    result = replayed("traffic.trace.path=agentic_claude_code", "traffic.trace.first=3000")
    assert value(result, "prefix_cache_hit_rate") > 0.8
    assert value(result, "requests_arrived") == 3000
    turned_away, completed = value(result, "requests_turned_away"), value(result, "requests_completed")
    assert turned_away > 0
    assert turned_away + completed == 3000
    assert all(check["ok"] for check in result.summary["checks"])


def test_exactly_the_asked_number_of_requests_is_played_and_the_run_ends_drained(small_dict):
    service = small_dict["services"]["chat"]
    service["stages"] = service["stages"][:1]
    service["traffic"] |= {"requests": 5000, "demand": {"load": 0.6}}
    result = run(parse_scenario(small_dict))
    assert value(result, "requests_arrived") == 5000
    assert value(result, "requests_completed") == 5000
    assert (result.tables["audits"].in_system == 0).all()
    assert value(result, "gpu_hours") < 48 * 48


def test_a_trace_without_times_needs_a_pacing():
    with pytest.raises((ScenarioError, TraceError), match="one_at_a_time"):
        replayed("traffic.trace.path=arxiv_summarization")


def test_a_missing_trace_is_named(tmp_path):
    with pytest.raises(TraceError) as error:
        replayed(f"traffic.trace.path={tmp_path / 'none.jsonl'}")
    assert "traffic.trace.path" in str(error.value)
    assert "none.jsonl" in str(error.value)


def test_finite_and_endless_services_do_not_mix(small_dict):
    endless = small_dict["services"]["chat"]
    finite = {**endless, "stages": endless["stages"][:1], "traffic": {**endless["traffic"], "requests": 10}}
    small_dict["site"]["gpus"] = 96
    small_dict["services"]["other"] = finite
    with pytest.raises(ScenarioError, match="either all services"):
        run(parse_scenario(small_dict))
