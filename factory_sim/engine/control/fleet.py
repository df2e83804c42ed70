"""The fleet of one service: how many instances of each kind serve, stand idle, or are down, and since when.

Instances that run the same system at the same speed are one kind (its `key`: the stage, or the stage with an upgrade or
a defect). Processes change the counts; the serving process reads them, stretch by stretch. A change cuts the stretch
unless the changes since its start are few (`tolerance`): then their time-weighted mean counts.
"""

from dataclasses import dataclass, field

import simpy

STATES = ("up", "idle", "down_gpus", "broken_gpus")
"""Instances that serve; instances that are paid for and not needed; GPUs paid for that serve nobody: being changed or
started, and out of order."""


@dataclass
class Pulse:
    """Fires at every change that should end the stretch being served."""

    env: simpy.Environment

    def __post_init__(self) -> None:
        self.event = self.env.event()

    def fire(self) -> None:
        """Wake whoever waits."""
        event, self.event = self.event, self.env.event()
        event.succeed()


@dataclass(frozen=True)
class Count:
    """Mean counts of one kind of instance over a stretch."""

    key: str
    up: float
    idle: float
    down_gpus: float
    broken_gpus: float


@dataclass
class Fleet:
    """Counts by kind of instance, in order of first appearance."""

    env: simpy.Environment
    gpus_per_instance: dict[str, int]
    """key -> GPUs of one instance."""
    pulse: Pulse
    tolerance: float = 0.0
    """Share of the instances whose change does not cut a stretch."""
    state: dict[str, list[int]] = field(default_factory=dict)
    """key -> counts in order of STATES."""
    failed: dict[str, int] = field(default_factory=dict)
    """key -> instances that stopped without draining since the last stretch was written."""

    def __post_init__(self) -> None:
        self.open()

    def up(self, key: str) -> int:
        """Instances of a kind that serve."""
        return self._of(key)[0]

    def idle(self, key: str) -> int:
        """Instances of a kind that are installed and not needed."""
        return self._of(key)[1]

    def instances_up(self) -> int:
        """Instances of all kinds that serve."""
        return sum(counts[0] for counts in self.state.values())

    def gpus(self) -> int:
        """All GPUs that the fleet holds and pays for."""
        return sum(
            (up + idle) * self.gpus_per_instance[key] + down + broken
            for key, (up, idle, down, broken) in self.state.items()
        )

    def shift(self, key: str, *, up: int = 0, idle: int = 0, down_gpus: int = 0, broken_gpus: int = 0) -> None:
        """Change the counts of a kind and tell who serves from them."""
        counts = self._of(key)
        change = (up, idle, down_gpus, broken_gpus)
        if any(have + more < 0 for have, more in zip(counts, change)):
            raise AssertionError(f"fleet of {key}: {counts} cannot change by {change}")
        self._integrate()
        self.state[key] = [have + more for have, more in zip(counts, change)]
        if self.env.now == self._opened_at:
            self._start = {key: tuple(counts) for key, counts in self.state.items()}
        elif self._first_inside is None:
            self._first_inside = self.env.now
        size = self.gpus_per_instance[key]
        self._moved += abs(up) + abs(idle) + (abs(down_gpus) + abs(broken_gpus)) / size
        if self._moved >= self.tolerance * max(self._opened_with, 1):
            self.pulse.fire()

    def fail(self, key: str, instances: int) -> None:
        """Serving instances stop at once and lose what they were working on; their GPUs are out of order."""
        self.failed[key] = self.failed.get(key, 0) + instances
        self.shift(key, up=-instances, broken_gpus=instances * self.gpus_per_instance[key])

    def add_kind(self, key: str, gpus: int) -> None:
        """Make a new kind of instance known."""
        self.gpus_per_instance.setdefault(key, gpus)

    def open(self) -> None:
        """Begin a stretch now."""
        self._opened_at = self._last = self.env.now
        self._opened_with = sum(c[0] + c[1] + (c[2] + c[3]) / self.gpus_per_instance[k] for k, c in self.state.items())
        self._moved, self._first_inside = 0.0, None
        self._start = {key: tuple(counts) for key, counts in self.state.items()}
        self._areas = {}

    def close(self) -> tuple[Count, ...]:
        """Mean counts of every kind that held a GPU since the stretch began, up to now."""
        seconds = self.env.now - self._opened_at
        if self._first_inside is None or self._first_inside >= self.env.now:
            means = self._start
        else:
            self._integrate()
            means = {key: tuple(area / seconds for area in areas) for key, areas in self._areas.items()}
        return tuple(Count(key, *means[key]) for key in self.gpus_per_instance if any(means.get(key, ())))

    def take_failed(self) -> dict[str, int]:
        """Instances that stopped without draining since the last call."""
        found, self.failed = self.failed, {}
        return found

    def _of(self, key: str) -> list[int]:
        return self.state.get(key, [0, 0, 0, 0])

    def _integrate(self) -> None:
        """Add the time since the last change to the areas under the counts."""
        seconds = self.env.now - self._last
        if seconds <= 0.0:
            return
        for key, counts in self.state.items():
            areas = self._areas.setdefault(key, [0.0, 0.0, 0.0, 0.0])
            for place, count in enumerate(counts):
                areas[place] += seconds * count
        self._last = self.env.now
