"""The instances of one stage as the kernel plays them: a thinned pool, asked for windows at one load after another.

Thinning over replicas: `kept` of the stage's like instances are played behind the router, with their share of demand.
Thinning over time (systematic sampling): a window is played for a load; hours whose load is the same, or lies between
two played windows close enough together, take their facts from those, until each window has stood for
``hours_per_window``. The mixture keeps the load exact, so arrivals add up to the demand.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import pandas as pd

from factory_sim.engine import leavers
from factory_sim.engine.facts import Facts
from factory_sim.engine.journal import Journal
from factory_sim.engine.kernel import Pool, Requests
from factory_sim.engine.outputs import counted_outputs, makes, output_joules, outputs_share
from factory_sim.engine.requests import drawn_requests
from factory_sim.engine.warm_start import in_progress
from factory_sim.engine.watts import idle_watts, window_joules, worker_kinds
from factory_sim.inputs import catalog
from factory_sim.inputs.generation import OutputSlo
from factory_sim.inputs.scenario import Sampling
from factory_sim.inputs.services import Slo
from factory_sim.model.generation import GenerationSystem
from factory_sim.model.serving import ServingSystem
from factory_sim.model.step_time import weight_bytes
from factory_sim.model.workload import Burstiness, LengthModel, RequestMix, arrival_times
from factory_sim.units import HOUR_S

COUNTS = (
    "requests_arrived", "requests_completed", "requests_refused", "requests_lost", "requests_within_slo",
    "input_tokens", "cached_input_tokens", "output_tokens",
    "reasoning_tokens", "images", "videos", "video_s", "input_energy_j", "output_energy_j", "idle_energy_j", "low_energy_j", "high_energy_j",
    "batch_requests_completed", "batch_input_tokens", "batch_output_tokens",
)  # fmt: skip
"""Values of a window that are rates per instance and second; the others are time averages."""
AVERAGES = ("busy", "input_time", "output_time", "decode_sequences", "in_system")
UNKNOWN = 0.01
"""Share of common prompts that a cache may not have seen yet when counting begins."""
MOST_LEARNING = 1 << 16
"""Requests of each instance after which counting begins anyhow."""
SAME_LOAD = 1e-6
"""Loads that differ by less than this fraction are the same load."""


@dataclass(slots=True)
class _Window:
    facts: Facts
    rate_per_s: float
    hours_left: float


_RATE = attrgetter("rate_per_s")


@dataclass
class StagePool:
    """State of one stage's pool in one replication. All times inside are the pool's own played time, seconds."""

    name: str
    """service.stage"""
    system: ServingSystem
    """The serving system, already multiplied by the replication's profile error."""
    kept: int
    """Instances played."""
    lengths: LengthModel
    """Lengths as they arrive, reasoning included."""
    mix: RequestMix
    """How requests are drawn."""
    burstiness: Burstiness
    """Burstiness of all arrivals of the service, of which this pool gets a share."""
    slo: Slo | OutputSlo
    sampling: Sampling
    router: str
    rng: np.random.Generator
    journal: Journal
    """Where played windows, their latencies and samples are written."""
    number_at: Callable[[float], float]
    """Mean number of requests at one instance under a load (requests/s), from the load test."""
    ttft_error: float = 1.0
    """Factor on TTFT that is not explained by step times: the replication's draw from the profile's TTFT band."""
    pool_options: dict = field(default_factory=dict)
    """Further options of the kernel's pool, e.g. its prefix cache."""
    windows: list[_Window] = field(default_factory=list)
    """By load."""
    played_requests: int = 0
    played_windows: int = 0
    sojourn_s: float = 0.0
    sample_rows: int = 200

    def __post_init__(self) -> None:
        self.pool = self._new_pool()
        if self.mix.refuse:
            self.lengths, _ = self.mix.let_in(self.system.max_context_tokens)
        self.seeded = np.zeros(0, np.bool_)  # by id of the request
        self.cached = bool(self.pool_options.get("prefix_cache"))
        self.reasoning = np.zeros(0, np.int64)  # tokens by id of the request; empty without reasoning
        self.clock_s = 0.0
        self.load = 0.0
        self.tokens_left = {"isl_completed": 0, "isl_partial": 0, "osl_emitted": 0}

    def _new_pool(self) -> Pool:
        return Pool([(self.system, self.kept)], router=self.router, **self.pool_options)

    def serve(self, rate_per_s: float, duration_s: float, of: int) -> list[tuple[float, Facts]]:
        """The played windows, with weights that sum to one, that stand for `duration_s` seconds at `rate_per_s`
        requests a second and instance, one of `of` instances that are up."""
        if self.sampling.mode == "whole":
            return [(1.0, self._play(rate_per_s, min(self.kept / of, 1.0), duration_s))]
        hours = duration_s / HOUR_S
        found = self._recall(rate_per_s, hours)
        if found is not None:
            return found
        facts = self._play(rate_per_s, min(self.kept / of, 1.0))
        insort(self.windows, _Window(facts, facts.rate_per_s, self.sampling.hours_per_window - hours), key=_RATE)
        return [(1.0, facts)]

    def idle_values(self) -> dict[str, float]:
        """Values of instances that serve nobody: nothing but idle power."""
        idle_w = idle_watts(self.system.gpu) * self.system.gpus
        return dict.fromkeys((*COUNTS, *AVERAGES), 0.0) | dict.fromkeys(
            ("idle_energy_j", "low_energy_j", "high_energy_j"), idle_w
        )

    def idle_facts(self) -> Facts:
        """A window in which nobody is served."""
        none = (np.zeros(0, np.int32), np.zeros(0))
        return Facts(self.journal.next_window(), 0.0, self.idle_values(), dict.fromkeys(("ttft", "tpot", "e2e"), none))

    def drain(self) -> None:
        """Play what is still in the pool to its end, so that the pool's laws can be checked exactly."""
        self.clock_s = max(self.clock_s, self.pool.drain())
        self.collect()

    def _recall(self, rate: float, hours: float) -> list[tuple[float, Facts]] | None:
        same = below = above = None
        alike = SAME_LOAD * max(rate, 1e-12)
        for window in self._near(rate):  # by rising load, the earliest first among equals
            if window.hours_left < hours:
                continue
            load = window.rate_per_s
            if abs(load - rate) <= alike and (same is None or window.facts.window < same.facts.window):
                same = window
            if load < rate:
                below = window if below is None or load > below.rate_per_s else below
            elif load > rate and above is None:
                above = window
        if same is not None:
            same.hours_left -= hours
            return [(1.0, same.facts)]
        if below is None or above is None:
            return None
        width = above.rate_per_s - below.rate_per_s
        if width > 2 * self.sampling.load_tolerance * rate:
            return None
        share = (rate - below.rate_per_s) / width
        below.hours_left -= (1 - share) * hours
        above.hours_left -= share * hours
        return [(1 - share, below.facts), (share, above.facts)]

    def _near(self, rate: float) -> list[_Window]:
        """Windows whose load is no farther from `rate` than two may lie apart to be mixed."""
        reach = 2 * self.sampling.load_tolerance * rate + SAME_LOAD * max(rate, 1e-12)
        return self.windows[
            bisect_left(self.windows, rate - reach, key=_RATE) : bisect_right(self.windows, rate + reach, key=_RATE)
        ]

    def _play(self, rate: float, share: float, whole_s: float | None = None) -> Facts:
        """Play a window at `rate` after warming up from the load before it; or all of `whole_s` seconds, as they come."""
        missing = int(self.number_at(rate) * self.kept) - self.pool.in_system()
        if missing > 0 and (whole_s is None or not self.played_windows):
            self._seed(missing)
        warm_s = self.sampling.warmup_s
        window_s = min(self.sampling.window_s, max(self.sampling.window_requests / self.played_per_s(rate), warm_s))
        seeded_cache = self.cached and missing > 0  # what seeds have "cached" must not fall into the window
        if self.played_windows and abs(rate - self.load) <= SAME_LOAD * rate and not seeded_cache:
            warm_s = 0.0
        if whole_s is not None:
            warm_s, window_s = 0.0, whole_s
        if self.cached and not self.played_windows:
            warm_s = max(warm_s, self._learning_s(rate))
        self._offer(rate, warm_s + window_s, share)
        start_s, end_s = self.clock_s + warm_s, self.clock_s + warm_s + window_s
        self.pool.advance(start_s)
        self.collect()
        before = self.pool.totals()
        self.pool.advance(end_s)
        after = self.pool.totals()
        done = self.collect()
        self.clock_s, self.load = end_s, rate
        self.played_windows += 1
        return self.facts(rate, window_s, before, after, done)

    def _learning_s(self, rate: float) -> float:
        """Seconds after which the caches know the common prompts, so that a window does not count their first misses."""
        if self.mix.groups is None or rate <= 0.0:
            return self.sampling.warmup_s
        return max(min(self.mix.groups.requests_to_know(UNKNOWN), MOST_LEARNING) / rate, self.sampling.warmup_s)

    def played_per_s(self, rate: float) -> float:
        """Requests a second that the pool plays at a load of `rate` at one instance."""
        return rate * self.kept

    def _seed(self, missing: int) -> None:
        """Add requests in the middle of their answers, so that a higher load starts near its steady state."""
        requests = in_progress(self.rng, self.lengths, self.system, missing, self.clock_s)
        ids = self.offer(requests)
        self.seeded[ids] = True

    def offer(self, requests: Requests) -> np.ndarray:
        """Give requests to the pool; returns their ids."""
        ids = self.pool.offer(requests)
        self.played_requests += len(requests)
        self.seeded = np.append(self.seeded, np.zeros(len(ids), np.bool_))
        if self.mix.reasoning is not None:
            tokens = requests.reasoning_tokens
            self.reasoning = np.append(self.reasoning, np.zeros(len(ids), np.int64) if tokens is None else tokens)
        return ids

    def _offer(self, rate: float, duration_s: float, share: float) -> None:
        times = arrival_times(self.rng, rate * self.kept / share, duration_s, self.burstiness, share=share)
        self.offer(drawn_requests(self.rng, self.mix, self.system, self.clock_s + times, cached=self.cached))

    def collect(self) -> np.ndarray:
        """Take the requests that left since the last call, and add them to the totals of the conservation checks."""
        done = self.pool.finished_rows()
        left = leavers.totals(done)
        self.sojourn_s += left.sojourn_s
        self.tokens_left["isl_completed"] += left.isl_completed
        self.tokens_left["isl_partial"] += left.isl_partial
        self.tokens_left["osl_emitted"] += left.osl_emitted
        return done

    def facts(self, rate: float, window_s: float, before: dict, after: dict, done: np.ndarray) -> Facts:
        """What a window says that was played at `rate`, from the pool's counters around it and those who left in it."""
        scale = 1.0 / (self.kept * window_s)
        reasons = self.mix.reasoning is not None
        promise = (self.slo.ttft_p95_s, self.slo.tpot_p95_s)
        found = leavers.answered(done, self.seeded, self.ttft_error, *promise, reasons)
        difference = {name: np.asarray(after[name]) - np.asarray(before[name]) for name in after}
        values = self._values(difference, done, scale, window_s)
        values["requests_within_slo"] = found.within_slo * scale
        if reasons:
            values["reasoning_tokens"] = values["output_tokens"] * self._reasoning_share(done[found.which])
        number = self.journal.next_window()
        measured = found.latency
        if isinstance(self.system, GenerationSystem):
            measured = {"time_to_output": measured["e2e"]}
        if self.mix.reading_tokens_per_s is not None:
            rows = done[found.which]
            hidden = self.reasoning[rows["id"]] if reasons else np.zeros(len(rows), np.int64)
            measured = measured | leavers.reading(rows, hidden, self.mix.reading_tokens_per_s)
        latency = {metric: (bins, counts * scale) for metric, (bins, counts) in measured.items()}
        self.journal.latency += [(number, metric, *histogram) for metric, histogram in latency.items()]
        self._keep_sample(number, done, found.which)
        return Facts(number, rate, values, latency)

    def _reasoning_share(self, done: np.ndarray) -> float:
        """Share of reasoning in the output tokens of answered requests."""
        tokens = int(done["osl"].sum())
        return float(self.reasoning[done["id"]].sum()) / tokens if tokens else 0.0

    def _values(self, difference: dict, done: np.ndarray, scale: float, window_s: float) -> dict[str, float]:
        """Counts and shares of a window, per instance and second; `difference` holds the pool's counters over it, `done`
        the requests that left in it."""
        share = self._gpu_share() * scale
        computed, cached = difference["prefill_tokens"] - difference["recomputed_tokens"], difference["cached_tokens"]
        if not self.cached:
            cached = np.zeros_like(cached)  # what seeds have "cached" is their own past, no hit
        own_input = difference["prefill_s"] + difference["pair_s"]
        own = own_input + difference["kv_s"]
        # design.md, Attribution: the base of mixed steps is shared in proportion to the prefill and KV terms
        mixed_input = difference["base_s_mixed"] * np.divide(own_input, own, out=np.zeros_like(own), where=own > 0)
        input_s = own_input + mixed_input
        joules, outputs = self._made(difference, done, scale, window_s)
        return {
            "requests_arrived": float(difference["arrived"]) * scale,
            "requests_completed": float(difference["completed"]) * scale,
            "requests_refused": float(difference["rejected"] + difference["timed_out"] + difference["cancelled"])
            * scale,
            "requests_lost": float(difference["lost"]) * scale,
            "input_tokens": float(computed.sum() + cached.sum()) * scale,
            "cached_input_tokens": float(cached.sum()) * scale,
            "output_tokens": float(difference["decode_tokens"].sum()) * scale,
            "reasoning_tokens": 0.0,
            **dict.fromkeys(("batch_requests_completed", "batch_input_tokens", "batch_output_tokens"), 0.0),
            "images": 0.0,
            "videos": 0.0,
            "video_s": 0.0,
            **outputs,
            "busy": float((difference["busy_s"] * share).sum()),
            "input_time": float((input_s * share).sum()),
            "output_time": float(((difference["busy_s"] - input_s) * share).sum()),
            "decode_sequences": float(difference["sequence_seconds"].sum()) * scale,
            "in_system": float(difference["system_seconds"]) * scale,
            **{name: value * scale for name, value in joules.items()},
        }

    def _made(self, difference: dict, done: np.ndarray, scale: float, window_s: float) -> tuple[dict, dict[str, float]]:
        """(joules of all played workers, counts that stand in place of tokens where images or videos are made)."""
        if isinstance(self.system, GenerationSystem):
            made = counted_outputs(self.system, float(difference["decode_tokens"].sum()) * scale)
            return output_joules(self.system, difference, done, window_s), made
        return window_joules(self.system, difference, window_s), {}

    def _gpu_share(self) -> np.ndarray:
        """Share of the instance's GPUs that each worker of the pool holds, shape of the workers' counters."""
        one = [worker.gpus / self.system.gpus for worker in self.system.workers for _ in range(worker.count)]
        return np.tile(np.array(one), self.kept)

    def audit(self) -> dict:
        """Integer counts and areas of everything the pool played, after it was drained (see results/checks.py)."""
        totals = self.pool.totals()
        return {
            "replication": self.journal.replication,
            "pool": self.name,
            "makes": makes(self.system),
            "instances": self.kept,
            "windows": self.played_windows,
            **{
                name: totals[name]
                for name in ("arrived", "completed", "rejected", "timed_out", "lost", "cancelled", "in_system")
            },
            **self.tokens_left,
            "wasted_tokens": round(totals["wasted_tokens"]),
            "input_tokens_computed": int(totals["prefill_tokens"].sum() - totals["recomputed_tokens"].sum()),
            "input_tokens_cached": int(totals["cached_tokens"].sum()),
            "recomputed_tokens": int(totals["recomputed_tokens"].sum()),
            "output_tokens": round(float(totals["decode_tokens"].sum())),
            "busy_s": float(totals["busy_s"].max()),
            "wall_s": self.clock_s,
            "system_s": float(totals["system_seconds"]),
            "sojourn_s": self.sojourn_s,
            **self._peak_shares(totals),
        }

    def _peak_shares(self, totals: dict) -> dict[str, float]:
        """Largest share over the workers of peak arithmetic and of bandwidth for the weights, while busy; of a server of
        images or videos, of the outputs that its fastest batch makes."""
        if isinstance(self.system, GenerationSystem):
            return {"flops_share": 0.0, "bandwidth_share": 0.0, "outputs_share": outputs_share(self.system, totals)}
        gpu, model = catalog.gpu(self.system.gpu), catalog.model(self.system.model)
        always, _ = weight_bytes(model, self.system.precision)
        tokens = totals["prefill_tokens"] + totals["decode_tokens"]
        workers = [self.system.workers[kind] for kind in worker_kinds(self.system, len(tokens))]
        gpus = np.array([worker.gpus for worker in workers])
        split = np.array([1 if worker.data_parallel_attention else worker.gpus for worker in workers])
        busy = np.maximum(totals["busy_s"], 1e-12)
        flops = 2.0 * model.params_active * tokens / (gpus * gpu.peak(self.system.precision) * busy)
        bandwidth = totals["steps"] * always / split / (gpu.memory_bandwidth_bytes_per_s * busy)
        return {"flops_share": float(flops.max()), "bandwidth_share": float(bandwidth.max()), "outputs_share": 0.0}

    def _keep_sample(self, number: int, done: np.ndarray, which: np.ndarray) -> None:
        """Keep every n-th of the answered requests, about `sample_rows` of them."""
        if len(which) == 0:
            return
        rows = done[which[:: max(len(which) // self.sample_rows, 1)]]
        columns = {name: rows[name].copy() for name in ("arrival_s", "isl", "osl", "cached_tokens")}
        ttft_s, decode_s = rows["first_token_s"] - rows["arrival_s"], rows["finish_s"] - rows["first_token_s"]
        if self.mix.class_shares:
            columns["priority"] = rows["service"].copy()
        columns["ttft_s"] = ttft_s * self.ttft_error
        columns["tpot_s"] = decode_s / np.maximum(rows["osl"] - 1, 1)
        columns["e2e_s"] = rows["finish_s"] - rows["arrival_s"]
        self.journal.samples.append(pd.DataFrame({"window": number} | columns))
