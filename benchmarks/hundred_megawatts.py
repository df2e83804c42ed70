"""A year of a 100-MW site in minutes, and what control costs beside the kernel.

    python benchmarks/hundred_megawatts.py [--days N] [--profile]

Prints wall and CPU seconds, the most memory held, and the split of the CPU time of the play: the kernel (`Pool`), what
is done around it for a played window, SimPy's processes, and the books. The profiler slows Python down, not the
compiled kernel, so the split it shows is unfavourable to control.
"""

import argparse
import cProfile
import pstats
import resource
import time
from pathlib import Path

from factory_sim.inputs.overrides import load_scenario
from factory_sim.results.run import run

PARTS = {
    "kernel": ("kernel/pool.py", {"advance", "offer", "drain", "totals", "finished"}),
    "windows around the kernel": ("engine/stage_pool.py", {"_play", "drain", "audit"}),
    "serving a stretch, windows included": ("control/serving.py", {"_play_within_power"}),
    "playing, all of it": ("engine/simulate.py", {"simulate"}),
    "load tests": ("engine/resolve.py", {"resolve"}),
    "books": ("results/run.py", {"_postings"}),
    "figures, series and checks": ("results/figures.py", {"series", "figures", "replications"}),
}
"""Name -> (file, functions) whose cumulated time it is."""


def main() -> None:
    """Play once, with the profiler if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=float, default=365.0, help="length, days")
    parser.add_argument("--profile", action="store_true", help="show the split of the time")
    options = parser.parse_args()
    scenario = load_scenario(Path(__file__).with_suffix(".yaml"), _shortened(options.days))
    start, cpu = time.perf_counter(), time.process_time()
    if options.profile:
        from factory_sim.engine import threads

        threads.ThreadPoolExecutor = Here  # the profiler sees one thread
        profiler = cProfile.Profile()
        result = profiler.runcall(run, scenario)
        split(pstats.Stats(profiler))
    else:
        result = run(scenario)
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"wall {time.perf_counter() - start:.1f} s, CPU {time.process_time() - cpu:.1f} s, at most {memory_gb:.2f} GB")
    print(f"{len(result.tables['windows']):,} windows, {len(result.tables['events']):,} events")
    print("checks:", "all hold" if all(check["ok"] for check in result.summary["checks"]) else "BROKEN")


def _shortened(days: float) -> list[str]:
    """Settings for another length; events beyond the end go."""
    if days >= 200:
        return [f"duration_days={days}"]
    return [f"duration_days={days}", "events=[]"]


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


def split(stats: pstats.Stats) -> None:
    """Print the cumulated seconds of each part."""
    for name, (file, functions) in PARTS.items():
        seconds = sum(
            row[3] for (path, _, function), row in stats.stats.items() if path.endswith(file) and function in functions
        )
        print(f"{seconds:8.1f} s  {name}")
    stats.sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
