"""What the kernel's benchmarks play: a made-up system of 16 replicas, and requests that ask different things of it.

A step takes 8 ms and 20 us a token. Each case is a function of the number of requests that returns (system, options of
the pool, replicas, requests).
"""

from dataclasses import dataclass, replace

import numpy as np

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.inputs.traces import read_trace
from factory_sim.model.serving import ServingSystem, StepCosts, Worker
from factory_sim.model.workload import length_model, request_arrays, with_blocks
from factory_sim.streams import stream

REPLICAS = 16
LOAD = 0.7


@dataclass(frozen=True)
class Case:
    """Requests and the pool that plays them."""

    name: str
    requests: Requests
    system: ServingSystem
    replicas: int
    options: dict

    def pool(self) -> Pool:
        """An empty pool with the requests offered."""
        pool = Pool([(self.system, self.replicas)], **self.options)
        pool.offer(self.requests)
        return pool


def system(kv_capacity_tokens=1_500_000, max_sequences=256) -> ServingSystem:
    """A made-up replica of eight GPUs."""
    base_s = 8e-3 + 2e-5 * np.arange(8193.0)
    base_s[0] = 0.0
    step = StepCosts(base_s, kv_s=2e-8, prefill_s=3e-5, pair_s=1e-10)
    worker = Worker("both", 1, 8, step, kv_capacity_tokens, max_sequences, 8192)
    return ServingSystem("made up", "none", 8, (worker,), 1.0)


def capacity_per_s(isl, osl, replicas=REPLICAS) -> float:
    """Requests a second that all replicas serve with 256 sequences each, by the means of the step costs."""
    step = system().workers[0].step
    prompt_s = (2e-5 + step.prefill_s) * isl.mean() + step.pair_s * (isl.astype(float) ** 2).mean() / 2
    decode_s = osl.mean() * (step.base_s[256] / 256 + step.kv_s * (isl.mean() + osl.mean() / 2))
    return replicas / (prompt_s + decode_s)


def plain(n: int, name: str = "benchmark") -> Case:
    """Poisson arrivals at 70 % of capacity, lengths of a measured chat service."""
    rng = stream(1, name)
    isl, osl = length_model("azure2023_conv").sample(rng, n)
    arrival_s = np.cumsum(rng.exponential(1 / (LOAD * capacity_per_s(isl, osl)), n))
    return Case("plain open loop", Requests(arrival_s, isl, osl), system(), REPLICAS, {})


def pressed(n: int) -> Case:
    """The same with three priority classes, prefix groups of four blocks, and memory so short that about one request in
    a hundred is preempted (found by bisection on a part)."""
    base = plain(n).requests
    rng = stream(1, "benchmark", "groups")
    groups, blocks = rng.integers(0, 2000, n), np.minimum(4, base.isl // 64)
    starts = np.r_[0, np.cumsum(blocks)]
    ids = np.repeat(groups * 4, blocks) + np.arange(starts[-1]) - np.repeat(starts[:-1], blocks)
    requests = replace(base, priority=rng.integers(0, 3, n), block_ids=ids, block_starts=starts)
    options = {"prefix_cache": True, "prefix_block_tokens": 64}
    part = first(requests, min(n, 100_000))
    low, high = int((base.isl + base.osl).max()) + 1024, 1_500_000
    for _ in range(12):
        memory = (low + high) // 2
        pool = Case("", part, system(memory), REPLICAS, options).pool()
        pool.drain()
        low, high = (memory, high) if (pool.finished()["preemptions"] > 0).mean() > 0.01 else (low, memory)
    return Case("classes, KV pressure, prefixes", requests, system(high), REPLICAS, options)


def reasoning(n: int, mean_osl: float = 8000.0) -> Case:
    """Long answers, gamma distributed with shape 2, at 70 % of capacity."""
    rng = stream(1, "benchmark", "reasoning")
    isl, _ = length_model("azure2023_conv").sample(rng, n)
    osl = np.maximum(1, np.rint(rng.gamma(2.0, mean_osl / 2, n))).astype(np.int64)
    arrival_s = np.cumsum(rng.exponential(1 / (LOAD * capacity_per_s(isl, osl)), n))
    return Case(f"answers of {mean_osl:,.0f} tokens", Requests(arrival_s, isl, osl), system(20_000_000), REPLICAS, {})


def chats(n: int) -> Case:
    """Turns that share up to 24 blocks of 512 tokens with those before, before a prefix-aware router of 8 replicas."""
    rng = stream(1, "benchmark", "chats")
    _, osl = length_model("azure2023_conv").sample(rng, n)
    turns, replicas = 24, 8
    session, turn = np.arange(n) // turns, np.arange(n) % turns
    block = np.arange(24)[None, :]
    own = block > 16
    ids = session[:, None] * 100 + block + np.where(own, 50 + turn[:, None] * 10**7, 0)
    ids = ids[np.argsort(turn, kind="stable")].ravel()
    isl = np.full(n, 24 * 512)
    arrival_s = np.cumsum(rng.exponential(1 / (0.5 * capacity_per_s(isl, osl, replicas)), n))
    requests = Requests(arrival_s, isl, osl, block_ids=ids, block_starts=24 * np.arange(n + 1))
    options = {"prefix_cache": True, "router": "prefix_aware"}
    return Case("24 prefix blocks, prefix aware", requests, system(), replicas, options)


def mooncake(path: str, times: int = 1) -> Case:
    """A Mooncake trace with its own prefix blocks, `times` times faster, on 8 replicas."""
    trace = with_blocks(read_trace(path), 512)
    arrays = request_arrays(trace, closed_loop=False)
    requests = Requests(**arrays | {"arrival_s": arrays["arrival_s"] / times})
    options = {"prefix_cache": True, "router": "prefix_aware"}
    return Case(f"Mooncake, {times} times as fast", requests, system(), 8, options)


def batches(n: int, batch: int) -> Case:
    """Work for one replica that runs about `batch` sequences at once: a closed loop of that many clients."""
    rng = stream(1, "benchmark", "batch")
    isl, osl = length_model("azure2023_conv").sample(rng, n)
    after = np.arange(n) - batch
    requests = Requests(np.zeros(n), isl, osl, after=np.maximum(after, -1), think_s=np.zeros(n))
    return Case(f"batch {batch}", requests, system(2_000_000_000, batch), 1, {})


def first(requests: Requests, n: int) -> Requests:
    """The first n requests."""
    end = requests.block_starts[n] if requests.block_starts is not None else None
    cut = {
        name: values[:n] for name, values in vars(requests).items()
        if values is not None and name not in ("block_ids", "block_starts")
    }  # fmt: skip
    if end is not None:
        cut |= {"block_ids": requests.block_ids[:end], "block_starts": requests.block_starts[: n + 1]}
    return Requests(**cut)
