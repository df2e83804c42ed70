"""The start of a worker's step: who is admitted, in what order prompts are prefilled, how long the span lasts. Jitted."""

import math

from factory_sim.engine.kernel.batch import add_to_prefill, join_decode, least_urgent, newest_batch_job, preempt
from factory_sim.engine.kernel.events import queue_first, queue_remove, running_append, set_end, timer_push
from factory_sim.engine.kernel.jit import hot
from factory_sim.engine.kernel.kv_cache import blocks_of, decoding_blocks, fits, steps_that_fit
from factory_sim.engine.kernel.prefix import evict, match, pin_chain
from factory_sim.engine.kernel.ranks import charge_fullest
from factory_sim.engine.kernel.span import time_after
from factory_sim.engine.kernel.state import (
    ATTEMPTS,
    DECODING,
    IDLE,
    LOADING,
    MIXED,
    ORDER_BITS,
    PREFILLING,
    ROLE_DECODE,
    RUNNING,
    TIMER_LOADED,
    UNIT,
)


@hot
def _schedule(slots, s, budget):
    r = slots[s]
    r["chunk"] = min(budget, r["prompt"] - r["prefilled"])
    return budget - r["chunk"]


@hot
def _admit(
    pool, worker, w, instances, queues, slots, keys, items, nodes, buckets, ids, timers, budget, tps
):  # fmt: skip
    """Admit waiting requests while budget, slots and memory last; interactive ones may push batch jobs out.

    Returns whether a batch job was pushed out.
    """
    block_tokens = pool["block_tokens"]
    pushed_out = False
    while worker["waiting"] > 0 and budget > 0:
        s = queue_first(queues, w, pool["classes"])
        r = slots[s]
        if pushed_out and r["batch"] != 0:
            break
        last = -1
        matched = 0
        cached = 0
        host_tokens = 0
        to_pin = 0
        if r["transferred"] != 0:
            if budget < tps:
                break
            blocks = blocks_of(r["isl"] * UNIT + r["growth"] * (r["done"] + 1), block_tokens * UNIT)
        else:
            if r["ids_n"] > 0 and worker["role"] != ROLE_DECODE:
                limit = r["isl"]
                if r["prompt"] > limit:  # one that comes back uses whole blocks only, or evictions could let it in
                    limit -= limit % pool["prefix_tokens"]
                last, matched, cached, host_tokens, to_pin = match(
                    pool, w, ids, r["ids_at"], r["ids_n"], limit, nodes, buckets
                )
            blocks = blocks_of(r["prompt"] - cached, block_tokens)
        if worker["running"] >= worker["max_sequences"] or not fits(
            worker, slots, items, block_tokens, 0, blocks + to_pin
        ):
            if r["batch"] != 0 or pool["batch_limit"] == 0:
                break
            victim = newest_batch_job(worker, slots)
            if victim < 0:
                break
            if slots[victim]["state"] == PREFILLING:
                budget += slots[victim]["chunk"]
            elif slots[victim]["state"] == RUNNING:
                budget += tps
            preempt(pool, worker, w, instances, queues, slots, keys, items, nodes, timers, victim)
            pushed_out = True
            continue
        queue_remove(queues, slots, w, s)
        worker["waiting"] -= 1
        instances[worker["instance"]]["waiting"] -= 1
        running_append(worker, slots, s)
        first_time = r["order"] < 0
        r["order"] = pool["order"]
        pool["order"] += 1
        if first_time:
            pool["admitted"] += 1
        if r["transferred"] != 0:
            join_decode(worker, slots, keys, items, s)
            budget -= tps
            continue
        shared = cached
        cached = max(cached, r["cached"])
        if first_time:
            r["hit"] = cached
            worker["total_cached_tokens"] += cached
        if matched > 0:
            pin_chain(worker, r, nodes, last, matched, shared)
        r["prefilled"] = min(cached, r["prompt"] - 1)
        if cached > r["prefilled"]:
            r["computed"] = max(r["computed"], cached)
        r["blocks"] = blocks
        worker["prefill_blocks"] += blocks
        worker["prefill_held_tokens"] += r["prompt"]
        if host_tokens > 0:
            r["state"] = LOADING
            worker["host_free_s"] = max(pool["now"], worker["host_free_s"]) + host_tokens * pool["host_s_per_token"]
            r["ready_s"] = worker["host_free_s"]
            timer_push(pool, timers, r["ready_s"], TIMER_LOADED, s, r["id"] * ATTEMPTS + r["attempt"])
            continue
        add_to_prefill(worker, slots, s)
        budget = _schedule(slots, s, budget)
    return pushed_out


@hot
def start_step(
    pool, workers, w, instances, queues, slots, keys, items, base, tree_s, tree_worker, nodes, buckets, ids, timers
):  # fmt: skip
    """Form the batch of worker `w`'s next step and plan its span up to the next change that is already known."""
    worker = workers[w]
    worker["starting"] = 0
    worker["slow"] = worker["next_slow"]
    now = pool["now"]
    block_tokens = pool["block_tokens"]
    preempted = False
    if worker["decoding"] > 0 and not fits(worker, slots, items, block_tokens, 0, 0):
        preempted = True
        while worker["decoding"] > 0 and (
            decoding_blocks(worker, slots, items, block_tokens, 0)
            + worker["prefill_blocks"] + worker["pinned_blocks"] > worker["capacity_blocks"]
        ):  # fmt: skip
            preempt(
                pool, worker, w, instances, queues, slots, keys, items, nodes, timers, least_urgent(worker, slots)
            )  # fmt: skip
    tps = worker["tokens_per_sequence"]
    reserve = 0 if pool["prefill_first"] != 0 else tps
    budget = worker["max_batched_tokens"] - worker["decoding"] * reserve
    s = worker["prefill_head"]
    while s >= 0:
        budget = _schedule(slots, s, budget)
        s = slots[s]["prefill_next"]
    if not preempted and worker["waiting"] > 0:
        preempted = _admit(
            pool, worker, w, instances, queues, slots, keys, items, nodes, buckets, ids, timers, budget, reserve
        )  # fmt: skip
    if worker["cached_blocks"] > 0:
        evict(pool, worker, slots, items, nodes, buckets, 0)
    chunk_tokens = 0
    recomputed = 0
    pairs = 0.0
    s = worker["prefill_head"]
    while s >= 0:
        r = slots[s]
        chunk = r["chunk"]
        if chunk > 0:
            chunk_tokens += chunk
            recomputed += min(chunk, max(0, r["computed"] - r["prefilled"]))
            pairs += float(chunk) * float(r["prefilled"]) + 0.5 * (float(chunk) * float(chunk + 1))
        s = r["prefill_next"]
    worker["decodes"] = 0 if pool["prefill_first"] != 0 and chunk_tokens > 0 else 1
    tokens = worker["decodes"] * worker["decoding"] * tps + chunk_tokens
    worker["anchor_s"] = now
    if tokens == 0:
        worker["mode"] = IDLE
        worker["span"] = 0
        worker["end_s"] = math.inf
        set_end(tree_s, tree_worker, pool["leaves"], w, math.inf)
        return
    slow = worker["slow"]
    step_s = slow * base[worker["base_offset"] + tokens]
    worker["span_kv_s"] = worker["cost_kv_s"]
    worker["charged"] = worker["attended"]
    worker["charged_growth"] = worker["attended_growth"]
    uneven = worker["ranks"] > 1 and worker["decoding"] > 0
    steps_charged = charge_fullest(worker, keys, base) if uneven else 0
    if worker["decodes"] != 0:
        step_s += slow * (worker["span_kv_s"] * (worker["charged"] / UNIT))
    if chunk_tokens > 0:
        worker["mode"] = MIXED
        worker["span"] = 1
        worker["chunk_tokens"] = chunk_tokens
        worker["chunk_recomputed"] = recomputed
        worker["pairs"] = pairs
        worker["end_s"] = now + (
            step_s + slow * (worker["cost_prefill_s"] * chunk_tokens + worker["cost_pair_s"] * pairs)
        )
    else:
        worker["mode"] = DECODING
        worker["first_step_s"] = step_s
        worker["growth_step_s"] = slow * worker["span_kv_s"] * (worker["charged_growth"] / UNIT)
        steps = (keys[worker["heap_offset"]] >> ORDER_BITS) - worker["count"]
        if uneven:
            steps = min(steps, steps_charged)
        if preempted or worker["prefill_head"] >= 0:
            steps = 1
        worker["span"] = steps_that_fit(worker, slots, items, block_tokens, steps)
        worker["end_s"] = time_after(worker, worker["span"])
    set_end(tree_s, tree_worker, pool["leaves"], w, worker["end_s"])
