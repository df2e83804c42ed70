"""What the requests that left a pool say, in one compiled pass: latencies by bin, kept promises, and totals."""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from factory_sim.histogram import BINS_PER_OCTAVE, EDGES, ZERO_BIN, bin_of

_OCTAVES = 60
"""Latencies from 2**-60 s to 2**60 s have bins; a latency beyond is none."""
_LOWEST = -BINS_PER_OCTAVE * _OCTAVES
_METRICS = ("ttft", "tpot", "e2e", "time_to_first_answer_token")


class Totals(NamedTuple):
    """Sums over requests that left, for the conservation checks."""

    sojourn_s: float
    """Time in the system, seconds."""
    isl_completed: int
    """Prompt tokens of answered requests."""
    isl_partial: int
    """Prompt tokens of those that may have been served in part: timed out, lost, cancelled."""
    osl_emitted: int
    """Answer tokens that came out."""


class Answered(NamedTuple):
    """Answered requests of a window, seeds left out."""

    which: np.ndarray
    """Their rows among those that left, rising."""
    within_slo: int
    """Requests whose TTFT and TPOT both keep the promise."""
    latency: dict[str, tuple[np.ndarray, np.ndarray]]
    """By metric: bins (int32, rising) and counts."""


def totals(rows: np.ndarray) -> Totals:
    """Sums over the rows that `Pool.finished_rows` gave."""
    return Totals(*_totals(rows))


def answered(
    rows: np.ndarray, seeded: np.ndarray, ttft_error: float, ttft_slo_s: float, tpot_slo_s: float, reasoning: bool
) -> Answered:
    """Latencies of the answered requests among `rows`.

    `seeded`: by id, whether a request was put in to begin near the steady state. `ttft_error`: factor on every TTFT.
    Requests of one output token have no TPOT and keep the promise on it. Raises ValueError for latencies that are
    negative or not finite.
    """
    counts = np.zeros((4, BINS_PER_OCTAVE * 2 * _OCTAVES + 1), np.int64)
    ok = np.zeros(len(rows), np.bool_)
    within = _answered(rows, seeded, ttft_error, ttft_slo_s, tpot_slo_s, reasoning, EDGES, counts, ok)
    if within < 0:
        raise ValueError("a latency of an answered request is negative, not finite or beyond any bin")
    latency = {}
    for metric, row in zip(_METRICS[: 4 if reasoning else 3], counts):
        held = np.flatnonzero(row)
        bins = np.where(held == 0, ZERO_BIN, held - 1 + _LOWEST).astype(np.int32)
        latency[metric] = (bins, row[held])
    return Answered(np.flatnonzero(ok), within, latency)


def reading(rows: np.ndarray, reasoning: np.ndarray, tokens_per_s: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """How streaming and reading keep step in answered requests: (bins, counts) of `token_wait` and `reader_wait`.

    A reader begins with the first token beyond the `reasoning` (tokens, a row each) and reads at `tokens_per_s`. Tokens
    are taken to come evenly from the first to the last: a stall between two of them shows in the request's mean pace
    only. `token_wait` is the mean time in seconds that a token of a request has been there before it is read,
    `reader_wait` the seconds in all that the reader waits for tokens.
    """
    gaps = np.maximum(rows["osl"] - reasoning - 1, 0)
    ahead_s = gaps / tokens_per_s - (rows["finish_s"] - rows["first_answer_s"])
    waits = {"token_wait": np.maximum(ahead_s, 0.0) / 2.0, "reader_wait": np.maximum(-ahead_s, 0.0)}
    found = {}
    for metric, seconds in waits.items():
        bins, counts = np.unique(bin_of(seconds), return_counts=True)
        found[metric] = (bins.astype(np.int32), counts)
    return found


@njit(nogil=True, cache=True)
def _totals(rows):
    sojourn_s, isl_completed, isl_partial, osl_emitted = 0.0, 0, 0, 0
    for row in rows:
        sojourn_s += row["finish_s"] - row["arrival_s"]
        osl_emitted += row["output_tokens"]
        if row["status"] == 0:
            isl_completed += row["isl"]
        elif row["status"] >= 2:
            isl_partial += row["isl"]
    return sojourn_s, isl_completed, isl_partial, osl_emitted


@njit(nogil=True, cache=True)
def _answered(rows, seeded, ttft_error, ttft_slo_s, tpot_slo_s, reasoning, edges, counts, ok):
    """Fill `counts` (metric, place) and `ok`; return how many kept the promise, or -1 where a latency has no bin."""
    within = 0
    for i, row in enumerate(rows):
        if row["status"] != 0 or seeded[row["id"]]:
            continue
        ok[i] = True
        ttft = (row["first_token_s"] - row["arrival_s"]) * ttft_error
        gaps = max(row["osl"] - 1, 0)
        tpot = (row["finish_s"] - row["first_token_s"]) / max(gaps, 1)
        within += ttft <= ttft_slo_s and (gaps == 0 or tpot <= tpot_slo_s)
        place = _place(ttft, edges)
        e2e = _place(row["finish_s"] - row["arrival_s"], edges)
        if place < 0 or e2e < 0:
            return -1
        counts[0, place] += 1
        counts[2, e2e] += 1
        if gaps > 0:
            place = _place(tpot, edges)
            if place < 0:
                return -1
            counts[1, place] += 1
        if reasoning:
            # the error of TTFT beyond the step times holds for the way to the first token only
            place = _place(ttft + (row["first_answer_s"] - row["first_token_s"]), edges)
            if place < 0:
                return -1
            counts[3, place] += 1
    return within


@njit(nogil=True, cache=True)
def _place(value, edges):
    """Place of a value's bin in a row of counts (0: exact zero), or -1; the bins are those of `histogram.bin_of`."""
    if value == 0.0:
        return 0
    if not (value > 0.0 and value < math.inf):
        return -1
    mantissa, exponent = math.frexp(value)
    mantissa *= 2.0
    within = min(int(math.log2(mantissa) * BINS_PER_OCTAVE), BINS_PER_OCTAVE - 1)
    while edges[within] > mantissa:  # the logarithm is a guess; edges decide
        within -= 1
    while edges[within + 1] <= mantissa:
        within += 1
    place = BINS_PER_OCTAVE * (exponent - 1) + within - _LOWEST + 1
    return place if 0 < place < 2 * _OCTAVES * BINS_PER_OCTAVE else -1
