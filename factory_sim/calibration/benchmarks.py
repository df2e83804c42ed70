"""A published benchmark run as something to play: closed loop, lengths, number of requests, and what was reported.

InferenceX sends 10 x concurrency requests with lengths uniform in [0.8 L, L]; NVIDIA's sweeps publish neither the
spread of lengths nor the length of the run: `measurements.serving` says what is played, and as many requests.
"""

import numpy as np

from factory_sim.engine.kernel import play_closed_loop
from factory_sim.model.serving import ServingSystem, decode_steps
from factory_sim.streams import stream

DEFAULT = ("mean", "mean")
"""What is taken as published (TTFT, TPOT): the mean over requests, for every origin. No origin says; an assumption, not
cross-validated: efficiencies fitted to means absorb most of the difference."""
ROUNDS = 10
"""Requests of a run over its concurrency."""


def lengths(isl: float, osl: float, low_fraction: float, requests: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw input and output lengths, uniform integers in [low_fraction L, L], int64 (requests,)."""
    rng = stream(seed, "benchmark_lengths")
    return tuple(
        rng.integers(max(1, int(np.floor(low_fraction * most))), int(most), size=requests, endpoint=True)
        for most in (isl, osl)
    )


def play(
    system: ServingSystem, isl: float, osl: float, low_fraction: float, concurrency: int, instances: int = 1
) -> dict[str, np.ndarray]:
    """Play one benchmark run; returns arrays of each request's ttft_s and tpot_s (NaN where osl is 1).

    `concurrency` is over all `instances`. Raises CapacityError if a request does not fit.
    """
    requests = ROUNDS * int(concurrency)
    prompts, answers = lengths(isl, osl, low_fraction, requests)
    steps = decode_steps(answers, system.tokens_per_step, stream(0, "benchmark_decode_steps"))
    played = play_closed_loop(system, prompts, answers, int(concurrency), decode_steps=steps, instances=instances)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = np.where(answers > 1, (played["finish_s"] - played["first_token_s"]) / (answers - 1), np.nan)
    return {"ttft_s": played["first_token_s"] - played["start_s"], "tpot_s": tpot_s}


def reported(played: dict, statistic: tuple[str, str]) -> tuple[float, float]:
    """Return (TTFT s, TPOT s) as a benchmark reports them: "mean" or "median" over requests."""
    kinds = {"mean": np.nanmean, "median": np.nanmedian}
    return tuple(float(kinds[kind](played[name])) for name, kind in zip(("ttft_s", "tpot_s"), statistic))
