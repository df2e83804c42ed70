"""Independent services on two cores: the kernel alone, and a whole run, on one thread and on two.

    python benchmarks/two_cores.py [--requests N]

Wall seconds, best of five, in turns; nothing else should be running. The run has two services of one replication; its
load tests, ledger and figures are serial, so what is timed of it is the playing.
"""

import argparse
import time

import llama_cases as llama
from kernel_cases import plain

from factory_sim.engine.parts import independent
from factory_sim.engine.resolve import resolve
from factory_sim.engine.simulate import simulate
from factory_sim.engine.threads import side_by_side
from factory_sim.inputs.overrides import parse_scenario


def two_services(days: float):
    """Two like services, every request played."""
    like = dict.fromkeys(("chat", "code"), llama.service(load=0.8, replicas=4))
    return parse_scenario(llama.scenario("two-cores", days, like, replications=1, sampling={"mode": "whole"}))


def kernel_s(n: int, threads: int) -> float:
    """Wall seconds to drain two pools of n requests each."""
    pools = [plain(n, f"pool {number}").pool() for number in range(2)]
    start = time.perf_counter()
    side_by_side(lambda pool: pool.drain(), pools, threads)
    return time.perf_counter() - start


def run_s(spec, services, threads: int) -> float:
    """Wall seconds to play the parts of a scenario."""
    parts = [tuple(s for s in services if s.name in names) for names in independent(spec)]
    assert len(parts) == 2
    start = time.perf_counter()
    side_by_side(lambda part: simulate(spec, part, 0), parts, threads)
    return time.perf_counter() - start


def main() -> None:
    """Print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2_000_000)
    n = parser.parse_args().requests
    spec = two_services(n / 1e6)
    services = resolve(spec)
    for name, play in (
        (f"kernel, two pools of {n:,} requests", lambda threads: kernel_s(n, threads)),
        (f"two services, {spec.duration_days:g} days", lambda threads: run_s(spec, services, threads)),
    ):
        play(1)
        one, two = zip(*((play(1), play(2)) for _ in range(5)))
        print(f"{name:44s} {min(one):6.2f} s on one thread, {min(two):6.2f} s on two: {min(one) / min(two):.2f} times")


if __name__ == "__main__":
    main()
