"""The end of a worker's step: finished sequences leave, prompts move on. Jitted, arrays only."""

import math

from factory_sim.engine.kernel.batch import cap_attention, join_decode, leave_decode, steps_to_answer, take_off_batch
from factory_sim.engine.kernel.events import heap_remove, running_remove, timer_push
from factory_sim.engine.kernel.jit import cold, hot
from factory_sim.engine.kernel.leaving import leave, let_go
from factory_sim.engine.kernel.prefix import evict, share, unpin_chain
from factory_sim.engine.kernel.ranks import ranks_grow
from factory_sim.engine.kernel.span import account
from factory_sim.engine.kernel.state import (
    ATTEMPTS,
    CANCELLED,
    COMPLETED,
    EVENT_ANSWER,
    EVENT_CAP,
    IDLE,
    IN_TRANSFER,
    MIXED,
    ORDER_BITS,
    ROLE_DECODE,
    ROLE_PREFILL,
    TIMER_TRANSFERRED,
    UNIT,
)


@hot
def _finish(pool, worker, w, instances, slots, nodes, buckets, ids, parked, timers, finished, s):
    """A sequence has all its tokens; it is out of the decoding sums already."""
    r = slots[s]
    if math.isnan(r["first_answer_s"]):
        r["first_answer_s"] = pool["now"]
    if r["ids_n"] > 0 and worker["role"] != ROLE_DECODE:
        share(pool, worker, w, r, ids, nodes, buckets, r["isl"] + r["osl"] - 1)
    running_remove(worker, slots, s)
    unpin_chain(worker, r, nodes)
    worker["outstanding"] -= 1
    worker["prompt_tokens"] -= r["isl"]
    let_go(instances, slots, s)
    leave(pool, slots, parked, timers, finished, s, COMPLETED)


@hot
def _end_prefill(pool, worker, w, instances, slots, keys, items, nodes, buckets, ids, parked, timers, finished, s):
    """A prompt is complete: its first token is out (or what was lost to preemption is back)."""
    r = slots[s]
    worker["prefill_blocks"] -= r["blocks"]
    worker["prefill_held_tokens"] -= r["prompt"]
    if r["ids_n"] > 0 and worker["role"] != ROLE_DECODE:
        share(pool, worker, w, r, ids, nodes, buckets, r["isl"])
    if math.isnan(r["first_token_s"]):
        r["first_token_s"] = pool["now"]
        worker["total_decode_tokens"] += 1.0
    else:
        r["done"] += 1
        worker["total_decode_tokens"] += r["growth"] / UNIT
    if math.isnan(r["first_answer_s"]) and r["done"] >= steps_to_answer(r):
        r["first_answer_s"] = pool["now"]
    if r["done"] >= r["steps"]:
        _finish(pool, worker, w, instances, slots, nodes, buckets, ids, parked, timers, finished, s)
    elif worker["role"] == ROLE_PREFILL:
        running_remove(worker, slots, s)
        unpin_chain(worker, r, nodes)
        worker["outstanding"] -= 1
        worker["prompt_tokens"] -= r["isl"]
        r["state"] = IN_TRANSFER
        r["worker"] = -1
        if r["cancelled"] != 0:
            let_go(instances, slots, s)
            leave(pool, slots, parked, timers, finished, s, CANCELLED)
            return
        inst = instances[r["instance"]]
        start_s = max(pool["now"], worker["link_free_s"])
        worker["link_free_s"] = start_s + inst["link_s_per_token"] * r["isl"]
        ready_s = start_s + inst["transfer_s_per_token"] * r["isl"] + inst["transfer_latency_s"]
        timer_push(pool, timers, ready_s, TIMER_TRANSFERRED, s, r["id"] * ATTEMPTS + r["attempt"])
    else:
        join_decode(worker, slots, keys, items, s)


@hot
def _end_chunks(pool, worker, w, instances, slots, keys, items, nodes, buckets, ids, parked, timers, finished):
    """The step's prompt tokens are computed."""
    before = -1
    s = worker["prefill_head"]
    while s >= 0:
        r = slots[s]
        after = r["prefill_next"]
        r["prefilled"] += r["chunk"]
        r["computed"] = max(r["computed"], r["prefilled"])
        done = r["chunk"] > 0 and r["prefilled"] >= r["prompt"]
        r["chunk"] = 0
        if done:
            if before >= 0:
                slots[before]["prefill_next"] = after
            else:
                worker["prefill_head"] = after
            if after < 0:
                worker["prefill_tail"] = before
            _end_prefill(
                pool, worker, w, instances, slots, keys, items, nodes, buckets, ids, parked, timers, finished, s
            )  # fmt: skip
        else:
            before = s
        s = after


@cold
def _end_cancelled(pool, worker, instances, slots, keys, items, nodes, parked, timers, finished):
    """Those whose client went away during the step leave the batch."""
    s = worker["newest"]
    while s >= 0:
        before = slots[s]["prev"]
        if slots[s]["cancelled"] != 0:
            take_off_batch(worker, slots, keys, items, nodes, s)
            worker["outstanding"] -= 1
            worker["prompt_tokens"] -= slots[s]["isl"]
            let_go(instances, slots, s)
            leave(pool, slots, parked, timers, finished, s, CANCELLED)
        s = before
    worker["cancelled"] = 0


@hot
def end_step(
    pool, workers, w, instances, slots, keys, items, base, nodes, buckets, ids, parked, timers, finished
):  # fmt: skip
    """Play worker `w`'s span to its end: account for it, let finished sequences go, move prompts on."""
    worker = workers[w]
    mixed = worker["mode"] == MIXED
    steps = worker["span"]
    account(worker, base, steps, 0.0)
    if worker["cached_blocks"] > 0 and steps > 1:
        evict(pool, worker, slots, items, nodes, buckets, steps - 1)
    worker["mode"] = IDLE
    if worker["decodes"] != 0:
        worker["count"] += steps
        worker["attended"] += worker["attended_growth"] * steps
        worker["held"] += worker["held_growth"] * steps
        if worker["ranks"] > 1:
            ranks_grow(worker, keys, steps)
    first = worker["heap_offset"]
    while worker["heap_size"] > 0 and (keys[first] >> ORDER_BITS) <= worker["count"]:
        s = items[first] >> 2
        event = items[first] & 3
        heap_remove(keys, items, first, worker["heap_size"], 0)
        worker["heap_size"] -= 1
        if event == EVENT_CAP:
            cap_attention(worker, slots, keys, s)
        elif event == EVENT_ANSWER:
            slots[s]["first_answer_s"] = pool["now"]
        else:
            leave_decode(worker, slots, keys, s)
            _finish(pool, worker, w, instances, slots, nodes, buckets, ids, parked, timers, finished, s)
    if mixed:
        _end_chunks(pool, worker, w, instances, slots, keys, items, nodes, buckets, ids, parked, timers, finished)
    if worker["cancelled"] != 0:
        _end_cancelled(pool, worker, instances, slots, keys, items, nodes, parked, timers, finished)
