"""Prefixes of prompts as block ids, and what an unbounded cache finds of them."""

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.inputs.traces.trace import Trace


def infinite_cache_hits(trace: Trace) -> np.ndarray:
    """Return the leading prompt tokens of each request that an unbounded cache holds when it is served one at a time.

    From block ids where the trace has them (rows in order; a last block may be partial and counts its own tokens),
    else ``cached_tokens``. int64, shape (n,). Raises TraceError if the trace tells neither.
    """
    if trace.block_ids is None:
        if trace.cached_tokens is None:
            raise TraceError(f"{trace.name}: has neither block ids nor cached tokens")
        return np.maximum(trace.cached_tokens, 0)
    ids, offsets = trace.block_ids, trace.block_offsets
    first_row = np.zeros(len(ids), np.int64)
    row_of = np.repeat(np.arange(len(trace)), np.diff(offsets))
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    first_row = row_of[first][inverse]
    place = np.arange(len(ids)) - offsets[row_of]
    new_at = np.where(first_row < row_of, np.iinfo(np.int64).max, place)
    hits = np.diff(offsets).copy()
    filled = np.flatnonzero(hits > 0)
    if len(filled):
        hits[filled] = np.minimum(hits[filled], np.minimum.reduceat(new_at, offsets[filled]))
    return np.minimum(hits * trace.block_tokens, trace.isl)


def prefix_blocks(
    isl: np.ndarray,
    cached_tokens: np.ndarray,
    prefix_of: np.ndarray,
    block_tokens: int,
    common_tokens: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return block ids (CSR offsets and ids, int64 >= 0) under which an unbounded cache hits what the trace says.

    Prompt i begins with the first ``cached_tokens[i]`` tokens of what request ``prefix_of[i]`` (an earlier row) sent
    and was answered, in whole blocks of `block_tokens`; its other blocks are new. Where a later prompt shares more
    than a prompt holds, the ids of the earlier one go on into its answer. With blocks larger than the trace's own
    (64 tokens) hits round down. `common_tokens` (None: none) are leading tokens that all prompts of no earlier
    prefix with the same number have alike: tools and system prompt.
    """
    shared = np.where(prefix_of >= 0, np.minimum(cached_tokens, isl) // block_tokens, 0)
    blocks = -(-isl // block_tokens)
    linked = prefix_of >= 0
    np.maximum.at(blocks, prefix_of[linked], shared[linked])
    offsets = np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64)
    ids = np.empty(offsets[-1], np.int64)
    fresh, alike = 0, {}
    for row, (common, count) in enumerate(zip(shared.tolist(), blocks.tolist())):
        start = offsets[row]
        if common:
            source = offsets[prefix_of[row]]
            ids[start : start + common] = ids[source : source + common]
        elif common_tokens is not None and common_tokens[row] > 0:
            size = int(common_tokens[row])
            if size not in alike:
                alike[size] = fresh
                fresh += size // block_tokens
            common = min(size // block_tokens, count)
            ids[start : start + common] = np.arange(alike[size], alike[size] + common)
        ids[start + common : start + count] = np.arange(fresh, fresh + count - common)
        fresh += count - common
    return offsets, ids
