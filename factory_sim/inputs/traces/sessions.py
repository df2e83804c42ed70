"""Sessions: which request waits for which answer, how long people and tools think, which prompt continues which."""

from dataclasses import replace

import numpy as np

from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.traces.trace import Trace


def settle(arrays: dict[str, np.ndarray], turn: np.ndarray | None, complaints: Complaints) -> np.ndarray:
    """Put the columns of a session trace, in place, in order of session and time, with dependencies, pauses and
    prefixes.

    Needs ``session``, ``isl``, ``arrival_s`` (from the session's start); uses ``agent``, ``think_time_s``, ``e2e_s``
    and ``cached_tokens`` where they are. Within an agent requests follow their turns (else their times, else their
    rows); times that go back are raised to the one before. An agent's request waits for the one before it; the first
    of a sub-agent waits for the last request that the main agent sent no later. Adds ``depends_on``, ``think_time_s``,
    ``prefix_of``; tells what was repaired. Returns the order: the row of the input at each place of the output.
    """
    n = len(arrays["isl"])
    agent = np.maximum(arrays.get("agent", np.zeros(n, np.int64)), 0)
    arrays["agent"], arrays["row"] = agent, np.arange(n)
    arrays["arrival_s"] = np.nan_to_num(arrays.get("arrival_s", np.zeros(n)), nan=0.0)
    session = arrays["session"]
    earlier = (np.diff(session) == 0) & (np.diff(agent) != 0) & (np.diff(arrays["arrival_s"]) < 0)
    if earlier.any():
        places = int(earlier.sum())
        kind = "repaired, times go back within a session from one agent to another: sorted by time"
        complaints.add(kind, f"{places} places", places)
    order = np.lexsort((np.arange(n), arrays["arrival_s"] if turn is None else turn, agent, session))
    if turn is not None:
        back = int(np.sum((np.diff(session) == 0) & (np.diff(agent) == 0) & (np.diff(turn) < 0)))
        if back:
            complaints.add("repaired, turns out of order within an agent: sorted by turn", f"{back} places", back)
    _take(arrays, order)
    session, agent = arrays["session"], arrays["agent"]
    follows = np.concatenate([[False], (np.diff(session) == 0) & (np.diff(agent) == 0)]) if n else np.zeros(0, bool)
    _raise_times(arrays, follows, complaints)
    _cached(arrays, follows, complaints)
    arrays["depends_on"] = np.where(follows, np.arange(n) - 1, -1)
    _sub_agents(arrays, follows)
    _pauses(arrays, follows, complaints)
    _take(arrays, np.lexsort((np.arange(n), arrays["agent"], arrays["arrival_s"], session)))
    return arrays.pop("row")


def _take(arrays: dict[str, np.ndarray], order: np.ndarray) -> None:
    place = np.full(len(order) + 1, -1, np.int64)
    place[order] = np.arange(len(order))
    for name, values in arrays.items():
        arrays[name] = values[order]
    for name in ("depends_on", "prefix_of"):
        if name in arrays:
            arrays[name] = place[arrays[name]]


def _raise_times(arrays, follows: np.ndarray, complaints: Complaints) -> None:
    times = arrays["arrival_s"]
    early = follows & (times < np.concatenate([[-np.inf], times[:-1]]))
    if not early.any():
        return
    group = np.cumsum(~follows)
    raised = times.copy()
    for number in np.unique(group[early]):
        rows = np.flatnonzero(group == number)
        raised[rows] = np.maximum.accumulate(times[rows])
    moved = int(np.sum(raised != times))
    complaints.add("repaired, times go back within a session: raised to the time before", f"{moved} requests", moved)
    arrays["arrival_s"] = raised


def _cached(arrays, follows: np.ndarray, complaints: Complaints) -> None:
    """Check cached prefixes and find, for each, the latest earlier request of the agent that is long enough."""
    cached = arrays.get("cached_tokens")
    if cached is None or "prefix_of" in arrays:
        return
    isl = arrays["isl"]
    bad = (cached > isl) | (cached < 0)
    if bad.any():
        complaints.add(
            "repaired, cached tokens outside the prompt: cut to it", f"{int(bad.sum())} requests", int(bad.sum())
        )
        cached = np.clip(cached, 0, isl)
    source = np.full(len(isl), -1, np.int64)
    stack: list[int] = []  # earlier rows of this agent, each longer than all after it
    unknown = 0
    lengths, wanted, continues = isl.tolist(), cached.tolist(), follows.tolist()
    for row in range(len(lengths)):
        if not continues[row]:
            stack.clear()
        if wanted[row]:
            at = len(stack) - 1
            while at >= 0 and lengths[stack[at]] < wanted[row]:
                at -= 1
            if at >= 0:
                source[row] = stack[at]
            else:
                unknown += 1
                wanted[row] = lengths[stack[0]] if stack else 0
                source[row] = stack[0] if stack else -1
        while stack and lengths[stack[-1]] <= lengths[row]:
            stack.pop()
        stack.append(row)
    if unknown:
        complaints.add(
            "repaired, cached tokens beyond every earlier prompt of the agent: cut to the longest",
            f"{unknown} requests",
            unknown,
        )
    arrays["cached_tokens"], arrays["prefix_of"] = np.array(wanted, np.int64), source


def _sub_agents(arrays, follows: np.ndarray) -> None:
    session, agent, times = arrays["session"], arrays["agent"], arrays["arrival_s"]
    for row in np.flatnonzero(~follows & (agent > 0)):
        first = int(np.searchsorted(session, session[row]))
        main = first + np.flatnonzero(agent[first:row] == 0)
        if len(main):
            at = int(np.searchsorted(times[main], times[row], side="right")) - 1
            if at >= 0:
                arrays["depends_on"][row] = main[at]


def _pauses(arrays, follows: np.ndarray, complaints: Complaints) -> None:
    """Fill pauses: as told, else the gap between requests less the measured time of the earlier one."""
    n, times, waits_for = len(follows), arrays["arrival_s"], arrays["depends_on"]
    told = arrays.get("think_time_s", np.full(n, np.nan)).copy()
    negative = told < 0
    if negative.any():
        complaints.add(
            "repaired, negative think time: taken as missing", f"{int(negative.sum())} requests", int(negative.sum())
        )
        told[negative] = np.nan
    served = arrays.get("e2e_s", np.full(n, np.nan))
    typical = float(np.nanmedian(served)) if np.isfinite(served).any() else 0.0
    earlier = np.where(waits_for >= 0, waits_for, 0)
    unmeasured = ~np.isfinite(served[earlier])
    gap = np.maximum(times - times[earlier] - np.where(unmeasured, typical, served[earlier]), 0.0)
    missing = follows & ~np.isfinite(told)
    if missing.any():
        complaints.add(
            "repaired, no think time: gap to the request before, less its measured (or the median) time",
            f"{int(missing.sum())} requests",
            int(missing.sum()),
        )
    pause = np.where(follows & np.isfinite(told), told, gap)
    arrays["think_time_s"] = np.where(waits_for >= 0, pause, 0.0)


def chain(trace: Trace) -> Trace:
    """Return a trace of absolute times in which each request with a think time waits for the one before it in its
    session."""
    order = np.lexsort((np.arange(len(trace)), trace.session))
    follows = np.concatenate([[False], np.diff(trace.session[order]) == 0]) & (trace.session[order] >= 0)
    depends_on = np.full(len(trace), -1, np.int64)
    depends_on[order[1:]] = np.where(follows[1:], order[:-1], -1)
    depends_on[~np.isfinite(trace.think_time_s)] = -1
    pause = np.where(depends_on >= 0, np.maximum(np.nan_to_num(trace.think_time_s), 0.0), 0.0)
    return replace(trace, depends_on=depends_on, think_time_s=pause)
