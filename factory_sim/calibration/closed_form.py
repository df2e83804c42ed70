"""A closed-form stand-in for the played benchmark: fast, smooth, and only as good as the ratio that corrects it.

Fitting needs derivatives of TTFT and TPOT with respect to some twenty-five parameters of two thousand runs. Playing
every run that often is too slow, so the fit takes derivatives (and small steps) from these formulas and the level from
the kernel: ``log played = log closed form + ratio``, with the ratio refreshed by playing again (`fit.py`).

In a closed loop of N requests a request spends TTFT before its first token and S = (OSL - 1) / tokens per step decode
steps after it. While n requests decode, n/S prompts a step come in, so a decode step lasts
``D(n) + n/S * P`` with D the pure decode step and P what one prompt adds. TTFT is the frontend, the step in progress,
the prompt itself and the prompts ahead of it: half of all at the start of the run, a few in step with it later.
"""

from dataclasses import dataclass, fields

import numpy as np

from factory_sim.model import step_time
from factory_sim.model.step_time import INDEX, PARAMETERS, WorkerFacts

ROUNDS = 10.0
"""Requests of a run over its concurrency; the first round waits for all prompts before it."""


@dataclass(frozen=True)
class Runs:
    """Benchmark runs as arrays of one length: what to play, and the facts of the workers."""

    decode: WorkerFacts
    """The aggregated worker, or the decode worker."""
    prefill: WorkerFacts
    """The aggregated worker, or the prefill worker."""
    pooled: np.ndarray
    """True for disaggregated systems."""
    concurrency: np.ndarray
    """Requests in flight on one instance."""
    isl: np.ndarray
    osl: np.ndarray
    decode_workers: np.ndarray
    prefill_workers: np.ndarray
    tokens_per_sequence: np.ndarray
    """Tokens of a sequence in one decode step: 1, or more with drafts to verify."""
    max_batched_tokens: np.ndarray
    max_sequences: np.ndarray
    """Sequences that fit into one aggregated or decode worker at once."""
    attended_cap: np.ndarray
    """Tokens that a sequence attends to at most (inf without sparse attention)."""


def latencies(runs: Runs, decode_parameters: np.ndarray, prefill_parameters: np.ndarray) -> np.ndarray:
    """Return log (TTFT s, TPOT s), shape (n, 2). Parameters: positive, shape (n, len(PARAMETERS))."""
    v, isl = runs.tokens_per_sequence, runs.isl
    tau = step_time.tokens_per_step(decode_parameters, v)
    steps = np.maximum((runs.osl - 1) / tau, 1.0)
    per_worker = runs.concurrency / runs.decode_workers
    limit = step_time.decode_tokens_limit(per_worker, v)
    attended = np.minimum(isl + runs.osl / 2, runs.attended_cap)
    kv = step_time.kv_cost(runs.decode, decode_parameters) * attended
    token, pair = step_time.prefill_costs(runs.prefill, prefill_parameters)
    chunks = np.maximum(1.0, isl / runs.max_batched_tokens)
    prompt = token * isl + pair * isl * (isl + 1) / 2
    request = step_time.request_s(decode_parameters, runs.concurrency)
    fits = np.minimum(per_worker, runs.max_sequences)
    share = np.full(len(isl), 0.95)
    for _ in range(8):
        n = fits * share
        decode = step_time.base_s(runs.decode, decode_parameters, n * v, v, limit) + kv * n
        mixed = step_time.base_s(runs.decode, decode_parameters, n * v + isl / chunks, v, limit) + kv * n
        added = np.maximum(mixed - decode, 0.0) * chunks + prompt
        step = decode + np.where(runs.pooled, 0.0, n / steps * added)
        served = np.where(
            runs.pooled,
            _pooled_ttft(runs, prefill_parameters, request, prompt, step * steps),
            request + decode * (chunks + 0.5) + added * (1 + 0.5 * (per_worker - 1) / ROUNDS + 1.5 * n / steps),
        )
        share = 0.5 * share + 0.5 * step * steps / (step * steps + served)
    held_back = np.maximum(per_worker / fits - 1, 0.0) * (step * steps + served)
    ttft = served + np.where(runs.pooled, 0.0, held_back)
    handoff = decode_parameters[:, INDEX["handoff"]] * runs.prefill.handoff_s * isl / runs.prefill.gpus
    decoding = step * steps + np.where(runs.pooled, handoff, 0.0)
    return np.log(np.stack([ttft, decoding / np.maximum(runs.osl - 1, 1.0)], axis=1))


def _pooled_ttft(runs, prefill_parameters, request, prompt, decode_time):
    """TTFT of a disaggregated system: one prompt, the queue of the first round, and the queue of a saturated pool."""
    isl = runs.isl
    together = np.maximum(1.0, runs.max_batched_tokens * runs.prefill.ranks / isl)
    together = np.minimum(together, np.maximum(1.0, runs.concurrency / runs.prefill_workers))
    nothing = np.zeros_like(isl)
    alone = step_time.base_s(runs.prefill, prefill_parameters, isl, 1.0, nothing) + prompt
    batch = step_time.base_s(runs.prefill, prefill_parameters, together * isl, 1.0, nothing) / together + prompt
    queue = runs.concurrency * batch / runs.prefill_workers
    excess = queue - decode_time
    scale = 0.1 * queue + 1e-9
    saturated = scale * np.logaddexp(0.0, np.clip(excess / scale, -50, 50))
    return request + alone + 0.5 * queue / ROUNDS + saturated


def sensitivities(runs: Runs, decode_parameters: np.ndarray, prefill_parameters: np.ndarray, step: float = 1e-3):
    """Derivatives of log TTFT and log TPOT by the log of each parameter.

    Returns (latencies (n, 2), decode (n, 2, k), prefill (n, 2, k)): by the parameters of the decode worker and of the
    prefill worker. An aggregated system has one worker: all is in the first part.
    """
    centre = latencies(runs, decode_parameters, prefill_parameters)
    by_decode = np.zeros((*centre.shape, len(PARAMETERS)))
    by_prefill = np.zeros_like(by_decode)
    pools = np.flatnonzero(runs.pooled)
    pooled, few = take(runs, pools), (decode_parameters[pools], prefill_parameters[pools])
    own = np.where(runs.pooled[:, None], prefill_parameters, decode_parameters)
    for index in range(len(PARAMETERS)):
        moved = decode_parameters.copy()
        moved[:, index] *= np.exp(step)
        same = np.where(runs.pooled[:, None], own, moved)
        by_decode[:, :, index] = (latencies(runs, moved, same) - centre) / step
        if len(pools):
            moved = few[1].copy()
            moved[:, index] *= np.exp(step)
            by_prefill[pools, :, index] = (latencies(pooled, few[0], moved) - centre[pools]) / step
    return centre, by_decode, by_prefill


def take(runs: Runs, rows: np.ndarray) -> Runs:
    """Return some of the runs, in the order of `rows`."""
    parts = {}
    for part in fields(Runs):
        value = getattr(runs, part.name)
        if isinstance(value, WorkerFacts):
            value = WorkerFacts(*(getattr(value, one.name)[rows] for one in fields(WorkerFacts)))
        else:
            value = value[rows]
        parts[part.name] = value
    return Runs(**parts)
