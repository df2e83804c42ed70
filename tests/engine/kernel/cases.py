"""Random small cases: a few instances of odd systems, a few dozen requests, features drawn at random."""

import math
from dataclasses import dataclass, field

import numpy as np

from factory_sim.model.serving import ServingSystem, StepCosts, Worker


@dataclass
class Case:
    systems: list
    options: dict
    columns: dict
    controls: list = field(default_factory=list)


def random_worker(rng, role: str, tps: int, tight: bool, block: int) -> Worker:
    most = int(rng.integers(6, 60)) + tps
    base_s = np.concatenate([[0.0], 0.01 + np.cumsum(rng.uniform(0.0, 1e-3, most + 40))])
    capacity = int(rng.integers(8, 16) if tight else rng.integers(20, 300)) * block
    return Worker(
        role=role,
        count=int(rng.integers(1, 4)) if role != "both" or rng.random() < 0.3 else 1,
        gpus=1,
        step=StepCosts(
            base_s=base_s,
            kv_s=float(rng.uniform(0, 1e-4)) * (rng.random() < 0.9),
            prefill_s=float(rng.uniform(0, 1e-3)),
            pair_s=float(rng.uniform(0, 1e-5)),
            tokens_per_sequence=tps,
            attention_cap_tokens=int(rng.integers(5, 60)) if rng.random() < 0.25 else 0,
        ),
        kv_capacity_tokens=capacity,
        max_sequences=int(rng.integers(1, 9)),
        max_batched_tokens=most,
    )


def random_system(rng, k: int, tight: bool, block: int) -> ServingSystem:
    tps = int(rng.integers(1, 4)) if rng.random() < 0.3 else 1
    roles = ["both"] if rng.random() < 0.6 else ["prefill", "decode"]
    return ServingSystem(
        name=f"system {k}",
        gpu="none",
        gpus=1,
        workers=tuple(random_worker(rng, role, tps, tight, block) for role in roles),
        tokens_per_step=1.0,
        kv_transfer_s_per_token=float(rng.uniform(0, 1e-3)),
        kv_link_s_per_token=float(rng.choice([0.0, rng.uniform(0, 1e-3)])),
        kv_transfer_latency_s=float(rng.uniform(0, 0.01)),
        request_overhead_s=float(rng.uniform(0, 0.1)) if rng.random() < 0.3 else 0.0,
        max_context_tokens=int(rng.integers(60, 400)),
    )


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    block = int(rng.choice([1, 4, 16]))
    tight = rng.random() < 0.5
    systems = [(random_system(rng, k, tight, block), int(rng.integers(1, 4))) for k in range(int(rng.integers(1, 3)))]
    n = int(rng.integers(1, 50))
    burst = rng.random() < 0.5
    gaps = rng.exponential(float(rng.choice([0.005, 0.05, 0.3])), n)
    if burst:
        gaps *= rng.random(n) < 0.4
    isl = rng.integers(1, int(rng.choice([10, 60, 150])), n)
    osl = rng.integers(1, int(rng.choice([3, 30, 120])), n)
    steps = np.maximum(1, osl - 1)
    if rng.random() < 0.3:
        steps = np.maximum(1, np.floor((osl - 1) / rng.uniform(1, 3, n)).astype(np.int64))
    columns = {
        "arrival_s": np.cumsum(gaps),
        "isl": isl,
        "osl": osl,
        "decode_steps": steps,
        "cached_tokens": rng.integers(0, 40, n) * (rng.random(n) < 0.3),
        "priority": rng.integers(0, 4, n) * (rng.random() < 0.4),
        "service": rng.integers(0, 3, n),
    }
    options = {
        "router": str(rng.choice(["round_robin", "random", "least_outstanding", "power_of_two", "least_kv"])),
        "block_tokens": block,
        "queue_limit": int(rng.integers(1, 6)) if rng.random() < 0.2 else 0,
        "timeout_s": float(rng.uniform(0.05, 3)) if rng.random() < 0.3 else math.inf,
    }
    return Case(systems, options, columns)
