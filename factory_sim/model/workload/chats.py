"""Generated conversations: turns that carry their history, pauses between them, as a trace of sessions."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from factory_sim.errors import TraceError, closest
from factory_sim.inputs.traces import Trace, TraceReport
from factory_sim.model.workload.lengths import LengthModel, length_model


@dataclass(frozen=True)
class Chats:
    """Conversations whose every turn sends all that was said before."""

    lengths: LengthModel
    """New tokens of the user and tokens of the answer, each turn."""
    mean_turns: float
    """Mean number of turns; geometric, so the conversation has no memory of its age."""
    think_median_s: float
    """Median pause between an answer and the next turn, seconds; log-normal."""
    think_p90_s: float
    """90th percentile of that pause, seconds."""
    system_tokens: int = 0
    """Common beginning of every first prompt, tokens."""
    max_context_tokens: int = 0
    """A conversation ends before a prompt and its answer would exceed this; 0: no limit."""

    def draw(self, rng: np.random.Generator, sessions: int) -> Trace:
        """Return `sessions` conversations as a trace whose times count from the start of each (answers taken as
        instant).

        ``cached_tokens`` of a turn is the whole prompt before it plus its answer, as engines keep both.
        """
        turns_rng, lengths_rng, pauses_rng = rng.spawn(3)
        turns = turns_rng.geometric(1 / self.mean_turns, sessions).astype(np.int64)
        session = np.repeat(np.arange(sessions), turns)
        first = np.concatenate([[0], np.cumsum(turns)[:-1]]).astype(np.int64)
        begins = np.zeros(len(session), bool)
        begins[first] = True
        new, osl = self.lengths.sample(lengths_rng, len(session))
        said = np.cumsum(new + osl)
        before = said - new - osl
        history = before - np.repeat(before[first], turns)
        isl = self.system_tokens + history + new
        pause = self._pauses(pauses_rng, len(session))
        pause[begins] = 0.0
        waited = np.cumsum(pause)
        rows = np.arange(len(session))
        report = TraceReport("generated", "chats", len(session), notes=(f"generated from {self.lengths.name}",))
        trace = Trace(
            "chats",
            isl=isl,
            osl=osl,
            report=report,
            arrival_s=waited - np.repeat(waited[first], turns),
            session_relative=True,
            session=session,
            agent=np.zeros(len(session), np.int64),
            depends_on=np.where(begins, -1, rows - 1),
            think_time_s=pause,
            cached_tokens=np.where(begins, 0, self.system_tokens + history),
            prefix_of=np.where(begins, -1, rows - 1),
            shared_prefix_tokens=np.full(len(session), self.system_tokens, np.int64),
        )
        if not self.max_context_tokens:
            return trace
        too_long = isl + osl > self.max_context_tokens
        over = np.cumsum(too_long) - np.repeat((np.cumsum(too_long) - too_long)[first], turns)
        kept = np.flatnonzero((over == 0) | begins)
        return trace.rows(kept)

    def _pauses(self, rng: np.random.Generator, n: int) -> np.ndarray:

        sigma = np.log(self.think_p90_s / self.think_median_s) / NormalDist().inv_cdf(0.9)
        return self.think_median_s * np.exp(sigma * rng.standard_normal(n))


def chats(spec: Mapping) -> Chats:
    """Return conversations as described: ``{lengths: azure2023_conv, mean_turns: 4, think_median_s: 86, think_p90_s:
    1260, system_tokens: 500, max_context_tokens: 128000}``; `lengths` and `mean_turns` are needed. Pauses default to
    the published human wait of TraceLab (median 86 s, 90th percentile about 21 minutes). Raises TraceError."""
    known = ("lengths", "mean_turns", "think_median_s", "think_p90_s", "system_tokens", "max_context_tokens")
    if not isinstance(spec, Mapping):
        raise TraceError(f"chats: a mapping with lengths and mean_turns is needed, got {spec!r}")
    for key in spec:
        if key not in known:
            raise TraceError(f"chats: unknown key '{key}'{closest(str(key), known)}")
    median, p90 = published_human_wait_s()
    numbers = {"mean_turns": spec.get("mean_turns"), "think_median_s": spec.get("think_median_s", median)}
    numbers["think_p90_s"] = spec.get("think_p90_s", p90 * numbers["think_median_s"] / median)
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 and np.isfinite(value)):
            raise TraceError(f"chats.{name}: a number above 0 is needed, got {value!r}")
    if numbers["mean_turns"] < 1 or numbers["think_p90_s"] < numbers["think_median_s"]:
        raise TraceError("chats: mean_turns must be at least 1 and think_p90_s at least think_median_s")
    whole = {name: spec.get(name, 0) for name in ("system_tokens", "max_context_tokens")}
    for name, value in whole.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise TraceError(f"chats.{name}: a whole number >= 0 is needed, got {value!r}")
    return Chats(length_model(spec.get("lengths")), **{name: float(value) for name, value in numbers.items()}, **whole)


def published_human_wait_s() -> tuple[float, float]:
    """Return the published median and 90th percentile of the pause of a person in coding sessions, seconds
    (TraceLab)."""
    from factory_sim.inputs.workloads import statistics

    rows = statistics("tracelab", "human_wait")
    return rows["p50"].number, rows["p90"].number
