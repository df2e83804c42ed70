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

CONFIDENCE = 0.95


def capacity(scenario: Scenario, tests: int = 5) -> pd.DataFrame:
    """Capacity within the promise of every service and stage of a scenario.

    Every stage is load-tested `tests` times with independent arrivals and lengths, warm-up dropped. One row a stage:
    service, stage, profile, trust, gpu, gpus_per_instance, instances, requests_per_s (mean over tests, one instance),
    ci_low, ci_high (95 % confidence of that mean: sampling), band_low, band_high (P10, P90 under the profile's error),
    output_tokens_per_s_per_gpu, fleet_requests_per_s, fleet_output_tokens_per_s (none of images and videos, of which a
    request is one), limited_by (ttft, tpot, time_to_output, or "queue": beyond it the number in the system keeps
    growing), requests_played.

    Raises CapacityError where no load keeps the promise.
    """
    if tests < 2:
        raise CapacityError(f"tests: a confidence interval needs at least 2 load tests, got {tests}")
    jobs = [(service, stage) for service in resolve(scenario) for stage in service.fleets]
    return pd.DataFrame(side_by_side(lambda job: _row(scenario, *job, tests), jobs))


def _row(scenario: Scenario, service: ResolvedService, stage: ResolvedStage, tests: int) -> dict:
    slo, system = service.service.slo, stage.system
    seeds = range(scenario.seed, scenario.seed + tests)
    curves = [stage.curve] + [
        load_test(
            system, service.lengths, slo.tpot_p95_s, router=alone(service.service.router), seed=seed,
            mix=service.mix, options=scheduling_options(service.service),
        )
        for seed in seeds[1:]
    ]
    found = np.array([curve.capacity_per_s(slo.ttft_p95_s, slo.tpot_p95_s) for curve in curves])
    mean = float(found.mean())
    half = float(stdtrit(tests - 1, 0.5 + CONFIDENCE / 2) * found.std(ddof=1) / np.sqrt(tests))
    ratio = [curves[0].capacity_per_s(slo.ttft_p95_s, slo.tpot_p95_s, f) / found[0] for f in reversed(system.tpot_band)]
    tokens = float("nan")
    if service.makes == MAKES_TOKENS:
        lengths, let_in = service.mix.let_in(system.max_context_tokens)
        tokens = mean * let_in * lengths.mean_osl
    return {
        "service": service.name,
        "stage": stage.stage.name,
        "profile": system.profile,
        "trust": system.trust,
        "gpu": system.gpu,
        "gpus_per_instance": system.gpus,
        "instances": stage.instances,
        "requests_per_s": mean,
        "ci_low": mean - half,
        "ci_high": mean + half,
        "band_low": mean * ratio[0],
        "band_high": mean * ratio[1],
        "output_tokens_per_s_per_gpu": tokens / system.gpus,
        "fleet_requests_per_s": mean * stage.instances,
        "fleet_output_tokens_per_s": tokens * stage.instances,
        "limited_by": _limit(curves[0], slo, found[0]),
        "requests_played": sum(curve.requests_played for curve in curves),
    }


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
