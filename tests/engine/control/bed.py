"""A toy factory for tests of control: instances of one GPU each that answer short requests, played in milliseconds."""

import copy
from functools import cache

import numpy as np
import pandas as pd

from factory_sim.engine.load_test import LatencyCurve, load_test
from factory_sim.engine.requests import request_mix
from factory_sim.engine.resolve import ResolvedService, ResolvedStage
from factory_sim.engine.simulate import simulate
from factory_sim.inputs.overrides import parse_scenario
from factory_sim.model.serving import ServingSystem, StepCosts, Worker
from factory_sim.model.workload import burstiness_model, length_model, rate_shape

STAGE = {
    "name": "toy",
    "from_day": 0,
    "gpus": 20,
    "system": {"gpu": "h100", "engine": "trtllm", "precision": "fp8", "parallelism": "tp1pp1ep1dpaFr1"},
    "change": {"kind": "initial", "duration_days": 0},
}
SERVICE = {
    "model": "DeepSeek-R1",
    "slo": {"ttft_p95_s": 5, "tpot_p95_s": 0.05},
    "traffic": {
        "lengths": {"fixed": {"isl": 64, "osl": 32}},
        "demand": {"requests_per_s": 100, "patience_hours": 2},
    },
    "stages": [STAGE],
}
SCENARIO = {
    "name": "toy",
    "seed": 5,
    "start": "2026-07-06T00:00:00+00:00",
    "duration_days": 2,
    "site": {"gpus": 200},
    "services": {"chat": SERVICE},
    "money": {"plans": {"all": {"input_usd_per_million": 1.0, "output_usd_per_million": 4.0}}},
    "simulation": {
        "replications": 1,
        "profile_error": False,
        "sampling": {"window_requests": 200, "window_s": 20, "warmup_s": 2, "hours_per_window": 1000, "sequences_kept": 40,
                     "load_tolerance": 0.3},
    },
}  # fmt: skip


def scenario(changes: dict | None = None, service: dict | None = None, **top):
    """The toy scenario with `changes` to its only service's demand, to the service, and to the whole."""
    raw = copy.deepcopy(SCENARIO)
    raw["services"]["chat"]["traffic"]["demand"] |= changes or {}
    if changes and "load" in changes:
        raw["services"]["chat"]["traffic"]["demand"].pop("requests_per_s")
    raw["services"]["chat"] |= service or {}
    return parse_scenario(raw | copy.deepcopy(top))


def another(**changes) -> dict:
    """One more service, as a mapping."""
    return copy.deepcopy(SERVICE) | changes


@cache
def system(gpus: int = 1, factor: float = 1.0) -> ServingSystem:
    """A system whose step takes 10 ms and a little for each token."""
    base_s = factor * np.concatenate([[0.0], 0.01 + 2e-5 * np.arange(1.0, 400.0)])
    worker = Worker("both", 1, gpus, StepCosts(base_s, 1e-9 * factor, 1e-6 * factor, 0.0), 100_000, 64, 256)
    return ServingSystem(
        f"toy {gpus} {factor}",
        "h100",
        gpus,
        (worker,),
        1.0,
        model="DeepSeek-R1",
        precision="fp8",
        profile="toy",
        trust="measured",
    )


@cache
def curve(gpus: int = 1, factor: float = 1.0) -> LatencyCurve:
    """Its load test."""
    return load_test(
        system(gpus, factor),
        length_model({"fixed": {"isl": 64, "osl": 32}}),
        0.05,
        router="least_outstanding",
        seed=1,
        sequences=40,
    )


def resolved(
    scene, sizes: dict[str, int] | None = None, factors: dict[str, float] | None = None
) -> tuple[ResolvedService, ...]:
    """Every service on toy systems; `sizes` and `factors` by stage name."""
    n, found = scene.simulation.replications, []
    for name, service in scene.services.items():
        stages = []
        for stage in service.stages:
            gpus, factor = (sizes or {}).get(stage.name, 1), (factors or {}).get(stage.name, 1.0)
            stages.append(
                ResolvedStage(
                    stage,
                    system(gpus, factor),
                    stage.gpus // gpus,
                    curve(gpus, factor),
                    np.ones(n),
                    np.ones(n),
                    2.0 / factor,
                )
            )
        demand = service.traffic.demand
        level = demand.requests_per_s or stages[0].instances * stages[0].capacity_per_s(service) * 0.95
        if demand.first_stage_capacity_multiple:
            level *= demand.first_stage_capacity_multiple
        found.append(
            ResolvedService(
                name=name, service=service, lengths=length_model(service.traffic.lengths),
                mix=request_mix(service, length_model(service.traffic.lengths)),
                burstiness=burstiness_model("poisson"), rhythm=rate_shape(demand.rhythm), trace=None,
                stages=tuple(stages), level_per_s=level, forecast_drifts=np.zeros(n),
            )
        )  # fmt: skip
    return tuple(found)


def play(scene, replication: int = 0, sizes=None, factors=None, **options):
    """(windows, events) of one replication."""
    journal = simulate(scene, resolved(scene, sizes, factors), replication, **options)
    events = pd.DataFrame(journal.events, columns=["time_s", "replication", "kind", "subject", "cause", "effect"])
    return pd.DataFrame(journal.windows), events


def same(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Whether two tables hold the same bytes."""
    return first.to_csv(float_format="%r") == second.to_csv(float_format="%r") and first.equals(second)
