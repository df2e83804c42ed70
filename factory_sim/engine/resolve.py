"""Load once, resolve every reference: a scenario becomes systems, length models, rhythms and load-test curves."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from factory_sim.engine.filled_pool import FilledPool
from factory_sim.engine.job_test import job_fill
from factory_sim.engine.journal import Journal
from factory_sim.engine.kernel.router import ROUTERS
from factory_sim.engine.load_test import LatencyCurve, load_test
from factory_sim.engine.outputs import check_engine, makes, one_output, planned_outputs
from factory_sim.engine.requests import alone, request_mix, scheduling_options
from factory_sim.engine.threads import side_by_side
from factory_sim.engine.traces import FileReport, service_trace
from factory_sim.errors import CapacityError, FactorySimError, ScenarioError, closest
from factory_sim.inputs import catalog
from factory_sim.inputs.generation import DiffusionSystem, OutputSlo
from factory_sim.inputs.prices import price_book
from factory_sim.inputs.scenario import Sampling, Scenario
from factory_sim.inputs.services import Instances, Service, Stage, System
from factory_sim.inputs.traces import Trace
from factory_sim.model.anchors import anchored
from factory_sim.model.rank_balance import with_uneven_ranks
from factory_sim.model.serving import ServingSystem, serving_system
from factory_sim.model.workload import (
    GENERATED,
    Burstiness,
    LengthModel,
    RateShape,
    RequestMix,
    burstiness_model,
    empirical,
    length_model,
    rate_shape,
)
from factory_sim.streams import stream

Z90 = 1.2815515655446004
"""Standard normal deviate of the 90th percentile."""


@dataclass(frozen=True)
class ResolvedStage:
    """A stage with its serving system and what a load test says of it."""

    stage: Instances
    system: ServingSystem
    instances: int
    curve: LatencyCurve | None
    """Latency against load; None where a trace is replayed at its own pace."""
    slowdowns: np.ndarray
    """Factor on all step times in each replication (systematic error of the profile), shape (replications,)."""
    ttft_errors: np.ndarray
    """Factor on TTFT beyond the step times in each replication, shape (replications,)."""
    rent_usd_per_gpu_hour: float
    """Newest market rent, by which prices that follow cost are indexed; NaN where they are held."""
    job_fill: float = 0.0
    """Requests up to which batch jobs fill an instance, over those it holds at its tested capacity."""

    def capacity_per_s(self, service: Service, replication: int | None = None) -> float:
        """Requests/s that one instance serves within the promise, nominal or in one replication."""
        slowdown = 1.0 if replication is None else float(self.slowdowns[replication])
        return self.curve.capacity_per_s(service.slo.ttft_p95_s, service.slo.tpot_p95_s, slowdown)


@dataclass(frozen=True)
class ResolvedService:
    """A service with all its references resolved."""

    name: str
    service: Service
    lengths: LengthModel
    """Lengths as they arrive, reasoning included."""
    mix: RequestMix
    """How requests are drawn."""
    burstiness: Burstiness
    rhythm: RateShape
    trace: Trace | None
    """Requests to replay, if any."""
    stages: tuple[ResolvedStage, ...]
    level_per_s: float
    """Mean latent demand at the start, requests/s over the whole factory; the same in every replication."""
    forecast_drifts: np.ndarray
    """Drift of log demand a week in each replication."""
    job_lengths: LengthModel | None = None
    """Lengths of batch jobs, if there are any."""
    files: tuple[FileReport, ...] = ()
    """What was found in the files of requests that the service names."""
    beside: tuple[ResolvedStage, ...] = ()
    """Instances of other systems that serve all the time beside the stages."""

    @property
    def fleets(self) -> tuple[ResolvedStage, ...]:
        """The stages, and what stands beside them."""
        return self.stages + self.beside

    @property
    def makes(self) -> str:
        """What it makes: "tokens", "images" or "videos"."""
        return makes(self.stages[0].system)


def resolve(scenario: Scenario) -> tuple[ResolvedService, ...]:
    """Resolve every service; raises ScenarioError or CapacityError naming the place in the scenario."""
    return tuple(_service(scenario, name, service) for name, service in scenario.services.items())


def _service(scenario: Scenario, name: str, service: Service) -> ResolvedService:
    where = f"services.{name}"
    if service.router not in ROUTERS:
        raise ScenarioError(f"{where}.router: '{service.router}' is not known{closest(service.router, ROUTERS)}")
    if service.router == "cost_aware" and not service.beside:
        raise ScenarioError(
            f"{where}.router: cost_aware chooses between kinds of instances; those of a stage are all alike, so `beside` or "
            "another router is needed, e.g. least_outstanding"
        )
    thinned = service.traffic.requests is None and scenario.simulation.sampling.mode == "thinned"
    if service.router == "session_affinity" and service.traffic.clients is not None and thinned:
        raise ScenarioError(
            f"{where}.traffic.clients: a client that session_affinity keeps at one instance would weigh more in a thinned "
            "fleet than in the whole one; set traffic.requests or simulation.sampling.mode: whole, or another router"
        )
    trace = service_trace(scenario.seed, name, service)
    try:
        lengths = _lengths(service, trace)
    except FactorySimError as error:
        raise ScenarioError(f"{where}.traffic.lengths: {str(error).removeprefix('lengths: ')}") from None
    try:
        mix = request_mix(service, lengths)
    except FactorySimError as error:
        raise ScenarioError(f"{where}.traffic: {error}") from None
    lengths = mix.served_lengths
    try:
        burstiness = burstiness_model(service.traffic.arrivals)
    except FactorySimError as error:
        raise ScenarioError(f"{where}.traffic.arrivals: {error}") from None
    demand = service.traffic.demand
    try:
        rhythm = rate_shape(demand.rhythm if demand else "flat")
    except FactorySimError as error:
        raise ScenarioError(f"{where}.traffic.demand.rhythm: {error}") from None

    jobs = _job_lengths(service, where, lengths)

    def resolved(numbered: tuple[int, Instances]) -> ResolvedStage:
        index, stage = numbered
        place = "stages" if isinstance(stage, Stage) else "beside"
        return _stage(scenario, f"{where}.{place}.{index} ({stage.name})", service, stage, mix, jobs)

    found = side_by_side(resolved, [*enumerate(service.stages), *enumerate(service.beside)])
    stages, beside = tuple(found[: len(service.stages)]), tuple(found[len(service.stages) :])
    made = list(dict.fromkeys(makes(stage.system) for stage in stages))
    if len(made) > 1:
        raise ScenarioError(f"{where}.stages: one makes {made[0]}, another {made[1]}; they are two services")
    first = stages[0]
    level = demand.requests_per_s or 0.0 if demand else 0.0
    if demand and not demand.requests_per_s:
        capacity = first.instances * first.capacity_per_s(service) * service.admission.headroom
        level = capacity * (demand.first_stage_capacity_multiple or 1.0)
    sigma = demand.growth_sigma_per_week if demand else 0.0
    drifts = sigma * ndtri(_stratified(scenario, "forecast", name))
    files = _files(f"{where}.traffic", trace, mix.lengths, burstiness)
    return ResolvedService(name, service, lengths, mix, burstiness, rhythm, trace, stages, level, drifts, jobs, files, beside)


def _job_lengths(service: Service, where: str, lengths: LengthModel) -> LengthModel | None:
    """Lengths of a service's batch jobs: stated, or those of its users."""
    if service.batch is None or service.batch.lengths is None:
        return lengths if service.batch else None
    try:
        return length_model(service.batch.lengths)
    except FactorySimError as error:
        raise ScenarioError(f"{where}.batch.lengths: {str(error).removeprefix('lengths: ')}") from None


def _files(where: str, trace: Trace | None, lengths: LengthModel, burstiness: Burstiness) -> tuple[FileReport, ...]:
    """What was read from files of requests, by the key that names them."""
    found = [("trace", trace.report)] if trace and trace.report.format != GENERATED else []
    found += [("lengths", report) for report in lengths.reports] + [("arrivals", r) for r in burstiness.reports]
    return tuple(FileReport(f"{where}.{key}", report) for key, report in found)


def _lengths(service: Service, trace: Trace | None) -> LengthModel:
    if isinstance(service.slo, OutputSlo):
        return one_output()
    if trace:
        return empirical(trace.name, trace.report.tool, trace.isl, trace.osl)
    return length_model(service.traffic.lengths)


def _stage(
    scenario: Scenario, where: str, service: Service, stage: Instances, mix: RequestMix, jobs: LengthModel | None
) -> ResolvedStage:
    wanted, lengths = stage.system, mix.served_lengths
    try:
        system = planned_system(stage.model or service.model, wanted, promise_s=service.slo.ttft_p95_s)
        rent = math.nan
        if service.price_path == "follows_cost" or service.router == "cost_aware":
            rent = price_book().find("rental_market", catalog.gpu(wanted.gpu).name).value
    except FactorySimError as error:
        raise type(error)(f"{where}: {error}") from None
    if stage.gpus % system.gpus:
        near = max(stage.gpus // system.gpus, 1) * system.gpus
        raise ScenarioError(
            f"{where}.gpus: {stage.gpus} is not a multiple of the {system.gpus} GPUs of one "
            f"{getattr(wanted, 'parallelism', wanted.engine)} instance; {near} would be"
        )
    curve = None
    if service.traffic.demand is not None:
        _fits(where, system, lengths, stream(scenario.seed, "fit", where))
        if jobs is not None:
            _fits(f"{where}, batch jobs", system, jobs, stream(scenario.seed, "fit of jobs", where))
        curve = _tested(scenario, where, service, system, mix, stage.gpus // system.gpus)
    if curve is not None and isinstance(wanted, System):
        capacity = curve.capacity_per_s(service.slo.ttft_p95_s, service.slo.tpot_p95_s)
        at_capacity = (lengths.mean_isl, lengths.mean_osl, curve.number_at(capacity))
        system = planned_system(stage.model or service.model, wanted, at_capacity)
    slowdown = _lognormal(system.tpot_band, _stratified(scenario, "profile_error", system.profile))
    ttft = _lognormal(system.ttft_band, _stratified(scenario, "profile_error_ttft", system.profile))
    if not scenario.simulation.profile_error:
        slowdown, ttft = np.ones_like(slowdown), np.ones_like(ttft)
    fill = _job_fill(scenario, where, service, system, mix, jobs, curve) if jobs is not None else 0.0
    return ResolvedStage(stage, system, stage.gpus // system.gpus, curve, slowdown, ttft, rent, fill)


def _job_fill(
    scenario: Scenario, where: str, service: Service, system: ServingSystem, mix: RequestMix, jobs: LengthModel,
    curve: LatencyCurve,
) -> float:  # fmt: skip
    """How far batch jobs may fill an instance of a stage, by a test on one."""

    def pool_at(limit: int) -> FilledPool:
        return FilledPool(
            name=f"{where} with up to {limit} requests",
            system=system,
            kept=1,
            lengths=mix.served_lengths,
            mix=mix,
            burstiness=burstiness_model("poisson"),
            slo=service.slo,
            sampling=Sampling(),
            router=alone(service.router),
            pool_options=scheduling_options(service) | {"batch_limit": limit},
            rng=stream(scenario.seed, "test of jobs", where),
            journal=Journal(0),
            number_at=curve.number_at,
            job_lengths=jobs,
            job_rng=stream(scenario.seed, "jobs of the test", where),
        )

    try:
        return job_fill(curve, service.slo, service.batch.fill, pool_at)
    except CapacityError as error:
        raise CapacityError(f"{where}.batch: {error}") from None


def planned_system(
    model: str,
    wanted: System | DiffusionSystem,
    load: tuple[float, float, float] | None = None,
    promise_s: float | None = None,
) -> ServingSystem:
    """The serving system of a stage; its trust and error are those at `load` (mean isl, mean osl, requests in flight).

    `promise_s`: promised time to an image or video, by which its batch is chosen where none is stated.
    """
    if isinstance(wanted, DiffusionSystem):
        return planned_outputs(model, wanted, promise_s)
    check_engine(model, wanted)
    folder = Path(wanted.profiles) if wanted.profiles else None
    system = serving_system(
        model,
        wanted.gpu,
        wanted.engine,
        wanted.precision,
        wanted.parallelism,
        speculation=wanted.speculation,
        as_of=wanted.as_of,
        load=load,
        max_sequences=wanted.max_sequences,
        max_batched_tokens=wanted.max_batched_tokens,
        kv_cache_tokens=wanted.kv_cache_tokens,
        folder=folder,
    )
    names = wanted.anchor.model_dump(exclude_none=True) if wanted.anchor else {}
    if names:
        system = anchored(system, wanted.engine, names, as_of=wanted.as_of, folder=folder)
    if not wanted.uneven_ranks:
        return system
    uneven = with_uneven_ranks(system)
    if uneven is None:
        raise ScenarioError(
            f"system.uneven_ranks: {wanted.parallelism} has no data-parallel attention to decode with, as "
            "tp8pp1ep8dpaTr1 or P1x4-D1x8dep have"
        )
    return uneven


def _tested(
    scenario: Scenario, where: str, service: Service, system: ServingSystem, mix: RequestMix, instances: int
) -> LatencyCurve:
    """The latency curve of a system, one of `instances`, from a load test; an error where no load keeps the promise."""
    curve = load_test(
        system, mix.served_lengths, service.slo.tpot_p95_s, router=alone(service.router), seed=scenario.seed,
        mix=mix, options=scheduling_options(service), instances=instances,
    )  # fmt: skip
    if curve.capacity_per_s(service.slo.ttft_p95_s, service.slo.tpot_p95_s) <= 0.0:
        raise CapacityError(f"{where}: no load keeps the promise ({_promised(service)}): {_lightest(curve)}")
    return curve


def _promised(service: Service) -> str:
    """The promise in words."""
    if isinstance(service.slo, OutputSlo):
        return f"p95 time to output {service.slo.time_to_output_p95_s:g} s"
    return f"p95 TTFT {service.slo.ttft_p95_s:g} s, p95 TPOT {1e3 * service.slo.tpot_p95_s:g} ms"


def _lightest(curve: LatencyCurve) -> str:
    """What the lightest load of a test came to, in words."""
    rate = f"{curve.rate_per_s[0]:.3g} requests/s at one instance"
    if not math.isfinite(curve.ttft_p95_s[0]):
        return f"already at {rate} the queue grows without end"
    tpot = f" and p95 TPOT {1e3 * curve.tpot_p95_s[0]:.3g} ms" if curve.tpot_p95_s[0] > 1e-6 else ""
    first = "TTFT" if tpot else "time to output"
    return f"at {rate} p95 {first} is {curve.ttft_p95_s[0]:.3g} s{tpot}; relax services.*.slo or choose a faster system"


def _fits(where: str, system: ServingSystem, lengths: LengthModel, rng: np.random.Generator) -> None:
    """A worker must hold the longest request of a large sample, or the run could never end."""
    isl, osl = lengths.sample(rng, 20_000)
    longest = int(np.minimum(isl + osl, system.max_context_tokens).max())
    for worker in system.workers:
        if worker.kv_capacity_tokens < longest:
            raise CapacityError(
                f"{where}: the KV cache of a {worker.role} worker holds {max(worker.kv_capacity_tokens, 0):,} tokens "
                f"beside the weights; one request of the scenario needs {longest:,}; use more GPUs a worker, another "
                "precision or shorter requests"
            )


def _stratified(scenario: Scenario, *name: str) -> np.ndarray:
    """One uniform a replication, one in each of as many equal strata, in random order (Latin hypercube)."""
    n = scenario.simulation.replications
    rng = stream(scenario.seed, *name)
    return (rng.permutation(n) + 0.5) / n


def _lognormal(band: tuple[float, float], uniform: np.ndarray) -> np.ndarray:
    """Factors whose P10 and P90 are the band."""
    low, high = math.log(band[0]), math.log(band[1])
    return np.exp(0.5 * (low + high) + (high - low) / (2 * Z90) * ndtri(uniform))
