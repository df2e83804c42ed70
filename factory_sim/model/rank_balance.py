"""Data-parallel attention whose steps wait for the fullest rank, instead of for the mean of the measured runs.

Each GPU of such a worker holds its own sequences; all wait for the one whose sequences attend to most tokens. Fitted
costs rest on runs that had this imbalance in them, for the even lengths of a benchmark. A run that plays the ranks
divides that mean out (`StepCosts.rank_balance`), so a benchmark's own lengths cost on average what they did, and more
uneven lengths cost more.
"""

from dataclasses import replace
from functools import cache

import numpy as np

from factory_sim.model.serving import ServingSystem, Worker
from factory_sim.streams import stream

MEASURED_TOKENS = 1024
"""Input and output tokens of the benchmark taken for the measured runs; uniform from 0.8 times that to it, as
InferenceX draws lengths."""
DRAWS = 400
EACH = 8
"""Sequences a rank up to which every number is drawn."""


@cache
def mean_imbalance(ranks: int, most: int) -> np.ndarray:
    """Tokens of the fullest rank over those of the mean rank in measured runs: float64, shape (most + 1,), by number of
    decoding sequences.

    The mean over draws of n sequences spread evenly by number, each somewhere in its answer. Up to `EACH` a rank every n is
    drawn (a rank with one sequence more than the others counts), beyond that some, with straight lines between them. 1 at
    n = 0.
    """
    rng = stream(0, "imbalance of attention ranks", str(ranks))
    even = ranks * np.unique(np.geomspace(EACH, max(most / ranks, EACH), 16).round().astype(int))
    grid = np.unique(np.r_[np.arange(1, EACH * ranks), even, most])
    grid = grid[grid <= most]
    found = [_imbalance(rng, ranks, int(n)) for n in grid]
    return np.interp(np.arange(most + 1), np.r_[0, grid], np.r_[1.0, found])


def _imbalance(rng: np.random.Generator, ranks: int, n: int) -> float:
    isl, osl = rng.uniform(0.8 * MEASURED_TOKENS, MEASURED_TOKENS, (2, DRAWS, n))
    tokens = np.zeros((DRAWS, -(-n // ranks) * ranks))
    tokens[:, :n] = isl + osl * rng.random((DRAWS, n))
    held = tokens.reshape(DRAWS, -1, ranks).sum(axis=1)
    return float((held.max(axis=1) * ranks / held.sum(axis=1)).mean())


def with_uneven_ranks(system: ServingSystem) -> ServingSystem | None:
    """The system with its data-parallel ranks played one by one; None where no worker that decodes has any."""
    uneven = [w.data_parallel_attention and w.gpus > 1 and w.role != "prefill" for w in system.workers]
    if not any(uneven):
        return None
    workers = tuple(_uneven(worker) if told else worker for worker, told in zip(system.workers, uneven))
    return replace(system, workers=workers)


def _uneven(worker: Worker) -> Worker:
    balance = mean_imbalance(worker.gpus, worker.max_sequences)
    return replace(worker, step=replace(worker.step, attention_ranks=worker.gpus, rank_balance=balance))
