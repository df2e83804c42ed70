"""What windows hold together at each moment: services and jobs of a factory need not begin their windows together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
