"""Scaled traces keep what they were asked to keep; everything stays consistent."""

from dataclasses import replace

import numpy as np
import pytest

from factory_sim.errors import TraceError
from factory_sim.inputs.traces import Trace, TraceReport, infinite_cache_hits, packaged_trace
from factory_sim.model.workload.arrivals import arrival_times, index_of_dispersion
from factory_sim.model.workload.chats import chats
from factory_sim.model.workload.replay import (
    KEEPS,
    request_arrays,
    scale_trace,
    session_starts,
    spread_ticks,
    start_sessions,
    with_blocks,
)
from factory_sim.streams import stream


def bursty(seed: int, tenants: int = 0, rate: float = 10.0, span_s: float = 3600.0) -> Trace:
    """A Cox trace with known dispersion; with tenants, the superposition of that many independent ones."""
    parts = max(tenants, 1)
    burst = {"dispersion": {10: 4.0, 60: 8.0}, "rate_per_s": rate / parts}
    times = [arrival_times(stream(seed, "t", str(k)), rate / parts, span_s, burst) for k in range(parts)]
    tenant = np.repeat(np.arange(parts), [len(t) for t in times])
    order = np.argsort(np.concatenate(times), kind="stable")
    n = len(order)
    return Trace(
        "bursty",
        isl=np.arange(1, n + 1),
        osl=np.ones(n, np.int64),
        report=TraceReport("test", "test", n),
        arrival_s=np.concatenate(times)[order],
        tenant=tenant[order] if tenants else None,
    )


def mean_dispersion(factor, keep, window_s, tenants=0, seeds=24):
    before, after = [], []
    for k in range(seeds):
        trace = bursty(k, tenants)
        scaled = scale_trace(trace, factor, stream(k, "scale"), keep)
        before.append(index_of_dispersion(trace.arrival_s, window_s, 3600.0))
        span = 3600.0 / factor if keep == "gaps" else 3600.0
        after.append(index_of_dispersion(scaled.arrival_s, window_s / factor if keep == "gaps" else window_s, span))
    return np.mean(before), np.mean(after), np.std(np.array(after) - np.array(before)) / np.sqrt(seeds)


def test_copies_of_independent_customers_keep_the_dispersion():
    before, after, error = mean_dispersion(3.0, "dispersion", 10.0)
    assert before > 3
    assert after == pytest.approx(before, abs=4 * error)


def test_leaving_out_whole_customers_keeps_the_dispersion():
    before, after, error = mean_dispersion(0.3, "dispersion", 10.0, tenants=20, seeds=12)
    assert before > 3
    assert after == pytest.approx(before, abs=4 * error)


def test_leaving_out_single_requests_shrinks_the_excess_and_says_so():
    before, after, error = mean_dispersion(0.3, "dispersion", 10.0)
    assert after - 1 == pytest.approx(0.3 * (before - 1), abs=4 * error)
    scaled = scale_trace(bursty(1), 0.3, stream(1, "s"))
    assert "dispersion shrinks" in scaled.report.notes[-1]


def test_a_larger_crowd_is_more_dispersed():
    before, after, error = mean_dispersion(3.0, "swings", 60.0)
    assert after == pytest.approx(1 + 3 * before, abs=4 * error)


def test_faster_gaps_keep_every_count():
    before, after, _ = mean_dispersion(4.0, "gaps", 60.0)
    assert after == pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_scaled_traces_have_the_rate_and_stay_sorted(keep, factor):
    trace = packaged_trace("mooncake_conversation")
    scaled = scale_trace(trace, factor, stream(3, "s"), keep)
    rate = len(scaled) / scaled.span_s / (len(trace) / trace.span_s)
    assert rate == pytest.approx(factor, rel=0.05)
    assert np.all(np.diff(scaled.arrival_s) >= 0)
    assert scaled.report.requests == len(scaled)
    assert np.array_equal(
        np.minimum(np.diff(scaled.block_offsets), -(-scaled.isl // 512)), np.diff(scaled.block_offsets)
    )


def test_copies_do_not_share_prompts():
    trace = packaged_trace("mooncake_conversation")
    double = scale_trace(trace, 2.0, stream(4, "s"))
    once = infinite_cache_hits(trace).sum() / trace.isl.sum()
    assert infinite_cache_hits(double).sum() / double.isl.sum() == pytest.approx(once, abs=0.002)
    assert len(np.unique(double.block_ids)) == 2 * len(np.unique(trace.block_ids))


def test_sessions_are_scaled_whole():
    trace = packaged_trace("agentic_claude_code")
    half = scale_trace(trace, 0.5, stream(5, "s"))
    assert len(half) == pytest.approx(len(trace) / 2, rel=0.02)
    waits = half.depends_on >= 0
    assert np.all(half.session[half.depends_on[waits]] == half.session[waits])
    more = scale_trace(half, 2.0, stream(5, "s"))
    assert len(more) == 2 * len(half)
    assert more.sessions == 2 * half.sessions
    linked = more.prefix_of >= 0
    assert np.all(more.prefix_of[linked] < np.flatnonzero(linked))
    assert np.all(more.session[more.prefix_of[linked]] == more.session[linked])


def test_started_sessions_keep_their_times_and_chains():
    trace = packaged_trace("agentic_claude_code")
    starts = session_starts(stream(6, "starts"), trace.sessions, 0.05)
    assert starts[0] == 0
    assert len(starts) == trace.sessions
    assert starts[-1] == pytest.approx(trace.sessions / 0.05, rel=0.25)
    placed = start_sessions(trace, starts)
    assert np.all(np.diff(placed.arrival_s) >= 0)
    waits = np.flatnonzero(placed.depends_on >= 0)
    assert np.all(placed.arrival_s[placed.depends_on[waits]] <= placed.arrival_s[waits])
    assert placed.isl.sum() == trace.isl.sum()


def test_conversations_hit_prompts_and_answers_of_their_past():
    trace = chats({"lengths": "azure2023_conv", "mean_turns": 5}).draw(stream(9, "c"), 300)
    hits = infinite_cache_hits(with_blocks(trace, 16))
    assert np.array_equal(hits, trace.cached_tokens // 16 * 16)


def test_system_prompts_are_shared_between_sessions_only_if_asked():
    trace = packaged_trace("agentic_claude_code").rows(np.arange(4000))
    apart = infinite_cache_hits(with_blocks(trace, 64))
    alike = infinite_cache_hits(with_blocks(trace, 64, share_system_prompts=True))
    firsts = trace.prefix_of < 0
    assert np.all(apart[firsts] == 0)
    assert np.array_equal(apart[~firsts], alike[~firsts])
    assert np.all(alike[firsts] <= trace.shared_prefix_tokens[firsts])
    assert alike[firsts].sum() > 0


def test_arrays_for_the_kernel_play_a_chain_in_closed_loop():
    trace = packaged_trace("agentic_claude_code").rows(np.arange(400))
    with pytest.raises(TraceError, match="no absolute times"):
        request_arrays(trace)
    placed = start_sessions(trace, session_starts(stream(6, "starts"), trace.sessions, 0.01))
    arrays = request_arrays(with_blocks(placed, 512))
    waits = np.flatnonzero(arrays["after"] >= 0)
    assert np.all(arrays["after"][waits] < waits)
    assert arrays["block_starts"][-1] == len(arrays["block_ids"])
    assert arrays["block_ids"].min() >= 0
    assert "after" not in request_arrays(placed, closed_loop=False)


def test_spread_ticks_remove_the_artefact_of_a_coarse_clock():
    trace = packaged_trace("mooncake_conversation")
    spread = spread_ticks(trace.arrival_s, stream(7, "ticks"), 3.0)
    assert index_of_dispersion(trace.arrival_s, 1.0) > 7
    assert 0.8 < index_of_dispersion(spread, 1.0) < 1.6
    assert index_of_dispersion(spread, 60.0) == pytest.approx(index_of_dispersion(trace.arrival_s, 60.0), rel=0.2)


def test_same_stream_same_trace():
    trace = packaged_trace("azure2023_code")
    first, second = (scale_trace(trace, 1.7, stream(8, "s"), "swings") for _ in range(2))
    assert first.arrival_s.tobytes() == second.arrival_s.tobytes()
    assert first.isl.tobytes() == second.isl.tobytes()


def test_nonsense_is_refused():
    trace = packaged_trace("azure2023_code")
    with pytest.raises(TraceError, match="above 0"):
        scale_trace(trace, 0.0, stream(1, "s"))
    with pytest.raises(TraceError, match="one of dispersion"):
        scale_trace(trace, 2.0, stream(1, "s"), "everything")
    sessions = packaged_trace("agentic_claude_code")
    with pytest.raises(TraceError, match="absolute times"):
        scale_trace(sessions, 2.0, stream(1, "s"), "gaps")
    with pytest.raises(TraceError, match="wait for answers"):
        scale_trace(sessions, 2.0, stream(1, "s"), "swings")
    with pytest.raises(TraceError, match="session starts"):
        start_sessions(replace(sessions), np.zeros(3))
    with pytest.raises(TraceError, match="sessions_per_s"):
        session_starts(stream(1, "s"), 5, 0.0)
