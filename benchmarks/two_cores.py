"""Independent services on two cores: the kernel and a whole run, on one thread and on two.

    python benchmarks/two_cores.py [--requests N]

Wall seconds, best of three, in turns. The run's serial part (load test of the stages, ledger, figures) is told apart.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from kernel import LOAD, REPLICAS, capacity_per_s, system

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.model.workload import length_model
from factory_sim.streams import stream


def pools(n: int, count: int = 2) -> list[Pool]:
    """Pools with requests of their own, not yet played."""
    made = []
    for number in range(count):
        rng = stream(1, "two cores", str(number))
        isl, osl = length_model("azure2023_conv").sample(rng, n)
        rate_per_s = LOAD * capacity_per_s(isl, osl)
        pool = Pool([(system(), REPLICAS)])
        pool.offer(Requests(np.cumsum(rng.exponential(1 / rate_per_s, n)), isl, osl))
        made.append(pool)
    return made


def kernel_s(n: int, threads: int) -> float:
    """Wall seconds to drain two pools."""
    made = pools(n)
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(lambda each: each.drain(), made))
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    n = parser.parse_args().requests
    kernel_s(1000, 1)
    one, two = zip(*((kernel_s(n, 1), kernel_s(n, 2)) for _ in range(3)))
    print(f"kernel, two pools of {n:,}: {min(one):.2f} s on one thread, {min(two):.2f} s on two: {min(one)/min(two):.2f} times")


if __name__ == "__main__":
    main()
