"""Reasoning, common prompts and conversations are what was asked for."""

from itertools import pairwise

import numpy as np
import pytest

from factory_sim.errors import TraceError
from factory_sim.inputs import workloads
from factory_sim.inputs.traces import infinite_cache_hits
from factory_sim.model.workload.chats import chats, published_human_wait_s
from factory_sim.model.workload.lengths import length_model
from factory_sim.model.workload.prefixes import group_blocks, prefix_groups
from factory_sim.model.workload.reasoning import effort_levels, reasoning_model
from factory_sim.streams import stream

N = 100_000


def test_reasoning_share_has_the_published_mean_and_quantiles():
    osl = np.full(N, 10_000, np.int64)
    total, reasoning = reasoning_model("medium").split(stream(1, "r"), osl)
    assert np.array_equal(total, osl)
    share = reasoning / osl
    rows = workloads.statistics("servegen_deepseek-r1", "reason_ratio")
    assert share.mean() == pytest.approx(rows["mean"].number, abs=4 * share.std() / np.sqrt(N) + 1e-3)
    for name in ("p5", "p25", "p50", "p75", "p95"):
        assert np.quantile(share, float(name[1:]) / 100) == pytest.approx(rows[name].number, abs=0.01)


@pytest.mark.parametrize("effort", list(effort_levels()))
def test_effort_multiplies_reasoning_and_leaves_the_answer_alone(effort):
    _, osl = length_model("servegen_deepseek-r1").sample(stream(2, "l"), 20_000)
    plain, reasoning = reasoning_model("medium").split(stream(2, "r"), osl)
    total, more = reasoning_model(effort).split(stream(2, "r"), osl)
    factor = effort_levels()[effort][0]
    assert np.array_equal(total - more, plain - reasoning)
    assert np.array_equal(more, np.rint(reasoning * factor))
    assert np.all(total - more >= 1)


def test_output_limit_cuts_the_answer_last_token_kept():
    osl = np.full(1000, 5000, np.int64)
    total, reasoning = reasoning_model({"factor": 10, "max_output_tokens": 4000}).split(stream(3, "r"), osl)
    assert total.max() == 4000
    assert np.all(reasoning < total)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hihg", "did you mean 'high'"),
        ({"factor": -1}, "0 to 10000"),
        ({"effort": "low", "factor": 2}, "either"),
        ({"effort": "low", "limit": 2}, "unknown key"),
        ({"factor": 2, "max_output_tokens": -5}, "whole number"),
    ],
)
def test_wrong_reasoning_is_refused(spec, message):
    with pytest.raises(TraceError, match=message):
        reasoning_model(spec)


def test_prefix_groups_have_their_share_and_zipf_popularity():
    groups = prefix_groups({"share": 0.6, "groups": 10, "tokens": 1000, "skew": 1.0})
    drawn = groups.draw(stream(4, "g"), N)
    assert np.mean(drawn >= 0) == pytest.approx(0.6, abs=0.01)
    counts = np.bincount(drawn[drawn >= 0], minlength=10)
    expected = (1 / np.arange(1, 11)) / np.sum(1 / np.arange(1, 11))
    assert counts / counts.sum() == pytest.approx(expected, abs=0.01)


def test_group_blocks_share_whole_blocks_and_leave_a_token_outside():
    group = np.array([0, 0, 1, -1, 1])
    isl = np.array([1000, 40, 1000, 1000, 64])
    offsets, ids = group_blocks(group, isl, tokens=100, block_tokens=32)
    lists = [ids[a:b].tolist() for a, b in pairwise(offsets)]
    assert lists == [[0, 1, 2], [0], [3, 4, 5], [], [3]]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"groups": 3}, "tokens"),
        ({"groups": 0, "tokens": 10}, "groups"),
        ({"groups": 3, "tokens": 10, "share": 1.5}, "fraction"),
        ({"groups": 3, "tokens": 10, "shares": 1.5}, "did you mean 'share'"),
        ({"groups": 3, "tokens": 10, "skew": -1}, "skew"),
    ],
)
def test_wrong_prefix_groups_are_refused(spec, message):
    with pytest.raises(TraceError, match=message):
        prefix_groups(spec)


CHAT = {"lengths": "azure2023_conv", "mean_turns": 4, "system_tokens": 300}


def test_conversations_carry_all_that_was_said():
    trace = chats(CHAT).draw(stream(5, "c"), 3000)
    assert trace.sessions == 3000
    later = np.flatnonzero(trace.depends_on >= 0)
    assert np.array_equal(trace.depends_on[later], later - 1)
    assert np.array_equal(trace.cached_tokens[later], trace.isl[later - 1] + trace.osl[later - 1])
    new = trace.isl - np.where(trace.depends_on >= 0, trace.cached_tokens, 300)
    assert new.mean() == pytest.approx(length_model("azure2023_conv").mean_isl, rel=0.05)
    assert len(trace) / 3000 == pytest.approx(4, abs=4 * np.sqrt(12) / np.sqrt(3000))
    assert infinite_cache_hits(trace).sum() == trace.cached_tokens.sum()


def test_pauses_have_the_published_median_and_90th_percentile():
    trace = chats(CHAT).draw(stream(6, "c"), 5000)
    pauses = trace.think_time_s[trace.depends_on >= 0]
    median, p90 = published_human_wait_s()
    assert np.median(pauses) == pytest.approx(median, rel=0.06)
    assert np.quantile(pauses, 0.9) == pytest.approx(p90, rel=0.1)


def test_conversations_end_before_the_context_is_full():
    trace = chats(CHAT | {"max_context_tokens": 6000, "mean_turns": 20}).draw(stream(7, "c"), 500)
    begins = trace.depends_on < 0
    assert begins.sum() == 500
    assert np.all((trace.isl + trace.osl)[~begins] <= 6000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_turns": 0.5}, "at least 1"),
        ({"turns": 3}, "did you mean 'mean_turns'"),
        ({"think_median_s": -1}, "above 0"),
        ({"lengths": "azur"}, "not known"),
        ({"system_tokens": 1.5}, "whole number"),
    ],
)
def test_wrong_conversations_are_refused(change, message):
    with pytest.raises(TraceError, match=message):
        chats(CHAT | change)
