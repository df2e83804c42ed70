"""The fleet of one service: how many instances of each stage are up, and how many GPUs are down for a change."""

from dataclasses import dataclass, field

import simpy


@dataclass
class Fleet:
    """State that rollouts change and the serving process reads. `changed` fires at every change."""

    env: simpy.Environment
    gpus_per_instance: dict[str, int]
    """stage -> GPUs of one instance."""
    up: dict[str, int] = field(default_factory=dict)
    """stage -> instances that serve."""
    down_gpus: dict[str, int] = field(default_factory=dict)
    """stage -> GPUs paid for that serve nobody (being changed to that stage)."""

    def __post_init__(self) -> None:
        self.changed = self.env.event()

    def shift(self, stage: str, *, up: int = 0, down_gpus: int = 0) -> None:
        """Add instances or GPUs that are down to a stage and tell who waits for it."""
        self.up[stage] = self.up.get(stage, 0) + up
        self.down_gpus[stage] = self.down_gpus.get(stage, 0) + down_gpus
        event, self.changed = self.changed, self.env.event()
        event.succeed()

    def counts(self) -> tuple[tuple[str, int, int], ...]:
        """(stage, instances up, GPUs down) of every stage that holds a GPU now, in order of the stages."""
        return tuple(
            (stage, self.up.get(stage, 0), self.down_gpus.get(stage, 0))
            for stage in self.gpus_per_instance
            if self.up.get(stage, 0) or self.down_gpus.get(stage, 0)
        )
