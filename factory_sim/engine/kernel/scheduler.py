"""One worker's serving steps: who joins, how long a span of steps lasts, who leaves. Jitted, arrays only.

A *span* is a run of decode steps over an unchanging batch, or one step that also prefills. Its times are evaluated
from its anchor by absolute step number, so a span cut short (an arrival, a control time) gives the bits it would have
given anyhow.
"""

import math

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
from factory_sim.engine.kernel.jit import cold, hot
from factory_sim.engine.kernel.kv_cache import blocks_of, decoding_blocks, fits, steps_that_fit
from factory_sim.engine.kernel.prefix import evict, match, pin_chain, share, unpin_chain
from factory_sim.engine.kernel.state import (
    ATTEMPTS,
    AWAY,
    BACKLOG,
    CANCELLED,
    COMPLETED,
    DECODING,
    EVENT_ANSWER,
    EVENT_CAP,
    EVENT_END,
    IDLE,
    IN_TRANSFER,
    LOADING,
    LOST,
    MIXED,
    ORDER_BITS,
    ORDER_MASK,
    PREFILLING,
    REJECTED,
    ROLE_DECODE,
    ROLE_PREFILL,
    RUNNING,
    TIMED_OUT,
    TIMER_LOADED,
    TIMER_RETRY,
    TIMER_SESSION,
    TIMER_TRANSFERRED,
    UNIT,
    WAITING,
)


@hot
def count_in_system(pool, change):
    """Keep the area under the number of requests in the system."""
    pool["system_seconds"] += pool["in_system"] * (pool["now"] - pool["area_s"])
    pool["area_s"] = pool["now"]
    pool["in_system"] += change


@hot
def time_after(worker, steps):
    """Time at which the span has played `steps` decode steps."""
    return worker["anchor_s"] + (
        steps * worker["first_step_s"] + worker["growth_step_s"] * (0.5 * (float(steps) * float(steps - 1)))
    )


@hot
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


@hot
def account(worker, base, steps, part):
    """Add `steps` whole steps of the span and the fraction `part` of the next one to the worker's counters."""
    n = worker["decoding"]
    slow = worker["slow"]
    if worker["mode"] == MIXED:
        portion = steps + part
        duration = (worker["end_s"] - worker["anchor_s"]) * portion
        tokens = worker["decodes"] * n * worker["tokens_per_sequence"] + worker["chunk_tokens"]
        worker["total_base_s_mixed"] += slow * base[worker["base_offset"] + tokens] * portion
        if worker["decodes"] != 0:
            worker["total_kv_s"] += slow * worker["cost_kv_s"] * (worker["attended"] / UNIT) * portion
            worker["total_decode_tokens"] += (worker["held_growth"] / UNIT) * portion
        worker["total_prefill_s"] += slow * worker["cost_prefill_s"] * worker["chunk_tokens"] * portion
        worker["total_pair_s"] += slow * worker["cost_pair_s"] * worker["pairs"] * portion
        worker["total_prefill_tokens"] += worker["chunk_tokens"] * portion
        worker["total_recomputed_tokens"] += worker["chunk_recomputed"] * portion
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


@hot
def let_go(instances, slots, s):
    """A request's instance no longer has it."""
    inst = instances[slots[s]["instance"]]
    inst["outstanding"] -= 1
    inst["kv_tokens"] -= slots[s]["isl"]


@hot
def leave(pool, slots, parked, timers, finished, s, status):
    """Write a request's outcome, release those that follow it, free its slot; its worker has already let go of it."""
    r = slots[s]
    i = pool["n_out"]
    pool["n_out"] = i + 1
    out = finished[i]
    out["id"] = r["id"]
    out["arrival_s"] = r["arrival_s"]
    out["first_token_s"] = r["first_token_s"]
    out["first_answer_s"] = r["first_answer_s"]
    out["finish_s"] = pool["now"]
    out["isl"] = r["isl"]
    out["osl"] = r["osl"]
    out["cached_tokens"] = r["hit"]
    out["instance"] = r["instance"]
    out["service"] = r["service"]
    out["status"] = status
    out["preemptions"] = r["preemptions"]
    out["attempts"] = r["attempt"] + 1
    out["output_tokens"] = 0
    if status == COMPLETED:
        pool["completed"] += 1
        out["output_tokens"] = r["osl"]
    elif not math.isnan(r["first_token_s"]):
        out["output_tokens"] = 1 + (r["growth"] * r["done"]) // UNIT
    if status == REJECTED:
        pool["rejected"] += 1
    elif status == TIMED_OUT:
        pool["timed_out"] += 1
    elif status == LOST:
        pool["lost"] += 1
    elif status == CANCELLED:
        pool["cancelled"] += 1
    count_in_system(pool, -1)
    pool["credits"] += pool["closed"]
    child = r["child"]
    while child >= 0:
        after_s = pool["now"] + parked[child]["arrival_s"]
        timer_push(pool, timers, after_s, TIMER_SESSION, child, parked[child]["id"] * ATTEMPTS)
        child = parked[child]["sibling"]
    slot_give(pool, slots, s)


@cold
def to_backlog(pool, slots, s):
    """Put a batch job last in the backlog."""
    r = slots[s]
    r["state"] = BACKLOG
    r["next"] = -1
    r["prev"] = pool["backlog_tail"]
    if pool["backlog_tail"] >= 0:
        slots[pool["backlog_tail"]]["next"] = s
    else:
        pool["backlog_head"] = s
    pool["backlog_tail"] = s
    pool["n_backlog"] += 1


@cold
def from_backlog(pool, slots, s):
    """Take a batch job out of the backlog."""
    before = slots[s]["prev"]
    after = slots[s]["next"]
    if before >= 0:
        slots[before]["next"] = after
    else:
        pool["backlog_head"] = after
    if after >= 0:
        slots[after]["prev"] = before
    else:
        pool["backlog_tail"] = before
    pool["n_backlog"] -= 1


@cold
def fail(pool, slots, parked, timers, finished, s, status):
    """Refused, timed out or lost: a batch job waits for its next turn, a client tries again later or gives up."""
    r = slots[s]
    batch = r["batch"] != 0 and pool["batch_limit"] > 0
    if not batch and r["attempt"] >= pool["retries"]:
        leave(pool, slots, parked, timers, finished, s, status)
        return
    if not math.isnan(r["first_token_s"]):
        pool["wasted_tokens"] += 1.0 + (r["growth"] * r["done"]) / UNIT
    r["first_token_s"] = math.nan
    r["first_answer_s"] = math.nan
    if batch:
        r["attempt"] += 1
        to_backlog(pool, slots, s)
        return
    delay = pool["retry_after_s"] * pool["retry_backoff"] ** r["attempt"]
    r["attempt"] += 1
    r["state"] = AWAY
    pool["retried"] += 1
    timer_push(pool, timers, pool["now"] + delay, TIMER_RETRY, s, r["id"] * ATTEMPTS + r["attempt"])


@hot
def _push_event(worker, keys, items, count, order, item):
    heap_push(keys, items, worker["heap_offset"], worker["heap_size"], (count << ORDER_BITS) | order, item)
    worker["heap_size"] += 1


@hot
def _steps_to_answer(r):
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
        answer = worker["count"] + _steps_to_answer(r) - r["done"]
        if answer < end:
            _push_event(worker, keys, items, answer, order, s * 4 + EVENT_ANSWER)
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
            _push_event(worker, keys, items, crossing, order, s * 4 + EVENT_CAP)


@hot
def _leave_decode(worker, slots, s):
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
        worker["attended"] -= worker["attention_cap"] * UNIT
    else:
        worker["attended"] -= held
        worker["attended_growth"] -= r["growth"]


@cold
def _cap_attention(worker, slots, s):
    """A sequence has grown to the attention cap: from now on it attends that many tokens."""
    r = slots[s]
    held = r["held"] + r["growth"] * (worker["count"] - r["join"])
    r["capped"] = 1
    worker["attended"] += worker["attention_cap"] * UNIT - held
    worker["attended_growth"] -= r["growth"]


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
        _leave_decode(worker, slots, s)
    else:
        if r["state"] == PREFILLING:
            _drop_from_prefill(worker, slots, s)
        worker["prefill_blocks"] -= r["blocks"]
        worker["prefill_held_tokens"] -= r["prompt"]
    running_remove(worker, slots, s)
    unpin_chain(worker, r, nodes)


@cold
def _preempt(pool, worker, w, instances, queues, slots, keys, items, nodes, timers, s):
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
def _victim(worker, slots):
    """The newest running request of the least urgent class."""
    victim = worker["newest"]
    s = slots[victim]["prev"]
    while s >= 0:
        if slots[s]["priority"] > slots[victim]["priority"]:
            victim = s
        s = slots[s]["prev"]
    return victim


@cold
def _newest_batch_job(worker, slots):
    s = worker["newest"]
    while s >= 0 and slots[s]["batch"] == 0:
        s = slots[s]["prev"]
    return s


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
            victim = _newest_batch_job(worker, slots)
            if victim < 0:
                break
            if slots[victim]["state"] == PREFILLING:
                budget += slots[victim]["chunk"]
            elif slots[victim]["state"] == RUNNING:
                budget += tps
            _preempt(pool, worker, w, instances, queues, slots, keys, items, nodes, timers, victim)
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
            _preempt(
                pool, worker, w, instances, queues, slots, keys, items, nodes, timers, _victim(worker, slots)
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
    if worker["decodes"] != 0:
        step_s += slow * (worker["cost_kv_s"] * (worker["attended"] / UNIT))
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
        worker["span"] = steps_that_fit(worker, slots, items, block_tokens, steps)
        worker["end_s"] = time_after(worker, worker["span"])
    set_end(tree_s, tree_worker, pool["leaves"], w, worker["end_s"])


@hot
def cut_span(pool, worker, w, tree_s, tree_worker, time_s):
    """End worker `w`'s decode span at its first step end at or after `time_s`, so that the batch can change there."""
    if worker["mode"] != DECODING or worker["span"] <= 1:
        return
    steps = steps_to(worker, time_s)
    if steps < worker["span"]:
        worker["span"] = steps
        worker["end_s"] = time_after(worker, steps)
        set_end(tree_s, tree_worker, pool["leaves"], w, worker["end_s"])


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
    if math.isnan(r["first_answer_s"]) and r["done"] >= _steps_to_answer(r):
        r["first_answer_s"] = pool["now"]
    if r["done"] >= r["steps"]:
        _finish(pool, worker, w, instances, slots, nodes, buckets, ids, parked, timers, finished, s)
    elif worker["role"] == ROLE_PREFILL:
        running_remove(worker, slots, s)
        unpin_chain(worker, r, nodes)
        worker["outstanding"] -= 1
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
    first = worker["heap_offset"]
    while worker["heap_size"] > 0 and (keys[first] >> ORDER_BITS) <= worker["count"]:
        s = items[first] >> 2
        event = items[first] & 3
        heap_remove(keys, items, first, worker["heap_size"], 0)
        worker["heap_size"] -= 1
        if event == EVENT_CAP:
            _cap_attention(worker, slots, s)
        elif event == EVENT_ANSWER:
            slots[s]["first_answer_s"] = pool["now"]
        else:
            _leave_decode(worker, slots, s)
            _finish(pool, worker, w, instances, slots, nodes, buckets, ids, parked, timers, finished, s)
    if mixed:
        _end_chunks(pool, worker, w, instances, slots, keys, items, nodes, buckets, ids, parked, timers, finished)
    if worker["cancelled"] != 0:
        _end_cancelled(pool, worker, instances, slots, keys, items, nodes, parked, timers, finished)
