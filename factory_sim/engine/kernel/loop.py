"""The kernel's entry points: play a pool up to a time, or read its counters at a time. Jitted, arrays only.

Order of events: (time, kind, sequence), kinds being step ends (by worker), timers, arrivals (by order of offering),
step starts. A request that arrives at the instant a step starts is in time for it; one that leaves at that instant has
left before the router looks.
"""

import math

from factory_sim.engine.kernel.events import (
    queue_append,
    queue_prepend,
    queue_remove,
    slot_take,
    timer_pop,
    timer_push,
)
from factory_sim.engine.kernel.jit import SOURCES, cold, entry, hot
from factory_sim.engine.kernel.prefix import fill_buckets, forget_all
from factory_sim.engine.kernel.router import least_busy, refresh_signals, route, route_by_prefix
from factory_sim.engine.kernel.scheduler import (
    account,
    add_to_prefill,
    count_in_system,
    cut_span,
    end_step,
    fail,
    from_backlog,
    leave,
    let_go,
    start_step,
    steps_to,
    take_off_batch,
    time_after,
    to_backlog,
)
from factory_sim.engine.kernel.state import (
    ACCEPT,
    ATTEMPTS,
    AWAY,
    BACKLOG,
    CANCELLED,
    DECODING,
    DELAYED,
    DONE,
    IDLE,
    IN_TRANSFER,
    LOADING,
    LOST,
    NEED_OFFERS,
    NODES_FULL,
    OUT_FULL,
    PREFILLING,
    REJECTED,
    RUNNING,
    SET_SPEED,
    SLOTS_FULL,
    STOP_GRACEFULLY,
    STOP_LOSING,
    TIMED_OUT,
    TIMER_CANCEL,
    TIMER_LOADED,
    TIMER_READY,
    TIMER_RETRY,
    TIMER_SESSION,
    TIMER_TIMEOUT,
    TIMER_TRANSFERRED,
    TIMERS_FULL,
    WAITING,
)


@hot
def _rouse(pool, workers, w, starting, tree_s, tree_worker):
    """Something at worker `w` may join its batch: start it if it is idle, else stop its span at the next step end."""
    worker = workers[w]
    if worker["mode"] != IDLE:
        cut_span(pool, worker, w, tree_s, tree_worker, pool["now"])
    elif worker["starting"] == 0:
        worker["starting"] = 1
        starting[pool["n_starting"]] = w
        pool["n_starting"] += 1


@hot
def _enqueue(pool, workers, w, s, instances, queues, slots, starting, tree_s, tree_worker):
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
        _rouse(pool, workers, w, starting, tree_s, tree_worker)


@hot
def _too_long(pool, inst, r):
    tokens = r["isl"] + r["osl"]
    return tokens > inst["max_context_tokens"] or tokens > inst["capacity_blocks"] * pool["block_tokens"]


@hot
def _send(
    pool, workers, i, w, s, instances, queues, slots, parked, timers, finished, starting, tree_s, tree_worker
):  # fmt: skip
    """Give request `s` to instance `i` (worker `w` of it, or its least busy one if -1)."""
    r = slots[s]
    inst = instances[i]
    r["instance"] = i
    inst["outstanding"] += 1
    inst["kv_tokens"] += r["isl"]
    if w < 0:
        w = inst["first_worker"]
        if inst["n_entry"] > 1:
            w = least_busy(workers, w, inst["n_entry"])
    workers[w]["outstanding"] += 1
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
        _enqueue(pool, workers, w, s, instances, queues, slots, starting, tree_s, tree_worker)


@cold
def _route(
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
def _pull(
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
def _arrive(
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
        _route(
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


@cold
def _withdraw(pool, workers, s, instances, queues, slots, starting, tree_s, tree_worker):
    """Take a request that is not in the batch away from its instance."""
    r = slots[s]
    w = r["worker"]
    if w >= 0:
        worker = workers[w]
        worker["outstanding"] -= 1
        if r["state"] == WAITING:
            queue_remove(queues, slots, w, s)
            worker["waiting"] -= 1
            instances[r["instance"]]["waiting"] -= 1
        if worker["waiting"] > 0:
            _rouse(pool, workers, w, starting, tree_s, tree_worker)
    let_go(instances, slots, s)


@cold
def _cancel(
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
    _withdraw(pool, workers, s, instances, queues, slots, starting, tree_s, tree_worker)
    leave(pool, slots, parked, timers, finished, s, CANCELLED)
    return i


@cold
def _ring(
    pool, workers, instances, queues, slots, keys, items, nodes, buckets, ids, parked, timers, finished, starting,
    tree_s, tree_worker,
):  # fmt: skip
    """Play the first timer.

    Returns the instance that a request has left before its time, or -1; -2 - p if parked request p arrives.
    """
    kind = timers[0]["kind"]
    s = timers[0]["slot"]
    stamp = timers[0]["stamp"]
    timer_pop(pool, timers)
    if kind == TIMER_SESSION:
        pool["live_parked"] -= 1
        parked[s]["live"] = 0
        return -2 - s
    r = slots[s]
    if r["id"] != stamp // ATTEMPTS:
        return -1
    if kind == TIMER_CANCEL:
        return _cancel(
            pool, workers, s, instances, queues, slots, keys, items, nodes, parked, timers, finished, starting,
            tree_s, tree_worker,
        )  # fmt: skip
    if r["attempt"] != stamp % ATTEMPTS:
        return -1
    state = r["state"]
    if kind == TIMER_READY and state == DELAYED:
        _enqueue(pool, workers, r["worker"], s, instances, queues, slots, starting, tree_s, tree_worker)
    elif kind == TIMER_TRANSFERRED and state == IN_TRANSFER:
        r["transferred"] = 1
        w = r["worker"]
        if w < 0:
            inst = instances[r["instance"]]
            w = least_busy(workers, inst["first_worker"] + inst["n_entry"], inst["n_decode"])
            workers[w]["outstanding"] += 1
            _enqueue(pool, workers, w, s, instances, queues, slots, starting, tree_s, tree_worker)
        else:
            r["state"] = WAITING
            queue_prepend(queues, slots, w, s)
            workers[w]["waiting"] += 1
            instances[r["instance"]]["waiting"] += 1
            _rouse(pool, workers, w, starting, tree_s, tree_worker)
    elif kind == TIMER_LOADED and state == LOADING and r["ready_s"] == pool["now"]:
        add_to_prefill(workers[r["worker"]], slots, s)
        _rouse(pool, workers, r["worker"], starting, tree_s, tree_worker)
    elif kind == TIMER_TIMEOUT and r["order"] < 0 and state in (DELAYED, WAITING):
        i = r["instance"]
        _withdraw(pool, workers, s, instances, queues, slots, starting, tree_s, tree_worker)
        fail(pool, slots, parked, timers, finished, s, TIMED_OUT)
        return i
    elif kind == TIMER_RETRY and state == AWAY:
        _route(
            pool, workers, s, instances, queues, slots, keys, items, nodes, buckets, ids, parked, timers, finished,
            starting, tree_s, tree_worker,
        )  # fmt: skip
    return -1


@cold
def _settle(worker, base, time_s):
    """Bring a worker's counters to `time_s`, cutting the span that is under way; return its whole steps."""
    if worker["mode"] == IDLE or time_s <= worker["anchor_s"]:
        return 0
    if worker["mode"] == DECODING:
        steps = steps_to(worker, time_s)
        part = 0.0
        if steps > 0 and time_after(worker, steps) > time_s:
            steps -= 1
            begun = time_after(worker, steps)
            part = (time_s - begun) / (time_after(worker, steps + 1) - begun)
        account(worker, base, steps, part)
        return steps
    account(worker, base, 0, (time_s - worker["anchor_s"]) / (worker["end_s"] - worker["anchor_s"]))
    return 0


@cold
def _lose(
    pool, workers, i, victims, instances, queues, slots, keys, items, base, nodes, buckets, parked, timers, finished,
    starting, tree_s, tree_worker,
):  # fmt: skip
    """Instance `i` breaks: its workers forget everything, its requests are lost."""
    inst = instances[i]
    first = inst["first_worker"]
    last = first + inst["n_entry"] + inst["n_decode"]
    for w in range(first, last):
        worker = workers[w]
        steps = _settle(worker, base, pool["now"])
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
        worker["newest"] = -1
        worker["prefill_head"] = -1
        worker["prefill_tail"] = -1
        worker["prefill_blocks"] = 0
        worker["prefill_held_tokens"] = 0
        worker["heap_size"] = 0
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
        _idle(tree_s, tree_worker, pool["leaves"], w)
    inst["waiting"] = 0
    inst["outstanding"] = 0
    inst["kv_tokens"] = 0
    for k in range(len(victims)):
        s = victims[k]
        slots[s]["worker"] = -1
        fail(pool, slots, parked, timers, finished, s, LOST)


@hot
def _alone(tree_s, leaves, w, time_s):
    """Whether no other worker's step ends at `time_s` (worker `w`'s, the tree's winner, does)."""
    i = leaves + w
    while i > 1:
        if tree_s[i ^ 1] <= time_s:
            return False
        i >>= 1
    return True


@hot
def _idle(tree_s, tree_worker, leaves, w):
    """Take worker `w`, whose leaf is already infinite, out of the running."""
    i = leaves + w
    while i > 1:
        i >>= 1
        child = 2 * i
        if tree_s[child + 1] < tree_s[child]:
            child += 1
        tree_s[i] = tree_s[child]
        tree_worker[i] = tree_worker[child]


@cold
def _set_accepting(pool, inst, accepting):
    pool["n_accepting"] += accepting - inst["accepting"]
    inst["accepting"] = accepting


def _entries(sources: int):
    """Define the entry points; they close over `sources` to keep stale compilations out of the cache (`jit.py`)."""

    @entry
    def play(
        pool_array, workers, instances, queues, slots, offers, parked, timers, finished, starting, keys, items, base,
        tree_s, tree_worker, nodes, buckets, ids, until_s,
    ):  # fmt: skip
        """Play every event before `until_s`; return why it stopped (DONE, or which array needs room)."""
        if sources == 0:
            return -1
        pool = pool_array[0]
        while True:
            if pool["next_offer"] >= pool["n_offers"] and pool["more_offers"] != 0:
                return NEED_OFFERS
            end_s = tree_s[1]
            timer_s = timers[0]["time_s"] if pool["n_timers"] > 0 else math.inf
            arrival_s = math.inf
            offer = -1
            if pool["next_offer"] < pool["n_offers"]:
                offer = pool["next_offer"]
                arrival_s = offers[offer]["arrival_s"]
            if pool["credits"] > 0 and pool["next_release"] < pool["release_end"] and pool["now"] < arrival_s:
                offer = pool["next_release"]
                arrival_s = pool["now"]
            time_s = min(end_s, timer_s, arrival_s)
            if pool["n_starting"] > 0 and time_s > pool["now"] and pool["now"] < until_s:
                for k in range(pool["n_starting"]):
                    start_step(
                        pool, workers, starting[k], instances, queues, slots, keys, items, base, tree_s, tree_worker,
                        nodes, buckets, ids, timers,
                    )  # fmt: skip
                pool["n_starting"] = 0
                continue
            if time_s >= until_s or time_s == math.inf:
                return DONE
            if pool["n_out"] + pool["out_margin"] > len(finished):
                return OUT_FULL
            if pool["n_timers"] + pool["timer_margin"] > len(timers):
                return TIMERS_FULL
            if pool["n_free"] < 1:
                return SLOTS_FULL
            if end_s == time_s and workers[tree_worker[1]]["ids"] > pool["n_free_nodes"]:
                return NODES_FULL
            pool["now"] = time_s
            if pool["signal_age_s"] > 0.0 and time_s >= pool["next_refresh_s"]:
                refresh_signals(pool, instances)
            pulls = -1
            row = -1
            if end_s == time_s:
                w = tree_worker[1]
                end_step(
                    pool, workers, w, instances, slots, keys, items, base, nodes, buckets, ids, parked, timers,
                    finished,
                )  # fmt: skip
                leaves = pool["leaves"]
                tree_s[leaves + w] = math.inf
                timer_s = timers[0]["time_s"] if pool["n_timers"] > 0 else math.inf
                if (
                    min(timer_s, arrival_s) > time_s
                    and pool["credits"] == 0
                    and pool["n_backlog"] == 0
                    and _alone(tree_s, leaves, w, time_s)
                ):
                    start_step(
                        pool, workers, w, instances, queues, slots, keys, items, base, tree_s, tree_worker, nodes,
                        buckets, ids, timers,
                    )  # fmt: skip
                else:
                    _idle(tree_s, tree_worker, leaves, w)
                    workers[w]["starting"] = 1
                    starting[pool["n_starting"]] = w
                    pool["n_starting"] += 1
                    pulls = workers[w]["instance"]
            elif timer_s == time_s:
                pulls = _ring(
                    pool, workers, instances, queues, slots, keys, items, nodes, buckets, ids, parked, timers, finished,
                    starting, tree_s, tree_worker,
                )  # fmt: skip
                row = -2 - pulls
            else:
                row = offer
                if offer < pool["n_offers"]:
                    pool["next_offer"] += 1
                else:
                    pool["next_release"] += 1
                    pool["credits"] -= 1
            if row >= 0:
                _arrive(
                    pool, workers, instances, queues, slots, parked[row] if pulls < -1 else offers[row], keys, items,
                    nodes, buckets, ids, parked, timers, finished, starting, tree_s, tree_worker,
                )  # fmt: skip
            if pulls >= 0 and pool["n_backlog"] > 0:
                _pull(
                    pool, workers, pulls, instances, queues, slots, parked, timers, finished, starting, tree_s,
                    tree_worker,
                )  # fmt: skip

    @entry
    def operate(
        pool_array, workers, instances, queues, slots, parked, timers, finished, starting, keys, items, base, tree_s,
        tree_worker, nodes, buckets, ids, action, i, value, victims,
    ):  # fmt: skip
        """Do what an operator does to instance `i` at the time played (state.py lists the actions)."""
        if sources == 0:
            return
        pool = pool_array[0]
        inst = instances[i]
        if pool["signal_age_s"] > 0.0 and pool["now"] >= pool["next_refresh_s"]:
            refresh_signals(pool, instances)
        if action == ACCEPT:
            _set_accepting(pool, inst, int(value))
            _pull(
                pool, workers, i, instances, queues, slots, parked, timers, finished, starting, tree_s, tree_worker
            )  # fmt: skip
        elif action == SET_SPEED:
            for w in range(inst["first_worker"], inst["first_worker"] + inst["n_entry"] + inst["n_decode"]):
                workers[w]["next_slow"] = value
                cut_span(pool, workers[w], w, tree_s, tree_worker, pool["now"])
        elif action == STOP_LOSING:
            _set_accepting(pool, inst, 0)
            _lose(
                pool, workers, i, victims, instances, queues, slots, keys, items, base, nodes, buckets, parked, timers,
                finished, starting, tree_s, tree_worker,
            )  # fmt: skip
            for k in range(pool["n_instances"]):
                _pull(
                    pool, workers, k, instances, queues, slots, parked, timers, finished, starting, tree_s, tree_worker
                )  # fmt: skip
        elif action == STOP_GRACEFULLY:
            _set_accepting(pool, inst, 0)
            for k in range(len(victims)):
                s = victims[k]
                _withdraw(pool, workers, s, instances, queues, slots, starting, tree_s, tree_worker)
                _route(
                    pool, workers, s, instances, queues, slots, keys, items, nodes, buckets, ids, parked, timers,
                    finished, starting, tree_s, tree_worker,
                )  # fmt: skip

    @entry
    def settle(workers, base, time_s):
        """Bring the counters of (a copy of) the workers to `time_s`, cutting the spans that are under way."""
        if sources == 0:
            return
        for w in range(len(workers)):
            _settle(workers[w], base, time_s)

    @entry
    def rehash(pool_array, nodes, buckets):
        """Fill an enlarged bucket table of the prefix cache anew."""
        if sources == 0:
            return
        fill_buckets(pool_array[0], nodes, buckets)

    return play, operate, settle, rehash


play, operate, settle, rehash = _entries(SOURCES)
