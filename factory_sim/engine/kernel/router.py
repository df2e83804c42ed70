"""Which instance takes a request. Jitted; a router sees prompts and loads (as old as its signals are), no answers."""

import math

from factory_sim.engine.kernel.jit import cold, hot
from factory_sim.engine.kernel.prefix import evict, match
from factory_sim.engine.kernel.span import steps_to
from factory_sim.engine.kernel.state import DECODING

ROUTERS = {
    "round_robin": 0,
    "random": 1,
    "least_outstanding": 2,
    "power_of_two": 3,
    "least_kv": 4,
    "session_affinity": 5,
    "prefix_aware": 6,
    "cost_aware": 7,
}
"""Router names and the numbers the kernel knows them by."""

_GOLDEN = 0.6180339887498949


@cold
def refresh_signals(pool, workers, instances):
    """Take the router's picture of the loads, before what happens now; kept to the next multiple of its age."""
    for i in range(pool["n_instances"]):
        instances[i]["seen_outstanding"] = instances[i]["outstanding"]
        instances[i]["seen_kv_tokens"] = instances[i]["kv_tokens"]
    for w in range(pool["n_workers"]):
        workers[w]["seen_prompt_tokens"] = workers[w]["prompt_tokens"]
    pool["next_refresh_s"] = (math.floor(pool["now"] / pool["signal_age_s"]) + 1.0) * pool["signal_age_s"]


@cold
def least_busy(workers, first, n):
    """Worker with the fewest requests among `n` from `first` on; ties go to the first."""
    best = first
    for w in range(first + 1, first + n):
        if workers[w]["outstanding"] < workers[best]["outstanding"]:
            best = w
    return best


@hot
def _outstanding(pool, instances, i):
    return instances[i]["seen_outstanding"] if pool["signal_age_s"] > 0.0 else instances[i]["outstanding"]


@hot
def _kv_tokens(pool, instances, i):
    return instances[i]["seen_kv_tokens"] if pool["signal_age_s"] > 0.0 else instances[i]["kv_tokens"]


@cold
def _nth_accepting(pool, instances, k):
    """The accepting instance number `k` in order, or -1."""
    if pool["n_accepting"] == pool["n_instances"]:
        return k
    for i in range(pool["n_instances"]):
        if instances[i]["accepting"] != 0:
            if k == 0:
                return i
            k -= 1
    return -1


@cold
def _next_accepting(pool, instances):
    """First accepting instance after the last choice, going round; -1 if there is none."""
    n = pool["n_instances"]
    i = pool["next_instance"]
    for _ in range(n):
        if i >= n:
            i = 0
        if instances[i]["accepting"] != 0:
            return i
        i += 1
    return -1


@hot
def _least(pool, instances, by_kv):
    """Accepting instance with the least load; ties go to the first one after the last choice."""
    n = pool["n_instances"]
    best = -1
    least = 0
    i = pool["next_instance"]
    for _ in range(n):
        if i >= n:
            i = 0
        if instances[i]["accepting"] != 0:
            load = _kv_tokens(pool, instances, i) if by_kv else _outstanding(pool, instances, i)
            if best < 0 or load < least:
                best = i
                least = load
        i += 1
    return best


@cold
def _cheapest(pool, instances):
    """Cheapest accepting instance loaded less than its promise allows, the least loaded of equals; if all are full,
    the one least beyond its promise."""
    n = pool["n_instances"]
    best = -1
    best_full = -1
    least_excess = 0.0
    i = pool["next_instance"]
    for _ in range(n):
        if i >= n:
            i = 0
        if instances[i]["accepting"] != 0:
            load = _outstanding(pool, instances, i)
            if load < instances[i]["promise"]:
                if (
                    best < 0
                    or instances[i]["cost"] < instances[best]["cost"]
                    or (instances[i]["cost"] == instances[best]["cost"] and load < _outstanding(pool, instances, best))
                ):
                    best = i
            else:
                excess = load / instances[i]["promise"]
                if best_full < 0 or excess < least_excess:
                    best_full = i
                    least_excess = excess
        i += 1
    return best if best >= 0 else best_full


@hot
def _chose(pool, i):
    if i >= 0:
        pool["next_instance"] = i + 1 if i + 1 < pool["n_instances"] else 0
    return i


@hot
def route(pool, instances, draw_1, draw_2, attempt, session):
    """Return the instance for the next request, or -1 if none accepts requests."""
    router = pool["router"]
    if router == 2 or (router == 5 and session < 0):
        return _chose(pool, _least(pool, instances, False))
    if router == 0:
        return _chose(pool, _next_accepting(pool, instances))
    if router == 4:
        return _chose(pool, _least(pool, instances, True))
    if router == 7:
        return _chose(pool, _cheapest(pool, instances))
    n = pool["n_accepting"]
    if n == 0:
        return -1
    if router == 5:
        return _nth_accepting(pool, instances, session % n)
    a = _nth_accepting(pool, instances, int((draw_1 + _GOLDEN * attempt) % 1.0 * n))
    if router == 1:
        return a
    b = _nth_accepting(pool, instances, int((draw_2 + _GOLDEN * attempt) % 1.0 * n))
    return b if _outstanding(pool, instances, b) < _outstanding(pool, instances, a) else a


@cold
def route_by_prefix(pool, workers, instances, slots, items, nodes, buckets, ids, r):
    """Return (instance, worker) with the least work: prompt tokens to compute plus prompt tokens in the worker's care.

    The cost function of NVIDIA Dynamo's KV router (design page "Router design": new prefill blocks plus active blocks,
    overlap weight 1), with exact knowledge of each worker's cache.
    """
    n = pool["n_instances"]
    best = -1
    best_worker = -1
    least = 0
    i = pool["next_instance"]
    for _ in range(n):
        if i >= n:
            i = 0
        if instances[i]["accepting"] != 0:
            first = instances[i]["first_worker"]
            for w in range(first, first + instances[i]["n_entry"]):
                worker = workers[w]
                tokens = 0
                if r["ids_n"] > 0:
                    if worker["cached_blocks"] > 0 and worker["mode"] == DECODING:
                        ahead = max(0, steps_to(worker, pool["now"]) - 1)
                        evict(pool, worker, slots, items, nodes, buckets, ahead)
                    _, _, tokens, _, _ = match(pool, w, ids, r["ids_at"], r["ids_n"], r["isl"], nodes, buckets)
                in_care = worker["seen_prompt_tokens"] if pool["signal_age_s"] > 0.0 else worker["prompt_tokens"]
                cost = r["isl"] - tokens + in_care
                if best < 0 or cost < least:
                    best = i
                    best_worker = w
                    least = cost
        i += 1
    return _chose(pool, best), best_worker
