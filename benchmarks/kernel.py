"""How many requests a second the kernel plays on one core, and how that compares with visiting every step.

    python benchmarks/kernel.py [--requests N]

Each case first asserts how much work was done, and the baselines that they give the kernel's times. Seconds are CPU
seconds of this process, best of three. The system is made up: a step of 8 ms and 20 us a token, 16 replicas.
"""

import argparse
import time
from functools import partial

import numpy as np
from kernel_baselines import play_simpy, play_stepping

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.model.serving import ServingSystem, StepCosts, Worker
from factory_sim.model.workload import length_model
from factory_sim.streams import stream

REPLICAS = 16
LOAD = 0.7


def system(kv_capacity_tokens=1_500_000) -> ServingSystem:
    """A made-up replica of eight GPUs."""
    base_s = 8e-3 + 2e-5 * np.arange(8193.0)
    base_s[0] = 0.0
    step = StepCosts(base_s, kv_s=2e-8, prefill_s=3e-5, pair_s=1e-10)
    worker = Worker("both", 1, 8, step, kv_capacity_tokens, 256, 8192)
    return ServingSystem("made up", "none", 8, (worker,), 1.0)


def capacity_per_s(isl, osl) -> float:
    """Requests a second that all replicas serve with 256 sequences each, by the means of the step costs."""
    step = system().workers[0].step
    prompt_s = (2e-5 + step.prefill_s) * isl.mean() + step.pair_s * (isl.astype(float) ** 2).mean() / 2
    decode_s = osl.mean() * (step.base_s[256] / 256 + step.kv_s * (isl.mean() + osl.mean() / 2))
    return REPLICAS / (prompt_s + decode_s)


def timed(make_pool, requests, repeat=3):
    """Return (requests a second, finished, totals), best of `repeat`."""
    best = np.inf
    for _ in range(repeat):
        pool = make_pool()
        pool.offer(requests)
        start = time.process_time()
        pool.drain()
        best = min(best, time.process_time() - start)
    done, totals = pool.finished(), pool.totals()
    assert totals["completed"] == len(requests), "every request is served"
    assert totals["decode_tokens"].sum() == done["output_tokens"].sum(), "every token is played"
    return len(requests) / best, done, totals


def report(name, rate, done, totals, note=""):
    """Print one line."""
    steps = totals["steps"].sum()
    print(
        f"{name:34s} {rate:12,.0f} requests/s  {rate * steps / len(done['id']):14,.0f} steps/s  mean batch "
        f"{totals['sequence_seconds'].sum() / totals['busy_s'].sum():5.1f}  {note}"
    )


def compare_with_stepping(rate, requests, ends_s=None):
    """Print how much faster the kernel is than compiled loops over every step."""
    isl, osl = requests.isl, requests.osl
    for words, each_sequence, share in (("step and sequence", True, 4), ("step alone", False, 1)):
        play_stepping(system(), REPLICAS, requests.arrival_s[:9], isl[:9], osl[:9], each_sequence)
        n = len(requests) // share
        start = time.process_time()
        finish_s = play_stepping(system(), REPLICAS, requests.arrival_s[:n], isl[:n], osl[:n], each_sequence)
        stepping = n / (time.process_time() - start)
        if ends_s is not None and share == 1:
            np.testing.assert_allclose(finish_s, ends_s, rtol=1e-9)
        print(f"  {'compiled, every ' + words:32s} {stepping:12,.0f} requests/s  kernel: {rate / stepping:.1f} times")


def main() -> None:
    """Run the cases and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    n = parser.parse_args().requests
    rng = stream(1, "benchmark")
    isl, osl = length_model("azure2023_conv").sample(rng, n)
    rate_per_s = LOAD * capacity_per_s(isl, osl)
    arrival_s = np.cumsum(rng.exponential(1 / rate_per_s, n))
    plain = Requests(arrival_s, isl, osl)
    Pool([(system(), 1)]).drain()  # load the compiled kernel

    rate, done, totals = timed(lambda: Pool([(system(), REPLICAS)]), plain)
    report("plain open loop", rate, done, totals)
    ends_s = np.empty(n)
    ends_s[done["id"]] = done["finish_s"]

    compare_with_stepping(rate, plain, ends_s)

    few = min(n, 5000)
    start = time.process_time()
    simpy_s = play_simpy(system(), REPLICAS, arrival_s[:few].tolist(), isl[:few].tolist(), osl[:few].tolist())
    simpy = few / (time.process_time() - start)
    _, part, _ = timed(lambda: Pool([(system(), REPLICAS)]), Requests(arrival_s[:few], isl[:few], osl[:few]), 1)
    np.testing.assert_allclose(simpy_s[part["id"]], part["finish_s"], rtol=1e-9)
    print(f"{'  SimPy, one event a step':34s} {simpy:12,.0f} requests/s  kernel is {rate / simpy:.0f} times")

    groups = rng.integers(0, 2000, n)
    blocks = np.minimum(4, isl // 64)
    starts = np.r_[0, np.cumsum(blocks)]
    ids = np.repeat(groups * 4, blocks) + np.arange(starts[-1]) - np.repeat(starts[:-1], blocks)
    pressed = Requests(
        arrival_s, isl, osl, priority=rng.integers(0, 3, n), block_ids=ids, block_starts=starts
    )  # fmt: skip
    cache = {"prefix_cache": True, "prefix_block_tokens": 64}
    need = int(np.quantile(isl + osl, 1.0)) + 1024
    low, high = need, 1_500_000
    trial = min(n, 100_000)
    some = Requests(
        arrival_s[:trial], isl[:trial], osl[:trial], priority=pressed.priority[:trial],
        block_ids=ids[: starts[trial]], block_starts=starts[: trial + 1],
    )  # fmt: skip
    for _ in range(12):  # memory at which about one request in a hundred is preempted
        capacity = (low + high) // 2
        make = partial(Pool, [(system(capacity), REPLICAS)], **cache)
        preempted = (timed(make, some, 1)[1]["preemptions"] > 0).mean()
        low, high = (capacity, high) if preempted > 0.01 else (low, capacity)
    rate, done, totals = timed(lambda: Pool([(system(high), REPLICAS)], **cache), pressed)
    hit = totals["cached_tokens"].sum() / isl.sum()
    preempted = (done["preemptions"] > 0).mean()
    report("classes, KV pressure, prefixes", rate, done, totals, f"preempted {preempted:.2%}, prefix hits {hit:.1%}")

    few = n // 5
    long_osl = np.maximum(1, np.rint(rng.gamma(2.0, 4000.0, few))).astype(np.int64)
    rate_per_s = LOAD * capacity_per_s(isl[:few], long_osl)
    reasoning = Requests(np.cumsum(rng.exponential(1 / rate_per_s, few)), isl[:few], long_osl)
    rate, done, totals = timed(lambda: Pool([(system(20_000_000), REPLICAS)]), reasoning)
    report("answers of 8,000 tokens", rate, done, totals)
    compare_with_stepping(rate, reasoning)

    few = n // 10
    turns, at_once = 24, 8
    session = np.arange(few) // turns
    blocks = np.full(few, 24)
    ids = (np.repeat(session * 100, 24) + np.tile(np.arange(24), few)) + 50 * (np.tile(np.arange(24), few) > 16)
    ids = ids + np.where(np.tile(np.arange(24), few) > 16, np.repeat(np.arange(few) % turns, 24) * 10**7, 0)
    order = np.argsort(np.arange(few) % turns, kind="stable")
    ids = ids.reshape(few, 24)[order].ravel()
    long_isl = np.full(few, 24 * 512)
    short_osl = osl[:few]
    rate_per_s = 0.5 * capacity_per_s(long_isl, short_osl) * at_once / REPLICAS
    chats = Requests(
        np.cumsum(rng.exponential(1 / rate_per_s, few)), long_isl, short_osl, block_ids=ids,
        block_starts=24 * np.arange(few + 1),
    )  # fmt: skip
    rate, done, totals = timed(
        lambda: Pool([(system(), at_once)], prefix_cache=True, router="prefix_aware"), chats
    )  # fmt: skip
    hit = totals["cached_tokens"].sum() / long_isl.sum()
    report("24 prefix blocks, prefix aware", rate, done, totals, f"prefix hits {hit:.1%}")


if __name__ == "__main__":
    main()
