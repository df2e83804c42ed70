"""What scheduling, caching and routing are there for shows in a run of a scenario."""

import copy

import pytest

from factory_sim.inputs.overrides import parse_scenario
from factory_sim.results.run import run
from tests.conftest import SMALL

BUSY = {"lengths": {"uniform": {"isl": 512, "osl": 256, "low_fraction": 0.5}}, "requests": 3000}
FEW = {"max_sequences": 32}
"""Slots that run out long before memory and time do, so that a queue forms."""
PROMPTS = {
    "lengths": {"uniform": {"isl": 3000, "osl": 128, "low_fraction": 0.8}},
    "common_prompts": {"share": 0.9, "groups": 200, "tokens": 2048},
}


def play(traffic: dict, load: float, system: dict | None = None, **service):
    """Figures (whole run) and tables of one replication on six H200 instances."""
    raw = copy.deepcopy(SMALL) | {"duration_days": 1}
    chat = raw["services"]["chat"]
    chat["stages"] = chat["stages"][:1]
    chat["stages"][0]["system"] |= system or {}
    chat["traffic"] = {"demand": {"load": load}, **traffic}
    chat |= service
    raw["simulation"] = {"replications": 1, "profile_error": False}
    result = run(parse_scenario(raw))
    assert [check for check in result.summary["checks"] if not check["ok"]] == []
    figures = result.figures.query("window == 'whole' and service == 'all'").set_index("figure").value
    return figures, result.tables


def test_the_urgent_class_waits_less_under_load():
    _, tables = play(BUSY | {"class_shares": [0.2, 0.8]}, 1.6, FEW)
    plain, _ = play(BUSY, 1.6, FEW)
    p95 = tables["requests"].groupby("priority").ttft_s.quantile(0.95)
    assert p95[0] < 0.5 * p95[1]
    assert p95[0] < 0.5 * plain["ttft_p95"]


def test_swapped_sequences_are_not_computed_again():
    tight = {"kv_cache_tokens": 30_000}
    swapped, of_swap = play(BUSY, 1.0, tight, scheduling={"preemption": "swap"})
    again, of_again = play(BUSY, 1.0, tight, scheduling={"preemption": "recompute"})
    slow, _ = play(BUSY, 1.0, tight, scheduling={"preemption": "swap", "swap_s_per_token": 1e-3})
    assert of_again["audits"].recomputed_tokens.sum() > 10_000
    assert of_swap["audits"].recomputed_tokens.sum() == 0
    assert swapped["tpot_p99"] < again["tpot_p99"]
    assert slow["tpot_p99"] > swapped["tpot_p99"]


def test_a_second_tier_of_the_cache_raises_hits_and_its_load_time_counts():
    tight, traffic = {"kv_cache_tokens": 100_000}, PROMPTS | {"requests": 6000}
    cache = {"block_tokens": 64}

    def with_cache(**more):
        return play(traffic, 0.5, tight, router="round_robin", prefix_cache=cache | more)[0]

    one, two = with_cache(), with_cache(host_tokens=1_000_000, host_s_per_token=1e-7)
    slow = with_cache(host_tokens=1_000_000, host_s_per_token=3e-4)
    assert two["prefix_cache_hit_rate"] > one["prefix_cache_hit_rate"] + 0.05
    assert slow["ttft_p95"] > two["ttft_p95"] + 0.1


def test_each_router_does_what_it_is_for():
    tight = {"kv_cache_tokens": 120_000}
    traffic = PROMPTS | {"requests": 6000}
    cache = {"block_tokens": 64}
    blind, _ = play(traffic, 0.5, tight, router="round_robin", prefix_cache=cache)
    aware, _ = play(traffic, 0.5, tight, router="prefix_aware", prefix_cache=cache)
    assert aware["prefix_cache_hit_rate"] > blind["prefix_cache_hit_rate"] + 0.02
    long_tailed = {"lengths": "azure2023_conv", "demand": {"requests_per_s": 60}, "requests": 4000}
    names = ("random", "power_of_two", "least_outstanding", "least_kv")
    tpot = {name: play(long_tailed, 1.0, router=name)[0]["tpot_p99"] for name in names}
    assert tpot["least_outstanding"] < tpot["power_of_two"] < tpot["random"]
    assert tpot["least_kv"] < tpot["random"]


def test_limits_time_outs_and_retries_trade_refusals_for_waiting():
    def ruled(**scheduling):
        return play(BUSY, 1.6, FEW, scheduling=scheduling)[0]

    free, limited, impatient = ruled(), ruled(queue_limit=4), ruled(timeout_s=2.0)
    again = ruled(queue_limit=4, retries=5, retry_after_s=2.0)
    assert free["requests_turned_away"] == 0
    for figures in (limited, impatient):
        assert figures["requests_turned_away"] > 0.02 * figures["requests_arrived"]
        assert figures["ttft_p95"] < 0.7 * free["ttft_p95"]
    assert again["requests_turned_away"] < 0.7 * limited["requests_turned_away"]
    assert again["ttft_p99"] > limited["ttft_p99"]  # waits between attempts are part of it


@pytest.mark.parametrize("kv_cache_tokens", [120_000, None])
def test_a_thinned_run_hits_its_cache_as_often_as_a_whole_one(kv_cache_tokens):
    def hit_rate(sampling):
        raw = copy.deepcopy(SMALL) | {"duration_days": 0.1}
        chat = raw["services"]["chat"]
        chat["stages"] = chat["stages"][:1]
        chat["stages"][0]["system"]["kv_cache_tokens"] = kv_cache_tokens
        chat["traffic"] = {"demand": {"load": 0.6}, **PROMPTS}
        chat |= {"router": "round_robin", "prefix_cache": {"block_tokens": 64}}
        raw["simulation"] = {"replications": 2, "profile_error": False, "sampling": sampling}
        figures = run(parse_scenario(raw)).figures.query("window == 'whole' and service == 'all'")
        return figures.set_index("figure").value["prefix_cache_hit_rate"]

    thin = {"window_requests": 3000, "window_s": 900, "warmup_s": 120, "hours_per_window": 24, "sequences_kept": 100}
    assert hit_rate(thin) == pytest.approx(hit_rate({"mode": "whole"}), abs=0.012)


def test_slow_readers_let_tokens_wait_and_fast_ones_wait_for_tokens():
    slow, _ = play(BUSY | {"reading_tokens_per_s": 6.0}, 0.7)
    fast, _ = play(BUSY | {"reading_tokens_per_s": 1000.0}, 0.7)
    plain, _ = play(BUSY, 0.7)
    assert "token_wait_p50" not in plain
    assert slow["token_wait_p50"] == pytest.approx(255 / 2 * (1 / 6.0 - plain["tpot_p50"]), rel=0.3)
    assert slow["reader_wait_p99"] == 0.0
    assert fast["token_wait_p99"] == 0.0
    assert fast["reader_wait_p50"] == pytest.approx(plain["e2e_p50"] - plain["ttft_p50"], rel=0.15)
    assert fast["tpot_p50"] == plain["tpot_p50"]


def test_session_affinity_finds_the_conversation_where_it_was():
    lengths = {"uniform": {"isl": 500, "osl": 100, "low_fraction": 0.5}}
    chats = {"sessions": 400, "sessions_per_s": 4.0, "lengths": lengths, "mean_turns": 8, "think_median_s": 20}

    def hits(router):
        raw = copy.deepcopy(SMALL) | {"duration_days": 1}
        chat = raw["services"]["chat"]
        chat["stages"] = chat["stages"][:1]
        chat["traffic"] = {"chats": chats}
        chat |= {"router": router, "prefix_cache": {"block_tokens": 64}}
        raw["simulation"] = {"replications": 1, "profile_error": False}
        figures = run(parse_scenario(raw)).figures.query("window == 'whole' and service == 'all'")
        return figures.set_index("figure").value["prefix_cache_hit_rate"]

    assert hits("session_affinity") > hits("random") + 0.1
