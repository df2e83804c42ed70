"""The traces that ship with the package, as `Trace`."""

from dataclasses import replace

from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.traces import gather, sessions
from factory_sim.inputs.traces.trace import ROW_ARRAYS, Trace, TraceReport
from factory_sim.inputs.workloads import packaged_columns, trace_index

MOONCAKE_BLOCK_TOKENS = 512
"""Tokens of a block of Mooncake's hashes (its README)."""


def packaged_trace(name: str) -> Trace:
    """Return a packaged trace by name, e.g. ``mooncake_conversation``, as `read_trace` would from its file.

    Raises TraceError if the name is not known.
    """
    columns = {key: values.copy() for key, values in packaged_columns(name).items()}
    row = trace_index()[name]
    complaints = Complaints()
    keep = gather.clean_lengths(columns, complaints, name)
    turn = columns.pop("turn", None)
    if "api_time_s" in columns:
        columns["e2e_s"] = columns.pop("api_time_s")
    blocks = MOONCAKE_BLOCK_TOKENS if "block_ids" in columns else 0
    empty = TraceReport(name, row["source"], len(keep))
    trace = Trace(name, report=empty, block_tokens=blocks, **columns)
    trace = trace.rows(keep) if len(keep) < len(trace) else trace
    if trace.session is not None:
        known = {key: getattr(trace, key) for key in ROW_ARRAYS if getattr(trace, key) is not None}
        order = sessions.settle(known, turn, complaints)
        trace = replace(trace.rows(order), session_relative=True, **known)
    notes = gather.tie_notes(None if trace.session_relative else trace.arrival_s)
    return replace(trace, report=gather.report(name, row["source"], len(trace), complaints, notes))
