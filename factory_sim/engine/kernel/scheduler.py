"""One worker's serving steps: who joins, how long a span of steps lasts, who leaves. Jitted, arrays only.

A *span* is a run of decode steps over an unchanging batch, or one step that also prefills. Its times are evaluated
from its anchor by absolute step number, so a span cut short (an arrival, a control time) gives the bits it would have
given anyhow.
"""

import math

from numba import njit

from factory_sim.engine.kernel.events import (
    heap_push,
    heap_remove,
    queue_first,
    queue_prepend,
    queue_remove,
    running_append,
    running_remove,
    set_end,
    slot_give,
    timer_push,
)
from factory_sim.engine.kernel.kv_cache import blocks_of, decoding_blocks, fits, steps_that_fit
from factory_sim.engine.kernel.state import (
    COMPLETED,
    DECODING,
    IDLE,
    IN_TRANSFER,
    MIXED,
    ORDER_BITS,
    ORDER_MASK,
    PREFILLING,
    ROLE_PREFILL,
    RUNNING,
    TIMED_OUT,
    TIMER_TRANSFERRED,
    UNIT,
    WAITING,
)

_jit = njit(cache=True, nogil=True)


@_jit
def count_in_system(pool, change):
    """Keep the area under the number of requests in the system."""
    pool["system_seconds"] += pool["in_system"] * (pool["now"] - pool["area_s"])
    pool["area_s"] = pool["now"]
    pool["in_system"] += change


@_jit
def time_after(worker, steps):
    """Time at which the span has played `steps` decode steps."""
    return worker["anchor_s"] + (
        steps * worker["first_step_s"] + worker["growth_step_s"] * (0.5 * (float(steps) * float(steps - 1)))
    )


@_jit
def steps_to(worker, time_s):
    """Smallest number of steps after which the span has reached `time_s`."""
    elapsed = time_s - worker["anchor_s"]
    if elapsed <= 0.0:
        return 0
    growth = worker["growth_step_s"]
    slope = worker["first_step_s"] - 0.5 * growth
    if growth == 0.0:
        guess = elapsed / slope
    else:
        guess = 2.0 * elapsed / (slope + math.sqrt(slope * slope + 2.0 * growth * elapsed))
    steps = min(math.ceil(guess), worker["span"])
    while steps < worker["span"] and time_after(worker, steps) < time_s:
        steps += 1
    while steps > 0 and time_after(worker, steps - 1) >= time_s:
        steps -= 1
    return steps


@_jit
def account(worker, base, steps, part):
    """Add `steps` whole steps of the span and the fraction `part` of the next one to the worker's counters."""
    n = worker["decoding"]
    slow = worker["slow"]
    if worker["mode"] == MIXED:
        share = steps + part
        duration = (worker["end_s"] - worker["anchor_s"]) * share
        tokens = n * worker["tokens_per_sequence"] + worker["chunk_tokens"]
        worker["total_base_s_mixed"] += slow * base[worker["base_offset"] + tokens] * share
        worker["total_kv_s"] += slow * worker["cost_kv_s"] * (worker["attended"] / UNIT) * share
        worker["total_prefill_s"] += slow * worker["cost_prefill_s"] * worker["chunk_tokens"] * share
        worker["total_pair_s"] += slow * worker["cost_pair_s"] * worker["pairs"] * share
        worker["total_prefill_tokens"] += worker["chunk_tokens"] * share
        worker["total_recomputed_tokens"] += worker["chunk_recomputed"] * share
        worker["total_decode_tokens"] += (worker["held_growth"] / UNIT) * share
        worker["total_kv_token_seconds"] += (worker["held"] / UNIT + worker["prefill_held_tokens"]) * duration
    else:
        m = float(steps)
        ramp = 0.5 * (m * (m - 1.0))
        whole = m * worker["first_step_s"] + worker["growth_step_s"] * ramp
        last = part * (worker["first_step_s"] + worker["growth_step_s"] * m)
        duration = whole + last
        attended = worker["attended"] / UNIT
        growth = worker["attended_growth"] / UNIT
        held = worker["held"] / UNIT + worker["prefill_held_tokens"]
        more = worker["held_growth"] / UNIT
        worker["total_base_s_decode_only"] += (
            slow * base[worker["base_offset"] + n * worker["tokens_per_sequence"]] * (m + part)
        )
        worker["total_kv_s"] += slow * worker["cost_kv_s"] * (
            m * attended + growth * ramp + part * (attended + growth * m)
        )
        worker["total_decode_tokens"] += more * (m + part)
        worker["total_kv_token_seconds"] += (
            held * whole + more * (
                worker["first_step_s"] * ramp + worker["growth_step_s"] * (m * (m - 1.0) * (2.0 * m - 1.0) / 6.0)
            ) + (held + more * m) * last
        )
    worker["total_steps"] += steps
    worker["total_busy_s"] += duration
    worker["total_sequence_seconds"] += n * duration


@_jit
def leave(pool, instances, slots, finished, s, status):
    """Write a request's outcome and free its slot; its worker has already let go of it."""
    r = slots[s]
    inst = instances[r["instance"]]
    inst["outstanding"] -= 1
    inst["kv_tokens"] -= r["isl"]
    i = pool["n_out"]
    pool["n_out"] = i + 1
    out = finished[i]
    out["id"] = r["id"]
    out["arrival_s"] = r["arrival_s"]
    out["first_token_s"] = r["first_token_s"]
    out["finish_s"] = pool["now"]
    out["isl"] = r["isl"]
    out["osl"] = r["osl"]
    out["cached_tokens"] = r["cached"]
    out["instance"] = r["instance"]
    out["service"] = r["service"]
    out["status"] = status
    out["preemptions"] = r["preemptions"]
    if status == COMPLETED:
        pool["completed"] += 1
    elif status == TIMED_OUT:
        pool["timed_out"] += 1
    count_in_system(pool, -1)
    pool["credits"] += pool["closed"]
    slot_give(pool, slots, s)


@_jit
def join_decode(worker, slots, keys, items, s):
    """Add a sequence whose prompt is in the cache to the decoding batch."""
    r = slots[s]
    r["state"] = RUNNING
    held = r["isl"] * UNIT + r["growth"] * r["done"]
    r["held"] = held
    r["join"] = worker["count"]
    end = worker["count"] + r["steps"] - r["done"]
    order = r["order"] & ORDER_MASK
    heap_push(keys, items, worker["heap_offset"], worker["heap_size"], (end << ORDER_BITS) | order, s)
    worker["heap_size"] += 1
    worker["decoding"] += 1
    worker["held"] += held
    worker["held_growth"] += r["growth"]
    r["capped"] = 0
    cap = worker["attention_cap"] * UNIT
    if cap > 0 and held >= cap:
        r["capped"] = 1
        worker["attended"] += cap
        return
    worker["attended"] += held
    worker["attended_growth"] += r["growth"]
    if cap > 0:
        crossing = worker["count"] - ((held - cap) // r["growth"])
        if crossing < end:
            key = (crossing << ORDER_BITS) | order
            heap_push(keys, items, worker["heap_offset"], worker["heap_size"], key, ~s)
            worker["heap_size"] += 1


@_jit
def _leave_decode(worker, slots, s):
    """Take a sequence's KV out of the sums of the decoding batch (its heap entries are already gone)."""
    r = slots[s]
    held = r["held"] + r["growth"] * (worker["count"] - r["join"])
    worker["decoding"] -= 1
    worker["held"] -= held
    worker["held_growth"] -= r["growth"]
    if r["capped"] != 0:
        worker["attended"] -= worker["attention_cap"] * UNIT
    else:
        worker["attended"] -= held
        worker["attended_growth"] -= r["growth"]


@_jit
def _cap_attention(worker, slots, s):
    """A sequence has grown to the attention cap: from now on it attends that many tokens."""
    r = slots[s]
    held = r["held"] + r["growth"] * (worker["count"] - r["join"])
    r["capped"] = 1
    worker["attended"] += worker["attention_cap"] * UNIT - held
    worker["attended_growth"] -= r["growth"]


@_jit
def _drop_from_heap(worker, keys, items, entry):
    first = worker["heap_offset"]
    for i in range(worker["heap_size"]):
        if items[first + i] == entry:
            heap_remove(keys, items, first, worker["heap_size"], i)
            worker["heap_size"] -= 1
            return


@_jit
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


@_jit
def take_off_batch(worker, slots, keys, items, s):
    """Remove a running or prefilling request from its worker's batch; its KV is gone."""
    r = slots[s]
    if r["state"] == RUNNING:
        _drop_from_heap(worker, keys, items, s)
        if worker["attention_cap"] > 0 and r["capped"] == 0:
            _drop_from_heap(worker, keys, items, ~s)
        _leave_decode(worker, slots, s)
        r["done"] += worker["count"] - r["join"]
    else:
        _drop_from_prefill(worker, slots, s)
        worker["prefill_blocks"] -= r["blocks"]
        worker["prefill_held_tokens"] -= r["prompt"]
    running_remove(worker, slots, s)


@_jit
def _preempt(worker, w, instances, queues, slots, keys, items):
    """Send the newest request of the least urgent class back to the front of the queue; its KV is recomputed later."""
    victim = worker["newest"]
    s = slots[victim]["prev"]
    while s >= 0:
        if slots[s]["priority"] > slots[victim]["priority"]:
            victim = s
        s = slots[s]["prev"]
    r = slots[victim]
    decoding = r["state"] == RUNNING
    take_off_batch(worker, slots, keys, items, victim)
    if decoding:
        r["prompt"] = r["isl"] + ((r["growth"] * (r["done"] + 1)) // UNIT)
        r["computed"] = r["prompt"]
    r["preemptions"] += 1
    r["transferred"] = 0
    r["state"] = WAITING
    queue_prepend(queues, slots, w, victim)
    worker["waiting"] += 1
    instances[worker["instance"]]["waiting"] += 1


@_jit
def start_step(pool, workers, w, instances, queues, slots, keys, items, base, tree_s, tree_worker):
    """Form the batch of worker `w`'s next step and plan its span up to the next change that is already known."""
    worker = workers[w]
    worker["starting"] = 0
    now = pool["now"]
    block_tokens = pool["block_tokens"]
    tps = worker["tokens_per_sequence"]
    preempted = False
    if worker["decoding"] > 0 and not fits(worker, slots, keys, items, block_tokens, 0, 0):
        preempted = True
        while worker["decoding"] > 0 and (
            decoding_blocks(worker, slots, keys, items, block_tokens, 0) + worker["prefill_blocks"]
            > worker["capacity_blocks"]
        ):
            _preempt(worker, w, instances, queues, slots, keys, items)
    budget = worker["max_batched_tokens"] - worker["decoding"] * tps
    chunk_tokens = 0
    recomputed = 0
    pairs = 0.0
    s = worker["prefill_head"]
    while s >= 0:
        r = slots[s]
        chunk = min(budget, r["prompt"] - r["prefilled"])
        r["chunk"] = chunk
        if chunk > 0:
            budget -= chunk
            chunk_tokens += chunk
            recomputed += min(chunk, max(0, r["computed"] - r["prefilled"]))
            pairs += float(chunk) * float(r["prefilled"]) + 0.5 * (float(chunk) * float(chunk + 1))
        s = r["prefill_next"]
    if not preempted:
        while worker["waiting"] > 0 and budget > 0 and worker["running"] < worker["max_sequences"]:
            s = queue_first(queues, w, pool["classes"])
            r = slots[s]
            if r["transferred"] != 0:
                if budget < tps:
                    break
                blocks = blocks_of(r["isl"] * UNIT + r["growth"] * (r["done"] + 1), block_tokens * UNIT)
            else:
                blocks = blocks_of(r["prompt"], block_tokens)
            if not fits(worker, slots, keys, items, block_tokens, 0, blocks):
                break
            queue_remove(queues, slots, w, s)
            worker["waiting"] -= 1
            instances[worker["instance"]]["waiting"] -= 1
            running_append(worker, slots, s)
            if r["order"] < 0:
                pool["admitted"] += 1
                worker["total_cached_tokens"] += r["cached"]
            r["order"] = pool["order"]
            pool["order"] += 1
            if r["transferred"] != 0:
                join_decode(worker, slots, keys, items, s)
                budget -= tps
                continue
            r["state"] = PREFILLING
            r["prefilled"] = r["cached"]
            r["blocks"] = blocks
            worker["prefill_blocks"] += blocks
            worker["prefill_held_tokens"] += r["prompt"]
            r["prefill_next"] = -1
            if worker["prefill_head"] >= 0:
                slots[worker["prefill_tail"]]["prefill_next"] = s
            else:
                worker["prefill_head"] = s
            worker["prefill_tail"] = s
            chunk = min(budget, r["prompt"] - r["prefilled"])
            r["chunk"] = chunk
            budget -= chunk
            chunk_tokens += chunk
            recomputed += min(chunk, max(0, r["computed"] - r["prefilled"]))
            pairs += float(chunk) * float(r["prefilled"]) + 0.5 * (float(chunk) * float(chunk + 1))
    n = worker["decoding"]
    tokens = n * tps + chunk_tokens
    worker["anchor_s"] = now
    if tokens == 0:
        worker["mode"] = IDLE
        worker["span"] = 0
        worker["end_s"] = math.inf
        set_end(tree_s, tree_worker, pool["leaves"], w, math.inf)
        return
    slow = worker["slow"]
    step_s = slow * (base[worker["base_offset"] + tokens] + worker["cost_kv_s"] * (worker["attended"] / UNIT))
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
        worker["growth_step_s"] = slow * worker["cost_kv_s"] * (worker["attended_growth"] / UNIT)
        steps = (keys[worker["heap_offset"]] >> ORDER_BITS) - worker["count"]
        if preempted or worker["prefill_head"] >= 0:
            steps = 1
        worker["span"] = steps_that_fit(worker, slots, keys, items, block_tokens, steps)
        worker["end_s"] = time_after(worker, worker["span"])
    set_end(tree_s, tree_worker, pool["leaves"], w, worker["end_s"])


@_jit
def cut_span(pool, worker, w, tree_s, tree_worker, time_s):
    """End worker `w`'s decode span at its first step end at or after `time_s`, so that the batch can change there."""
    if worker["mode"] != DECODING or worker["span"] <= 1:
        return
    steps = steps_to(worker, time_s)
    if steps < worker["span"]:
        worker["span"] = steps
        worker["end_s"] = time_after(worker, steps)
        set_end(tree_s, tree_worker, pool["leaves"], w, worker["end_s"])


@_jit
def _end_prefill(pool, worker, instances, slots, keys, items, timers, finished, s):
    """A prompt is complete: its first token is out (or what was lost to preemption is back)."""
    r = slots[s]
    worker["prefill_blocks"] -= r["blocks"]
    worker["prefill_held_tokens"] -= r["prompt"]
    if math.isnan(r["first_token_s"]):
        r["first_token_s"] = pool["now"]
        worker["total_decode_tokens"] += 1.0
    else:
        r["done"] += 1
        worker["total_decode_tokens"] += r["growth"] / UNIT
    if r["done"] >= r["steps"]:
        running_remove(worker, slots, s)
        worker["outstanding"] -= 1
        leave(pool, instances, slots, finished, s, COMPLETED)
    elif worker["role"] == ROLE_PREFILL:
        running_remove(worker, slots, s)
        worker["outstanding"] -= 1
        r["state"] = IN_TRANSFER
        inst = instances[r["instance"]]
        start_s = max(pool["now"], worker["link_free_s"])
        worker["link_free_s"] = start_s + inst["link_s_per_token"] * r["isl"]
        ready_s = start_s + inst["transfer_s_per_token"] * r["isl"] + inst["transfer_latency_s"]
        timer_push(pool, timers, ready_s, TIMER_TRANSFERRED, s, r["id"])
    else:
        join_decode(worker, slots, keys, items, s)


@_jit
def end_step(pool, workers, w, instances, slots, keys, items, base, timers, finished):
    """Play worker `w`'s span to its end: account for it, let finished sequences go, move prompts on."""
    worker = workers[w]
    mixed = worker["mode"] == MIXED
    steps = worker["span"]
    account(worker, base, steps, 0.0)
    worker["mode"] = IDLE
    worker["count"] += steps
    worker["attended"] += worker["attended_growth"] * steps
    worker["held"] += worker["held_growth"] * steps
    first = worker["heap_offset"]
    while worker["heap_size"] > 0 and (keys[first] >> ORDER_BITS) <= worker["count"]:
        s = items[first]
        heap_remove(keys, items, first, worker["heap_size"], 0)
        worker["heap_size"] -= 1
        if s < 0:
            _cap_attention(worker, slots, ~s)
            continue
        _leave_decode(worker, slots, s)
        running_remove(worker, slots, s)
        worker["outstanding"] -= 1
        leave(pool, instances, slots, finished, s, COMPLETED)
    if mixed:
        s = worker["prefill_head"]
        while s >= 0 and slots[s]["chunk"] > 0:
            r = slots[s]
            after = r["prefill_next"]
            r["prefilled"] += r["chunk"]
            r["computed"] = max(r["computed"], r["prefilled"])
            r["chunk"] = 0
            if r["prefilled"] < r["prompt"]:
                break
            worker["prefill_head"] = after
            if after < 0:
                worker["prefill_tail"] = -1
            _end_prefill(pool, worker, instances, slots, keys, items, timers, finished, s)
            s = after
