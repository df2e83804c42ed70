"""Playing traces: when their sessions start, what lies between their clock ticks, and more or less of the same
traffic.

Scaling keeps something and gives up something else; the choice is the caller's (`scale_trace`):

``dispersion``
    More or fewer *independent customers*. Up: copies of the trace, each turned round its span by a random time, are
    laid over each other, so variance and mean of counts grow alike: the index of dispersion of counts (IDC) stays,
    relative swings shrink.
    Down: whole customers (tenants, else sessions) are left out, which keeps what each customer's own bursts add. A
    trace without customers is thinned request by request: IDC - 1 shrinks with the factor, and the report says so.
``swings``
    The *same crowd*, larger or smaller: each request becomes a Poisson number of requests within its gap, or is left
    out at random. The relative rate moves as before. Down, IDC - 1 shrinks with the factor; up, the IDC of windows
    longer than a gap becomes 1 + factor * IDC, since the scatter of the trace itself counts as swing.
``gaps``
    The *same requests in another time*: times divided by the factor. Counts per gap keep their law exactly, so the
    IDC of a window w is that of w * factor before; a day is no longer a day.
"""

from dataclasses import replace

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.inputs.traces import Trace, prefix_blocks
from factory_sim.model.workload.arrivals import ArrivalStream

KEEPS = ("dispersion", "swings", "gaps")


def spread_ticks(arrival_s: np.ndarray, rng: np.random.Generator, tick_s: float) -> np.ndarray:
    """Return sorted times in which each request on a tick lies anywhere, uniformly, in the `tick_s` seconds after it.

    For traces whose clock is coarse (Mooncake: 3 s): without it, all requests of a tick arrive together, an artefact.
    """
    return np.sort(arrival_s + rng.random(len(arrival_s)) * tick_s)


def session_starts(rng: np.random.Generator, sessions: int, sessions_per_s: float, burstiness="poisson") -> np.ndarray:
    """Return rising start times of `sessions` sessions, the first at 0: a stated process where a trace tells no
    starts."""
    if sessions_per_s <= 0:
        raise TraceError(f"sessions_per_s: a rate above 0 is needed, got {sessions_per_s}")
    stream, found = ArrivalStream(rng, burstiness, whole_rate_per_s=sessions_per_s), np.empty(0)
    while len(found) < sessions:
        found = np.append(found, stream.take(stream.now_s + max(sessions, 16) / sessions_per_s, sessions_per_s))
    return found[:sessions] - found[:1]


def start_sessions(trace: Trace, starts_s: np.ndarray) -> Trace:
    """Return the trace with absolute times: session k starts at ``starts_s[k]``; rows sorted by time, dependencies
    kept.

    Times within a session stay those of the trace; a closed-loop replay follows ``depends_on`` and ``think_time_s``
    instead and needs the times of requests that wait for none.
    """
    if not trace.session_relative or len(starts_s) < trace.sessions:
        raise TraceError(f"{trace.name}: {trace.sessions} session starts are needed, got {len(starts_s)}")
    moved = replace(
        trace, arrival_s=trace.arrival_s + np.asarray(starts_s, float)[trace.session], session_relative=False
    )
    return moved.rows(np.argsort(moved.arrival_s, kind="stable"))


def with_blocks(trace: Trace, block_tokens: int = 64, share_system_prompts: bool = False) -> Trace:
    """Return the trace with block ids made from its cached prefixes, so that hits become an output (see
    `prefix_blocks`).

    A trace that has ids already, or tells no prefixes, comes back as it is. `share_system_prompts`: sessions whose
    tools and system prompt have the same number of tokens have them alike (assumed), else nothing is shared between
    sessions. Larger blocks need less memory: the 37,679 requests of the agentic trace have 69 million blocks of 64
    tokens, 8.7 million of 512.
    """
    if trace.block_ids is not None or trace.prefix_of is None:
        return trace
    common = trace.shared_prefix_tokens if share_system_prompts else None
    offsets, ids = prefix_blocks(trace.isl, trace.cached_tokens, trace.prefix_of, block_tokens, common)
    return replace(trace, block_tokens=block_tokens, block_offsets=offsets, block_ids=ids)


def request_arrays(trace: Trace, closed_loop: bool = True) -> dict[str, np.ndarray]:
    """Return the arrays of a trace under the names of the kernel's `Requests` (``Requests(**arrays)``), times
    absolute.

    With `closed_loop` a request that waits for an answer arrives its pause after that answer, else at the time of the
    trace. Raises TraceError when the trace has no absolute times (`session_starts` and `start_sessions` give them).
    """
    if trace.arrival_s is None or trace.session_relative:
        raise TraceError(f"{trace.name}: has no absolute times of arrival; start its sessions or draw arrivals first")
    found = {"arrival_s": trace.arrival_s, "isl": trace.isl, "osl": trace.osl}
    if trace.session is not None:
        found["session"] = trace.session
    if closed_loop and trace.depends_on is not None:
        found |= {"after": trace.depends_on, "think_s": trace.think_time_s}
    if trace.reasoning_tokens is not None:
        found["reasoning_tokens"] = np.clip(trace.reasoning_tokens, 0, trace.osl - 1)
    if trace.block_ids is not None:
        found |= {"block_ids": trace.block_ids, "block_starts": trace.block_offsets}
    return found


def scale_trace(trace: Trace, factor: float, rng: np.random.Generator, keep: str = "dispersion") -> Trace:
    """Return `factor` times the traffic of a trace over the same span, keeping what `keep` names (module docstring).

    Copies of a customer have prompts of their own (block ids, tenants and sessions are renumbered). Raises TraceError.
    """
    if not (np.isfinite(factor) and factor > 0):
        raise TraceError(f"factor: a number above 0 is needed, got {factor}")
    if keep not in KEEPS:
        raise TraceError(f"keep: one of {', '.join(KEEPS)} is needed, got {keep!r}")
    if keep == "gaps":
        if trace.arrival_s is None or trace.session_relative:
            raise TraceError(f"{trace.name}: only a trace of absolute times can be played faster or slower")
        return _noted(replace(trace, arrival_s=trace.arrival_s / factor), f"times divided by {factor:g}")
    if keep == "swings":
        return _crowd(trace, factor, rng)
    parts = [turned(trace, rng) if k else trace for k in range(int(factor))]
    rest = factor - int(factor)
    note = f"{int(factor)} copies turned round the span" if int(factor) > 1 else ""
    if rest > 0:
        part, how = _fewer(turned(trace, rng) if parts else trace, rest, rng)
        parts.append(part)
        note = " and ".join(filter(None, [note, how]))
    return _noted(_laid_over(parts), f"scaled by {factor:g}: {note}" if note else "not scaled")


def _noted(trace: Trace, note: str) -> Trace:
    report = replace(trace.report, requests=len(trace), notes=(*trace.report.notes, note))
    return replace(trace, report=report)


def turned(trace: Trace, rng: np.random.Generator) -> Trace:
    """Return the trace from a random moment on, its beginning put after its end; sessions that tell no start stay as they
    are."""
    if trace.arrival_s is None or trace.session_relative or trace.span_s == 0 or len(trace) < 2:
        return trace
    span_s = trace.span_s * len(trace) / (len(trace) - 1)
    arrival_s = (trace.arrival_s + rng.random() * span_s) % span_s
    moved = replace(trace, arrival_s=arrival_s).rows(np.argsort(arrival_s, kind="stable"))
    row = np.arange(len(moved))  # where the cut goes through a session, its later part waits for nothing
    links = {name: getattr(moved, name) for name in ("depends_on", "prefix_of") if getattr(moved, name) is not None}
    return replace(moved, **{name: np.where(values < row, values, -1) for name, values in links.items()})


def _fewer(trace: Trace, share: float, rng: np.random.Generator) -> tuple[Trace, str]:
    """Leave out whole customers until about `share` of the requests is left; single requests where there are none."""
    label, what = (trace.tenant, "tenants") if trace.tenant is not None else (trace.session, "sessions")
    if label is None or np.all(label < 0):
        kept = np.flatnonzero(rng.random(len(trace)) < share)
        return trace.rows(
            kept
        ), "single requests left out at random (no customers in the trace): dispersion shrinks towards 1"
    count = int(label.max()) + 1
    chosen = rng.permutation(count)
    sizes = np.bincount(label[label >= 0], minlength=count)[chosen]
    before = np.cumsum(sizes) - sizes
    use = np.zeros(count + 1, bool)
    use[chosen] = before + sizes / 2 <= share * sizes.sum()
    kept = np.flatnonzero(use[label])
    return trace.rows(kept), f"{int(use.sum())} of {count} {what} kept whole"


def _crowd(trace: Trace, factor: float, rng: np.random.Generator) -> Trace:
    """Each request a Poisson number of times near its own time; below 1, or in sessions, random thinning of whole
    rows."""
    if factor < 1:
        kept = np.flatnonzero(rng.random(len(trace)) < factor)
        return _noted(trace.rows(kept), f"single requests left out at random: {factor:g} of them kept")
    if trace.arrival_s is None or trace.session_relative or trace.depends_on is not None:
        raise TraceError(
            f"{trace.name}: a crowd cannot be made of sessions that wait for answers; keep='dispersion' copies them"
        )
    times = rng.poisson(factor, len(trace))
    rows = np.repeat(np.arange(len(trace)), times)
    copy = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    gap = np.diff(trace.arrival_s, append=trace.arrival_s[-1])
    many = trace.rows(rows)
    if many.block_ids is not None:
        _, width = _id_range(trace)
        many = replace(many, block_ids=many.block_ids + np.repeat(copy, np.diff(many.block_offsets)) * width)
    arrival_s = many.arrival_s + rng.random(len(rows)) * gap[rows]
    many = replace(many, arrival_s=arrival_s).rows(np.argsort(arrival_s, kind="stable"))
    return _noted(many, f"each request drawn {factor:g} times on average, within its gap")


def _id_range(trace: Trace) -> tuple[int, int]:
    """Return the least block id and the width of the range of ids."""
    low = min(int(trace.block_ids.min(initial=0)), 0)
    return low, int(trace.block_ids.max(initial=0)) - low + 1


def _laid_over(parts: list[Trace]) -> Trace:
    """Several traces of the same columns as one, customers and blocks renumbered, in order of time."""
    if len(parts) == 1:
        return parts[0]
    from factory_sim.inputs.traces.trace import ROW_ARRAYS

    first, changes = parts[0], {}
    shifts = {name: 0 for name in ("session", "tenant", "depends_on", "prefix_of")}
    collected: dict[str, list[np.ndarray]] = {name: [] for name in ROW_ARRAYS if getattr(first, name) is not None}
    for part in parts:
        for name, found in collected.items():
            values = getattr(part, name)
            found.append(np.where(values >= 0, values + shifts[name], values) if name in shifts else values)
        for name in ("session", "tenant"):
            if name in collected:
                shifts[name] += int(getattr(part, name).max(initial=-1)) + 1
        shifts["depends_on"] = shifts["prefix_of"] = shifts["depends_on"] + len(part)
    changes = {name: np.concatenate(found) for name, found in collected.items()}
    if first.block_ids is not None:
        _, width = _id_range(first)
        ids = [part.block_ids + k * width for k, part in enumerate(parts)]
        counts = np.concatenate([np.diff(part.block_offsets) for part in parts])
        changes |= {"block_ids": np.concatenate(ids), "block_offsets": np.concatenate([[0], np.cumsum(counts)])}
    whole = replace(first, **changes)
    if whole.arrival_s is None or whole.session_relative:
        return whole
    return whole.rows(np.argsort(whole.arrival_s, kind="stable"))
