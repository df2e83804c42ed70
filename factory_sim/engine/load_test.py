"""A load test of one serving system: how latency grows with load, and the highest load that keeps a promise.

The same test that an operator runs before giving out token limits: open-loop arrivals at rising rates through the
kernel, warm-up dropped. One curve serves every systematic error of the profile, since multiplying all step times by
``f`` only stretches time: the capacity for a promise (TTFT, TPOT) is ``capacity(TTFT / f, TPOT / f) / f``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import isotonic_regression

from factory_sim.engine.kernel import Pool
from factory_sim.engine.requests import drawn_requests
from factory_sim.engine.warm_start import in_progress
from factory_sim.model.generation import GenerationSystem
from factory_sim.model.serving import ServingSystem
from factory_sim.model.workload import LengthModel, RequestMix, arrival_times
from factory_sim.streams import stream

LOADS = (0.3, 0.5, 0.65, 0.77, 0.87, 0.95, *(1.03 * 1.08**step for step in range(24)))
"""Loads of the test over the fluid estimate of what the promise allows; it ends well before the last."""
MOST_REQUESTS = 60_000
"""Requests of one load beyond which its window is cut short."""
MOST_INSTANCES = 8
"""Instances that a test plays at most."""
LEAST_REQUESTS = 100
"""Requests that a window waits for: under a promise that allows hardly any load, few come while one stays."""
WINDOW_RESIDENCES = 5.0
"""A load is counted for so many times as long as a request stays, after one such time of warming up."""
UNSTABLE = 0.15
"""Growth of the number in the system over a window, relative to it, at which the load does not settle."""


@dataclass(frozen=True)
class LatencyCurve:
    """Latency of one instance against its load: arrays of equal length, loads rising."""

    rate_per_s: np.ndarray
    """Arrivals a second at one instance, those refused at once included."""
    ttft_p95_s: np.ndarray
    tpot_p95_s: np.ndarray
    """95th percentiles over requests, smoothed to rise with the load, seconds; infinite where the load does not settle."""
    in_system: np.ndarray
    """Mean number of requests at one instance."""
    requests_played: int
    """Requests that went into the test."""

    def capacity_per_s(self, ttft_p95_s: float, tpot_p95_s: float, slowdown: float = 1.0) -> float:
        """Highest arrival rate (requests/s at one instance) that keeps both percentiles; 0 where none does.

        `slowdown` multiplies all step times of the system.
        """
        by_ttft = _crossing(self.rate_per_s, self.ttft_p95_s, ttft_p95_s / slowdown)
        by_tpot = _crossing(self.rate_per_s, self.tpot_p95_s, tpot_p95_s / slowdown)
        return min(by_ttft, by_tpot) / slowdown

    def number_at(self, rate_per_s: float, slowdown: float = 1.0) -> float:
        """Mean number of requests at one instance under a load it can settle at."""
        settled = np.isfinite(self.tpot_p95_s)
        rates, numbers = np.append(0.0, self.rate_per_s[settled]), np.append(0.0, self.in_system[settled])
        return float(np.interp(rate_per_s * slowdown, rates, numbers))


@dataclass(frozen=True)
class FluidModel:
    """Mean-field model of one instance: ``n`` sequences a decode worker, prompts arriving as fast as answers end.

    A step lasts ``base[n k + p] + kv_s n (isl + osl / 2) + p prefill_s + r pair_s pairs`` where ``p`` prompt tokens and
    ``r`` requests come in during a step. A starting point for searches, not a bound.
    """

    system: ServingSystem
    isl: float
    osl: float
    pairs: float
    """Mean (query, key) pairs of a prompt."""

    @cached_property
    def _base_s(self) -> list[float]:
        """Base of a step by its tokens, of a decode worker."""
        return self.system.workers[-1].step.base_s.tolist()

    def at(self, n: float) -> tuple[float, float]:
        """Arrival rate (requests/s at the instance) and mean TPOT (s) with `n` sequences on each decode worker."""
        worker = self.system.workers[-1]
        step = worker.step
        steps = max((self.osl - 1) / self.system.tokens_per_step, 1.0)
        table, decoding = self._base_s, n * step.tokens_per_sequence
        base = _base(table, decoding)
        alone = base + step.kv_s * n * (self.isl + self.osl / 2)
        duration = alone
        if worker.role == "both":
            requests = n / steps
            added = _base(table, decoding + requests * self.isl) - base
            added += requests * (self.isl * step.prefill_s + self.pairs * step.pair_s)
            for _ in range(30):
                duration = 0.5 * (duration + alone + added)
        return n / (steps * duration) * worker.count, duration * steps / max(self.osl - 1, 1.0)

    def rate_per_s(self, tpot_s: float) -> float:
        """Highest rate with a mean TPOT of at most `tpot_s`, within memory, batch limit and prefill workers."""
        worker = self.system.workers[-1]
        most = max(min(worker.max_sequences, worker.kv_capacity_tokens / (self.isl + self.osl / 2)), 1.0)
        low, high = 0.01, float(most)
        if self.at(high)[1] > tpot_s:
            for _ in range(40):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if self.at(middle)[1] <= tpot_s else (low, middle)
        rate = self.at(high)[0]
        if worker.role == "decode":
            rate = min(rate, 0.95 * self.system.workers[0].count / self.prefill_s())
        return rate

    def number_at(self, rate_per_s: float) -> float:
        """Decoding sequences of the whole instance at an arrival rate."""
        worker = self.system.workers[-1]
        low, high = 0.0, float(worker.max_sequences)
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.at(max(middle, 1e-6))[0] < rate_per_s else (low, middle)
        return high * worker.count

    def prefill_s(self) -> float:
        """Seconds that a prefill worker is busy for a mean prompt when its steps are full."""
        worker = self.system.workers[0]
        chunk = min(worker.max_batched_tokens, len(worker.step.base_s) - 1)
        per_token = float(worker.step.base_s[chunk]) / chunk + worker.step.prefill_s
        return self.isl * per_token + self.pairs * worker.step.pair_s


@dataclass(frozen=True)
class BatchModel:
    """Mean-field model of a server of images or videos: full batches of the fastest size, one after the other."""

    system: GenerationSystem

    def rate_per_s(self, _limit_s: float) -> float:
        """Most outputs a second, whatever the promise."""
        latency_s = self.system.workers[0].step.base_s
        return float(np.max(np.arange(1, len(latency_s)) / latency_s[1:]))

    def number_at(self, rate_per_s: float) -> float:
        """Requests at the server, each there for half a batch of waiting and one of its own."""
        return 1.5 * rate_per_s * float(self.system.workers[0].step.base_s[-1])


def load_test(
    system: ServingSystem, lengths: LengthModel, tpot_limit_s: float, *, router: str, seed: int, sequences: int = 600,
    mix: RequestMix | None = None, options: dict | None = None, instances: int = MOST_INSTANCES,
) -> LatencyCurve:  # fmt: skip
    """Play rising loads through the kernel and return the latency curve of one instance of `instances` behind a router.

    Of images and videos TTFT is the time to the output and TPOT zero. `tpot_limit_s` sets the range of loads (from 0.2 to
    about 1.5 times the fluid estimate at that limit; the test ends once TPOT is far beyond it or a load does not settle).
    `sequences` is about how many are kept running, on as many instances as that takes (fewer play longer: a router
    evens out what one alone does not). `mix` tells what the requests are like beside `lengths`, `options` how the
    kernel's pool schedules them. Rates count all arrivals, those that the context window refuses at once too.
    """
    rng, mix, options = stream(seed, "load_test", system.name), mix or RequestMix(lengths), options or {}
    let_in = 1.0
    if mix.refuse:
        lengths, let_in = mix.let_in(system.max_context_tokens)
    isl, osl = lengths.sample(rng, 20_000)
    if outputs := isinstance(system, GenerationSystem):
        fluid = BatchModel(system)
    else:
        fluid = FluidModel(system, float(isl.mean()), float(osl.mean()), float(np.mean(isl * (isl + 1.0) / 2)))
    guess = fluid.rate_per_s(0.9 * tpot_limit_s)
    wanted = int(np.clip(round(sequences / max(fluid.number_at(guess), 1.0)), 1, MOST_INSTANCES))
    kept = min(wanted, instances)
    pool = Pool([(system, kept)], router=router, **options)
    seeds = np.zeros(0, np.int64)
    rows: list[tuple[float, float, float, float]] = []
    clock_s, played, learned = 0.0, 0, 1.0
    for load in LOADS:
        rate = guess * load / let_in
        missing = int(learned * fluid.number_at(guess * load) * kept) - pool.in_system()
        if missing > 0:
            seeds = np.append(seeds, pool.offer(in_progress(rng, lengths, system, missing, clock_s)))
        known = seeds if options.get("prefix_cache") or outputs else None
        residence_s = _residence_s(system, lengths, tpot_limit_s, rate * kept) * wanted / kept
        row, clock_s, count = _play_load(pool, system, mix, rate, kept, clock_s, residence_s, rng, known)
        played += count
        rows.append((rate, *row))
        learned = pool.in_system() / (kept * fluid.number_at(guess * load))  # what the fluid model is off by
        if not np.isfinite(row[1]) or row[1] > 1.5 * tpot_limit_s:
            break
    rate, ttft, tpot, number = np.array(rows).T
    return LatencyCurve(rate, _rising(ttft), _rising(tpot), number, played)


def _residence_s(system: ServingSystem, lengths: LengthModel, tpot_limit_s: float, rate_per_s: float) -> float:
    """How long a request stays, about; of images and videos a few batches, and long enough that 2,000 arrive in a window."""
    if isinstance(system, GenerationSystem):
        return max(5.0 * float(system.workers[0].step.base_s[-1]), 2000 / WINDOW_RESIDENCES / rate_per_s)
    return max(lengths.mean_osl * tpot_limit_s, 1.0)


def _rising(latency: np.ndarray) -> np.ndarray:
    """The closest curve that never falls (isotonic regression of the logarithms); infinite points stay."""
    settled = np.isfinite(latency)
    rising = np.full(len(latency), np.inf)
    rising[settled] = np.exp(isotonic_regression(np.log(np.maximum(latency[settled], 1e-9))).x)
    return rising


def _play_load(
    pool, system, mix, rate, kept, clock_s, residence_s, rng, seeds
) -> tuple[tuple, float, int]:
    """(p95 TTFT, p95 TPOT, number at an instance) of the requests that leave in a window at one load, its end, and
    how many requests were played. `seeds`: ids to leave out; None: they are the ones with cached tokens."""
    warm_s, window_s = residence_s, max(WINDOW_RESIDENCES * residence_s, LEAST_REQUESTS / (rate * kept))
    total = rate * kept * (warm_s + window_s)
    if total > MOST_REQUESTS:
        warm_s, window_s = (span * max(MOST_REQUESTS / total, 0.25) for span in (warm_s, window_s))
    times = clock_s + arrival_times(rng, rate * kept, warm_s + window_s)
    first = pool.offer(drawn_requests(rng, mix, system, times, cached=seeds is not None))
    pool.advance(clock_s + warm_s)
    pool.finished()
    before, end_s = pool.totals(), clock_s + warm_s + window_s
    pool.advance(end_s)
    after, done = pool.totals(), pool.finished()
    ok = (done["status"] == 0) & ((done["cached_tokens"] == 0) if seeds is None else ~np.isin(done["id"], seeds))
    gaps = done["osl"] - 1
    several = ok & (gaps > 0)
    counted = ok if isinstance(system, GenerationSystem) else several
    number = (after["system_seconds"] - before["system_seconds"]) / window_s
    growth = (after["in_system"] - before["in_system"]) / max(number, 1.0)
    if not len(first) or counted.sum() < 20 or growth > UNSTABLE + 4 / np.sqrt(max(number, 1.0)):
        return (np.inf, np.inf, number / kept), end_s, len(times)
    ttft = (done["first_token_s"] - done["arrival_s"])[ok]
    tpot = (done["finish_s"] - done["first_token_s"])[counted] / np.maximum(gaps[counted], 1)
    return (float(np.quantile(ttft, 0.95)), float(np.quantile(tpot, 0.95)), number / kept), end_s, len(times)


def _base(table: Sequence[float], tokens: float) -> float:
    """The base of a step of (a fractional number of) tokens."""
    place = min(max(tokens, 0.0), len(table) - 1.0)
    low = int(place)
    high = min(low + 1, len(table) - 1)
    return table[low] + (place - low) * (table[high] - table[low])


def _crossing(rate: np.ndarray, latency: np.ndarray, limit: float) -> float:
    """Rate at which a rising latency curve meets `limit`: the last rate where it never does, 0 if it starts above."""
    if latency[0] > limit:
        return 0.0
    above = latency > limit
    if not above.any():
        return float(rate[-1])
    place = int(np.argmax(above))
    if not np.isfinite(latency[place]):
        return float(rate[place - 1])
    share = (limit - latency[place - 1]) / (latency[place] - latency[place - 1])
    return float(rate[place - 1] + share * (rate[place] - rate[place - 1]))
