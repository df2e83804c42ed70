"""A stage's pool whose idle capacity is filled with batch jobs: as many as find room, from a supply that never ends.

What it says of an hour is what the instances do while jobs wait; the calendar's queue of jobs (`control/batch.py`)
decides for which part of an hour that is so. Users' figures (requests, latencies, number in the system) leave the jobs
out; tokens, time and energy hold both, and the jobs' own tokens stand beside.
"""

from dataclasses import dataclass, replace

import numpy as np

from factory_sim.engine.facts import Facts
from factory_sim.engine.load_test import FluidModel
from factory_sim.engine.requests import drawn_requests
from factory_sim.engine.stage_pool import StagePool
from factory_sim.engine.warm_start import in_progress
from factory_sim.model.workload import LengthModel, RequestMix

JOB = 1 << 20
"""Label (`service` in the kernel) of a batch job; users' requests have their class."""
SPARE = 1.3
"""Supply of jobs for a window, over what a fluid estimate says that it can play."""


@dataclass(kw_only=True)
class FilledPool(StagePool):
    """As `StagePool`, with jobs; `pool_options["batch_limit"]` is the number of requests that jobs fill an instance to."""

    job_lengths: LengthModel
    job_rng: np.random.Generator
    """The jobs' own stream: users' requests are those of the pool without jobs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.limit = self.pool_options["batch_limit"]
        isl, osl = self.job_lengths.mean_isl, self.job_lengths.mean_osl
        fluid = FluidModel(self.system, isl, osl, isl * (isl + 1.0) / 2)
        self.jobs_per_s = fluid.at(self.limit / self.system.workers[-1].count)[0] * self.kept

    def play(self, rate: float) -> Facts:
        """Play a window at a users' load of `rate` at one instance, after warming up."""
        return self._play(rate, 1.0)

    def played_per_s(self, rate: float) -> float:
        """Users' requests and jobs a second, the latter estimated."""
        return rate * self.kept + self.jobs_per_s

    def _seed(self, missing: int) -> None:
        """Users' requests in the middle of their answers, and jobs in the middle of theirs up to the limit."""
        super()._seed(missing)
        room = self.limit * self.kept - missing - self.pool.in_system()
        if room > 0:
            self._give(in_progress(self.job_rng, self.job_lengths, self.system, room, self.clock_s))

    def _offer(self, rate: float, duration_s: float, share: float) -> None:
        wanted = 2 * self.limit * self.kept + int(SPARE * self.jobs_per_s * duration_s) - self.pool.in_backlog()
        if wanted > 0:
            times = np.full(wanted, self.clock_s)
            mix = RequestMix(self.job_lengths)
            self._give(drawn_requests(self.job_rng, mix, self.system, times, cached=False))
        super()._offer(rate, duration_s, share)

    def _give(self, jobs) -> None:
        n = len(jobs)
        ids = self.offer(replace(jobs, batch=np.ones(n, np.bool_), service=np.full(n, JOB)))
        self.seeded[ids] = True  # their latencies are nobody's

    def facts(self, rate: float, window_s: float, before: dict, after: dict, done: np.ndarray) -> Facts:
        """Facts of a window just played; jobs are taken out of what is said of users."""
        found = super().facts(rate, window_s, before, after, done)
        values, scale, start_s = found.values, 1.0 / (self.kept * window_s), self.clock_s - window_s
        left, here = done[done["service"] == JOB], self.pool.in_flight()
        here = here[here["service"] == JOB]
        answered = int((left["status"] == 0).sum())
        arrival_s = np.concatenate([left["arrival_s"], here["arrival_s"]])
        area_s = (left["finish_s"] - np.maximum(left["arrival_s"], start_s)).sum()
        area_s += (self.clock_s - np.maximum(here["arrival_s"], start_s)).sum()
        values["requests_arrived"] -= float((arrival_s >= start_s).sum()) * scale
        values["requests_completed"] -= answered * scale
        values["requests_refused"] -= (len(left) - answered) * scale
        values["in_system"] -= float(area_s) * scale
        values["batch_requests_completed"] = answered * scale
        own = values["requests_completed"]
        for side in ("input", "output"):
            mean, of_users = (
                (self.job_lengths.mean_isl, self.lengths.mean_isl)
                if side == "input"
                else (self.job_lengths.mean_osl, self.lengths.mean_osl)
            )
            jobs, users = answered * scale * mean, own * of_users
            values[f"batch_{side}_tokens"] = values[f"{side}_tokens"] * (jobs / (jobs + users) if jobs else 0.0)
        if values["output_tokens"]:
            values["reasoning_tokens"] *= 1.0 - values["batch_output_tokens"] / values["output_tokens"]
        return found
