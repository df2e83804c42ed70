"""How many requests a second the kernel plays on one core, and how that compares with visiting every step.

    python benchmarks/kernel.py [--requests N] [--mooncake FILE.jsonl]

Each case first asserts how much work was done, and the baselines that they give the kernel's times. Seconds are CPU
seconds of this process, best of three. The system is made up (kernel_cases.py).
"""

import argparse
import time

import kernel_cases as cases
import numpy as np
from kernel_baselines import play_simpy, play_stepping


def timed(case, repeat=3):
    """Return (requests a second, finished, totals), best of `repeat`."""
    best = np.inf
    for _ in range(repeat):
        pool = case.pool()
        start = time.process_time()
        pool.drain()
        best = min(best, time.process_time() - start)
    done, totals = pool.finished(), pool.totals()
    answered = done["status"] == 0
    assert totals["completed"] + totals["rejected"] == len(case.requests), "every request leaves"
    assert totals["decode_tokens"].sum() == done["osl"][answered].sum(), "every token is played"
    return len(case.requests) / best, done, totals


def report(case):
    """Time a case and print its line; return requests a second and what left."""
    rate, done, totals = timed(case)
    steps = totals["steps"].sum()
    batch = totals["sequence_seconds"].sum() / totals["busy_s"].sum()
    print(f"{case.name:34s} {rate:12,.0f} requests/s  {rate * steps / len(done['id']):14,.0f} steps/s  ", end="")
    print(f"mean batch {batch:5.1f}", end="")
    if totals["cached_tokens"].sum():
        print(f"  prefix hits {totals['cached_tokens'].sum() / done['isl'].sum():.1%}", end="")
    if totals["rejected"]:
        print(f"  {totals['rejected']} beyond the window", end="")
    if (done["preemptions"] > 0).any():
        print(f"  preempted {(done['preemptions'] > 0).mean():.2%}", end="")
    print(flush=True)
    return rate, done


def compare_with_stepping(case, rate, done):
    """Print how much faster the kernel is than compiled loops over every step."""
    requests = case.requests
    ends_s = np.empty(len(requests))
    ends_s[done["id"]] = done["finish_s"]
    for words, each_sequence, share in (("step and sequence", True, 4), ("step alone", False, 1)):
        few = cases.first(requests, 9)
        play_stepping(case.system, case.replicas, few.arrival_s, few.isl, few.osl, each_sequence)
        part = cases.first(requests, len(requests) // share)
        start = time.process_time()
        finish_s = play_stepping(case.system, case.replicas, part.arrival_s, part.isl, part.osl, each_sequence)
        stepping = len(part) / (time.process_time() - start)
        if share == 1:
            np.testing.assert_allclose(finish_s, ends_s, rtol=1e-9)
        print(f"  {'compiled, every ' + words:32s} {stepping:12,.0f} requests/s  kernel: {rate / stepping:.1f} times")


def compare_with_simpy(case, rate, count=5000):
    """Print how much faster the kernel is than SimPy with one event a step, on the first requests."""
    part = cases.first(case.requests, min(count, len(case.requests)))
    start = time.process_time()
    simpy_s = play_simpy(
        case.system, case.replicas, part.arrival_s.tolist(), part.isl.tolist(), part.osl.tolist()
    )  # fmt: skip
    simpy = len(part) / (time.process_time() - start)
    _, done, _ = timed(cases.Case("", part, case.system, case.replicas, case.options), 1)
    np.testing.assert_allclose(simpy_s[done["id"]], done["finish_s"], rtol=1e-9)
    print(f"{'  SimPy, one event a step':34s} {simpy:12,.0f} requests/s  kernel is {rate / simpy:.0f} times")


def main() -> None:
    """Run the cases and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--mooncake", help="a Mooncake trace, JSONL")
    arguments = parser.parse_args()
    n = arguments.requests
    cases.plain(10).pool().drain()  # load the compiled kernel

    plain = cases.plain(n)
    rate, done = report(plain)
    compare_with_stepping(plain, rate, done)
    compare_with_simpy(plain, rate)
    report(cases.pressed(n))
    reasoning = cases.reasoning(max(n // 5, 100))
    rate, done = report(reasoning)
    compare_with_stepping(reasoning, rate, done)
    report(cases.chats(max(n // 10, 100)))
    if arguments.mooncake:
        report(cases.mooncake(arguments.mooncake))
        report(cases.mooncake(arguments.mooncake, times=4))


if __name__ == "__main__":
    main()
