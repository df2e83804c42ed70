"""How requests leave an instance and the pool: answered, refused, timed out, lost, cancelled; to try again or wait. Jitted."""

import math

from factory_sim.engine.kernel.events import slot_give, timer_push
from factory_sim.engine.kernel.jit import cold, hot
from factory_sim.engine.kernel.state import (
    ATTEMPTS,
    AWAY,
    BACKLOG,
    CANCELLED,
    COMPLETED,
    LOST,
    REJECTED,
    TIMED_OUT,
    TIMER_RETRY,
    TIMER_SESSION,
    UNIT,
)


@hot
def count_in_system(pool, change):
    """Keep the area under the number of requests in the system."""
    pool["system_seconds"] += pool["in_system"] * (pool["now"] - pool["area_s"])
    pool["area_s"] = pool["now"]
    pool["in_system"] += change


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
