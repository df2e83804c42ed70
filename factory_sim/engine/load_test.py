"""A load test of one serving system: how latency grows with load, and the highest load that keeps a promise.

The same test that an operator runs before giving out token limits: open-loop arrivals at rising rates through the
kernel, warm-up dropped. One curve serves every systematic error of the profile, since multiplying all step times by
``f`` only stretches time: the capacity for a promise (TTFT, TPOT) is ``capacity(TTFT / f, TPOT / f) / f``.
"""

from dataclasses import dataclass

import numpy as np

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.errors import CapacityError
from factory_sim.model.serving import ServingSystem, decode_steps
from factory_sim.streams import stream

LOADS = (0.3, 0.5, 0.65, 0.78, 0.88, 0.96, 1.04, 1.12, 1.22, 1.35, 1.5)
"""Loads of the test, relative to the fluid estimate of what the promise allows."""


@dataclass(frozen=True)
class LatencyCurve:
    """Latency of one instance against its load: arrays of equal length, loads rising."""

    rate_per_s: np.ndarray
    """Arrivals a second at one instance."""
    ttft_p95_s: np.ndarray
    tpot_p95_s: np.ndarray
    """95th percentiles over requests, made monotone in the load, seconds."""
    requests_played: int
    """Requests that went into the test."""

    def capacity_per_s(self, ttft_p95_s: float, tpot_p95_s: float, slowdown: float = 1.0) -> float:
        """Highest arrival rate (requests/s at one instance) that keeps both percentiles; 0 where none does.

        `slowdown` multiplies all step times of the system.
        """
        by_ttft = _crossing(self.rate_per_s, self.ttft_p95_s, ttft_p95_s / slowdown)
        by_tpot = _crossing(self.rate_per_s, self.tpot_p95_s, tpot_p95_s / slowdown)
        return min(by_ttft, by_tpot) / slowdown


def fluid_rate_per_s(system: ServingSystem, isl: float, osl: float, pairs: float, tpot_s: float) -> float:
    """Mean-field arrival rate (requests/s at one instance) at which the mean TPOT is `tpot_s`.

    `pairs` is the mean number of (query, key) pairs of a prompt. A worker with ``n`` sequences steps in
    ``base[n k + p] + kv_s n (isl + osl / 2) + p prefill_s + ...`` where ``p`` is the prompt tokens that arrive during
    a step. Falls back on the largest batch when even that is faster than `tpot_s`. Not a bound: a starting point.
    """
    prefill, decode = system.workers[0], system.workers[-1]
    step = decode.step
    mean_kv = isl + osl / 2
    steps = max((osl - 1) / system.tokens_per_step, 1.0)
    limit = max(int(min(decode.max_sequences, decode.kv_capacity_tokens / (isl + osl / 2))), 1)
    mixed = decode.role == "both"

    def at(n: float) -> tuple[float, float]:
        duration = float(np.interp(n * step.tokens_per_sequence, np.arange(len(step.base_s)), step.base_s)) + step.kv_s * n * mean_kv
        for _ in range(40 if mixed else 0):
            rate = n / (steps * duration)
            tokens = n * step.tokens_per_sequence + rate * duration * isl
            base = float(np.interp(tokens, np.arange(len(step.base_s)), step.base_s))
            new = base + step.kv_s * n * mean_kv + rate * duration * (isl * step.prefill_s + pairs * step.pair_s)
            duration = 0.5 * duration + 0.5 * min(new, 1e3)
        return n / (steps * duration) * decode.count, duration * steps / max(osl - 1, 1.0)

    low, high = 1.0, float(limit)
    if at(high)[1] > tpot_s:
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if at(middle)[1] <= tpot_s else (low, middle)
    rate = at(high)[0]
    if not mixed:
        per_prompt = prefill_seconds(system, isl, pairs)
        rate = min(rate, 0.95 * prefill.count / per_prompt)
    return rate


def prefill_seconds(system: ServingSystem, isl: float, pairs: float) -> float:
    """Seconds that a prefill worker is busy for a mean prompt when its steps are full."""
    worker = system.workers[0]
    chunk = min(worker.max_batched_tokens, len(worker.step.base_s) - 1)
    return isl * (float(worker.step.base_s[chunk]) / chunk + worker.step.prefill_s) + pairs * worker.step.pair_s


def load_test(system: ServingSystem, lengths, tpot_limit_s: float, *, router: str, seed: int, sequences: int = 600) -> LatencyCurve:
    """Play rising loads through the kernel and return the latency curve of one instance.

    `lengths` has ``sample(rng, n) -> (isl, osl)``; `tpot_limit_s` sets the range of loads (from 0.3 to about 1.5 times
    the fluid estimate at that limit; the test stops two loads after both percentiles are far beyond it).
    """
    rng = stream(seed, "load_test", system.name)
    isl, osl = lengths.sample(rng, 20_000)
    pairs = float(np.mean(isl * (isl + 1.0) / 2))
    guess = fluid_rate_per_s(system, float(isl.mean()), float(osl.mean()), pairs, 0.9 * tpot_limit_s)
    mean_s = max(float(osl.mean()) * tpot_limit_s, 1.0)
    kept = max(1, min(8, round(sequences / max(guess * mean_s, 1.0))))
    rows, played = [], 0
    for load in LOADS:
        ttft, tpot, count = _play(system, lengths, guess * load, kept, mean_s, router, stream(seed, "load_test", system.name, "arrivals"))
        rows.append((guess * load, ttft, tpot))
        played += count
        if tpot > 1.6 * tpot_limit_s or ttft > 60.0:
            break
    rate, ttft, tpot = np.array(rows).T
    return LatencyCurve(rate, np.maximum.accumulate(ttft), np.maximum.accumulate(tpot), played)


def _play(system, lengths, rate_per_s, instances, mean_s, router, rng) -> tuple[float, float, int]:
    """p95 of TTFT and TPOT (s) of the requests that arrive after warm-up at one load, and how many were played."""
    warm_s, window_s = 2.0 * mean_s, 6.0 * mean_s
    total = rate_per_s * instances * (warm_s + window_s)
    if total > 60_000:
        window_s = max(60_000 / (rate_per_s * instances) - warm_s, 1.5 * mean_s)
    n = rng.poisson(rate_per_s * instances * (warm_s + window_s))
    arrival = np.sort(rng.random(n)) * (warm_s + window_s)
    isl, osl = lengths.sample(rng, n)
    pool = Pool([(system, instances)], router=router)
    pool.offer(Requests(arrival_s=arrival, isl=isl, osl=osl, decode_steps=decode_steps(osl, system.tokens_per_step, rng)))
    pool.advance(warm_s + window_s)
    done = pool.finished()
    keep = (done["status"] == 0) & (done["finish_s"] >= warm_s)
    if keep.sum() < 20:
        raise CapacityError(f"{system.name}: a load test of {rate_per_s:.3g} requests/s finished only {int(keep.sum())} requests in {window_s:.0f} s")
    ttft = (done["first_token_s"] - done["arrival_s"])[keep]
    several = keep & (done["osl"] > 1)
    tpot = ((done["finish_s"] - done["first_token_s"])[several]) / (done["osl"][several] - 1)
    return float(np.quantile(ttft, 0.95)), float(np.quantile(tpot, 0.95)), n


def _crossing(rate: np.ndarray, latency: np.ndarray, limit: float) -> float:
    """Rate at which a rising latency curve meets `limit`; the last rate where it never does, 0 where it starts above."""
    if latency[0] > limit:
        return 0.0
    if latency[-1] <= limit:
        return float(rate[-1])
    above = int(np.argmax(latency > limit))
    share = (limit - latency[above - 1]) / (latency[above] - latency[above - 1])
    return float(rate[above - 1] + share * (rate[above] - rate[above - 1]))
