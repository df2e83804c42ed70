"""What control costs beside the kernel: CPU seconds of a run by part, everything in one thread.

    python benchmarks/control.py [SCENARIO[:PATH=VALUE,...] ...]

Without arguments: twenty-x, four weeks of 1,000 GPUs, and a month of a 100-MW site. Every part's seconds are its own:
what it calls of another part counts there. `control` is SimPy with all that its processes decide, grant, overflow and
write down; `windows` what is done around the kernel for a played window: drawing requests, counting who left. Ends with
status 1 where control costs more than the kernel.
"""

import functools
import sys
import time
from pathlib import Path

from factory_sim.engine import stage_pool, threads
from factory_sim.engine.control import serving
from factory_sim.engine.kernel import Pool
from factory_sim.inputs.overrides import load_scenario
from factory_sim.results import run as running

HERE = Path(__file__).parent
DEFAULT = (
    f"{HERE.parent}/scenarios/twenty-x.yaml",
    f"{HERE}/thousand_gpus.yaml",
    f"{HERE}/hundred_megawatts.yaml:duration_days=30,events=[]",
)
PARTS = {
    "kernel": [(Pool, "advance"), (Pool, "offer"), (Pool, "drain"), (Pool, "finished_rows")],
    "windows": [(stage_pool.StagePool, "_play"), (stage_pool.StagePool, "drain"), (stage_pool.StagePool, "audit")],
    "control": [(running, "simulate"), (serving, "_play_within_power")],
    "load tests": [(running, "resolve")],
    "figures": [(running, "series"), (running, "replications"), (running, "figures"), (running, "check")],
    "books": [(running, "_postings")],
}
"""Part -> (where, name) of the functions in which it begins."""


def main() -> None:
    """Time each scenario once warm, and print its split."""
    threads.ThreadPoolExecutor = Here  # one thread, so that CPU seconds can be told apart
    clock = Clock()
    for part, functions in PARTS.items():
        for where, name in functions:
            setattr(where, name, clock.timed(part, getattr(where, name)))
    worse = False
    for named in sys.argv[1:] or DEFAULT:
        path, _, settings = named.partition(":")
        scenario = load_scenario(path, [part for part in settings.split(",") if part])
        clock.begin()
        result = running.run(scenario)
        spent = clock.end()
        print(f"{scenario.name}: {len(result.tables['windows']):,} stretches, {sum(spent.values()):.1f} s of CPU")
        for part, seconds in spent.items():
            print(f"  {seconds:7.2f} s  {part}")
        assert all(check["ok"] for check in result.summary["checks"]), "a check is broken"
        worse |= spent["control"] > spent["kernel"]
    sys.exit("control costs more than the kernel" if worse else 0)


class Here:
    """Runs what a pool of threads would, at once and in this thread."""

    def __init__(self, threads: int):
        pass

    def submit(self, function, item):
        """Do it now."""
        from concurrent.futures import Future

        future: Future = Future()
        future.set_result(function(item))
        return future

    def shutdown(self, **options) -> None:
        """Nothing to wait for."""


class Clock:
    """CPU seconds by part; a part that calls another stands still meanwhile."""

    def __init__(self):
        self.begin()

    def begin(self) -> None:
        """Start anew, in no part."""
        self.spent, self.inside, self.since = dict.fromkeys([*PARTS, "rest"], 0.0), ["rest"], time.thread_time()

    def end(self) -> dict[str, float]:
        """Seconds by part since the beginning."""
        self._turn()
        return self.spent

    def _turn(self) -> None:
        now = time.thread_time()
        self.spent[self.inside[-1]] += now - self.since
        self.since = now

    def timed(self, part: str, function):
        """The function, its seconds on the account of `part`; of a load test all that it calls."""

        @functools.wraps(function)
        def call(*args, **options):
            self._turn()
            self.inside.append(self.inside[-1] if "load tests" in self.inside else part)
            try:
                return function(*args, **options)
            finally:
                self._turn()
                self.inside.pop()

        return call


if __name__ == "__main__":
    main()
