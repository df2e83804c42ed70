"""The frontier of a scenario's stages: tokens/s per GPU against tokens/s per user, measured and played."""

import pandas as pd

from factory_sim.calibration.frontier import FrontierStage, frontier
from factory_sim.errors import FactorySimError
from factory_sim.inputs import catalog
from factory_sim.inputs.generation import OutputSlo
from factory_sim.inputs.prices import price_book
from factory_sim.inputs.scenario import Scenario
from factory_sim.inputs.services import Stage


def scenario_frontier(
    scenario: Scenario, service: str, isl: int = 1024, osl: int = 1024
) -> tuple[pd.DataFrame, list[str]]:
    """Measured and played points of every stage of a service, and what could not be shown.

    `isl`, `osl` are the lengths of the benchmark. Points as in `calibration.frontier.frontier`, priced at the newest
    market rent of the GPU. A stage without measured runs of these lengths is named in the notes.
    """
    wanted = scenario.services[service]
    found, notes = [], []
    if isinstance(wanted.slo, OutputSlo):
        return pd.DataFrame(), [f"{service}: {wanted.model} makes no tokens; `profiles show` has its measured batches"]
    for stage in wanted.stages:
        one = _frontier_stage(wanted.model, stage, isl, osl)
        try:
            rent = price_book().find("rental_market", catalog.gpu(stage.system.gpu).name).value
            found.append(frontier([one], {one.gpu: rent}))
        except FactorySimError as error:
            notes.append(str(error))
    return (pd.concat(found, ignore_index=True) if found else pd.DataFrame()), notes


def _frontier_stage(model: str, stage: Stage, isl: int, osl: int) -> FrontierStage:
    system = stage.system
    return FrontierStage(
        name=stage.name,
        model=catalog.model(model).name,
        gpu=catalog.gpu(system.gpu).name,
        engine=system.engine,
        precision=system.precision,
        mode="disagg" if system.parallelism.upper().startswith("P") else "agg",
        parallelism=(system.parallelism,),
        speculation=(system.speculation,),
        isl=isl,
        osl=osl,
    )
