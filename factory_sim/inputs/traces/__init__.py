"""Traces of requests: read from files in any usual format, mended, counted and told; never any text."""

from factory_sim.inputs.traces.packaged import packaged_trace
from factory_sim.inputs.traces.rates import RateSeries, packaged_rates, read_rates
from factory_sim.inputs.traces.read import read_trace
from factory_sim.inputs.traces.servegen import ServeGen, read_servegen
from factory_sim.inputs.traces.trace import Trace, TraceReport, infinite_cache_hits

__all__ = [
    "RateSeries",
    "ServeGen",
    "Trace",
    "TraceReport",
    "infinite_cache_hits",
    "packaged_rates",
    "packaged_trace",
    "read_rates",
    "read_servegen",
    "read_trace",
]
