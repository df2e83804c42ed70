"""Traces of requests: read from files in any usual format, mended, counted and told; never any text.

The readers are imported when they are first asked for: a simulation that reads no file does not pay for them.
"""

from importlib import import_module

from factory_sim.inputs.traces.prefixes import infinite_cache_hits, prefix_blocks
from factory_sim.inputs.traces.trace import Trace, TraceReport

_READERS = {
    "RateSeries": "rate_series",
    "ServeGen": "servegen",
    "packaged_rates": "rates",
    "packaged_trace": "packaged",
    "read_rates": "rates",
    "read_servegen": "servegen",
    "read_trace": "read",
}

__all__ = [*_READERS, "Trace", "TraceReport", "infinite_cache_hits", "prefix_blocks"]


def __getattr__(name: str):
    """Import a reader on first use."""
    if name not in _READERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_READERS[name]}"), name)
