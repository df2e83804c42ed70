"""The batch of one worker: who joins the decoding or the prefill, and who is taken out of it. Jitted, arrays only."""

import math

from factory_sim.engine.kernel.events import heap_push, heap_remove, queue_prepend, running_remove, timer_push
from factory_sim.engine.kernel.jit import cold, hot
from factory_sim.engine.kernel.prefix import unpin_chain
from factory_sim.engine.kernel.ranks import join_rank, rank_gains
from factory_sim.engine.kernel.state import (
    ATTEMPTS,
    EVENT_ANSWER,
    EVENT_CAP,
    EVENT_END,
    IN_TRANSFER,
    ORDER_BITS,
    ORDER_MASK,
    PREFILLING,
    RUNNING,
    TIMER_TRANSFERRED,
    UNIT,
    WAITING,
)


@hot
def _push_event(worker, keys, items, count, order, item):
    heap_push(keys, items, worker["heap_offset"], worker["heap_size"], (count << ORDER_BITS) | order, item)
    worker["heap_size"] += 1


@hot
def steps_to_answer(r):
    """Decode steps after which the first token beyond the reasoning is out."""
    if r["reasoning"] == 0 or r["steps"] == 0:
        return 0
    return min(-((-r["reasoning"] * UNIT) // r["growth"]), r["steps"])


@hot
def join_decode(worker, slots, keys, items, s):
    """Add a sequence whose prompt is in the cache to the decoding batch."""
    r = slots[s]
    r["state"] = RUNNING
    held = r["isl"] * UNIT + r["growth"] * r["done"]
    r["held"] = held
    r["join"] = worker["count"]
    end = worker["count"] + r["steps"] - r["done"]
    order = r["order"] & ORDER_MASK
    _push_event(worker, keys, items, end, order, s * 4 + EVENT_END)
    worker["decoding"] += 1
    worker["held"] += held
    worker["held_growth"] += r["growth"]
    worker["shared"] += r["shared"] * UNIT
    if math.isnan(r["first_answer_s"]):
        answer = worker["count"] + steps_to_answer(r) - r["done"]
        if answer < end:
            _push_event(worker, keys, items, answer, order, s * 4 + EVENT_ANSWER)
    r["capped"] = 0
    cap = worker["attention_cap"] * UNIT
    if cap > 0 and held >= cap:
        r["capped"] = 1
        worker["attended"] += cap
        if worker["ranks"] > 1:
            join_rank(worker, keys, r, cap, 0)
        return
    worker["attended"] += held
    worker["attended_growth"] += r["growth"]
    if worker["ranks"] > 1:
        join_rank(worker, keys, r, held, r["growth"])
    if cap > 0:
        crossing = worker["count"] - ((held - cap) // r["growth"])
        if crossing < end:
            _push_event(worker, keys, items, crossing, order, s * 4 + EVENT_CAP)


@hot
def leave_decode(worker, slots, keys, s):
    """Take a sequence's KV out of the sums of the decoding batch (its heap entries are already gone)."""
    r = slots[s]
    steps = worker["count"] - r["join"]
    held = r["held"] + r["growth"] * steps
    r["done"] += steps
    worker["decoding"] -= 1
    worker["held"] -= held
    worker["held_growth"] -= r["growth"]
    worker["shared"] -= r["shared"] * UNIT
    if r["capped"] != 0:
        attended = worker["attention_cap"] * UNIT
        growth = 0
    else:
        attended = held
        growth = r["growth"]
    worker["attended"] -= attended
    worker["attended_growth"] -= growth
    if worker["ranks"] > 1:
        rank_gains(worker, keys, r["rank"], -1, -attended, -growth)


@cold
def cap_attention(worker, slots, keys, s):
    """A sequence has grown to the attention cap: from now on it attends that many tokens."""
    r = slots[s]
    held = r["held"] + r["growth"] * (worker["count"] - r["join"])
    r["capped"] = 1
    worker["attended"] += worker["attention_cap"] * UNIT - held
    worker["attended_growth"] -= r["growth"]
    if worker["ranks"] > 1:
        rank_gains(worker, keys, r["rank"], 0, worker["attention_cap"] * UNIT - held, -r["growth"])


@cold
def _drop_from_heap(worker, keys, items, item):
    first = worker["heap_offset"]
    for i in range(worker["heap_size"]):
        if items[first + i] == item:
            heap_remove(keys, items, first, worker["heap_size"], i)
            worker["heap_size"] -= 1
            return


@cold
def _drop_from_prefill(worker, slots, s):
    before = -1
    at = worker["prefill_head"]
    while at != s:
        before = at
        at = slots[at]["prefill_next"]
    after = slots[s]["prefill_next"]
    if before >= 0:
        slots[before]["prefill_next"] = after
    else:
        worker["prefill_head"] = after
    if after < 0:
        worker["prefill_tail"] = before


@hot
def add_to_prefill(worker, slots, s):
    """Put a request last in the line of prompts to prefill."""
    slots[s]["state"] = PREFILLING
    slots[s]["chunk"] = 0
    slots[s]["prefill_next"] = -1
    if worker["prefill_head"] >= 0:
        slots[worker["prefill_tail"]]["prefill_next"] = s
    else:
        worker["prefill_head"] = s
    worker["prefill_tail"] = s


@cold
def take_off_batch(worker, slots, keys, items, nodes, s):
    """Remove a request that is loading, prefilling or decoding from its worker's batch; its private KV is gone."""
    r = slots[s]
    if r["state"] == RUNNING:
        _drop_from_heap(worker, keys, items, s * 4 + EVENT_END)
        if worker["attention_cap"] > 0 and r["capped"] == 0:
            _drop_from_heap(worker, keys, items, s * 4 + EVENT_CAP)
        if r["reasoning"] > 0 and math.isnan(r["first_answer_s"]):
            _drop_from_heap(worker, keys, items, s * 4 + EVENT_ANSWER)
        leave_decode(worker, slots, keys, s)
    else:
        if r["state"] == PREFILLING:
            _drop_from_prefill(worker, slots, s)
        worker["prefill_blocks"] -= r["blocks"]
        worker["prefill_held_tokens"] -= r["prompt"]
    running_remove(worker, slots, s)
    unpin_chain(worker, r, nodes)


@cold
def preempt(pool, worker, w, instances, queues, slots, keys, items, nodes, timers, s):
    """Send a request back to the front of its queue, its KV to be recomputed, or to host memory and back."""
    r = slots[s]
    decoding = r["state"] == RUNNING
    take_off_batch(worker, slots, keys, items, nodes, s)
    r["preemptions"] += 1
    if decoding and pool["swap_s_per_token"] > 0.0:
        held = (r["isl"] * UNIT + r["growth"] * r["done"]) / UNIT
        delay = 2.0 * pool["swap_s_per_token"] * held
        r["state"] = IN_TRANSFER
        timer_push(pool, timers, pool["now"] + delay, TIMER_TRANSFERRED, s, r["id"] * ATTEMPTS + r["attempt"])
        return
    if decoding:
        r["prompt"] = r["isl"] + ((r["growth"] * (r["done"] + 1)) // UNIT)
        r["computed"] = r["prompt"]
    r["transferred"] = 0
    r["state"] = WAITING
    queue_prepend(queues, slots, w, s)
    worker["waiting"] += 1
    instances[worker["instance"]]["waiting"] += 1


@cold
def least_urgent(worker, slots):
    """The newest running request of the least urgent class."""
    victim = worker["newest"]
    s = slots[victim]["prev"]
    while s >= 0:
        if slots[s]["priority"] > slots[victim]["priority"]:
            victim = s
        s = slots[s]["prev"]
    return victim


@cold
def newest_batch_job(worker, slots):
    """The batch job that was admitted last, or -1."""
    s = worker["newest"]
    while s >= 0 and slots[s]["batch"] == 0:
        s = slots[s]["prev"]
    return s
