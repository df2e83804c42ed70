"""Block ids made from sessions hit, in an unbounded cache, exactly what the trace says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.traces import infinite_cache_hits, packaged_trace
from factory_sim.inputs.traces.prefixes import prefix_blocks
from factory_sim.inputs.traces.sessions import settle
from factory_sim.inputs.traces.trace import Trace, TraceReport

EMPTY = TraceReport("test", "test", 0)


def with_blocks(trace, block_tokens):
    offsets, ids = prefix_blocks(trace.isl, trace.cached_tokens, trace.prefix_of, block_tokens)
    return replace(trace, block_tokens=block_tokens, block_offsets=offsets, block_ids=ids)


def test_agentic_blocks_hit_what_the_trace_says():
    trace = packaged_trace("agentic_claude_code").rows(np.arange(2000))
    assert np.array_equal(infinite_cache_hits(with_blocks(trace, 64)), trace.cached_tokens)


def test_larger_blocks_hit_no_more_and_lose_less_than_a_block():
    trace = packaged_trace("agentic_claude_code").rows(np.arange(2000))
    hits = infinite_cache_hits(with_blocks(trace, 512))
    assert np.all(hits <= trace.cached_tokens)
    assert np.all(hits > trace.cached_tokens - 512)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 900), st.integers(0, 1000), st.integers(0, 2)), min_size=1, max_size=30))
def test_any_session_keeps_its_prefixes_within_earlier_prompts(rows):
    isl = np.array([r[0] for r in rows], np.int64)
    arrays = {
        "isl": isl,
        "osl": np.ones(len(rows), np.int64),
        "session": np.array([r[2] for r in rows], np.int64),
        "arrival_s": np.arange(len(rows), dtype=float)[::-1].copy(),
        "cached_tokens": np.array([r[1] for r in rows], np.int64) // 64 * 64,
    }
    order = settle(arrays, np.arange(len(rows)), Complaints())
    assert sorted(order) == list(range(len(rows)))
    assert np.array_equal(arrays["isl"], isl[order])
    trace = Trace("t", report=EMPTY, **arrays)
    linked = trace.prefix_of >= 0
    assert np.all(trace.prefix_of[linked] < np.flatnonzero(linked))
    assert np.all(trace.cached_tokens[linked] <= trace.isl[trace.prefix_of[linked]])
    assert np.all(trace.cached_tokens <= trace.isl)
    hits = infinite_cache_hits(with_blocks(trace, 64))
    assert np.array_equal(hits, trace.cached_tokens // 64 * 64)
    waits = trace.depends_on >= 0
    assert np.all(trace.arrival_s[trace.depends_on[waits]] <= trace.arrival_s[waits])


def test_rows_chosen_keep_their_blocks_and_lose_dependencies_on_others():
    trace = packaged_trace("mooncake_conversation").rows(np.array([5, 2, 9]))
    whole = packaged_trace("mooncake_conversation")
    for place, row in enumerate((5, 2, 9)):
        mine = trace.block_ids[trace.block_offsets[place] : trace.block_offsets[place + 1]]
        assert np.array_equal(mine, whole.block_ids[whole.block_offsets[row] : whole.block_offsets[row + 1]])
    chain = packaged_trace("agentic_claude_code").rows(np.array([0, 1, 3]))
    assert chain.depends_on.tolist() == [-1, 0, -1]


def test_hits_need_a_trace_that_tells():
    with pytest.raises(Exception, match="neither block ids nor cached tokens"):
        infinite_cache_hits(packaged_trace("azure2023_conv"))
