"""A pool of serving instances behind one router: the face of the kernel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from factory_sim.engine.kernel.loop import play, settle
from factory_sim.engine.kernel.router import ROUTERS
from factory_sim.engine.kernel.state import (
    COUNTERS,
    DONE,
    FINISHED,
    INSTANCE,
    NEED_OFFERS,
    OFFER,
    OUT_FULL,
    POOL,
    QUEUE,
    ROLE_BOTH,
    ROLE_DECODE,
    ROLE_PREFILL,
    SLOT,
    SLOTS_FULL,
    TIMER,
    TIMERS_FULL,
    UNIT,
    WORKER,
)
from factory_sim.errors import CapacityError, ScenarioError, closest
from factory_sim.model.serving import ServingSystem
from factory_sim.streams import stream

_ROLES = {"both": ROLE_BOTH, "prefill": ROLE_PREFILL, "decode": ROLE_DECODE}
_CHUNK = 65536
_MOST_TOKENS = 1 << 37
_POOL_TOTALS = ("arrived", "admitted", "completed", "rejected", "timed_out", "lost", "cancelled", "too_long")


@dataclass
class Requests:
    """Requests in order of arrival: arrays of one length n, sorted by `arrival_s` (ties in index order)."""

    arrival_s: np.ndarray
    """float64: time of arrival at the router, seconds."""
    isl: np.ndarray
    """int64 >= 1: prompt tokens."""
    osl: np.ndarray
    """int64 >= 1: answer tokens; the first comes out of the prefill."""
    decode_steps: np.ndarray | None = None
    """int64: decode steps to produce the other osl - 1 tokens (fewer with speculation); None means osl - 1."""
    cached_tokens: np.ndarray | None = None
    """int64: leading prompt tokens already cached: no prefill, but they occupy KV memory. At least one is computed."""
    priority: np.ndarray | None = None
    """int: class, 0 most urgent; None means all 0."""
    service: np.ndarray | None = None
    """int: label handed back with the result; None means all 0."""

    def __len__(self) -> int:
        return len(self.arrival_s)


class Pool:
    """Instances of one or several serving systems behind one router, played exactly, request by request.

    `systems` lists (system, number of instances); instances are numbered in that order. Time runs forward only:
    `offer` requests, `advance` to a time, read `finished` and `totals`. Advancing in pieces gives the same bits as
    advancing at once.
    """

    def __init__(
        self,
        systems: Sequence[tuple[ServingSystem, int]],
        *,
        router: str = "least_outstanding",
        seed: int = 0,
        block_tokens: int = 16,
        queue_limit: int = 0,
        timeout_s: float = math.inf,
        priority_classes: int = 4,
    ):
        """Build an empty pool at time 0.

        Parameters
        ----------
        router : one of `ROUTERS`.
        block_tokens : tokens of one KV block.
        queue_limit : waiting requests at one instance beyond which it turns new ones away; 0 means no limit.
        timeout_s : seconds after arrival at which a request that was never scheduled gives up.
        priority_classes : classes of `Requests.priority`.

        Raises CapacityError if a worker cannot run a step, ScenarioError on an unknown router.
        """
        if router not in ROUTERS:
            raise ScenarioError(f"router: {router!r} is not known{closest(router, ROUTERS)}")
        expanded = [system for system, count in systems for _ in range(count)]
        if not expanded:
            raise CapacityError("a pool needs at least one instance")
        self.systems = list(systems)
        self.router = router
        self._draws = stream(seed, "router") if router in ("random", "power_of_two") else None
        self._waiting_offers: list[np.ndarray] = []
        self._next_id = 0
        self._last_arrival_s = 0.0
        self._left: list[np.ndarray] = []
        self._build_workers(expanded, block_tokens)
        n_workers = len(self._workers)
        leaves = 1 << max(1, (n_workers - 1).bit_length())
        self._tree_s = np.full(2 * leaves, np.inf)
        self._tree_worker = np.zeros(2 * leaves, np.int64)
        self._tree_worker[leaves:] = np.arange(leaves)
        for i in range(leaves - 1, 0, -1):
            self._tree_worker[i] = self._tree_worker[2 * i]
        self._starting = np.zeros(n_workers, np.int64)
        self._queues = np.zeros((n_workers, priority_classes), QUEUE)
        self._queues["head"] = self._queues["tail"] = -1
        margin = int(self._workers["max_sequences"].max()) + 8
        pool = np.zeros(1, POOL)
        pool["timeout_s"] = timeout_s
        pool["router"] = ROUTERS[router]
        pool["queue_limit"] = queue_limit
        pool["block_tokens"] = block_tokens
        pool["n_instances"] = len(expanded)
        pool["n_workers"] = n_workers
        pool["leaves"] = leaves
        pool["classes"] = priority_classes
        pool["free_head"] = -1
        pool["out_margin"] = margin
        self._pool = pool
        self._slots = np.zeros(0, SLOT)
        self._grow_slots(1024)
        self._timers = np.zeros(1024 + margin, TIMER)
        self._finished = np.zeros(4096 + 2 * margin, FINISHED)
        self._offers = np.zeros(0, OFFER)

    # -- construction ------------------------------------------------------------------------------------------------

    def _build_workers(self, expanded: list[ServingSystem], block_tokens: int) -> None:
        tables: dict[int, int] = {}
        base: list[np.ndarray] = []
        base_size = heap_size = 0
        instances = np.zeros(len(expanded), INSTANCE)
        rows = []
        for i, system in enumerate(expanded):
            inst = instances[i]
            inst["first_worker"] = len(rows)
            inst["accepting"] = 1
            inst["overhead_s"] = system.request_overhead_s
            inst["transfer_s_per_token"] = system.kv_transfer_s_per_token
            inst["link_s_per_token"] = system.kv_link_s_per_token
            inst["transfer_latency_s"] = system.kv_transfer_latency_s
            inst["max_context_tokens"] = system.max_context_tokens
            least = min(kind.kv_capacity_tokens for kind in system.workers)
            inst["capacity_blocks"] = min(least, _MOST_TOKENS) // block_tokens
            roles = [kind.role for kind in system.workers]
            if roles not in (["both"], ["prefill", "decode"]):
                raise CapacityError(f"{system.name}: workers must be 'both', or 'prefill' then 'decode', not {roles}")
            for kind in system.workers:
                step = kind.step
                if id(step.base_s) not in tables:
                    tables[id(step.base_s)] = base_size
                    base.append(np.asarray(step.base_s, dtype=np.float64))
                    base_size += len(step.base_s)
                sequences = min(kind.max_sequences, kind.max_batched_tokens // step.tokens_per_sequence)
                if sequences < 1 or len(step.base_s) <= kind.max_batched_tokens:
                    raise CapacityError(
                        f"{system.name}: a {kind.role} worker needs max_sequences >= 1, max_batched_tokens >= "
                        f"tokens_per_sequence and base_s longer than max_batched_tokens; found {kind.max_sequences}, "
                        f"{kind.max_batched_tokens}, {step.tokens_per_sequence}, {len(step.base_s)}"
                    )
                if kind.role == "decode":
                    inst["n_decode"] = kind.count
                else:
                    inst["n_entry"] = kind.count
                for _ in range(kind.count):
                    row = np.zeros(1, WORKER)
                    row["cost_kv_s"] = step.kv_s
                    row["cost_prefill_s"] = step.prefill_s
                    row["cost_pair_s"] = step.pair_s
                    row["slow"] = 1.0
                    row["end_s"] = np.inf
                    row["instance"] = i
                    row["role"] = _ROLES[kind.role]
                    row["max_sequences"] = sequences
                    row["max_batched_tokens"] = kind.max_batched_tokens
                    row["capacity_blocks"] = min(kind.kv_capacity_tokens, _MOST_TOKENS) // block_tokens
                    row["base_offset"] = tables[id(step.base_s)]
                    row["heap_offset"] = heap_size
                    row["tokens_per_sequence"] = step.tokens_per_sequence
                    row["attention_cap"] = step.attention_cap_tokens
                    row["newest"] = row["prefill_head"] = row["prefill_tail"] = -1
                    heap_size += sequences * (2 if step.attention_cap_tokens else 1) + 1
                    rows.append(row)
        self._instances = instances
        self._workers = np.concatenate(rows)
        self._base = np.concatenate(base)
        self._keys = np.zeros(heap_size, np.int64)
        self._items = np.zeros(heap_size, np.int64)

    def _grow_slots(self, more: int) -> None:
        old = len(self._slots)
        slots = np.zeros(old + more, SLOT)
        slots[:old] = self._slots
        slots["id"][old:] = -1
        slots["next"][old:] = np.arange(old + 1, old + more + 1)
        slots["next"][-1] = self._pool["free_head"][0]
        self._pool["free_head"] = old
        self._pool["n_free"] += more
        self._slots = slots

    # -- requests in and out -----------------------------------------------------------------------------------------

    def offer(self, requests: Requests) -> np.ndarray:
        """Add requests that arrive at or after the time played so far; return their ids (consecutive, int64)."""
        n = len(requests)
        ids = np.arange(self._next_id, self._next_id + n)
        if n == 0:
            return ids
        offers = _pack(requests, int(self._pool["classes"][0]))
        if offers["arrival_s"][0] < max(self.time_s, self._last_arrival_s):
            raise ScenarioError(
                f"requests: the first arrives at {offers['arrival_s'][0]} s, before what was played or offered "
                f"({max(self.time_s, self._last_arrival_s)} s)"
            )
        offers["id"] = ids
        if self._draws is not None:
            draws = self._draws.random((n, 2))
            offers["draw_1"], offers["draw_2"] = draws[:, 0], draws[:, 1]
        self._next_id += n
        self._last_arrival_s = float(offers["arrival_s"][-1])
        self._waiting_offers.append(offers)
        return ids

    def _feed(self) -> None:
        """Hand the next chunk of offers to the kernel, whose own are all used up."""
        pool = self._pool
        self._offers = np.zeros(0, OFFER)
        if self._waiting_offers:
            first = self._waiting_offers[0]
            self._offers, rest = first[:_CHUNK], first[_CHUNK:]
            if len(rest):
                self._waiting_offers[0] = rest
            else:
                self._waiting_offers.pop(0)
        pool["next_offer"] = 0
        pool["n_offers"] = len(self._offers)
        pool["more_offers"] = 1 if self._waiting_offers else 0

    def advance(self, until_s: float) -> None:
        """Play every event before `until_s`, and every step that starts before it."""
        if until_s < self.time_s:
            raise ScenarioError(f"advance: {until_s} s is before the time already played, {self.time_s} s")
        self._play(until_s)
        self._pool["now"] = until_s

    def drain(self) -> float:
        """Play until the pool is empty and nothing is offered; return the time of the last event, seconds."""
        self._play(math.inf)
        return self.time_s

    def _play(self, until_s: float) -> None:
        pool = self._pool
        pool["more_offers"] = 1 if self._waiting_offers else 0
        while True:
            why = play(
                pool, self._workers, self._instances, self._queues, self._slots, self._offers, self._timers,
                self._finished, self._starting, self._keys, self._items, self._base, self._tree_s, self._tree_worker,
                until_s,
            )  # fmt: skip
            if why == DONE:
                return
            if why == NEED_OFFERS:
                self._feed()
            elif why == OUT_FULL:
                self._empty_finished()
            elif why == SLOTS_FULL:
                self._grow_slots(len(self._slots))
            elif why == TIMERS_FULL:
                self._timers = np.concatenate([self._timers, np.zeros(len(self._timers), TIMER)])
            else:
                raise AssertionError(f"the kernel returned an unknown status {why}")

    def _empty_finished(self) -> None:
        n = int(self._pool["n_out"][0])
        if n:
            self._left.append(self._finished[:n].copy())
            self._pool["n_out"] = 0
        if n > len(self._finished) // 2 and len(self._finished) < _CHUNK:
            self._finished = np.zeros(4 * len(self._finished), FINISHED)

    def finished(self) -> dict[str, np.ndarray]:
        """Return the requests that left since the last call, in order of leaving.

        Columns: id, arrival_s, first_token_s (NaN if none), finish_s, isl, osl, cached_tokens, instance (-1 if none),
        service, status (0 completed, 1 rejected, 2 timed out, 3 lost, 4 cancelled), preemptions.
        """
        self._empty_finished()
        rows = np.concatenate(self._left) if self._left else np.zeros(0, FINISHED)
        self._left = []
        return {name: np.ascontiguousarray(rows[name]) for name in FINISHED.names}

    # -- reports and control -----------------------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """Time played so far, seconds."""
        return float(self._pool["now"][0])

    @property
    def n_instances(self) -> int:
        """Instances of the pool, accepting or not."""
        return len(self._instances)

    def totals(self) -> dict[str, np.ndarray | float | int]:
        """Return counters that only grow, cut exactly at the time played; differences of two calls give a window.

        Per worker (arrays): busy_s, steps, base_s_decode_only, base_s_mixed, kv_s, prefill_s, pair_s, prefill_tokens
        (all that were computed), recomputed_tokens (those of them computed before and lost to preemption),
        cached_tokens, decode_tokens (answer tokens, first ones included), sequence_seconds, kv_token_seconds; beside
        them worker_instance and worker_role. Per pool: arrived, admitted, completed, rejected, timed_out, lost,
        cancelled, too_long (part of rejected), in_system, system_seconds, time_s.
        """
        workers = self._workers.copy()
        settle(workers, self._base, self.time_s)
        totals: dict[str, np.ndarray | float | int] = {
            name: np.ascontiguousarray(workers["total_" + name]) for name in COUNTERS.split()
        }
        totals["worker_instance"] = workers["instance"].copy()
        totals["worker_role"] = workers["role"].copy()
        pool = self._pool[0]
        for name in _POOL_TOTALS:
            totals[name] = int(pool[name])
        totals["in_system"] = self.in_system()
        totals["system_seconds"] = float(pool["system_seconds"] + pool["in_system"] * (pool["now"] - pool["area_s"]))
        totals["time_s"] = self.time_s
        return totals

    def loads(self) -> dict[str, np.ndarray]:
        """Return what the router sees of each instance now: outstanding, waiting, kv_tokens (prompts), accepting."""
        return {name: self._instances[name].copy() for name in ("outstanding", "waiting", "kv_tokens", "accepting")}

    def in_system(self) -> int:
        """Requests that have arrived and not left."""
        return int(self._pool["in_system"][0])

    def set_accepting(self, instance: int, accepting: bool) -> None:
        """Let the router send new requests to an instance, or not; what it has, it keeps serving."""
        self._instances["accepting"][instance] = int(accepting)


def _pack(requests: Requests, classes: int) -> np.ndarray:
    """Check requests and lay them out as the kernel reads them."""
    n = len(requests)
    offers = np.zeros(n, OFFER)
    for field in fields(Requests):
        column = getattr(requests, field.name)
        if column is not None and len(column) != n:
            raise ScenarioError(f"requests.{field.name}: {len(column)} values for {n} requests")
    arrival_s = np.asarray(requests.arrival_s, dtype=np.float64)
    isl = np.asarray(requests.isl, dtype=np.int64)
    osl = np.asarray(requests.osl, dtype=np.int64)
    gained = osl - 1
    steps = gained if requests.decode_steps is None else np.asarray(requests.decode_steps, dtype=np.int64)
    steps = np.where(gained > 0, steps, 0)
    priority = np.zeros(n, np.int64) if requests.priority is None else np.asarray(requests.priority, dtype=np.int64)
    if not (np.all(np.isfinite(arrival_s)) and np.all(np.diff(arrival_s) >= 0)):
        raise ScenarioError("requests.arrival_s: must be finite and sorted")
    for name, bad, rule in (
        ("isl", isl < 1, ">= 1"),
        ("osl", osl < 1, ">= 1"),
        ("decode_steps", (gained > 0) & (steps < 1), ">= 1 where osl > 1"),
        ("priority", (priority < 0) | (priority >= classes), f"0 to {classes - 1}"),
    ):
        if bad.any():
            i = int(np.argmax(bad))
            raise ScenarioError(f"requests.{name}: must be {rule}; request {i} is wrong")
    offers["arrival_s"] = arrival_s
    offers["isl"] = isl
    offers["osl"] = osl
    offers["steps"] = steps
    offers["growth"] = np.rint(gained / np.maximum(steps, 1) * UNIT).astype(np.int64)
    if requests.cached_tokens is not None:
        offers["cached"] = np.clip(np.asarray(requests.cached_tokens, dtype=np.int64), 0, isl - 1)
    offers["priority"] = priority
    if requests.service is not None:
        offers["service"] = np.asarray(requests.service, dtype=np.int64)
    return offers


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
