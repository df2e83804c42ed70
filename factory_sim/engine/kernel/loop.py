"""The kernel's entry points: play a pool up to a time, or read its counters at a time. Jitted, arrays only.

Order of events: (time, kind, sequence), kinds being step ends (by worker), timers, arrivals (by order of offering),
step starts. A request that arrives at the instant a step starts is in time for it; one that leaves at that instant has
left before the router looks.
"""

import math

from factory_sim.engine.kernel.admission import start_step
from factory_sim.engine.kernel.arrivals import arrive, enqueue, pull, rouse, to_instance
from factory_sim.engine.kernel.batch import add_to_prefill
from factory_sim.engine.kernel.completion import end_step
from factory_sim.engine.kernel.events import queue_prepend, set_idle, timer_pop
from factory_sim.engine.kernel.jit import SOURCES, cold, entry, hot
from factory_sim.engine.kernel.leaving import fail
from factory_sim.engine.kernel.prefix import fill_buckets
from factory_sim.engine.kernel.router import least_busy, refresh_signals
from factory_sim.engine.kernel.span import cut_span, settle_worker
from factory_sim.engine.kernel.state import (
    ACCEPT,
    ATTEMPTS,
    AWAY,
    DELAYED,
    DONE,
    IN_TRANSFER,
    LOADING,
    NEED_OFFERS,
    NODES_FULL,
    OUT_FULL,
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
from factory_sim.engine.kernel.trouble import cancel, lose, withdraw


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
        return cancel(
            pool, workers, s, instances, queues, slots, keys, items, nodes, parked, timers, finished, starting,
            tree_s, tree_worker,
        )  # fmt: skip
    if r["attempt"] != stamp % ATTEMPTS:
        return -1
    state = r["state"]
    if kind == TIMER_READY and state == DELAYED:
        enqueue(pool, workers, r["worker"], s, instances, queues, slots, starting, tree_s, tree_worker)
    elif kind == TIMER_TRANSFERRED and state == IN_TRANSFER:
        r["transferred"] = 1
        w = r["worker"]
        if w < 0:
            inst = instances[r["instance"]]
            w = least_busy(workers, inst["first_worker"] + inst["n_entry"], inst["n_decode"])
            workers[w]["outstanding"] += 1
            workers[w]["prompt_tokens"] += r["isl"]
            enqueue(pool, workers, w, s, instances, queues, slots, starting, tree_s, tree_worker)
        else:
            r["state"] = WAITING
            queue_prepend(queues, slots, w, s)
            workers[w]["waiting"] += 1
            instances[r["instance"]]["waiting"] += 1
            rouse(pool, workers, w, starting, tree_s, tree_worker)
    elif kind == TIMER_LOADED and state == LOADING and r["ready_s"] == pool["now"]:
        add_to_prefill(workers[r["worker"]], slots, s)
        rouse(pool, workers, r["worker"], starting, tree_s, tree_worker)
    elif kind == TIMER_TIMEOUT and r["order"] < 0 and state in (DELAYED, WAITING):
        i = r["instance"]
        withdraw(pool, workers, s, instances, queues, slots, starting, tree_s, tree_worker)
        fail(pool, slots, parked, timers, finished, s, TIMED_OUT)
        return i
    elif kind == TIMER_RETRY and state == AWAY:
        to_instance(
            pool, workers, s, instances, queues, slots, keys, items, nodes, buckets, ids, parked, timers, finished,
            starting, tree_s, tree_worker,
        )  # fmt: skip
    return -1


@hot
def _alone(tree_s, leaves, w, time_s):
    """Whether no other worker's step ends at `time_s` (worker `w`'s, the tree's winner, does)."""
    i = leaves + w
    while i > 1:
        if tree_s[i ^ 1] <= time_s:
            return False
        i >>= 1
    return True


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
                refresh_signals(pool, workers, instances)
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
                    set_idle(tree_s, tree_worker, leaves, w)
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
                arrive(
                    pool, workers, instances, queues, slots, parked[row] if pulls < -1 else offers[row], keys, items,
                    nodes, buckets, ids, parked, timers, finished, starting, tree_s, tree_worker,
                )  # fmt: skip
            if pulls >= 0 and pool["n_backlog"] > 0:
                pull(
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
            refresh_signals(pool, workers, instances)
        if action == ACCEPT:
            _set_accepting(pool, inst, int(value))
            pull(
                pool, workers, i, instances, queues, slots, parked, timers, finished, starting, tree_s, tree_worker
            )  # fmt: skip
        elif action == SET_SPEED:
            for w in range(inst["first_worker"], inst["first_worker"] + inst["n_entry"] + inst["n_decode"]):
                workers[w]["next_slow"] = value
                cut_span(pool, workers[w], w, tree_s, tree_worker, pool["now"])
        elif action == STOP_LOSING:
            _set_accepting(pool, inst, 0)
            lose(
                pool, workers, i, victims, instances, queues, slots, keys, items, base, nodes, buckets, parked, timers,
                finished, starting, tree_s, tree_worker,
            )  # fmt: skip
            for k in range(pool["n_instances"]):
                pull(
                    pool, workers, k, instances, queues, slots, parked, timers, finished, starting, tree_s, tree_worker
                )  # fmt: skip
        elif action == STOP_GRACEFULLY:
            _set_accepting(pool, inst, 0)
            for k in range(len(victims)):
                s = victims[k]
                withdraw(pool, workers, s, instances, queues, slots, starting, tree_s, tree_worker)
                to_instance(
                    pool, workers, s, instances, queues, slots, keys, items, nodes, buckets, ids, parked, timers,
                    finished, starting, tree_s, tree_worker,
                )  # fmt: skip

    @entry
    def settle(workers, base, time_s):
        """Bring the counters of (a copy of) the workers to `time_s`, cutting the spans that are under way."""
        if sources == 0:
            return
        for w in range(len(workers)):
            settle_worker(workers[w], base, time_s)

    @entry
    def rehash(pool_array, nodes, buckets):
        """Fill an enlarged bucket table of the prefix cache anew."""
        if sources == 0:
            return
        fill_buckets(pool_array[0], nodes, buckets)

    return play, operate, settle, rehash


play, operate, settle, rehash = _entries(SOURCES)
