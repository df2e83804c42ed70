"""Two honest ways to play the plain open loop without skipping steps: SimPy, and a compiled loop.

Both serve requests as the kernel does (continuous batching, chunked prefill first come first served, least outstanding
router whose ties go round) where KV memory is never short, and give its times; the benchmark asserts that first.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import simpy
from numba import njit

NEVER = 1 << 62
"""Step number that no replica comes to."""


@dataclass
class Replica:
    """A replica as SimPy plays it."""

    waiting: deque = field(default_factory=deque)
    prefilling: list = field(default_factory=list)
    """[request, tokens done]"""
    running: list = field(default_factory=list)
    """[request, steps left, tokens held]"""
    outstanding: int = 0
    sleeping: simpy.Event | None = None


def play_simpy(system, replicas, arrival_s, isl, osl):
    """SimPy, one event an iteration: a process a replica, a timeout a step. Returns finish times in request order."""
    env, finish_s = simpy.Environment(), np.zeros(len(isl))
    fleet = [Replica() for _ in range(replicas)]
    for replica in fleet:
        env.process(_serve(env, replica, system.workers[0], isl, osl, finish_s))
    env.process(_arrive(env, fleet, arrival_s))
    env.run()
    return finish_s


def _arrive(env, fleet, arrival_s):
    """Requests come, and go to the replica with the fewest outstanding."""
    pointer = 0
    for r, time_s in enumerate(arrival_s):
        yield env.timeout(time_s - env.now)
        w = min(range(len(fleet)), key=lambda i: (fleet[i].outstanding, (i - pointer) % len(fleet)))
        pointer = (w + 1) % len(fleet)
        fleet[w].outstanding += 1
        fleet[w].waiting.append(r)
        if fleet[w].sleeping is not None and not fleet[w].sleeping.triggered:
            fleet[w].sleeping.succeed()


def _serve(env, replica, kind, isl, osl, finish_s):
    """Step after step while there is work."""
    base_s = kind.step.base_s.tolist()
    while True:
        chunks = _chunks(replica, kind, isl) if replica.waiting or replica.prefilling else ()
        if not replica.running and not sum(chunks):
            replica.sleeping = env.event()
            yield replica.sleeping
            continue
        yield env.timeout(_duration_s(replica, chunks, base_s, kind.step))
        _decoded(replica, env.now, finish_s)
        if chunks:
            _prefilled(replica, chunks, isl, osl, env.now, finish_s)


def _chunks(replica, kind, isl):
    """Admit what waits and return the prompt tokens of the next step, by prompt in prefill."""
    budget = kind.max_batched_tokens - len(replica.running)
    chunks = []
    for r, done in replica.prefilling:
        chunks.append(min(budget, isl[r] - done))
        budget -= chunks[-1]
    while replica.waiting and budget > 0 and len(replica.running) + len(replica.prefilling) < kind.max_sequences:
        r = replica.waiting.popleft()
        replica.prefilling.append([r, 0])
        chunks.append(min(budget, isl[r]))
        budget -= chunks[-1]
    return chunks


def _duration_s(replica, chunks, base_s, step):
    tokens = sum(chunks)
    duration = base_s[len(replica.running) + tokens] + step.prefill_s * tokens
    duration += step.kv_s * sum(entry[2] for entry in replica.running)
    for (_, done), chunk in zip(replica.prefilling, chunks):
        duration += step.pair_s * (chunk * done + chunk * (chunk + 1) / 2)
    return duration


def _decoded(replica, now, finish_s):
    """Every running sequence has its token; those with their last one leave."""
    kept = []
    for entry in replica.running:
        entry[1] -= 1
        entry[2] += 1
        if entry[1]:
            kept.append(entry)
        else:
            finish_s[entry[0]] = now
            replica.outstanding -= 1
    replica.running = kept


def _prefilled(replica, chunks, isl, osl, now, finish_s):
    """Prompts have their chunk; those that are complete have their first token, and decode from the next step."""
    unfinished = []
    for entry, chunk in zip(replica.prefilling, chunks):
        entry[1] += chunk
        r = entry[0]
        if entry[1] < isl[r]:
            unfinished.append(entry)
        elif osl[r] == 1:
            finish_s[r] = now
            replica.outstanding -= 1
        else:
            replica.running.append([r, osl[r] - 1, isl[r]])
    replica.prefilling = unfinished


def play_stepping(system, replicas, arrival_s, isl, osl, each_sequence=True):
    """A compiled loop that visits every iteration; returns finish times.

    With `each_sequence` it gives every sequence its token, as a plain program does; without, it knows each sequence's
    last step beforehand and an iteration in which nobody joins or leaves costs O(1).
    """
    kind = system.workers[0]
    finish_s = np.zeros(len(isl))
    step = kind.step
    _step_by_step(
        replicas, kind.max_sequences, kind.max_batched_tokens, step.base_s, step.kv_s, step.prefill_s, step.pair_s,
        np.asarray(arrival_s), np.asarray(isl), np.asarray(osl), finish_s, each_sequence,
    )  # fmt: skip
    return finish_s


class Fleet(NamedTuple):
    """Replicas as the compiled loop plays them, by replica (and place in its batch)."""

    outstanding: np.ndarray
    head: np.ndarray
    """First request that waits, -1 for none."""
    tail: np.ndarray
    following: np.ndarray
    """By request: the next one in the same queue."""
    prompt: np.ndarray
    """Requests in prefill."""
    done: np.ndarray
    chunk: np.ndarray
    prefilling: np.ndarray
    """Their number."""
    request: np.ndarray
    """Requests that decode."""
    end: np.ndarray
    """Step number after which they are done."""
    left: np.ndarray
    tokens_held: np.ndarray
    decoding: np.ndarray
    """Their number."""
    nearest: np.ndarray
    """The first of their ends."""
    held: np.ndarray
    steps: np.ndarray
    end_s: np.ndarray
    """When the step ends; infinite where nothing is to be done."""


@njit(cache=True)
def _step_by_step(
    replicas, most, budget_tokens, base_s, kv_s, prefill_s, pair_s, arrival_s, isl, osl, finish_s, each_sequence
):  # fmt: skip
    decoding, held, steps = np.zeros(replicas, np.int64), np.zeros(replicas, np.int64), np.zeros(replicas, np.int64)
    left, tokens_held = np.zeros((replicas, most), np.int64), np.zeros((replicas, most), np.int64)
    nearest, end_s = np.full(replicas, NEVER), np.full(replicas, np.inf)
    fleet = Fleet(
        np.zeros(replicas, np.int64), np.full(replicas, -1), np.full(replicas, -1), np.full(len(isl), -1),
        np.zeros((replicas, most), np.int64), np.zeros((replicas, most), np.int64), np.zeros((replicas, most), np.int64),
        np.zeros(replicas, np.int64), np.zeros((replicas, most), np.int64), np.zeros((replicas, most), np.int64),
        left, tokens_held, decoding, nearest, held, steps, end_s,
    )  # fmt: skip
    pointer = arriving = 0
    while True:
        w = np.argmin(end_s)
        if arriving < len(isl) and arrival_s[arriving] < end_s[w]:
            now = arrival_s[arriving]
            w = _queue(fleet, arriving, pointer)
            pointer = (w + 1) % replicas
            arriving += 1
            if end_s[w] < math.inf:
                continue
        elif end_s[w] == math.inf:
            return
        else:  # a step is over: a token for every decoding sequence
            now = end_s[w]
            steps[w] += 1
            held[w] += decoding[w]
            if each_sequence:
                for k in range(decoding[w]):
                    left[w, k] -= 1
                    tokens_held[w, k] += 1
                    if left[w, k] == 0:
                        nearest[w] = steps[w]
            if steps[w] >= nearest[w]:
                _let_go(fleet, w, now, isl, osl, finish_s)
            if fleet.prefilling[w]:
                _move_on(fleet, w, now, isl, osl, finish_s)
        tokens, pairs = 0, 0.0
        if fleet.prefilling[w] or fleet.head[w] >= 0:
            tokens, pairs = _fill_step(fleet, w, most, budget_tokens, isl)
        if decoding[w] + tokens:
            end_s[w] = now + (base_s[decoding[w] + tokens] + kv_s * held[w] + prefill_s * tokens + pair_s * pairs)
        else:
            end_s[w] = math.inf


@njit(cache=True)
def _queue(fleet, r, pointer):
    """Send a request to the replica with the fewest outstanding, the next from `pointer` on among equals."""
    w, outstanding = pointer, fleet.outstanding
    for k in range(1, len(outstanding)):
        i = (pointer + k) % len(outstanding)
        if outstanding[i] < outstanding[w]:
            w = i
    fleet.outstanding[w] += 1
    if fleet.head[w] < 0:
        fleet.head[w] = r
    else:
        fleet.following[fleet.tail[w]] = r
    fleet.tail[w] = r
    return w


@njit(cache=True)
def _let_go(fleet, w, now, isl, osl, finish_s):
    """Sequences that have their last token leave."""
    request, end, left, tokens_held = fleet.request[w], fleet.end[w], fleet.left[w], fleet.tokens_held[w]
    kept, nearest = 0, NEVER
    for k in range(fleet.decoding[w]):
        r = request[k]
        if end[k] <= fleet.steps[w]:
            finish_s[r] = now
            fleet.outstanding[w] -= 1
            fleet.held[w] -= isl[r] + osl[r] - 1
        else:
            request[kept], end[kept], left[kept], tokens_held[kept] = r, end[k], left[k], tokens_held[k]
            nearest = min(nearest, end[k])
            kept += 1
    fleet.decoding[w], fleet.nearest[w] = kept, nearest


@njit(cache=True)
def _move_on(fleet, w, now, isl, osl, finish_s):
    """Prompts have their chunk; those that are complete have their first token, and decode from the next step."""
    kept = 0
    for k in range(fleet.prefilling[w]):
        r = fleet.prompt[w, k]
        fleet.done[w, k] += fleet.chunk[w, k]
        if fleet.done[w, k] < isl[r]:
            fleet.prompt[w, kept] = r
            fleet.done[w, kept] = fleet.done[w, k]
            kept += 1
        elif osl[r] == 1:
            finish_s[r] = now
            fleet.outstanding[w] -= 1
        else:
            place = fleet.decoding[w]
            fleet.request[w, place] = r
            fleet.end[w, place] = fleet.steps[w] + osl[r] - 1
            fleet.left[w, place] = osl[r] - 1
            fleet.tokens_held[w, place] = isl[r]
            fleet.nearest[w] = min(fleet.nearest[w], fleet.end[w, place])
            fleet.decoding[w] += 1
            fleet.held[w] += isl[r]
    fleet.prefilling[w] = kept


@njit(cache=True)
def _fill_step(fleet, w, most, budget, isl):
    """Admit what waits, and deal the step's budget out to the prompts in prefill; returns its prompt tokens and pairs."""
    budget -= fleet.decoding[w]
    for k in range(fleet.prefilling[w]):
        fleet.chunk[w, k] = min(budget, isl[fleet.prompt[w, k]] - fleet.done[w, k])
        budget -= fleet.chunk[w, k]
    while fleet.head[w] >= 0 and budget > 0 and fleet.decoding[w] + fleet.prefilling[w] < most:
        r, k = fleet.head[w], fleet.prefilling[w]
        fleet.head[w] = fleet.following[r]
        fleet.prompt[w, k] = r
        fleet.done[w, k] = 0
        fleet.chunk[w, k] = min(budget, isl[r])
        budget -= fleet.chunk[w, k]
        fleet.prefilling[w] += 1
    tokens, pairs = 0, 0.0
    for k in range(fleet.prefilling[w]):
        chunk = fleet.chunk[w, k]
        tokens += chunk
        pairs += chunk * fleet.done[w, k] + 0.5 * (chunk * (chunk + 1))
    return tokens, pairs
