"""The highest load that keeps the promise, by simulation: for one replica and for the fleet of every stage."""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from factory_sim.engine.load_test import load_test
from factory_sim.engine.outputs import MAKES_TOKENS
from factory_sim.engine.requests import alone, scheduling_options
from factory_sim.engine.resolve import ResolvedService, ResolvedStage, resolve
from factory_sim.engine.threads import side_by_side
from factory_sim.errors import CapacityError
from factory_sim.inputs.generation import OutputSlo
from factory_sim.inputs.scenario import Scenario
from factory_sim.studies.trace_capacity import trace_load

CONFIDENCE = 0.95


def capacity(scenario: Scenario, tests: int = 5) -> pd.DataFrame:
    """Capacity within the promise of every service and stage of a scenario.

    Every stage is load-tested `tests` times with independent arrivals and lengths, warm-up dropped. One row a stage:
    service, stage, profile, trust, gpu, gpus_per_instance, instances, requests_per_s (mean over tests, one instance),
    ci_low, ci_high (95 % confidence of that mean: sampling), band_low, band_high (P10, P90 under the profile's error),
    output_tokens_per_s_per_gpu, fleet_requests_per_s, fleet_output_tokens_per_s (none of images and videos, of which a
    request is one), limited_by (ttft, tpot, time_to_output, or "queue": beyond it the number in the system keeps
    growing), requests_played.

    Of a replayed trace, or of conversations, the load is that of the same requests coming faster or slower, over all
    instances of the stage with their caches. Raises CapacityError where no load keeps the promise.
    """
    if tests < 2:
        raise CapacityError(f"tests: a confidence interval needs at least 2 load tests, got {tests}")
    jobs = [(service, stage) for service in resolve(scenario) for stage in service.fleets]
    return pd.DataFrame(side_by_side(lambda job: _row(scenario, *job, tests), jobs))


def _row(scenario: Scenario, service: ResolvedService, stage: ResolvedStage, tests: int) -> dict:
    """One row of the table: a load test of drawn requests, or of the trace or conversations that the service plays."""
    measure = _drawn if service.trace is None else _traced
    found, band, tokens, limited_by, played = measure(scenario, service, stage, tests)
    mean, system = float(found.mean()), stage.system
    half = float(stdtrit(tests - 1, 0.5 + CONFIDENCE / 2) * found.std(ddof=1) / np.sqrt(tests))
    return {
        "service": service.name,
        "stage": stage.stage.name,
        "profile": system.profile,
        "trust": system.trust,
        "gpu": system.gpu,
        "gpus_per_instance": system.gpus,
        "instances": stage.instances,
        "requests_per_s": mean,
        "ci_low": max(mean - half, 0.0),
        "ci_high": mean + half,
        "band_low": mean * band[0],
        "band_high": mean * band[1],
        "output_tokens_per_s_per_gpu": mean * tokens / system.gpus,
        "fleet_requests_per_s": mean * stage.instances,
        "fleet_output_tokens_per_s": mean * tokens * stage.instances,
        "limited_by": limited_by,
        "requests_played": played,
    }


_Measured = tuple[np.ndarray, tuple[float, float], float, str, int]
"""Requests/s at one instance by test, their band over the first of them under the profile's error (P10, P90), output
tokens of a request, what limits, requests played."""


def _drawn(scenario: Scenario, service: ResolvedService, stage: ResolvedStage, tests: int) -> _Measured:
    """Load tests of one instance with drawn requests."""
    slo, system = service.service.slo, stage.system
    curves = [stage.curve] + [
        load_test(
            system, service.lengths, slo.tpot_p95_s, router=alone(service.service.router), seed=seed,
            mix=service.mix, options=scheduling_options(service.service), instances=stage.instances,
        )
        for seed in range(scenario.seed + 1, scenario.seed + tests)
    ]  # fmt: skip
    found = np.array([curve.capacity_per_s(slo.ttft_p95_s, slo.tpot_p95_s) for curve in curves])
    low, high = (
        curves[0].capacity_per_s(slo.ttft_p95_s, slo.tpot_p95_s, f) / found[0] for f in reversed(system.tpot_band)
    )
    tokens = float("nan")
    if service.makes == MAKES_TOKENS:
        lengths, let_in = service.mix.let_in(system.max_context_tokens)
        tokens = let_in * lengths.mean_osl
    played = sum(curve.requests_played for curve in curves)
    return found, (low, high), tokens, _limit(curves[0], slo, found[0]), played


def _traced(scenario: Scenario, service: ResolvedService, stage: ResolvedStage, tests: int) -> _Measured:
    """The whole stage under the requests of its trace, or its conversations, faster and slower."""
    loads = [trace_load(scenario, service, stage, 0)]
    loads += [trace_load(scenario, service, stage, test, start=loads[0].multiple) for test in range(1, tests)]
    band = []
    for slowdown in reversed(stage.system.tpot_band):
        try:
            other = trace_load(scenario, service, stage, 0, slowdown, start=max(loads[0].multiple / slowdown, 1e-3))
            band.append(other.requests_per_s / loads[0].requests_per_s)
        except CapacityError:
            band.append(0.0)
    fits = service.trace.isl + service.trace.osl <= stage.system.max_context_tokens
    tokens = float(np.where(fits, service.trace.osl, 0).mean())
    found = np.array([load.requests_per_s for load in loads]) / stage.instances
    return found, (band[0], band[1]), tokens, loads[0].limited_by, sum(load.requests_played for load in loads)


def _limit(curve, slo, capacity_per_s: float) -> str:
    """Which promise binds at the capacity."""
    loose = 1e9
    by_ttft = curve.capacity_per_s(slo.ttft_p95_s, loose)
    by_tpot = curve.capacity_per_s(loose, slo.tpot_p95_s)
    if capacity_per_s >= curve.capacity_per_s(loose, loose):
        return "queue"
    if isinstance(slo, OutputSlo):
        return "time_to_output"
    return "ttft" if by_ttft < by_tpot else "tpot"
