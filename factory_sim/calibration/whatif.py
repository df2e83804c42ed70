"""Hardware that nobody measured: the data sheet of the new GPU with the efficiencies of a measured predecessor.

Every physical term is priced at the new GPU's peak (`step_time.facts_at_peak`) and multiplied by what the predecessor
reaches of its own; fixed costs (launches, scheduling) stay. The band is that of a GPU never measured, widened by the
range of what the data sheet itself leaves open (guess rows of the catalogue).
"""

import csv
from dataclasses import replace
from functools import cache
from importlib.resources import files

from factory_sim.errors import ProfileError, closest
from factory_sim.inputs import catalog, profiles
from factory_sim.inputs.parallelism import Layout, parse_parallelism
from factory_sim.model import trust
from factory_sim.model.serving import PRECISIONS, ServingSystem, assemble, worker_keys


@cache
def predecessors() -> dict[str, str]:
    """GPU -> the measured GPU whose efficiencies stand for it (`data/whatif/predecessors.csv`)."""
    with files("factory_sim.data").joinpath("whatif", "predecessors.csv").open(encoding="utf-8", newline="") as file:
        return {row["gpu"]: row["predecessor"] for row in csv.DictReader(file)}


def sheet_range(gpu: str, precision: str) -> tuple[float, float]:
    """Low and high factor on step times that the guesses in a GPU's data sheet leave open.

    The quantities that bound a step (memory bandwidth, dense peak of `precision`) at the ends of their ranges, both at
    once: a band for whatever mix of the two a step is. (1, 1) where all is published.
    """
    name, peak = (
        catalog.gpu(gpu).name,
        {"bf16": "dense_bf16", "fp16": "dense_bf16"}.get(precision, f"dense_{precision}"),
    )
    low, high = 1.0, 1.0
    for fact in catalog.facts():
        if fact.gpu != name or not fact.chosen or fact.quantity not in ("hbm_bandwidth", peak):
            continue
        if fact.value and fact.low and fact.high:
            low, high = min(low, fact.value / fact.high), max(high, fact.value / fact.low)
    return low, high


def whatif_system(
    model: str,
    gpu: str,
    engine: str,
    precision: str,
    parallelism: str | Layout,
    *,
    predecessor: str | None = None,
    speculation: str = "none",
    **settings,
) -> ServingSystem:
    """Return one instance of a model on `gpu` with the efficiencies of `predecessor`, labelled "estimated".

    `predecessor` None takes the table's. `settings` are those of `serving.assemble` (concurrency, max_sequences,
    max_batched_tokens, kv_cache_tokens). Raises ProfileError for a GPU without predecessor, one that was never
    measured, and unknown names; CapacityError where the weights do not fit.
    """
    name = catalog.gpu(gpu).name
    source = catalog.gpu(predecessor).name if predecessor else predecessors().get(name)
    if source is None:
        raise ProfileError(f"GPU '{name}' has no predecessor in the table; name one{closest(name, predecessors())}")
    effects = profiles.effects()
    measured = effects.known("gpu")
    if source not in measured:
        raise ProfileError(f"predecessor '{source}' was never measured{closest(source, measured)}")
    if precision not in PRECISIONS:
        raise ProfileError(f"precision '{precision}' is not known{closest(precision, PRECISIONS)}")
    layout = parallelism if isinstance(parallelism, Layout) else parse_parallelism(parallelism)
    spec, settings_of = catalog.model(model), profiles.engine(engine)
    parameters = {
        worker.role: effects.parameters(
            worker_keys(spec.name, source, settings_of.name, precision, worker, speculation)
        )
        for worker in layout.workers
    }
    system = assemble(
        spec.name, name, settings_of.name, precision, layout, parameters, speculation=speculation, **settings
    )
    band = trust.band("gpu", layout.pooled)
    low, high = sheet_range(name, precision)
    return replace(
        system,
        trust="estimated",
        profile=f"{system.profile}.like.{source}",
        tpot_band=(band.tpot[0] * low, band.tpot[1] * high),
        ttft_band=(band.ttft[0] * low, band.ttft[1] * high),
    )
