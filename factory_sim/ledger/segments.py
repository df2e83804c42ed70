"""What windows hold together at each moment: services and jobs of a factory need not begin their windows together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_ROUNDING = 1e-9
"""Sums that cancel to less than this part of the largest are nothing."""


@dataclass(frozen=True)
class Segments:
    """The time of one replication, cut wherever a window begins or ends."""

    edges_s: np.ndarray
    """Rising; a segment lies between two neighbours."""
    first: np.ndarray
    """Segment in which each window begins."""
    behind: np.ndarray
    """Segment after its last."""

    @property
    def seconds(self) -> np.ndarray:
        """Length of each segment."""
        return np.diff(self.edges_s)

    def total(self, rates: np.ndarray) -> np.ndarray:
        """Sum of the windows' rates in each segment; nothing where sums only differ by rounding."""
        count = len(self.edges_s)
        change = np.bincount(self.first, rates, count) - np.bincount(self.behind, rates, count)
        sums = np.cumsum(change)[:-1]
        return np.where(np.abs(sums) > _ROUNDING * max(float(np.abs(rates).max(initial=0.0)), 1e-300), sums, 0.0)

    def over(self, amounts: np.ndarray) -> np.ndarray:
        """Sum of the segments' amounts over the segments of each window."""
        running = np.concatenate([[0.0], np.cumsum(amounts)])
        return running[self.behind] - running[self.first]


def segments(start_s: np.ndarray, end_s: np.ndarray) -> Segments:
    """Segments of windows that begin and end at these times."""
    edges, place = np.unique(np.concatenate([start_s, end_s]), return_inverse=True)
    return Segments(edges, place[: len(start_s)], place[len(start_s) :])


def borne(windows: pd.DataFrame, amounts: Callable[[Segments], np.ndarray]) -> np.ndarray:
    """What each window bears of an amount of the whole factory, at each moment by its share of the GPUs held.

    ``amounts`` returns the amount of each segment. Those of a replication add up to its amounts; while nobody holds GPUs,
    the windows that are there bear it evenly.
    """
    start_s, end_s = windows.start_s.to_numpy(float), windows.end_s.to_numpy(float)
    rate = windows.gpu_hours.to_numpy(float) / (end_s - start_s)
    replication, found = windows.replication.to_numpy(), np.zeros(len(windows))
    for number in np.unique(replication):
        own = np.flatnonzero(replication == number)
        cut = segments(start_s[own], end_s[own])
        amount = amounts(cut)
        held, there = cut.total(rate[own]), cut.total(np.ones(len(own)))
        by_gpus = np.where(held > 0, amount / np.where(held > 0, held, 1.0), 0.0)
        evenly = np.where((held <= 0) & (there > 0), amount / np.maximum(there, 1.0), 0.0)
        found[own] = rate[own] * cut.over(by_gpus) + cut.over(evenly)
    return found
