"""The ladder of trust: how far a question lies from what was measured, and what error that distance has had.

Rungs, from near to far: `measured` (this configuration at this load and these lengths), `interpolated` (this
configuration, inside its measured range), `load` (this configuration, outside its range), `parallelism` (this model on
this GPU, another layout, engine or precision), `model_gpu` (model and GPU both measured, not together), `family` (a
model never measured), `gpu` (a GPU never measured). All from `load` to `family` are called extrapolated, `gpu`
estimated: roofline and peers only. The band of a rung comes from rows that were left out in the same way.
"""

from functools import cache
from pathlib import Path

from factory_sim.inputs import profiles
from factory_sim.inputs.parallelism import Layout

RUNGS = {
    "measured": "measured",
    "interpolated": "interpolated",
    "load": "extrapolated",
    "parallelism": "extrapolated",
    "model_gpu": "extrapolated",
    "family": "extrapolated",
    "gpu": "estimated",
}
"""Rung -> class of trust."""
LENGTHS_REACH = 1.5
"""Mean lengths of a workload this close to measured ones count as measured: step times are physical in the lengths."""


def layout_name(layout: Layout) -> str:
    """Workers of an instance as text: `tp8`, `3xdep4-4xdep8`."""
    if not layout.pooled:
        return layout.workers[0].name
    return "-".join(f"{worker.count}x{worker.name}" for worker in layout.workers)


@cache
def _known(folder: Path | None):
    groups = profiles.groups(folder)
    by_configuration: dict[tuple[str, ...], list[profiles.Group]] = {}
    for group in groups:
        key = (group.model, group.gpu, group.engine, group.precision, group.layout, group.speculation)
        by_configuration.setdefault(key, []).append(group)
    return (
        by_configuration,
        {(group.model, group.gpu, group.mode) for group in groups},
        {group.model for group in groups},
        {group.gpu for group in groups},
    )


def rung(
    model: str,
    gpu: str,
    engine: str,
    precision: str,
    layout: Layout,
    speculation: str,
    load: tuple[float, float, float] | None = None,
    folder: Path | None = None,
) -> str:
    """Return the rung of a question; `load` is (isl, osl, requests in flight on one instance) if it is about one.

    Inside the range of a configuration: between its lowest and highest load, of more than one measured, with mean
    lengths that lie within a factor `LENGTHS_REACH` of measured ones.
    """
    configurations, pairs, models, gpus = _known(folder)
    here = configurations.get((model, gpu, engine, precision, layout_name(layout), speculation))
    if here:
        if load is None:
            return "interpolated"
        if any(point == load for group in here for point in group.points):
            return "measured"
        return "interpolated" if any(_inside(group, *load) for group in here) else "load"
    if (model, gpu, "disagg" if layout.pooled else "agg") in pairs:
        return "parallelism"
    if gpu not in gpus:
        return "gpu"
    return "model_gpu" if model in models else "family"


def _inside(group: profiles.Group, isl: float, osl: float, in_flight: float) -> bool:
    lengths = all(
        low / LENGTHS_REACH <= value <= high * LENGTHS_REACH for value, (low, high) in [(isl, group.isl), (osl, group.osl)]
    )
    return lengths and len(group.points) > 1 and group.concurrency[0] <= in_flight <= group.concurrency[1]


def band(rung_name: str, pooled: bool, folder: Path | None = None) -> profiles.Band:
    """Return the band of a rung for aggregated or disaggregated systems."""
    return profiles.bands(folder)[(rung_name, "disagg" if pooled else "agg")]
