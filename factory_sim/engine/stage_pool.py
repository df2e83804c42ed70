"""The instances of one stage as the kernel plays them: a thinned pool, asked for windows at one load after another.

Thinning over replicas: `kept` of the stage's like instances are played behind the router, with their share of demand.
Thinning over time (systematic sampling): a window is played for a load; hours whose load is the same, or lies between
two played windows close enough together, take their facts from those, until each window has stood for
``hours_per_window``. The mixture keeps the load exact, so arrivals add up to the demand.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from factory_sim.engine.facts import Facts
from factory_sim.engine.journal import METRICS, Journal
from factory_sim.engine.kernel import Pool, Requests
from factory_sim.histogram import bin_of
from factory_sim.inputs.scenario import Sampling, Slo
from factory_sim.model.serving import ServingSystem, decode_steps
from factory_sim.units import HOUR_S

SAME_LOAD = 1e-6
"""Loads that differ by less than this fraction are the same load."""


@dataclass
class _Window:
    facts: Facts
    hours_left: float


@dataclass
class StagePool:
    """State of one stage's pool in one replication. All times inside are the pool's own played time, seconds."""

    system: ServingSystem
    """The serving system, already multiplied by the replication's profile error."""
    kept: int
    """Instances played."""
    lengths: object
    """Length model with ``sample(rng, n)``."""
    arrivals: object
    """``arrivals(rng, rate_per_s, duration_s) -> times`` from 0, seconds."""
    slo: Slo
    sampling: Sampling
    router: str
    rng: np.random.Generator
    journal: Journal
    """Where played windows, their latencies and samples are written."""
    ttft_error: float = 1.0
    """Factor on TTFT that is not explained by step times: the replication's draw from the profile's TTFT band."""
    windows: list[_Window] = field(default_factory=list)
    played_requests: int = 0
    played_windows: int = 0
    sojourn_s: float = 0.0
    sample_rows: int = 200

    def __post_init__(self) -> None:
        self.pool = Pool([(self.system, self.kept)], router=self.router)
        self.clock_s = 0.0
        self.load = 0.0
        self.tokens_seen = {"isl": 0, "osl": 0}

    def serve(self, rate_per_s: float, duration_s: float) -> list[tuple[float, Facts]]:
        """The played windows, with weights that sum to one, that stand for `duration_s` seconds at `rate_per_s`
        requests a second and instance."""
        hours = duration_s / HOUR_S
        found = self._recall(rate_per_s, hours)
        if found is not None:
            return found
        facts = self._play(rate_per_s)
        self.windows.append(_Window(facts, self.sampling.hours_per_window - hours))
        return [(1.0, facts)]

    def drain(self) -> None:
        """Play what is still in the pool to its end, so that the pool's laws can be checked exactly."""
        self.clock_s = max(self.clock_s, self.pool.drain())
        self._collect(self.clock_s)

    def _recall(self, rate: float, hours: float) -> list[tuple[float, Facts]] | None:
        usable = [window for window in self.windows if window.hours_left >= hours]
        for window in usable:
            if abs(window.facts.rate_per_s - rate) <= SAME_LOAD * max(rate, 1e-12):
                window.hours_left -= hours
                return [(1.0, window.facts)]
        below = max((w for w in usable if w.facts.rate_per_s < rate), key=lambda w: w.facts.rate_per_s, default=None)
        above = min((w for w in usable if w.facts.rate_per_s > rate), key=lambda w: w.facts.rate_per_s, default=None)
        if below is None or above is None:
            return None
        width = above.facts.rate_per_s - below.facts.rate_per_s
        if width > 2 * self.sampling.load_tolerance * rate:
            return None
        share = (rate - below.facts.rate_per_s) / width
        below.hours_left -= (1 - share) * hours
        above.hours_left -= share * hours
        return [(1 - share, below.facts), (share, above.facts)]

    def _play(self, rate: float) -> Facts:
        """Play a window at `rate` after warming up from the load before it."""
        fresh = self.played_windows == 0
        step = abs(rate - self.load) / max(rate, self.load, 1e-12)
        warm_s = self.sampling.warmup_s * (2.0 if fresh else step)
        window_s = self.sampling.window_s
        self._offer(rate, warm_s + window_s)
        start_s, end_s = self.clock_s + warm_s, self.clock_s + warm_s + window_s
        self.pool.advance(start_s)
        self._collect(start_s)
        before = self.pool.totals()
        self.pool.advance(end_s)
        after = self.pool.totals()
        done = self._collect(end_s)
        self.clock_s, self.load = end_s, rate
        self.played_windows += 1
        return self._facts(rate, window_s, before, after, done)

    def _offer(self, rate: float, duration_s: float) -> None:
        times = self.clock_s + self.arrivals(self.rng, rate * self.kept, duration_s)
        isl, osl = self.lengths.sample(self.rng, len(times))
        isl = np.minimum(isl, self.system.max_context_tokens - osl)
        steps = decode_steps(osl, self.system.tokens_per_step, self.rng)
        self.pool.offer(Requests(arrival_s=times, isl=isl, osl=osl, decode_steps=steps))
        self.played_requests += len(times)
        self.tokens_seen["isl"] += int(isl.sum())
        self.tokens_seen["osl"] += int(osl.sum())

    def _collect(self, until_s: float) -> dict[str, np.ndarray]:
        done = self.pool.finished()
        self.sojourn_s += float((done["finish_s"] - done["arrival_s"]).sum())
        return done

    def _facts(self, rate: float, window_s: float, before: dict, after: dict, done: dict) -> Facts:
        scale = 1.0 / (self.kept * window_s)
        ok = done["status"] == 0
        ttft = (done["first_token_s"] - done["arrival_s"])[ok] * self.ttft_error
        e2e = (done["finish_s"] - done["arrival_s"])[ok]
        gaps = np.maximum(done["osl"][ok] - 1, 0)
        tpot = (done["finish_s"] - done["first_token_s"])[ok] / np.maximum(gaps, 1)
        kept_promise = (ttft <= self.slo.ttft_p95_s) & ((tpot <= self.slo.tpot_p95_s) | (gaps == 0))
        difference = {name: np.asarray(after[name]) - np.asarray(before[name]) for name in after}
        values = self._values(difference, done, ok, scale, window_s)
        values["requests_within_slo"] = float(kept_promise.sum()) * scale
        latency = {}
        number = self.journal.next_window()
        for metric, seconds in zip(METRICS, (ttft, tpot[gaps > 0], e2e)):
            bins, counts = np.unique(bin_of(seconds), return_counts=True)
            latency[metric] = (bins, counts * scale)
            self.journal.latency.append((number, metric, *latency[metric]))
        self._keep_sample(number, done, ok, ttft, tpot, e2e)
        return Facts(number, rate, values, latency)

    def _values(self, difference: dict, done: dict, ok: np.ndarray, scale: float, window_s: float) -> dict[str, float]:
        """Counts and time shares of a window; `difference` holds the pool's counters over it."""
        share = self._gpu_share()
        busy, terms = difference["busy_s"], self._terms(difference)
        decode_like = terms["decode"]
        # design.md, Attribution: mixed steps' base goes to prefill and decode in proportion to their own terms
        own = terms["prefill"] + terms["kv"]
        input_s = terms["prefill"] + terms["mixed"] * np.divide(terms["prefill"], own, out=np.zeros_like(own), where=own > 0)
        output_s = terms["kv"] + decode_like + terms["mixed"] - (input_s - terms["prefill"])
        lost = float(difference["lost"])
        return {
            "requests_arrived": float(difference["arrived"]) * scale,
            "requests_completed": float(difference["completed"]) * scale,
            "requests_refused": float(difference["rejected"] + difference["timed_out"]) * scale,
            "requests_lost": lost * scale,
            "input_tokens": float(done["isl"][ok].sum()) * scale,
            "cached_input_tokens": float(done["cached_tokens"][ok].sum()) * scale,
            "computed_input_tokens": float(difference["prefill_tokens"].sum()) * scale,
            "recomputed_tokens": float(difference["recomputed_tokens"].sum()) * scale,
            "output_tokens": float(difference["decode_tokens"].sum()) * scale,
            "busy": float((busy * share).sum() / (self.kept * window_s)),
            "input_time": float((input_s * share).sum() / (self.kept * window_s)),
            "output_time": float((output_s * share).sum() / (self.kept * window_s)),
            "decode_sequences": float(difference["sequence_seconds"].sum()) * scale,
            "decode_steps": float(difference["steps"].sum()) * scale,
            "kv_tokens": float(difference["kv_token_seconds"].sum()) * scale,
            "in_system": float(difference["system_seconds"]) * scale,
        }

    def _terms(self, difference: dict) -> dict[str, np.ndarray]:
        return {
            "decode": difference["base_s_decode_only"],
            "mixed": difference["base_s_mixed"],
            "kv": difference["kv_s"],
            "prefill": difference["prefill_s"] + difference["pair_s"],
        }

    def _gpu_share(self) -> np.ndarray:
        """Share of the instance's GPUs that each worker of the pool holds, shape of the workers' counters."""
        one = [worker.gpus / self.system.gpus for worker in self.system.workers for _ in range(worker.count)]
        return np.tile(np.array(one), self.kept)

    def _keep_sample(self, number, done, ok, ttft, tpot, e2e) -> None:
        rows = np.flatnonzero(ok)
        if len(rows) == 0:
            return
        every = max(len(rows) // self.sample_rows, 1)
        pick = np.arange(0, len(rows), every)
        self.journal.samples.append(
            pd.DataFrame(
                {
                    "window": number,
                    "arrival_s": done["arrival_s"][rows[pick]],
                    "isl": done["isl"][rows[pick]],
                    "osl": done["osl"][rows[pick]],
                    "cached_tokens": done["cached_tokens"][rows[pick]],
                    "ttft_s": ttft[pick],
                    "tpot_s": tpot[pick],
                    "e2e_s": e2e[pick],
                }
            )
        )
