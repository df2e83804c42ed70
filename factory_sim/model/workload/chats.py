"""Generated conversations: turns that carry their history, pauses between them, as a trace of sessions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from factory_sim.errors import TraceError, closest
from factory_sim.inputs.traces import Trace, TraceReport
from factory_sim.model.workload.lengths import LengthModel, length_model

GENERATED = "generated"
"""Format in the report of a trace that was made, not read."""


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
        new, osl = self.lengths.sample(lengths_rng, int(turns.sum()))
        pause = self._pauses(pauses_rng, len(new))
        return _conversations(
            self.lengths.name, turns, new, osl, pause, self.system_tokens, self.max_context_tokens
        )

    def _pauses(self, rng: np.random.Generator, n: int) -> np.ndarray:
        sigma = np.log(self.think_p90_s / self.think_median_s) / NormalDist().inv_cdf(0.9)
        return self.think_median_s * np.exp(sigma * rng.standard_normal(n))


@dataclass(frozen=True)
class MeasuredChats:
    """Conversations resampled from the main agents of a measured trace of sessions.

    Turns and the first prompt of a session are drawn together from one measured session; growth since the answer
    before, answer and pause of a later turn together from one measured turn, independent of its session and place
    (assumed). Where a measured prompt was shorter than all that was said before (11.7 % of the turns of the agentic
    trace: edits, compaction) it grows by one token here, so long conversations come out longer than measured.
    """

    name: str
    turns: np.ndarray
    """int64: turns of each measured session."""
    first_isl: np.ndarray
    """int64: first prompt of each measured session, tokens."""
    first_osl: np.ndarray
    """int64: answer to it, tokens."""
    new: np.ndarray
    """int64 >= 1: new tokens of each later turn."""
    osl: np.ndarray
    """int64: its answer, tokens."""
    pause_s: np.ndarray
    """float64: pause before it, seconds."""
    system_tokens: int = 0
    """Tokens at the beginning of every first prompt that all have alike; taken out of it where it is longer."""
    max_context_tokens: int = 0
    """A conversation ends before a prompt and its answer would exceed this; 0: no limit."""

    def draw(self, rng: np.random.Generator, sessions: int) -> Trace:
        """Return `sessions` conversations as `Chats.draw` does."""
        which_rng, rows_rng = rng.spawn(2)
        which = which_rng.integers(len(self.turns), size=sessions)
        turns = self.turns[which]
        row = rows_rng.integers(len(self.new), size=int(turns.sum()))
        new, osl, pause = self.new[row], self.osl[row], self.pause_s[row].copy()
        first = np.cumsum(turns) - turns
        new[first] = np.maximum(self.first_isl[which] - self.system_tokens, 1)
        osl[first] = self.first_osl[which]
        return _conversations(self.name, turns, new, osl, pause, self.system_tokens, self.max_context_tokens)


def _conversations(
    name: str, turns: np.ndarray, new: np.ndarray, osl: np.ndarray, pause: np.ndarray, system: int, longest: int
) -> Trace:
    """Sessions of so many `turns` whose prompts are `system` tokens, all that was said before, and `new` tokens."""
    session = np.repeat(np.arange(len(turns)), turns)
    first = (np.cumsum(turns) - turns).astype(np.int64)
    begins = np.zeros(len(session), bool)
    begins[first] = True
    said = np.cumsum(new + osl)
    before = said - new - osl
    history = before - np.repeat(before[first], turns)
    isl = system + history + new
    pause[begins] = 0.0
    waited = np.cumsum(pause)
    rows = np.arange(len(session))
    report = TraceReport(GENERATED, "chats", len(session), notes=(f"generated from {name}",))
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
        cached_tokens=np.where(begins, 0, system + history),
        prefix_of=np.where(begins, -1, rows - 1),
        shared_prefix_tokens=np.full(len(session), system, np.int64),
    )
    if not longest:
        return trace
    too_long = np.cumsum(isl + osl > longest)
    over = too_long - np.repeat((too_long - (isl + osl > longest))[first], turns)
    kept = trace.rows(np.flatnonzero((over == 0) | begins))
    return replace(kept, report=replace(report, requests=len(kept)))


def measured_chats(name: str, system_tokens: int = 0, max_context_tokens: int = 0) -> MeasuredChats:
    """Return conversations like those of a packaged trace of sessions, e.g. ``agentic_claude_code``.

    Raises TraceError where the trace is not known or tells no sessions.
    """
    from factory_sim.inputs.traces import packaged_trace

    trace = packaged_trace(name)
    if trace.depends_on is None or trace.session is None:
        raise TraceError(f"chats.like: '{name}' tells no sessions; agentic_claude_code does")
    trace = trace.rows(np.flatnonzero(trace.agent == 0))
    later = np.flatnonzero(trace.depends_on >= 0)
    earlier = trace.depends_on[later]
    starts = np.flatnonzero(trace.depends_on < 0)
    turns = np.bincount(trace.session)
    grown = np.maximum(trace.isl[later] - trace.isl[earlier] - trace.osl[earlier], 1)
    return MeasuredChats(
        name, turns[trace.session[starts]], trace.isl[starts], trace.osl[starts], grown, trace.osl[later],
        trace.think_time_s[later], system_tokens, max_context_tokens,
    )  # fmt: skip


def chats(spec: Mapping) -> Chats | MeasuredChats:
    """Return conversations as described: ``{lengths: azure2023_conv, mean_turns: 4, think_median_s: 86, think_p90_s:
    1260, system_tokens: 500, max_context_tokens: 128000}``; `lengths` and `mean_turns` are needed. Pauses default to
    the published human wait of TraceLab (median 86 s, 90th percentile about 21 minutes). ``{like:
    agentic_claude_code, system_tokens, max_context_tokens}`` resamples measured sessions. Raises TraceError."""
    known = ("like", "lengths", "mean_turns", "think_median_s", "think_p90_s", "system_tokens", "max_context_tokens")
    if not isinstance(spec, Mapping):
        raise TraceError(f"chats: a mapping with lengths and mean_turns is needed, got {spec!r}")
    for key in spec:
        if key not in known:
            raise TraceError(f"chats: unknown key '{key}'{closest(str(key), known)}")
    whole = {name: spec.get(name, 0) for name in ("system_tokens", "max_context_tokens")}
    for name, value in whole.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise TraceError(f"chats.{name}: a whole number >= 0 is needed, got {value!r}")
    if "like" in spec:
        return measured_chats(str(spec["like"]), **whole)
    median, p90 = published_human_wait_s()
    numbers = {"mean_turns": spec.get("mean_turns"), "think_median_s": spec.get("think_median_s", median)}
    numbers["think_p90_s"] = spec.get("think_p90_s", p90 * numbers["think_median_s"] / median)
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 and np.isfinite(value)):
            raise TraceError(f"chats.{name}: a number above 0 is needed, got {value!r}")
    if numbers["mean_turns"] < 1 or numbers["think_p90_s"] < numbers["think_median_s"]:
        raise TraceError("chats: mean_turns must be at least 1 and think_p90_s at least think_median_s")
    return Chats(length_model(spec.get("lengths")), **{name: float(value) for name, value in numbers.items()}, **whole)


def published_human_wait_s() -> tuple[float, float]:
    """Return the published median and 90th percentile of the pause of a person in coding sessions, seconds
    (TraceLab)."""
    from factory_sim.inputs.workloads import statistics

    rows = statistics("tracelab", "human_wait")
    return rows["p50"].number, rows["p90"].number
