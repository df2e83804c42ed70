"""Traces as a service plays them: read or generated, scaled, their sessions started, and what the reading told."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from factory_sim.errors import FactorySimError, ScenarioError
from factory_sim.inputs.services import Service
from factory_sim.inputs.traces import Trace, TraceReport, packaged_trace, read_trace
from factory_sim.inputs.traces.gather import clock_tick_s
from factory_sim.inputs.workloads import trace_index
from factory_sim.model.workload import (
    chats,
    scale_trace,
    session_starts,
    spread_ticks,
    start_sessions,
    turned,
    with_blocks,
)
from factory_sim.streams import stream


@dataclass(frozen=True)
class FileReport:
    """What was found in a file of requests that a scenario names, and where it names it."""

    key: str
    """Place in the scenario, e.g. services.chat.traffic.trace."""
    report: TraceReport

    def row(self) -> dict:
        """The report as plain values, for the summary of a run."""
        told = self.report
        return {
            "key": self.key,
            "file": told.file,
            "format": told.format,
            "tool": told.tool,
            "requests": told.requests,
            "left_out": dict(told.dropped),
            "repaired": dict(told.repaired),
            "notes": list(told.notes),
        }


def service_trace(seed: int, name: str, service: Service) -> Trace | None:
    """The trace that a service replays, or one draw of its conversations; None where requests are drawn.

    Raises ScenarioError or TraceError that name the place in the scenario.
    """
    where, wanted = f"services.{name}.traffic", service.traffic.trace
    try:
        if service.traffic.chats is not None:
            return _conversations(service, stream(seed, "chats", name))
        if wanted is None:
            return None
        packaged = wanted.path in trace_index() and not Path(wanted.path).exists()
        trace = packaged_trace(wanted.path) if packaged else read_trace(wanted.path)
    except FactorySimError as error:
        at = "trace.path" if wanted else "chats"
        raise type(error)(f"{where}.{at}: {str(error).removeprefix('chats: ')}") from None
    if wanted.first is not None:
        trace = trace.rows(np.arange(min(wanted.first, len(trace))))
    if wanted.requests_per_s is not None and trace.arrival_s is not None:
        raise ScenarioError(
            f"{where}.trace.requests_per_s: {trace.name} tells its own times of arrival; leave it out, or use time_scale "
            "or scale"
        )
    if trace.arrival_s is None and wanted.pacing == "trace" and wanted.requests_per_s is None:
        raise ScenarioError(
            f"{where}.trace: {trace.name} tells no times of arrival; give requests_per_s, set pacing to one_at_a_time, or "
            f"use it as lengths: {{trace: {{path: {wanted.path}}}}} with a demand"
        )
    return _with_notes(trace, wanted)


def _conversations(service: Service, rng: np.random.Generator) -> Trace:
    wanted = service.traffic.chats
    described = wanted.model_dump(exclude={"sessions", "sessions_per_s"}, exclude_none=True)
    return chats(described).draw(rng, wanted.sessions)


def _with_notes(trace: Trace, wanted) -> Trace:
    """The trace whose report also says what the replay takes for granted."""
    notes, tick_s = [], clock_tick_s(trace.arrival_s)
    if wanted.pacing == "trace" and trace.session_relative:
        notes.append(
            f"starts of the {trace.sessions:,} sessions are not in the file: drawn as a Poisson process of "
            f"{wanted.sessions_per_s:g} a second (sessions_per_s)"
        )
    elif wanted.pacing == "trace" and trace.arrival_s is None:
        notes.append(f"no times in the file: a Poisson process of {wanted.requests_per_s:g} a second (requests_per_s)")
    elif wanted.pacing == "trace" and tick_s and wanted.spread_ticks:
        notes.append(f"each request arrives anywhere in the {tick_s:g} s after its time (spread_ticks)")
    report = replace(trace.report, requests=len(trace), notes=(*trace.report.notes, *notes))
    return replace(trace, report=report)


def played_trace(
    seed: int, name: str, service: Service, trace: Trace, replication: int, rng, turn: bool = False
) -> Trace:
    """The trace of one replication: times absolute, scaled, prefixes as blocks where the service has a cache.

    `rng` draws the starts of sessions; the conversations of every replication are drawn anew. `turn`: the trace begins at
    a random moment of its span, what came before it follows its end. Raises ScenarioError.
    """
    wanted, talks, cache = service.traffic.trace, service.traffic.chats, service.prefix_cache
    if talks is not None:
        trace = _conversations(service, stream(seed, "chats", name, f"replication {replication}"))
        sessions_per_s = talks.sessions_per_s
    else:
        own = stream(seed, "trace", name, f"replication {replication}")
        if trace.arrival_s is None and wanted.requests_per_s:
            gaps = own.standard_exponential(len(trace)) / wanted.requests_per_s
            trace = replace(trace, arrival_s=np.cumsum(gaps))
        tick_s = clock_tick_s(trace.arrival_s)
        if tick_s and wanted.spread_ticks and wanted.pacing == "trace" and not trace.session_relative:
            trace = replace(trace, arrival_s=spread_ticks(trace.arrival_s, own, tick_s))
        if turn:
            trace = turned(trace, own)
        sessions_per_s = wanted.sessions_per_s
        if wanted.scale != 1.0:
            try:
                trace = scale_trace(trace, wanted.scale, own, wanted.scale_keeps)
            except FactorySimError as error:
                raise ScenarioError(f"services.{name}.traffic.trace.scale: {error}") from None
            sessions_per_s *= wanted.scale
    if trace.session_relative:
        trace = start_sessions(trace, session_starts(rng, trace.sessions, sessions_per_s))
    if cache is not None:
        trace = with_blocks(trace, cache.block_tokens, share_system_prompts=talks is not None)
    return trace
