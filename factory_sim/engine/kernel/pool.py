"""A pool of serving instances behind one router: the face of the kernel."""

import json
import math
from collections.abc import Sequence

import numpy as np

from factory_sim.engine.kernel.building import MOST_TOKENS, build
from factory_sim.engine.kernel.loop import operate, play, rehash, settle
from factory_sim.engine.kernel.requests import Requests, pack
from factory_sim.engine.kernel.router import ROUTERS
from factory_sim.engine.kernel.state import (
    ACCEPT,
    ATTEMPTS,
    AWAY,
    BACKLOG,
    COUNTERS,
    DONE,
    FINISHED,
    FREE,
    NEED_OFFERS,
    NODE,
    NODES_FULL,
    OFFER,
    OUT_FULL,
    POOL,
    QUEUE,
    SET_SPEED,
    SLOT,
    SLOTS_FULL,
    STOP_GRACEFULLY,
    STOP_LOSING,
    TIMER,
    TIMER_SESSION,
    TIMERS_FULL,
)
from factory_sim.errors import CapacityError, ScenarioError, closest
from factory_sim.model.serving import ServingSystem
from factory_sim.streams import stream

_CHUNK = 65536
_POOL_TOTALS = (
    "arrived", "admitted", "completed", "rejected", "timed_out", "lost", "cancelled", "too_long", "retried"
)  # fmt: skip
_ARRAYS = (
    "pool", "workers", "instances", "queues", "slots", "offers", "parked", "timers", "finished", "starting", "keys",
    "items", "base", "tree_s", "tree_worker", "nodes", "buckets", "ids",
)  # fmt: skip


class Pool:
    """Instances of one or several serving systems behind one router, played exactly, request by request.

    `systems` lists (system, number of instances); instances are numbered in that order. Time runs forward only:
    `offer` requests, `advance` to a time, read `finished` and `totals`. Advancing in pieces gives the same bits as
    advancing at once.

    What one worker does at a step start: its decoding sequences go first (the newest of the least urgent class are
    preempted if their KV outgrows the memory); the rest of `max_batched_tokens` goes to prompts in prefill, then to
    waiting requests, by class and first come first served, while `max_sequences` and KV memory last. A prompt's KV is
    reserved when it is admitted. The step that completes a prompt emits the first token. No request is admitted in a
    step that preempted.
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
        prefill_first: bool = False,
        swap_s_per_token: float = 0.0,
        retries: int = 0,
        retry_after_s: float = 1.0,
        retry_backoff: float = 2.0,
        prefix_cache: bool = False,
        prefix_block_tokens: int = 512,
        host_cache_tokens: int = 0,
        host_cache_s_per_token: float = 0.0,
        signal_age_s: float = 0.0,
        batch_limit: int = 0,
        costs: Sequence[float] | None = None,
        promise_outstanding: Sequence[int] | None = None,
        paces: Sequence[float] | None = None,
    ):
        """Build an empty pool at time 0.

        Parameters
        ----------
        router : one of `ROUTERS`. cost_aware needs `costs` and `promise_outstanding`.
        block_tokens : tokens of one KV block.
        queue_limit : waiting requests at one instance beyond which it turns new ones away; 0 means no limit.
        timeout_s : seconds in an instance's care after which a request that was never scheduled gives up.
        priority_classes : classes of `Requests.priority`.
        prefill_first : prompts are prefilled in steps of their own while decoding waits (SGLang's default order).
        swap_s_per_token : seconds to copy one token's KV to host memory, and again back; a preempted sequence is then
            swapped, not recomputed. 0 means recomputation.
        retries : how often a client whose request was refused, timed out or lost tries again.
        retry_after_s, retry_backoff : wait before the first retry, and its factor from one retry to the next.
        prefix_cache : reuse the blocks named in `Requests.block_ids`, least recently used out first.
        prefix_block_tokens : tokens of one such block, a multiple of `block_tokens`.
        host_cache_tokens : tokens of a worker's second cache tier (0: none), exclusive of the first.
        host_cache_s_per_token : seconds to load one token's KV from there.
        signal_age_s : the router sees the loads as they were at the last multiple of this time; 0: as they are.
        batch_limit : batch jobs go to an instance that has fewer than this many requests, and wait otherwise; they
            give way where an interactive request lacks a slot or memory. 0: batch jobs are served like any other.
        costs : one a system, in any unit: the router cost_aware prefers the least.
        promise_outstanding : one a system: requests in an instance's care up to which it keeps the promise.
        paces : one a system: decode steps of a request there over those it brings (speculation in some of them); None:
            all need as many.

        Raises CapacityError if a worker cannot run a step, ScenarioError on wrong options.
        """
        if router not in ROUTERS:
            raise ScenarioError(f"router: {router!r} is not known{closest(router, ROUTERS)}")
        if prefix_block_tokens < 1 or prefix_block_tokens % block_tokens:
            raise ScenarioError(
                f"prefix_block_tokens: {prefix_block_tokens} is not a multiple of block_tokens, {block_tokens}"
            )
        if not 0 <= retries < ATTEMPTS - 1:
            raise ScenarioError(f"retries: must be 0 to {ATTEMPTS - 2}, found {retries}")
        for name, values in (("costs", costs), ("promise_outstanding", promise_outstanding)):
            if router == "cost_aware" and (values is None or len(values) != len(systems)):
                raise ScenarioError(f"{name}: the router cost_aware needs one for each of the {len(systems)} systems")
        expanded = [k for k, (_, count) in enumerate(systems) for _ in range(count)]
        if not expanded:
            raise CapacityError("a pool needs at least one instance")
        self.router = router
        self._prefix_cache = prefix_cache
        self._draws = stream(seed, "router") if router in ("random", "power_of_two") else None
        self._waiting_offers: list[np.ndarray] = []
        self._next_id = 0
        self._last_arrival_s = 0.0
        self._most_children = 1
        self._ids_live = 0
        self._left: list[np.ndarray] = []
        built = build([systems[k][0] for k in expanded], block_tokens, prefix_cache)
        self._instances, self._workers, self._base = built.instances, built.workers, built.base
        self._keys, self._items = np.zeros((2, built.heap_size), np.int64)
        if costs is not None and promise_outstanding is not None:
            self._instances["cost"] = [costs[k] for k in expanded]
            self._instances["promise"] = [promise_outstanding[k] for k in expanded]
        if paces is not None:
            self._instances["pace"] = [paces[k] for k in expanded]
        n_workers = len(self._workers)
        leaves = 1 << max(1, (n_workers - 1).bit_length())
        self._tree_s = np.full(2 * leaves, np.inf)
        self._tree_worker = np.zeros(2 * leaves, np.int64)
        self._tree_worker[leaves:] = np.arange(leaves)
        for i in range(leaves - 1, 0, -1):
            self._tree_worker[i] = self._tree_worker[2 * i]
        self._starting = np.zeros(n_workers, np.int64)
        self._queues = np.zeros((n_workers, priority_classes + 1), QUEUE)  # batch jobs last
        self._queues["head"] = self._queues["tail"] = -1
        pool = np.zeros(1, POOL)
        self._pool = pool
        for name, value in (
            ("timeout_s", timeout_s),
            ("router", ROUTERS[router]),
            ("queue_limit", queue_limit),
            ("block_tokens", block_tokens),
            ("prefix_tokens", prefix_block_tokens),
            ("prefill_first", prefill_first),
            ("swap_s_per_token", swap_s_per_token),
            ("retries", retries),
            ("retry_after_s", retry_after_s),
            ("retry_backoff", retry_backoff),
            ("host_blocks", min(host_cache_tokens, MOST_TOKENS) // block_tokens if prefix_cache else 0),
            ("host_s_per_token", host_cache_s_per_token),
            ("signal_age_s", signal_age_s),
            ("batch_limit", batch_limit),
            ("paced", paces is not None),
            ("n_instances", len(expanded)),
            ("n_accepting", len(expanded)),
            ("n_workers", n_workers),
            ("leaves", leaves),
            ("classes", priority_classes + 1),
            ("free_head", -1),
            ("free_node", -1),
            ("backlog_head", -1),
            ("backlog_tail", -1),
        ):
            pool[name] = value
        self._set_margins()
        self._slots = np.zeros(0, SLOT)
        self._grow_slots(1024)
        margin = int(pool["out_margin"][0])
        self._timers = np.zeros(1024 + int(pool["timer_margin"][0]), TIMER)
        self._finished = np.zeros(4096 + 2 * margin, FINISHED)
        self._offers = np.zeros(0, OFFER)
        self._parked = np.zeros(0, OFFER)
        self._ids = np.zeros(0, np.int64)
        self._nodes = np.zeros(0, NODE)
        self._grow_nodes(1)

    def _set_margins(self) -> None:
        most = int(self._workers["max_sequences"].max())
        self._pool["out_margin"] = most + 8
        self._pool["timer_margin"] = (most + 8) * self._most_children

    # -- construction ------------------------------------------------------------------------------------------------

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

    def _grow_nodes(self, more: int) -> None:
        old = len(self._nodes)
        nodes = np.zeros(old + more, NODE)
        nodes[:old] = self._nodes
        nodes["id"][old:] = -1
        nodes["after"][old:] = np.arange(old + 1, old + more + 1)
        nodes["after"][-1] = self._pool["free_node"][0]
        self._pool["free_node"] = old
        self._pool["n_free_nodes"] += more
        self._nodes = nodes
        self._buckets = np.full(1 << (2 * len(nodes) - 1).bit_length(), -1, np.int64)
        self._pool["bucket_mask"] = len(self._buckets) - 1
        rehash(self._pool, self._nodes, self._buckets)

    # -- requests in and out -----------------------------------------------------------------------------------------

    def offer(self, requests: Requests) -> np.ndarray:
        """Add requests that arrive at or after the time played so far; return their ids (consecutive, int64)."""
        n = len(requests)
        ids = np.arange(self._next_id, self._next_id + n)
        if n == 0:
            return ids
        offers, follows = pack(requests, int(self._pool["classes"][0]) - 1)
        offers["id"] = ids
        begins = np.flatnonzero(follows < 0)
        if len(begins):
            first_s = offers["arrival_s"][begins[0]]
            if first_s < max(self.time_s, self._last_arrival_s):
                raise ScenarioError(
                    f"requests: the first arrives at {first_s} s, before what was played or offered "
                    f"({max(self.time_s, self._last_arrival_s)} s)"
                )
            self._last_arrival_s = float(offers["arrival_s"][begins[-1]])
        if self._draws is not None:
            draws = self._draws.random((n, 2))
            offers["draw_1"], offers["draw_2"] = draws[:, 0], draws[:, 1]
        if self._prefix_cache and requests.block_ids is not None:
            self._add_ids(offers, np.asarray(requests.block_ids, dtype=np.int64), requests.block_starts)
        if len(begins) < n:
            offers = self._park(offers, follows)
        self._next_id += n
        self._waiting_offers.append(offers)
        return ids

    def _pending(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """All rows that may still be played, as (array, mask): offers to come, parked ones, requests in flight."""
        used = np.arange(len(self._offers)) >= self._pool["next_offer"][0]
        rows = [(offers, np.ones(len(offers), bool)) for offers in self._waiting_offers]
        rows.append((self._offers, used))
        rows.append((self._parked, self._parked["live"] != 0))
        rows.append((self._slots, self._slots["state"] != FREE))
        return rows

    def _add_ids(self, offers: np.ndarray, ids: np.ndarray, starts: np.ndarray | None) -> None:
        """Append block ids; once most of the old ones belong to requests that are gone, keep only the rest."""
        n = len(offers)
        starts = np.asarray(starts, dtype=np.int64) if starts is not None else np.zeros(0, np.int64)
        if len(starts) != n + 1 or np.any(np.diff(starts) < 0) or starts[0] != 0 or starts[-1] != len(ids):
            raise ScenarioError("requests.block_starts: must rise from 0 to the number of block_ids in n + 1 values")
        if len(ids) and ids.min() < 0:
            raise ScenarioError("requests.block_ids: must be >= 0")
        if len(self._ids) > 2 * self._ids_live + (1 << 20):
            kept, at = [], 0
            for rows, mask in self._pending():
                which = np.flatnonzero(mask & (rows["ids_n"] > 0))
                lengths = rows["ids_n"][which]
                places = at + np.cumsum(lengths) - lengths
                total = int(lengths.sum())
                kept.append(self._ids[np.repeat(rows["ids_at"][which] - (places - at), lengths) + np.arange(total)])
                rows["ids_at"][which] = places
                at += total
            self._ids = np.concatenate(kept)
            self._ids_live = at
        offers["ids_at"] = starts[:-1] + len(self._ids)
        offers["ids_n"] = np.diff(starts)
        self._ids = np.concatenate([self._ids, ids])

    def _park(self, offers: np.ndarray, follows: np.ndarray) -> np.ndarray:
        """Move requests that follow others to the table of parked ones; return the rest."""
        if len(self._parked) > 2 * self._pool["live_parked"][0] + 4096:
            live = self._parked["live"] != 0
            place = np.cumsum(live) - 1
            for rows, mask in self._pending():
                for name in ("child", "sibling"):
                    if name in rows.dtype.names:
                        which = np.flatnonzero(mask & (rows[name] >= 0))
                        rows[name][which] = place[rows[name][which]]
            timers = self._timers[: self._pool["n_timers"][0]]
            which = np.flatnonzero(timers["kind"] == TIMER_SESSION)
            timers["slot"][which] = place[timers["slot"][which]]
            self._parked = self._parked[live]
        behind = np.flatnonzero(follows >= 0)
        behind = behind[np.argsort(follows[behind], kind="stable")]
        parents = follows[behind]
        rows = len(self._parked) + np.arange(len(behind))
        first = np.r_[True, parents[1:] != parents[:-1]]
        offers["child"][parents[first]] = rows[first]
        offers["sibling"][behind[:-1]] = np.where(first[1:], -1, rows[1:])
        offers["live"][behind] = 1
        self._most_children = max(self._most_children, int(np.bincount(parents).max()))
        self._set_margins()
        self._parked = np.concatenate([self._parked, offers[behind]])
        self._pool["live_parked"] += len(behind)
        return offers[follows < 0]

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
                pool, self._workers, self._instances, self._queues, self._slots, self._offers, self._parked,
                self._timers, self._finished, self._starting, self._keys, self._items, self._base, self._tree_s,
                self._tree_worker, self._nodes, self._buckets, self._ids, until_s,
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
            elif why == NODES_FULL:
                self._grow_nodes(max(1024, len(self._nodes)))
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

        Columns: id, arrival_s (the first attempt's), first_token_s, first_answer_s (first token beyond the reasoning;
        both NaN if none), finish_s, isl, osl, cached_tokens, instance (the last one; -1 if none), service, status
        (0 completed, 1 rejected, 2 timed out, 3 lost, 4 cancelled), preemptions, attempts, output_tokens (those that
        came out in the last attempt: osl if completed).
        """
        rows = self.finished_rows()
        return {name: np.ascontiguousarray(rows[name]) for name in FINISHED.names}

    def finished_rows(self) -> np.ndarray:
        """The same as one array of records."""
        self._empty_finished()
        left = self._left or [np.zeros(0, FINISHED)]
        rows = left[0] if len(left) == 1 else np.concatenate(left)
        self._left = []
        return rows

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
        cancelled, too_long (part of rejected), retried, wasted_tokens (answer tokens of attempts that were lost),
        in_system (clients between two attempts included), system_seconds, time_s.
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
        totals["wasted_tokens"] = float(pool["wasted_tokens"])
        totals["time_s"] = self.time_s
        return totals

    def loads(self) -> dict[str, np.ndarray]:
        """Return what the router sees of each instance now: outstanding, waiting, kv_tokens (prompts), accepting."""
        return {name: self._instances[name].copy() for name in ("outstanding", "waiting", "kv_tokens", "accepting")}

    def in_flight(self) -> np.ndarray:
        """Rows of the requests that have arrived and not left (see state.py, SLOT); a copy."""
        return self._slots[self._slots["state"] != FREE]

    def in_backlog(self) -> int:
        """Batch jobs that wait for an instance with room."""
        return int(self._pool["n_backlog"][0])

    def in_system(self) -> int:
        """Requests that have arrived and not left."""
        return int(self._pool["in_system"][0])

    def set_accepting(self, instance: int, accepting: bool) -> None:
        """Let the router send new requests to an instance, or not; what it has, it keeps serving."""
        self._operate(ACCEPT, instance, float(bool(accepting)), ())

    def set_speed(self, instance: int, slow: float) -> None:
        """Make an instance's steps take `slow` times their time, from its next step on (degraded or capped)."""
        if not slow > 0:
            raise ScenarioError(f"slow: must be above 0, found {slow}")
        self._operate(SET_SPEED, instance, slow, ())

    def stop(self, instance: int, lost: bool) -> None:
        """Send nothing more to an instance; `set_accepting` brings it back.

        With `lost` its requests and caches are gone at once (clients may retry). Otherwise what runs is finished and
        what waits is routed anew.
        """
        slots = self._slots
        mine = (slots["instance"] == instance) & ~np.isin(slots["state"], (FREE, AWAY, BACKLOG))
        if lost:
            victims = np.flatnonzero(mine)
            victims = victims[np.argsort(slots["id"][victims])]
            self._operate(STOP_LOSING, instance, 0.0, victims)
        else:
            inst = self._instances[instance]
            victims = []
            for w in range(int(inst["first_worker"]), int(inst["first_worker"] + inst["n_entry"])):
                for queue in self._queues[w]:
                    s = int(queue["head"])
                    while s >= 0:
                        if slots["order"][s] < 0:
                            victims.append(s)
                        s = int(slots["next"][s])
            self._operate(STOP_GRACEFULLY, instance, 0.0, victims)

    def _operate(self, action: int, instance: int, value: float, victims: Sequence[int]) -> None:
        if not 0 <= instance < self.n_instances:
            raise ScenarioError(f"instance: {instance} is not one of 0 to {self.n_instances - 1}")
        victims = np.asarray(victims, dtype=np.int64)
        pool = self._pool[0]
        more = len(victims) + int(pool["n_backlog"])
        while pool["n_out"] + more + pool["out_margin"] > len(self._finished):
            self._empty_finished()
            self._finished = np.concatenate([self._finished, np.zeros(more + 1024, FINISHED)])
        while pool["n_timers"] + 2 * more * self._most_children + pool["timer_margin"] > len(self._timers):
            self._timers = np.concatenate([self._timers, np.zeros(2 * more * self._most_children + 1024, TIMER)])
        operate(
            self._pool, self._workers, self._instances, self._queues, self._slots, self._parked, self._timers,
            self._finished, self._starting, self._keys, self._items, self._base, self._tree_s, self._tree_worker,
            self._nodes, self._buckets, self._ids, action, instance, float(value), victims,
        )  # fmt: skip

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self) -> dict[str, np.ndarray]:
        """Return all of the pool's state as arrays (`np.savez` takes them), for `load`."""
        saved = {name: getattr(self, "_" + name).copy() for name in _ARRAYS}
        saved["waiting_offers"] = np.concatenate([np.zeros(0, OFFER), *self._waiting_offers])
        saved["left"] = np.concatenate([np.zeros(0, FINISHED), *self._left])
        face = {
            "next_id": self._next_id,
            "last_arrival_s": self._last_arrival_s,
            "most_children": self._most_children,
            "ids_live": self._ids_live,
            "prefix_cache": self._prefix_cache,
            "router": self.router,
            "draws": None if self._draws is None else self._draws.bit_generator.state,
        }
        saved["face"] = np.frombuffer(json.dumps(face).encode(), dtype=np.uint8)
        return saved

    @classmethod
    def load(cls, saved: dict[str, np.ndarray]) -> "Pool":
        """Return the pool that `save` wrote; it goes on with the same bits."""
        pool = cls.__new__(cls)
        for name in _ARRAYS:
            setattr(pool, "_" + name, saved[name].copy())
        pool._waiting_offers = [saved["waiting_offers"].copy()] if len(saved["waiting_offers"]) else []
        pool._left = [saved["left"].copy()] if len(saved["left"]) else []
        face = json.loads(saved["face"].tobytes())
        pool._next_id = face["next_id"]
        pool._last_arrival_s = face["last_arrival_s"]
        pool._most_children = face["most_children"]
        pool._ids_live = face["ids_live"]
        pool._prefix_cache = face["prefix_cache"]
        pool.router = face["router"]
        pool._draws = None
        if face["draws"] is not None:
            pool._draws = stream(0, "router")
            pool._draws.bit_generator.state = face["draws"]
        return pool
