"""What goes wrong from outside: clients go away, instances break. Jitted, arrays only."""

import math

from factory_sim.engine.kernel.arrivals import rouse
from factory_sim.engine.kernel.batch import take_off_batch
from factory_sim.engine.kernel.events import queue_remove, set_idle
from factory_sim.engine.kernel.jit import cold
from factory_sim.engine.kernel.leaving import fail, from_backlog, leave, let_go
from factory_sim.engine.kernel.prefix import forget_all
from factory_sim.engine.kernel.ranks import clear_ranks
from factory_sim.engine.kernel.span import cut_span, settle_worker
from factory_sim.engine.kernel.state import AWAY, BACKLOG, CANCELLED, IDLE, LOADING, LOST, PREFILLING, RUNNING, WAITING


@cold
def withdraw(pool, workers, s, instances, queues, slots, starting, tree_s, tree_worker):
    """Take a request that is not in the batch away from its instance."""
    r = slots[s]
    w = r["worker"]
    if w >= 0:
        worker = workers[w]
        worker["outstanding"] -= 1
        worker["prompt_tokens"] -= r["isl"]
        if r["state"] == WAITING:
            queue_remove(queues, slots, w, s)
            worker["waiting"] -= 1
            instances[r["instance"]]["waiting"] -= 1
        if worker["waiting"] > 0:
            rouse(pool, workers, w, starting, tree_s, tree_worker)
    let_go(instances, slots, s)


@cold
def cancel(
    pool, workers, s, instances, queues, slots, keys, items, nodes, parked, timers, finished, starting, tree_s,
    tree_worker,
):  # fmt: skip
    """The client of request `s` goes away; a batch lets go of it at the end of its step."""
    r = slots[s]
    state = r["state"]
    w = r["worker"]
    i = r["instance"]
    if state in (AWAY, BACKLOG):
        if state == BACKLOG:
            from_backlog(pool, slots, s)
        leave(pool, slots, parked, timers, finished, s, CANCELLED)
        return -1
    if state in (PREFILLING, RUNNING) and workers[w]["mode"] != IDLE:
        r["cancelled"] = 1
        workers[w]["cancelled"] = 1
        cut_span(pool, workers[w], w, tree_s, tree_worker, pool["now"])
        return -1
    if state in (PREFILLING, RUNNING, LOADING):
        take_off_batch(workers[w], slots, keys, items, nodes, s)
    withdraw(pool, workers, s, instances, queues, slots, starting, tree_s, tree_worker)
    leave(pool, slots, parked, timers, finished, s, CANCELLED)
    return i


@cold
def lose(
    pool, workers, i, victims, instances, queues, slots, keys, items, base, nodes, buckets, parked, timers, finished,
    starting, tree_s, tree_worker,
):  # fmt: skip
    """Instance `i` breaks: its workers forget everything, its requests are lost."""
    inst = instances[i]
    first = inst["first_worker"]
    last = first + inst["n_entry"] + inst["n_decode"]
    for w in range(first, last):
        worker = workers[w]
        steps = settle_worker(worker, base, pool["now"])
        for k in range(worker["heap_size"]):
            item = items[worker["heap_offset"] + k]
            if item & 3 == 0:
                r = slots[item >> 2]
                r["done"] += worker["count"] + steps - r["join"]
        worker["mode"] = IDLE
        worker["span"] = 0
        worker["end_s"] = math.inf
        worker["running"] = 0
        worker["decoding"] = 0
        worker["waiting"] = 0
        worker["outstanding"] = 0
        worker["prompt_tokens"] = 0
        worker["newest"] = -1
        worker["prefill_head"] = -1
        worker["prefill_tail"] = -1
        worker["prefill_blocks"] = 0
        worker["prefill_held_tokens"] = 0
        worker["heap_size"] = 0
        if worker["ranks"] > 1:
            clear_ranks(worker, keys)
        worker["attended"] = 0
        worker["attended_growth"] = 0
        worker["held"] = 0
        worker["held_growth"] = 0
        worker["shared"] = 0
        worker["cancelled"] = 0
        worker["ids"] = 0
        worker["link_free_s"] = 0.0
        worker["host_free_s"] = 0.0
        forget_all(pool, worker, w, nodes, buckets)
        for c in range(pool["classes"]):
            queues[w, c]["head"] = -1
            queues[w, c]["tail"] = -1
        tree_s[pool["leaves"] + w] = math.inf
        set_idle(tree_s, tree_worker, pool["leaves"], w)
    inst["waiting"] = 0
    inst["outstanding"] = 0
    inst["kv_tokens"] = 0
    for k in range(len(victims)):
        s = victims[k]
        slots[s]["worker"] = -1
        fail(pool, slots, parked, timers, finished, s, LOST)
