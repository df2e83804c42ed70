"""Requests as a pool takes them, and as the kernel reads them."""

import math
from dataclasses import dataclass, fields

import numpy as np

from factory_sim.engine.kernel.state import OFFER, UNIT
from factory_sim.errors import ScenarioError


@dataclass
class Requests:
    """Requests in order of arrival: arrays of one length n, sorted by `arrival_s` (ties in index order)."""

    arrival_s: np.ndarray
    """float64: time of arrival at the router, seconds. Not read where `after` names an earlier request."""
    isl: np.ndarray
    """int64 >= 1: prompt tokens."""
    osl: np.ndarray
    """int64 >= 1: answer tokens, reasoning included; the first comes out of the prefill."""
    decode_steps: np.ndarray | None = None
    """int64: decode steps to produce the other osl - 1 tokens (fewer with speculation); None means osl - 1."""
    cached_tokens: np.ndarray | None = None
    """int64: leading prompt tokens already cached: no prefill, but they occupy KV memory. At least one is computed."""
    priority: np.ndarray | None = None
    """int: class, 0 most urgent; None means all 0."""
    service: np.ndarray | None = None
    """int: label handed back with the result; None means all 0."""
    patience_s: np.ndarray | None = None
    """float64: seconds after its arrival at which the client goes away and the request is cancelled; inf: never."""
    reasoning_tokens: np.ndarray | None = None
    """int64: leading answer tokens that are hidden reasoning; fewer than osl."""
    session: np.ndarray | None = None
    """int64 >= 0: key for the router session_affinity; -1: none."""
    after: np.ndarray | None = None
    """int64: index (in these requests, smaller than its own) of the request that this one follows: it arrives
    `think_s` after that one left, however it left; -1: none."""
    think_s: np.ndarray | None = None
    """float64: think time after the request named in `after`, seconds."""
    batch: np.ndarray | None = None
    """bool: batch jobs, which use idle capacity where the pool has a `batch_limit`."""
    block_ids: np.ndarray | None = None
    """int64 >= 0, one after the other for all requests: ids of the prompt's leading blocks of `prefix_block_tokens`
    tokens; equal ids mean an equal prefix up to and including that block. May go on into the answer."""
    block_starts: np.ndarray | None = None
    """int64, length n + 1: request i has block_ids[block_starts[i]:block_starts[i + 1]]."""

    def __len__(self) -> int:
        return len(self.arrival_s)


def session_key(session: np.ndarray) -> np.ndarray:
    """Scramble session numbers (SplitMix64's finaliser) into int64 >= 0, so that affinity spreads them evenly."""
    z = np.asarray(session).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def pack(requests: Requests, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Check requests; return them as the kernel reads them, and the index of the request that each follows (or -1)."""
    n = len(requests)
    offers = np.zeros(n, OFFER)
    for field in fields(Requests):
        column = getattr(requests, field.name)
        if field.name not in ("block_ids", "block_starts") and column is not None and len(column) != n:
            raise ScenarioError(f"requests.{field.name}: {len(column)} values for {n} requests")

    def column(name, dtype, default):
        values = getattr(requests, name)
        return np.full(n, default, dtype) if values is None else np.asarray(values).astype(dtype)

    isl, osl = column("isl", np.int64, 0), column("osl", np.int64, 0)
    gained = osl - 1
    steps = gained if requests.decode_steps is None else column("decode_steps", np.int64, 0)
    steps = np.where(gained > 0, steps, 0)
    priority = column("priority", np.int64, 0)
    reasoning = column("reasoning_tokens", np.int64, 0)
    patience_s = column("patience_s", np.float64, math.inf)
    follows = column("after", np.int64, -1)
    think_s = column("think_s", np.float64, 0.0)
    arrival_s = np.where(follows < 0, column("arrival_s", np.float64, 0.0), think_s)
    starts_s = arrival_s[follows < 0]
    if not (np.all(np.isfinite(starts_s)) and np.all(np.diff(starts_s) >= 0)):
        raise ScenarioError("requests.arrival_s: must be finite and sorted")
    for name, bad, rule in (
        ("isl", isl < 1, ">= 1"),
        ("osl", osl < 1, ">= 1"),
        ("decode_steps", (gained > 0) & (steps < 1), ">= 1 where osl > 1"),
        ("priority", (priority < 0) | (priority >= classes), f"0 to {classes - 1}"),
        ("reasoning_tokens", (reasoning < 0) | (reasoning > gained), "0 to osl - 1"),
        ("patience_s", ~(patience_s >= 0), ">= 0"),
        ("after", (follows < -1) | (follows >= np.arange(n)), "-1 or the index of an earlier request"),
        ("think_s", ~((think_s >= 0) & (think_s < math.inf)), "finite and >= 0"),
    ):
        if bad.any():
            i = int(np.argmax(bad))
            raise ScenarioError(f"requests.{name}: must be {rule}; request {i} is wrong")
    offers["arrival_s"] = arrival_s
    offers["patience_s"] = patience_s
    offers["isl"] = isl
    offers["osl"] = osl
    offers["steps"] = steps
    offers["growth"] = np.rint(gained / np.maximum(steps, 1) * UNIT).astype(np.int64)
    offers["cached"] = np.clip(column("cached_tokens", np.int64, 0), 0, isl - 1)
    offers["priority"] = priority
    offers["service"] = column("service", np.int64, 0)
    offers["reasoning"] = reasoning
    session = column("session", np.int64, -1)
    offers["session"] = np.where(session >= 0, session_key(np.maximum(session, 0)), -1)
    offers["batch"] = column("batch", np.int64, 0)
    offers["child"] = offers["sibling"] = -1
    return offers, follows
