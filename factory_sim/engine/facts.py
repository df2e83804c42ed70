"""What one played window of a pool amounts to, per instance and second, so that it can stand for like hours."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Facts:
    """Rates per instance (1/s), time averages and latency histograms of one played window."""

    window: int
    """Number of the window within its replication."""
    rate_per_s: float
    """Offered load at one instance, requests/s."""
    values: dict[str, float]
    """Counts (1/s and instance) and time averages (shares of wall time, mean numbers an instance)."""
    latency: dict[str, tuple[np.ndarray, np.ndarray]]
    """metric -> (bins, counts per instance and second)."""
    by_kind: dict[str, "Facts"] = field(default_factory=dict)
    """Where several kinds of instances were played together: what each says, per instance of its own."""


def mixture(parts: list[tuple[float, Facts]]) -> dict[str, float]:
    """Values of a weighted mixture of windows; weights sum to one."""
    first = parts[0][1].values
    if len(parts) == 1:
        return first
    if len(parts) == 2:  # as the line below, which most stretches need not go through
        (one, _), (other, facts) = parts
        second = facts.values
        return {name: one * value + other * second[name] for name, value in first.items()}
    return {name: sum(weight * facts.values[name] for weight, facts in parts) for name in first}
