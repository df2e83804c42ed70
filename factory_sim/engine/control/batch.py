"""Batch jobs: a queue with deadlines beside users' demand, served by what capacity the users leave idle.

A fluid queue, first come first served: jobs come evenly over a stretch, and those whose deadline passes are dropped.
The minutes that a job takes once it is begun are short beside its deadline and left out.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass
class JobQueue:
    """Jobs that wait, oldest first, as (first submitted, last submitted, number); times in seconds of the scenario."""

    deadline_s: float
    per_s: float
    """Jobs submitted a second."""
    waiting: deque = field(default_factory=deque)

    def number(self) -> float:
        """Jobs that wait."""
        return sum(number for _, _, number in self.waiting)

    def submit(self, start_s: float, end_s: float) -> float:
        """Add the jobs of a stretch; returns their number."""
        number = self.per_s * (end_s - start_s)
        self.waiting.append((start_s, end_s, number))
        return number

    def take(self, number: float) -> None:
        """The oldest jobs are answered."""
        while self.waiting and number > 0.0:
            first_s, last_s, held = self.waiting.popleft()
            if held > number:
                split_s = first_s + (last_s - first_s) * number / held
                self.waiting.appendleft((split_s, last_s, held - number))
            number -= held

    def drop(self, now_s: float) -> float:
        """Drop the jobs whose deadline has passed; returns their number."""
        dropped, latest_s = 0.0, now_s - self.deadline_s
        while self.waiting and self.waiting[0][0] < latest_s:
            first_s, last_s, held = self.waiting.popleft()
            if last_s > latest_s:
                late = held * (latest_s - first_s) / (last_s - first_s)
                self.waiting.appendleft((latest_s, last_s, held - late))
                held = late
            dropped += held
        return dropped
