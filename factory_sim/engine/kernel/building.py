"""The workers and instances of a pool as the kernel's arrays."""

from typing import NamedTuple

import numpy as np

from factory_sim.engine.kernel.ranks import SUMS
from factory_sim.engine.kernel.state import INSTANCE, ROLE_BOTH, ROLE_DECODE, ROLE_PREFILL, WORKER
from factory_sim.errors import CapacityError
from factory_sim.model.serving import ServingSystem, StepCosts, Worker

ROLES = {"both": ROLE_BOTH, "prefill": ROLE_PREFILL, "decode": ROLE_DECODE}
MOST_TOKENS = 1 << 37
"""KV memory beyond which a worker counts as unbounded, tokens."""


class Built(NamedTuple):
    """Arrays of a new pool."""

    instances: np.ndarray
    workers: np.ndarray
    base: np.ndarray
    """Tables of step times, one after the other, seconds."""
    heap_size: int
    """Places that the heaps of all workers, and the sums of their ranks behind them, need."""


def build(expanded: list[ServingSystem], block_tokens: int, prefix_cache: bool) -> Built:
    """Return the arrays of instances, one a system in `expanded`. Raises CapacityError if a worker cannot run a step."""
    tables: dict[int, int] = {}
    base: list[np.ndarray] = []
    base_size = heap_size = 0
    instances = np.zeros(len(expanded), INSTANCE)
    rows = []
    for i, system in enumerate(expanded):
        _fill_instance(instances[i], system, len(rows), block_tokens, prefix_cache)
        for kind in system.workers:
            step = kind.step
            if id(step.base_s) not in tables:
                tables[id(step.base_s)] = base_size
                base.append(np.asarray(step.base_s, dtype=np.float64))
                base_size += len(step.base_s)
            for _ in range(kind.count):
                row = _worker(system, kind, i, block_tokens)
                row["base_offset"] = tables[id(step.base_s)]
                row["heap_offset"] = heap_size
                heap_size += int(row["max_sequences"][0]) * (3 if step.attention_cap_tokens else 2) + 1
                if step.attention_ranks > 1:
                    row["rank_offset"] = heap_size
                    heap_size += SUMS * step.attention_ranks
                    if id(step.rank_balance) not in tables:
                        tables[id(step.rank_balance)] = base_size
                        base.append(_cost_of_fullest(system.name, step, int(row["max_sequences"][0])))
                        base_size += len(base[-1])
                    row["balance_offset"] = tables[id(step.rank_balance)]
                rows.append(row)
    return Built(instances, np.concatenate(rows), np.concatenate(base), heap_size)


def _fill_instance(inst, system: ServingSystem, first_worker: int, block_tokens: int, prefix_cache: bool) -> None:
    roles = [kind.role for kind in system.workers]
    if roles not in (["both"], ["prefill", "decode"]):
        raise CapacityError(f"{system.name}: workers must be 'both', or 'prefill' then 'decode', not {roles}")
    inst["first_worker"] = first_worker
    inst["accepting"] = 1
    inst["overhead_s"] = system.request_overhead_s
    inst["transfer_s_per_token"] = system.kv_transfer_s_per_token
    inst["link_s_per_token"] = system.kv_link_s_per_token
    inst["transfer_latency_s"] = system.kv_transfer_latency_s
    inst["max_context_tokens"] = system.max_context_tokens
    least = min(kind.kv_capacity_tokens for kind in system.workers)
    # A shared last block of a prompt that is not full costs its sequence one block more.
    inst["capacity_blocks"] = min(least, MOST_TOKENS) // block_tokens - int(prefix_cache)
    for kind in system.workers:
        inst["n_decode" if kind.role == "decode" else "n_entry"] = kind.count


def _worker(system: ServingSystem, kind: Worker, instance: int, block_tokens: int) -> np.ndarray:
    step: StepCosts = kind.step
    sequences = min(kind.max_sequences, kind.max_batched_tokens // step.tokens_per_sequence)
    if sequences < 1 or len(step.base_s) <= kind.max_batched_tokens:
        raise CapacityError(
            f"{system.name}: a {kind.role} worker needs max_sequences >= 1, max_batched_tokens >= "
            f"tokens_per_sequence and base_s longer than max_batched_tokens; found {kind.max_sequences}, "
            f"{kind.max_batched_tokens}, {step.tokens_per_sequence}, {len(step.base_s)}"
        )
    row = np.zeros(1, WORKER)
    row["cost_kv_s"] = step.kv_s
    row["cost_prefill_s"] = step.prefill_s
    row["cost_pair_s"] = step.pair_s
    row["slow"] = row["next_slow"] = 1.0
    row["end_s"] = np.inf
    row["instance"] = instance
    row["role"] = ROLES[kind.role]
    row["max_sequences"] = sequences
    row["max_batched_tokens"] = kind.max_batched_tokens
    row["capacity_blocks"] = min(kind.kv_capacity_tokens, MOST_TOKENS) // block_tokens
    row["tokens_per_sequence"] = step.tokens_per_sequence
    row["attention_cap"] = step.attention_cap_tokens
    row["ranks"] = step.attention_ranks
    for name in ("newest", "prefill_head", "prefill_tail", "lru_head", "lru_tail", "host_head", "host_tail"):
        row[name] = -1
    return row


def _cost_of_fullest(name: str, step: StepCosts, sequences: int) -> np.ndarray:
    """Cost of a token of the fullest rank over one of the mean, by number of decoding sequences."""
    if step.rank_balance is None or len(step.rank_balance) <= sequences:
        raise CapacityError(
            f"{name}: {step.attention_ranks} attention ranks need a rank_balance of {sequences + 1} values"
        )
    return step.attention_ranks / np.asarray(step.rank_balance, dtype=np.float64)
