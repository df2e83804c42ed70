"""Which instance takes a request. Jitted; a router sees loads and prompts, never answers."""

from numba import njit

_jit = njit(cache=True, nogil=True)

ROUTERS = {"round_robin": 0, "random": 1, "least_outstanding": 2, "power_of_two": 3, "least_kv": 4}
"""Router names and the numbers the kernel knows them by."""


@_jit
def _next_accepting(pool, instances, start):
    """First accepting instance from `start` on, going round; -1 if there is none."""
    n = pool["n_instances"]
    for step in range(n):
        i = start + step
        if i >= n:
            i -= n
        if instances[i]["accepting"] != 0:
            return i
    return -1


@_jit
def _nth_accepting(pool, instances, draw):
    """The accepting instance that a uniform draw in [0, 1) points at; -1 if there is none."""
    n = 0
    for i in range(pool["n_instances"]):
        n += instances[i]["accepting"]
    if n == 0:
        return -1
    k = int(draw * n)
    if k >= n:
        k = n - 1
    for i in range(pool["n_instances"]):
        if instances[i]["accepting"] != 0:
            if k == 0:
                return i
            k -= 1
    return -1


@_jit
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
            load = instances[i]["kv_tokens"] if by_kv else instances[i]["outstanding"]
            if best < 0 or load < least:
                best = i
                least = load
        i += 1
    return best


@_jit
def route(pool, instances, draw_1, draw_2):
    """Return the instance for the next request, or -1 if none accepts requests."""
    router = pool["router"]
    if router == 1:
        return _nth_accepting(pool, instances, draw_1)
    if router == 3:
        a = _nth_accepting(pool, instances, draw_1)
        b = _nth_accepting(pool, instances, draw_2)
        if b >= 0 and instances[b]["outstanding"] < instances[a]["outstanding"]:
            return b
        return a
    if router == 0:
        chosen = _next_accepting(pool, instances, pool["next_instance"])
    else:
        chosen = _least(pool, instances, router == 4)
    if chosen >= 0:
        pool["next_instance"] = chosen + 1 if chosen + 1 < pool["n_instances"] else 0
    return chosen
