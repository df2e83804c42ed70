"""A closed loop of users: a benchmark, played."""

import numpy as np

from factory_sim.engine.kernel.pool import Pool
from factory_sim.engine.kernel.requests import Requests
from factory_sim.errors import CapacityError, ScenarioError
from factory_sim.model.serving import ServingSystem


def play_closed_loop(
    system: ServingSystem,
    isl: np.ndarray,
    osl: np.ndarray,
    concurrency: int,
    *,
    decode_steps: np.ndarray | None = None,
    ramp_s: float = 0.0,
    seed: int = 0,
    instances: int = 1,
    router: str = "least_outstanding",
    block_tokens: int = 16,
) -> dict[str, np.ndarray | dict]:
    """Play a benchmark: `concurrency` users, each sending its next request the moment its last one is answered.

    The first `concurrency` requests start at time 0, or spread evenly over `ramp_s` seconds; every completion releases
    the next request in order. Returns arrays start_s, first_token_s, finish_s, preemptions in request order (seconds),
    and `totals`, the counters of `Pool.totals` at the end.

    Raises CapacityError if a request does not fit the system.
    """
    isl = np.asarray(isl, dtype=np.int64)
    n = len(isl)
    if concurrency < 1:
        raise ScenarioError(f"concurrency: must be at least 1, found {concurrency}")
    started = min(concurrency, n)
    arrival_s = np.zeros(n)
    arrival_s[:started] = ramp_s * np.arange(started) / started
    arrival_s[started:] = ramp_s
    pool = Pool([(system, instances)], router=router, seed=seed, block_tokens=block_tokens)
    pool.offer(Requests(arrival_s, isl, osl, decode_steps))
    (offers,) = pool._waiting_offers
    pool._waiting_offers = []
    pool._offers = offers
    state = pool._pool
    state["n_offers"] = started
    state["closed"] = 1
    state["next_release"] = started
    state["release_end"] = n
    pool.drain()
    done = pool.finished()
    if np.any(done["status"] != 0):
        i = int(done["id"][np.argmax(done["status"] != 0)])
        raise CapacityError(
            f"{system.name}: request {i} of {isl[i]} + {osl[i]} tokens fits neither the context window "
            f"({system.max_context_tokens} tokens) nor the KV cache of a worker "
            f"({min(kind.kv_capacity_tokens for kind in system.workers)} tokens)"
        )
    order = np.argsort(done["id"])
    result: dict[str, np.ndarray | dict] = {"start_s": done["arrival_s"][order]}
    for name in ("first_token_s", "finish_s", "preemptions"):
        result[name] = done[name][order]
    result["totals"] = pool.totals()
    return result
