"""Random small cases: a few instances of odd systems, a few dozen requests, features drawn at random."""

import math
from dataclasses import dataclass, field

import numpy as np

from factory_sim.engine.kernel.router import ROUTERS
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
    ranks = int(rng.integers(2, 5)) if rng.random() < 0.3 else 1
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
            attention_ranks=ranks,
            rank_balance=rng.uniform(1.0, ranks, 10) if ranks > 1 else None,
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


def random_blocks(rng, isl, osl, size: int):
    """Prefix block ids: some requests share leading blocks of a few common prompts, some go on into their answers."""
    blocks = []
    for i in range(len(isl)):
        n = -(-int(isl[i]) // size) if rng.random() < 0.7 else (int(isl[i]) + int(osl[i]) - 1) // size
        if rng.random() < 0.2:
            n = int(rng.integers(0, n + 1))
        group = int(rng.integers(0, 3))
        common = int(rng.integers(0, n + 1)) if rng.random() < 0.8 else 0
        ids = [group * 1000 + k for k in range(common)] + [10_000 + i * 1000 + k for k in range(common, n)]
        blocks.append(tuple(ids))
    return blocks


def add_features(rng, columns: dict, options: dict, block: int) -> None:
    """Draw the features beyond plain batching and routing, each in some of the cases."""
    n = len(columns["isl"])
    isl, osl = columns["isl"], columns["osl"]
    options["router"] = str(rng.choice(list(ROUTERS)))
    options["prefill_first"] = bool(rng.random() < 0.25)
    if rng.random() < 0.25:
        options["swap_s_per_token"] = float(rng.uniform(1e-4, 3e-3))
    if rng.random() < 0.3:
        options |= {
            "retries": int(rng.integers(1, 4)),
            "retry_after_s": float(rng.uniform(0.01, 0.5)),
            "retry_backoff": float(rng.uniform(1, 3)),
        }
    if rng.random() < 0.3:
        options["signal_age_s"] = float(rng.uniform(0.01, 0.5))
    columns["patience_s"] = np.where(rng.random(n) < 0.2 * (rng.random() < 0.4), rng.uniform(0, 2, n), math.inf)
    columns["reasoning_tokens"] = np.minimum(rng.integers(0, 60, n), osl - 1) * (rng.random() < 0.4)
    columns["session"] = np.where(rng.random(n) < 0.8, rng.integers(0, 5, n), -1)
    if rng.random() < 0.4:
        after = np.where(rng.random(n) < 0.5, rng.integers(0, 1000, n) % np.maximum(np.arange(n), 1), -1)
        after[0] = -1
        columns["after"] = after
        columns["think_s"] = rng.uniform(0, 0.5, n)
    if rng.random() < 0.35:
        options["batch_limit"] = int(rng.integers(1, 6))
        columns["batch"] = rng.random(n) < 0.4
    if rng.random() < 0.5:
        size = block * int(rng.integers(1, 3))
        options |= {"prefix_cache": True, "prefix_block_tokens": size}
        if rng.random() < 0.5:
            options["host_cache_tokens"] = int(rng.integers(0, 20)) * block
            options["host_cache_s_per_token"] = float(rng.uniform(0, 1e-3))
        columns["blocks"] = random_blocks(rng, isl, osl, size)


def random_controls(rng, n_instances: int) -> list:
    """Failures, drains, returns and slow-downs as (time, method, instance, argument)."""
    controls = []
    for time_s in np.sort(rng.uniform(0.01, 2.0, int(rng.integers(1, 6)))):
        i = int(rng.integers(0, n_instances))
        method, value = [
            ("stop", True),
            ("stop", False),
            ("set_accepting", True),
            ("set_accepting", False),
            ("set_speed", float(rng.uniform(0.5, 3))),
        ][int(rng.integers(0, 5))]
        controls.append((float(time_s), method, i, value))
    for i in range(n_instances):
        controls.append((2.5 + i / 64, "set_accepting", i, True))
    return controls


def random_case(seed: int, features: bool = False) -> Case:
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
    case = Case(systems, options, columns)
    if features:
        add_features(rng, columns, options, block)
        options["costs"] = rng.integers(1, 3, len(systems)).tolist()
        options["promise_outstanding"] = rng.integers(1, 8, len(systems)).tolist()
        if rng.random() < 0.25:
            options["paces"] = rng.uniform(0.4, 2.0, len(systems)).tolist()
        if rng.random() < 0.4:
            case.controls = random_controls(rng, sum(count for _, count in systems))
    return case
