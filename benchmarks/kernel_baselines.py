"""Two honest ways to play the plain open loop without skipping steps: SimPy, and a compiled loop.

Both serve requests as the kernel does (continuous batching, chunked prefill first come first served, least outstanding
router whose ties go round) where KV memory is never short, and give its times; the benchmark asserts that first.
"""

import math

import numpy as np
import simpy
from numba import njit


def play_simpy(system, replicas, arrival_s, isl, osl):
    """SimPy, one event an iteration: a process a replica, a timeout a step. Returns finish times in request order."""
    kind = system.workers[0]
    base_s = kind.step.base_s.tolist()
    kv_s, prefill_s, pair_s = kind.step.kv_s, kind.step.prefill_s, kind.step.pair_s
    env = simpy.Environment()
    waiting = [[] for _ in range(replicas)]
    outstanding = [0] * replicas
    sleeping = [None] * replicas
    finish_s = np.zeros(len(isl))

    def replica(w):
        running, prefilling = [], []  # [request, steps left, tokens held], [request, tokens done]
        while True:
            budget = kind.max_batched_tokens - len(running)
            chunks = []
            for entry in prefilling:
                chunk = min(budget, isl[entry[0]] - entry[1])
                budget -= chunk
                chunks.append(chunk)
            while waiting[w] and budget > 0 and len(running) + len(prefilling) < kind.max_sequences:
                entry = [waiting[w].pop(0), 0]
                prefilling.append(entry)
                chunk = min(budget, isl[entry[0]])
                budget -= chunk
                chunks.append(chunk)
            tokens = sum(chunks)
            if not running and not tokens:
                sleeping[w] = env.event()
                yield sleeping[w]
                continue
            duration = base_s[len(running) + tokens] + prefill_s * tokens
            duration += kv_s * sum(entry[2] for entry in running)
            for entry, chunk in zip(prefilling, chunks):
                duration += pair_s * (chunk * entry[1] + chunk * (chunk + 1) / 2)
            yield env.timeout(duration)
            kept = []
            for entry in running:
                entry[1] -= 1
                entry[2] += 1
                if entry[1]:
                    kept.append(entry)
                else:
                    finish_s[entry[0]] = env.now
                    outstanding[w] -= 1
            running = kept
            unfinished = []
            for entry, chunk in zip(prefilling, chunks):
                entry[1] += chunk
                r = entry[0]
                if entry[1] < isl[r]:
                    unfinished.append(entry)
                elif osl[r] == 1:
                    finish_s[r] = env.now
                    outstanding[w] -= 1
                else:
                    running.append([r, osl[r] - 1, isl[r]])
            prefilling = unfinished

    def arrivals():
        pointer = 0
        for r, time_s in enumerate(arrival_s):
            yield env.timeout(time_s - env.now)
            w = min(range(replicas), key=lambda i: (outstanding[i], (i - pointer) % replicas))
            pointer = (w + 1) % replicas
            outstanding[w] += 1
            waiting[w].append(r)
            if sleeping[w] is not None and not sleeping[w].triggered:
                sleeping[w].succeed()

    for w in range(replicas):
        env.process(replica(w))
    env.process(arrivals())
    env.run()
    return finish_s


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


@njit(cache=True)
def _step_by_step(
    replicas, most, budget_tokens, base_s, kv_s, prefill_s, pair_s, arrival_s, isl, osl, finish_s, each_sequence
):  # fmt: skip
    n = len(isl)
    following = np.full(n, -1)  # next request in the same queue
    head = np.full(replicas, -1)
    tail = np.full(replicas, -1)
    outstanding = np.zeros(replicas, np.int64)
    request = np.zeros((replicas, most), np.int64)  # decoding
    end = np.zeros((replicas, most), np.int64)  # step number after which it is done
    left = np.zeros((replicas, most), np.int64)
    tokens_held = np.zeros((replicas, most), np.int64)
    decoding = np.zeros(replicas, np.int64)
    nearest = np.full(replicas, 1 << 62)
    held = np.zeros(replicas, np.int64)
    steps = np.zeros(replicas, np.int64)
    prompt = np.zeros((replicas, most), np.int64)  # prefilling
    done = np.zeros((replicas, most), np.int64)
    chunk = np.zeros((replicas, most), np.int64)
    prefilling = np.zeros(replicas, np.int64)
    end_s = np.full(replicas, np.inf)
    pointer = 0
    arriving = 0
    while True:
        w = 0
        for i in range(1, replicas):
            if end_s[i] < end_s[w]:
                w = i
        if arriving < n and arrival_s[arriving] < end_s[w]:
            now = arrival_s[arriving]
            w = -1
            for k in range(replicas):
                i = (pointer + k) % replicas
                if w < 0 or outstanding[i] < outstanding[w]:
                    w = i
            pointer = (w + 1) % replicas
            outstanding[w] += 1
            if head[w] < 0:
                head[w] = arriving
            else:
                following[tail[w]] = arriving
            tail[w] = arriving
            arriving += 1
            if end_s[w] < math.inf:
                continue
        elif end_s[w] == math.inf:
            return
        else:
            now = end_s[w]
            steps[w] += 1
            if each_sequence:
                for k in range(decoding[w]):
                    left[w, k] -= 1
                    tokens_held[w, k] += 1
                    held[w] += 1
                    if left[w, k] == 0:
                        nearest[w] = steps[w]
            else:
                held[w] += decoding[w]
            if steps[w] >= nearest[w]:
                kept = 0
                nearest[w] = 1 << 62
                for k in range(decoding[w]):
                    r = request[w, k]
                    if end[w, k] <= steps[w]:
                        finish_s[r] = now
                        outstanding[w] -= 1
                        held[w] -= isl[r] + osl[r] - 1
                    else:
                        request[w, kept] = r
                        end[w, kept] = end[w, k]
                        left[w, kept] = left[w, k]
                        tokens_held[w, kept] = tokens_held[w, k]
                        nearest[w] = min(nearest[w], end[w, k])
                        kept += 1
                decoding[w] = kept
            kept = 0
            for k in range(prefilling[w]):
                r = prompt[w, k]
                done[w, k] += chunk[w, k]
                if done[w, k] < isl[r]:
                    prompt[w, kept] = r
                    done[w, kept] = done[w, k]
                    kept += 1
                elif osl[r] == 1:
                    finish_s[r] = now
                    outstanding[w] -= 1
                else:
                    request[w, decoding[w]] = r
                    end[w, decoding[w]] = steps[w] + osl[r] - 1
                    left[w, decoding[w]] = osl[r] - 1
                    tokens_held[w, decoding[w]] = isl[r]
                    nearest[w] = min(nearest[w], end[w, decoding[w]])
                    decoding[w] += 1
                    held[w] += isl[r]
            prefilling[w] = kept
        budget = budget_tokens - decoding[w]
        tokens = 0
        pairs = 0.0
        for k in range(prefilling[w]):
            chunk[w, k] = min(budget, isl[prompt[w, k]] - done[w, k])
            budget -= chunk[w, k]
        while head[w] >= 0 and budget > 0 and decoding[w] + prefilling[w] < most:
            r = head[w]
            head[w] = following[r]
            k = prefilling[w]
            prompt[w, k] = r
            done[w, k] = 0
            chunk[w, k] = min(budget, isl[r])
            budget -= chunk[w, k]
            prefilling[w] += 1
        for k in range(prefilling[w]):
            tokens += chunk[w, k]
            pairs += chunk[w, k] * done[w, k] + 0.5 * (chunk[w, k] * (chunk[w, k] + 1))
        if decoding[w] + tokens == 0:
            end_s[w] = math.inf
        else:
            end_s[w] = now + (
                base_s[decoding[w] + tokens] + kv_s * held[w] + prefill_s * tokens + pair_s * pairs
            )
