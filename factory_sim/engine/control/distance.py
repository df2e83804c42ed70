"""Requests that came over from another service: the network time to it is part of their latency."""

import numpy as np

from factory_sim.engine.facts import Facts
from factory_sim.histogram import bin_of, lower_edge

UNMOVED = ("tpot", "token_wait", "reader_wait")
"""Latencies between tokens of an answer: all are late by the same time."""


def farther(facts: Facts, delay_s: float, window: int, limit_s: float) -> Facts:
    """The same played window for requests whose every token is `delay_s` later, as window number `window`.

    Histograms move by their bins' middles. Requests within the promise fall in the ratio of those whose first token
    is there by `limit_s - delay_s` and by `limit_s`: exact where TPOT does not depend on TTFT.
    """
    latency = {
        metric: (bins, counts) if metric in UNMOVED else _moved(bins, counts, delay_s)
        for metric, (bins, counts) in facts.latency.items()
    }
    values = dict(facts.values)
    first = facts.latency.get("ttft") or facts.latency.get("time_to_output")
    if first is not None and len(first[0]):
        kept = _below(*first, limit_s)
        values["requests_within_slo"] *= _below(*first, limit_s - delay_s) / kept if kept > 0.0 else 0.0
    return Facts(window, facts.rate_per_s, values, latency)


def _moved(bins: np.ndarray, counts: np.ndarray, delay_s: float) -> tuple[np.ndarray, np.ndarray]:
    wide = np.asarray(bins, dtype=np.int64)
    moved, place = np.unique(bin_of((lower_edge(wide) + lower_edge(wide + 1)) / 2 + delay_s), return_inverse=True)
    return moved.astype(np.int32), np.bincount(place, weights=counts, minlength=len(moved))


def _below(bins: np.ndarray, counts: np.ndarray, limit_s: float) -> float:
    """Requests (as `counts` has them) up to a latency; evenly within a bin."""
    wide = np.asarray(bins, dtype=np.int64)
    low, high = lower_edge(wide), lower_edge(wide + 1)
    share = np.clip((limit_s - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    return float(np.sum(np.asarray(counts) * np.where(high > low, share, limit_s >= low)))
