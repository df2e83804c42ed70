"""A year of a 100-MW site in minutes.

    python benchmarks/hundred_megawatts.py [--days N]

Prints wall and CPU seconds and the most memory held; `control.py` shows where they go.
"""

import argparse
import resource
import time
from pathlib import Path

from factory_sim.inputs.overrides import load_scenario
from factory_sim.results.run import run


def main() -> None:
    """Play once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=float, default=365.0, help="length, days")
    options = parser.parse_args()
    scenario = load_scenario(Path(__file__).with_suffix(".yaml"), _shortened(options.days))
    start, cpu = time.perf_counter(), time.process_time()
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


if __name__ == "__main__":
    main()
