"""What a policy sees: reports of the past, never the future and never the length of an answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """What an autoscaler sees of its service: what it has reported until now, and nothing about single requests."""

    service: str
    time_s: float
    hour_of_week: float
    """Hours since Monday 00:00 of scenario time."""
    interval_s: float
    """Time until it will be asked again."""
    cold_start_s: float
    """Time to bring an instance up."""
    serving: int
    """Instances that serve or are on their way."""
    starting: int
    """Those on their way."""
    minimum: int
    maximum: int
    asked_per_s: float
    """Requests asked for in the last interval, a second, let in or not."""
    served_per_s: float
    """Requests let in, a second."""
    waiting: float
    """Requests that wait behind the limit."""
    capacity_per_s: float
    """Tested capacity of one instance within the promise, requests/s."""
    in_system: float
    """Requests at one instance."""
    ttft_p95_s: float
    """Of the last interval (of images and videos the time to the output); NaN if nothing was served."""
    tpot_p95_s: float
    """Likewise; NaN for images and videos, which have none."""
    ttft_limit_s: float
    tpot_limit_s: float
    target_load: float
    history: tuple[tuple[float, float], ...]
    """(end of the interval, requests asked for a second) of past intervals, oldest first."""
