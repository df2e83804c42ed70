"""How requests come to a worker: through the router, out of the backlog of batch jobs, into its queue. Jitted."""

import math

from factory_sim.engine.kernel.events import queue_append, slot_take, timer_push
from factory_sim.engine.kernel.jit import cold, hot
from factory_sim.engine.kernel.leaving import count_in_system, fail, from_backlog, leave, to_backlog
from factory_sim.engine.kernel.router import least_busy, route, route_by_prefix
from factory_sim.engine.kernel.span import cut_span
from factory_sim.engine.kernel.state import (
    ATTEMPTS,
    DELAYED,
    IDLE,
    REJECTED,
    TIMER_CANCEL,
    TIMER_READY,
    TIMER_TIMEOUT,
    UNIT,
    WAITING,
)


@hot
def rouse(pool, workers, w, starting, tree_s, tree_worker):
    """Something at worker `w` may join its batch: start it if it is idle, else stop its span at the next step end."""
    worker = workers[w]
    if worker["mode"] != IDLE:
        cut_span(pool, worker, w, tree_s, tree_worker, pool["now"])
    elif worker["starting"] == 0:
        worker["starting"] = 1
        starting[pool["n_starting"]] = w
        pool["n_starting"] += 1


@hot
def enqueue(pool, workers, w, s, instances, queues, slots, starting, tree_s, tree_worker):
    """Put request `s` into worker `w`'s queue; start the worker if it is idle, cut its span if the request can join."""
    worker = workers[w]
    r = slots[s]
    r["worker"] = w
    r["state"] = WAITING
    blocked = False
    if worker["waiting"] > 0:
        for c in range(r["priority"] + 1):
            blocked = blocked or queues[w, c]["head"] >= 0
    queue_append(queues, slots, w, s)
    worker["waiting"] += 1
    instances[worker["instance"]]["waiting"] += 1
    if worker["mode"] == IDLE or (
        not blocked and (worker["running"] < worker["max_sequences"] or pool["batch_limit"] > 0)
    ):
        rouse(pool, workers, w, starting, tree_s, tree_worker)


@hot
def _too_long(pool, inst, r):
    tokens = r["isl"] + r["osl"]
    return tokens > inst["max_context_tokens"] or tokens > inst["capacity_blocks"] * pool["block_tokens"]


@cold
def _at_pace(inst, r):
    """Set the steps that a request needs at an instance which gains more or fewer tokens a step than it was drawn for."""
    if r["osl"] <= 1:
        return
    r["steps"] = max(1, math.floor(r["steps_brought"] * inst["pace"] + 0.5))
    r["growth"] = ((r["osl"] - 1) * UNIT + r["steps"] // 2) // r["steps"]


@hot
def _send(
    pool, workers, i, w, s, instances, queues, slots, parked, timers, finished, starting, tree_s, tree_worker
):  # fmt: skip
    """Give request `s` to instance `i` (worker `w` of it, or its least busy one if -1)."""
    r = slots[s]
    inst = instances[i]
    r["instance"] = i
    if pool["paced"] != 0:
        _at_pace(inst, r)
    inst["outstanding"] += 1
    inst["kv_tokens"] += r["isl"]
    if w < 0:
        w = inst["first_worker"]
        if inst["n_entry"] > 1:
            w = least_busy(workers, w, inst["n_entry"])
    workers[w]["outstanding"] += 1
    workers[w]["prompt_tokens"] += r["isl"]
    r["worker"] = w
    r["prompt"] = r["isl"]
    r["prefilled"] = 0
    r["computed"] = 0
    r["chunk"] = 0
    r["done"] = 0
    r["order"] = -1
    r["transferred"] = 0
    r["node"] = -1
    r["n_nodes"] = 0
    r["shared"] = 0
    stamp = r["id"] * ATTEMPTS + r["attempt"]
    if pool["timeout_s"] < math.inf and r["batch"] == 0:
        timer_push(pool, timers, pool["now"] + pool["timeout_s"], TIMER_TIMEOUT, s, stamp)
    if inst["overhead_s"] > 0.0:
        r["state"] = DELAYED
        timer_push(pool, timers, pool["now"] + inst["overhead_s"], TIMER_READY, s, stamp)
    else:
        enqueue(pool, workers, w, s, instances, queues, slots, starting, tree_s, tree_worker)


@cold
def to_instance(
    pool, workers, s, instances, queues, slots, keys, items, nodes, buckets, ids, parked, timers, finished, starting,
    tree_s, tree_worker,
):  # fmt: skip
    """Choose an instance for request `s` and send it there, or turn it away."""
    r = slots[s]
    r["instance"] = -1
    r["worker"] = -1
    w = -1
    if pool["router"] == 6:
        i, w = route_by_prefix(pool, workers, instances, slots, items, nodes, buckets, ids, r)
    else:
        i = route(pool, instances, r["draw_1"], r["draw_2"], r["attempt"], r["session"])
    if i >= 0 and _too_long(pool, instances[i], r):
        pool["too_long"] += 1
        leave(pool, slots, parked, timers, finished, s, REJECTED)
    elif i < 0 or (pool["queue_limit"] > 0 and instances[i]["waiting"] >= pool["queue_limit"]):
        fail(pool, slots, parked, timers, finished, s, REJECTED)
    else:
        _send(
            pool, workers, i, w, s, instances, queues, slots, parked, timers, finished, starting, tree_s, tree_worker
        )  # fmt: skip


@cold
def pull(
    pool, workers, i, instances, queues, slots, parked, timers, finished, starting, tree_s, tree_worker
):  # fmt: skip
    """Let an instance with idle capacity take batch jobs from the backlog."""
    inst = instances[i]
    while pool["n_backlog"] > 0 and inst["accepting"] != 0 and inst["outstanding"] < pool["batch_limit"]:
        s = pool["backlog_head"]
        from_backlog(pool, slots, s)
        if _too_long(pool, inst, slots[s]):
            pool["too_long"] += 1
            leave(pool, slots, parked, timers, finished, s, REJECTED)
            continue
        _send(
            pool, workers, i, -1, s, instances, queues, slots, parked, timers, finished, starting, tree_s, tree_worker
        )  # fmt: skip


@hot
def arrive(
    pool, workers, instances, queues, slots, offer, keys, items, nodes, buckets, ids, parked, timers, finished,
    starting, tree_s, tree_worker,
):  # fmt: skip
    """A request reaches the router (a batch job: an instance with room, or the backlog)."""
    pool["arrived"] += 1
    s = slot_take(pool, slots)
    r = slots[s]
    r["id"] = offer["id"]
    r["arrival_s"] = pool["now"]
    r["first_token_s"] = math.nan
    r["first_answer_s"] = math.nan
    r["isl"] = offer["isl"]
    r["osl"] = offer["osl"]
    r["steps"] = offer["steps"]
    r["steps_brought"] = offer["steps"]
    r["growth"] = offer["growth"]
    r["cached"] = offer["cached"]
    r["hit"] = 0
    r["priority"] = offer["priority"]
    r["service"] = offer["service"]
    r["reasoning"] = offer["reasoning"]
    r["session"] = offer["session"]
    r["batch"] = offer["batch"]
    r["child"] = offer["child"]
    r["ids_at"] = offer["ids_at"]
    r["ids_n"] = offer["ids_n"]
    r["draw_1"] = offer["draw_1"]
    r["draw_2"] = offer["draw_2"]
    r["instance"] = -1
    r["worker"] = -1
    r["attempt"] = 0
    r["done"] = 0
    r["cancelled"] = 0
    r["preemptions"] = 0
    count_in_system(pool, 1)
    if offer["patience_s"] < math.inf:
        timer_push(pool, timers, pool["now"] + offer["patience_s"], TIMER_CANCEL, s, r["id"] * ATTEMPTS)
    if r["batch"] == 0 or pool["batch_limit"] == 0:
        to_instance(
            pool, workers, s, instances, queues, slots, keys, items, nodes, buckets, ids, parked, timers, finished,
            starting, tree_s, tree_worker,
        )  # fmt: skip
        return
    r["priority"] = pool["classes"] - 1
    best = -1
    for i in range(pool["n_instances"]):
        n = instances[i]["outstanding"]
        open_to_batch = instances[i]["accepting"] != 0 and n < pool["batch_limit"]
        if open_to_batch and (best < 0 or n < instances[best]["outstanding"]):
            best = i
    if best < 0:
        to_backlog(pool, slots, s)
    elif _too_long(pool, instances[best], r):
        pool["too_long"] += 1
        leave(pool, slots, parked, timers, finished, s, REJECTED)
    else:
        _send(
            pool, workers, best, -1, s, instances, queues, slots, parked, timers, finished, starting, tree_s,
            tree_worker,
        )  # fmt: skip
