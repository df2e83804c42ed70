"""The kernel's entry points: play a pool up to a time, or read its counters at a time. Jitted, arrays only.

Order of events: (time, kind, sequence), kinds being step ends (by worker), timers, arrivals (by order of offering),
step starts. A request that arrives at the instant a step starts is in time for it; one that leaves at that instant has
left before the router looks.
"""

import math
import zlib
from pathlib import Path

from numba import njit

from factory_sim.engine.kernel.events import queue_append, queue_remove, slot_take, timer_pop, timer_push
from factory_sim.engine.kernel.router import route
from factory_sim.engine.kernel.scheduler import (
    account,
    count_in_system,
    cut_span,
    end_step,
    leave,
    start_step,
    steps_to,
    time_after,
)
from factory_sim.engine.kernel.state import (
    DECODING,
    DELAYED,
    DONE,
    IDLE,
    IN_TRANSFER,
    NEED_OFFERS,
    OUT_FULL,
    REJECTED,
    SLOTS_FULL,
    TIMED_OUT,
    TIMER_READY,
    TIMER_TIMEOUT,
    TIMER_TRANSFERRED,
    TIMERS_FULL,
    WAITING,
)

_jit = njit(cache=True, nogil=True)


@_jit
def _wake(pool, workers, w, s, instances, queues, slots, starting, tree_s, tree_worker):
    """Put request `s` into worker `w`'s queue; start the worker if it is idle, cut its span if the request can join."""
    worker = workers[w]
    r = slots[s]
    r["worker"] = w
    r["state"] = WAITING
    blocked = worker["waiting"] > 0
    if blocked and pool["classes"] > 1:
        for c in range(r["priority"] + 1):
            blocked = blocked and queues[w, c]["head"] < 0
        blocked = not blocked
    queue_append(queues, slots, w, s)
    worker["waiting"] += 1
    instances[worker["instance"]]["waiting"] += 1
    if worker["mode"] == IDLE:
        if worker["starting"] == 0:
            worker["starting"] = 1
            starting[pool["n_starting"]] = w
            pool["n_starting"] += 1
    elif not blocked and worker["running"] < worker["max_sequences"]:
        cut_span(pool, worker, w, tree_s, tree_worker, pool["now"])


@_jit
def _least_busy(workers, first, n):
    """Worker with the fewest requests among `n` from `first` on; ties go to the first."""
    best = first
    for w in range(first + 1, first + n):
        if workers[w]["outstanding"] < workers[best]["outstanding"]:
            best = w
    return best


@_jit
def _turn_away(pool, finished, offer, too_long):
    """Write a request that was refused at the door."""
    i = pool["n_out"]
    pool["n_out"] = i + 1
    out = finished[i]
    out["id"] = offer["id"]
    out["arrival_s"] = pool["now"]
    out["first_token_s"] = math.nan
    out["finish_s"] = pool["now"]
    out["isl"] = offer["isl"]
    out["osl"] = offer["osl"]
    out["cached_tokens"] = 0
    out["instance"] = -1
    out["service"] = offer["service"]
    out["status"] = REJECTED
    out["preemptions"] = 0
    pool["rejected"] += 1
    pool["too_long"] += too_long
    pool["credits"] += pool["closed"]


@_jit
def _arrive(pool, workers, instances, queues, slots, offer, timers, finished, starting, tree_s, tree_worker):
    """Route one request: into a queue, into a delay before it, or away."""
    pool["arrived"] += 1
    i = route(pool, instances, offer["draw_1"], offer["draw_2"])
    if i < 0:
        _turn_away(pool, finished, offer, 0)
        return
    inst = instances[i]
    tokens = offer["isl"] + offer["osl"]
    if tokens > inst["max_context_tokens"] or tokens > inst["capacity_blocks"] * pool["block_tokens"]:
        _turn_away(pool, finished, offer, 1)
        return
    if pool["queue_limit"] > 0 and inst["waiting"] >= pool["queue_limit"]:
        _turn_away(pool, finished, offer, 0)
        return
    s = slot_take(pool, slots)
    r = slots[s]
    r["id"] = offer["id"]
    r["arrival_s"] = pool["now"]
    r["first_token_s"] = math.nan
    r["isl"] = offer["isl"]
    r["osl"] = offer["osl"]
    r["steps"] = offer["steps"]
    r["growth"] = offer["growth"]
    r["cached"] = offer["cached"]
    r["priority"] = offer["priority"]
    r["service"] = offer["service"]
    r["draw_1"] = offer["draw_1"]
    r["draw_2"] = offer["draw_2"]
    r["instance"] = i
    r["prompt"] = offer["isl"]
    r["prefilled"] = 0
    r["computed"] = 0
    r["chunk"] = 0
    r["done"] = 0
    r["order"] = -1
    r["transferred"] = 0
    r["preemptions"] = 0
    inst["outstanding"] += 1
    inst["kv_tokens"] += offer["isl"]
    count_in_system(pool, 1)
    w = inst["first_worker"]
    if inst["n_entry"] > 1:
        w = _least_busy(workers, w, inst["n_entry"])
    workers[w]["outstanding"] += 1
    r["worker"] = w
    if pool["timeout_s"] < math.inf:
        timer_push(pool, timers, pool["now"] + pool["timeout_s"], TIMER_TIMEOUT, s, r["id"])
    if inst["overhead_s"] > 0.0:
        r["state"] = DELAYED
        timer_push(pool, timers, pool["now"] + inst["overhead_s"], TIMER_READY, s, r["id"])
    else:
        _wake(pool, workers, w, s, instances, queues, slots, starting, tree_s, tree_worker)


@_jit
def _ring(pool, workers, instances, queues, slots, timers, finished, starting, tree_s, tree_worker):
    """Play the first timer."""
    kind = timers[0]["kind"]
    s = timers[0]["slot"]
    request_id = timers[0]["id"]
    timer_pop(pool, timers)
    r = slots[s]
    if r["id"] != request_id:
        return
    if kind == TIMER_READY:
        if r["state"] == DELAYED:
            _wake(pool, workers, r["worker"], s, instances, queues, slots, starting, tree_s, tree_worker)
    elif kind == TIMER_TRANSFERRED:
        if r["state"] == IN_TRANSFER:
            inst = instances[r["instance"]]
            w = _least_busy(workers, inst["first_worker"] + inst["n_entry"], inst["n_decode"])
            workers[w]["outstanding"] += 1
            r["transferred"] = 1
            _wake(pool, workers, w, s, instances, queues, slots, starting, tree_s, tree_worker)
    elif kind == TIMER_TIMEOUT:
        if r["order"] >= 0:
            return
        w = r["worker"]
        workers[w]["outstanding"] -= 1
        if r["state"] == WAITING:
            queue_remove(queues, slots, w, s)
            workers[w]["waiting"] -= 1
            instances[r["instance"]]["waiting"] -= 1
            if workers[w]["waiting"] > 0 and workers[w]["running"] < workers[w]["max_sequences"]:
                cut_span(pool, workers[w], w, tree_s, tree_worker, pool["now"])
        leave(pool, instances, slots, finished, s, TIMED_OUT)


def _entry(sources: int):
    """Compile the entry point; `sources` (a checksum of the kernel's files) keeps stale compilations off the cache."""

    @njit(cache=True, nogil=True)
    def play(
        pool_array, workers, instances, queues, slots, offers, timers, finished, starting, keys, items, base,
        tree_s, tree_worker, until_s,
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
            if pool["n_starting"] > 0 and time_s > pool["now"]:
                for k in range(pool["n_starting"]):
                    start_step(
                        pool, workers, starting[k], instances, queues, slots, keys, items, base, tree_s, tree_worker
                    )  # fmt: skip
                pool["n_starting"] = 0
                continue
            if time_s >= until_s or time_s == math.inf:
                return DONE
            if pool["n_out"] + pool["out_margin"] > len(finished):
                return OUT_FULL
            if pool["n_timers"] + pool["out_margin"] > len(timers):
                return TIMERS_FULL
            if pool["n_free"] < 1:
                return SLOTS_FULL
            pool["now"] = time_s
            if end_s == time_s:
                w = tree_worker[1]
                end_step(pool, workers, w, instances, slots, keys, items, base, timers, finished)
                leaves = pool["leaves"]
                tree_s[leaves + w] = math.inf
                if min(timer_s, arrival_s) > time_s and pool["credits"] == 0 and _alone(tree_s, leaves, w, time_s):
                    start_step(pool, workers, w, instances, queues, slots, keys, items, base, tree_s, tree_worker)
                else:
                    _idle(tree_s, tree_worker, leaves, w)
                    workers[w]["starting"] = 1
                    starting[pool["n_starting"]] = w
                    pool["n_starting"] += 1
            elif timer_s == time_s:
                _ring(pool, workers, instances, queues, slots, timers, finished, starting, tree_s, tree_worker)
            else:
                if offer < pool["n_offers"]:
                    pool["next_offer"] += 1
                else:
                    pool["next_release"] += 1
                    pool["credits"] -= 1
                _arrive(
                    pool, workers, instances, queues, slots, offers[offer], timers, finished, starting, tree_s,
                    tree_worker,
                )  # fmt: skip

    return play


@_jit
def _alone(tree_s, leaves, w, time_s):
    """Whether no other worker's step ends at `time_s` (worker `w`'s, the tree's winner, does)."""
    i = leaves + w
    while i > 1:
        if tree_s[i ^ 1] <= time_s:
            return False
        i >>= 1
    return True


@_jit
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


@_jit
def settle(workers, base, time_s):
    """Bring the counters of (a copy of) the workers to `time_s`, cutting the span that is under way."""
    for w in range(len(workers)):
        worker = workers[w]
        if worker["mode"] == IDLE or time_s <= worker["anchor_s"]:
            continue
        if worker["mode"] == DECODING:
            steps = steps_to(worker, time_s)
            part = 0.0
            if steps > 0 and time_after(worker, steps) > time_s:
                steps -= 1
                begun = time_after(worker, steps)
                part = (time_s - begun) / (time_after(worker, steps + 1) - begun)
            account(worker, base, steps, part)
        else:
            account(worker, base, 0, (time_s - worker["anchor_s"]) / (worker["end_s"] - worker["anchor_s"]))


_HERE = Path(__file__).parent
play = _entry(zlib.crc32(b"".join(path.read_bytes() for path in sorted(_HERE.glob("*.py")))) or 1)
