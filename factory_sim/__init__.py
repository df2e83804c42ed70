"""Token economics of AI factories: what a million tokens cost, how fast they arrive and what they earn.

>>> from factory_sim import load_scenario, run, compare      # doctest: +SKIP
>>> result = run(load_scenario("scenarios/twenty-x.yaml"))   # doctest: +SKIP
>>> result.figures                                           # doctest: +SKIP
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "Run": "results.run",
    "Scenario": "inputs.scenario",
    "compare": "studies.compare",
    "load_scenario": "inputs.overrides",
    "parse_scenario": "inputs.overrides",
    "read_run": "results.store",
    "run": "results.run",
    "waterfall": "studies.waterfall",
    "write_run": "results.store",
}
"""Public name -> module; imported when first asked for, so that the command line starts quickly."""

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'factory_sim' has no attribute {name!r}")
    return getattr(import_module(f"factory_sim.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
