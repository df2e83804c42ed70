"""The pools that a replication plays its services with: one kind of instance, filled with batch jobs, or several kinds."""

from factory_sim.engine.control.service import Service
from factory_sim.engine.filled_pool import FilledPool
from factory_sim.engine.journal import Journal
from factory_sim.engine.mixed_pool import Group, MixedPool
from factory_sim.engine.requests import alone, pool_options
from factory_sim.engine.resolve import ResolvedService, ResolvedStage
from factory_sim.engine.stage_pool import StagePool
from factory_sim.inputs.scenario import Sampling, Scenario
from factory_sim.model.generation import GenerationSystem
from factory_sim.streams import stream


def stage_pool(
    scenario: Scenario, service: Service, key: str, slower: float, journal: Journal, filled: bool
) -> StagePool:
    """The pool of one kind of instance in this replication, with its own random stream; `filled` up with batch jobs."""
    sampling, kind, resolved = scenario.simulation.sampling, service.kinds[key], service.resolved
    stage: ResolvedStage = kind.stage
    wanted = _wanted(sampling, resolved, stage)
    kept = min(wanted, stage.instances) if sampling.mode == "thinned" else stage.instances
    if isinstance(stage.system, GenerationSystem):
        sampling = _long_enough(sampling, stage.system, stage.capacity_per_s(resolved.service) * kept)
    factor = float(stage.slowdowns[journal.replication]) * kind.factor * slower
    name = key if slower == 1.0 else f"{key} at clock 1/{slower:.4f}"
    options, jobs = pool_options(resolved.service), {}
    if filled:
        number = stage.curve.number_at(service.capacity_per_s(key, slower), factor)
        options |= {"batch_limit": max(round(stage.job_fill * number), 1)}
        job_rng = stream(scenario.seed, "batch_jobs", service.name, name, f"replication {journal.replication}")
        jobs = {"job_lengths": resolved.job_lengths, "job_rng": job_rng}
    return (FilledPool if filled else StagePool)(
        name=f"{service.name}.{name}" + (" with batch jobs" if filled else ""),
        system=stage.system.scaled(factor),
        kept=kept,
        lengths=resolved.lengths,
        mix=resolved.mix,
        burstiness=resolved.burstiness,
        slo=resolved.service.slo,
        sampling=sampling,
        router=alone(resolved.service.router),
        pool_options=options,
        rng=stream(scenario.seed, "requests", service.name, name, f"replication {journal.replication}"),
        journal=journal,
        number_at=lambda rate: stage.curve.number_at(rate, factor),
        ttft_error=float(stage.ttft_errors[journal.replication]),
        **jobs,
    )


def mixed_pool(
    scenario: Scenario, service: Service, counts: dict[str, int], slower: float, journal: Journal
) -> MixedPool:
    """The pool of several kinds of instances behind one router; `counts`: instances of each that are played."""
    resolved, replication = service.resolved, journal.replication
    groups, numbers = [], []
    for key, kept in counts.items():
        stage, kind = service.kinds[key].stage, service.kinds[key]
        factor = float(stage.slowdowns[replication]) * kind.factor * slower
        capacity = service.capacity_per_s(key, slower)
        numbers.append((kept, capacity, stage.curve, factor))
        groups.append(
            Group(
                key=key,
                system=stage.system.scaled(factor),
                kept=kept,
                ttft_error=float(stage.ttft_errors[replication]),
                cost=stage.rent_usd_per_gpu_hour * stage.system.gpus / capacity,
                promised=max(round(stage.curve.number_at(capacity, factor)), 1),
            )
        )
    tested = sum(kept * capacity for kept, capacity, _, _ in numbers)
    total = sum(counts.values())

    def number_at(rate: float) -> float:
        """Mean requests at an instance when all work at the same share of their capacity."""
        load = rate * total / tested
        return sum(kept * curve.number_at(load * capacity, f) for kept, capacity, curve, f in numbers) / total

    name = f"{service.name}.{'+'.join(f'{n} {key}' for key, n in counts.items())} at 1/{slower:.4f}"
    return MixedPool(
        name=name,
        system=min((group.system for group in groups), key=lambda system: system.tokens_per_step),
        kept=total,
        lengths=resolved.lengths,
        mix=resolved.mix,
        burstiness=resolved.burstiness,
        slo=resolved.service.slo,
        sampling=scenario.simulation.sampling,
        router=resolved.service.router,
        pool_options=pool_options(resolved.service),
        rng=stream(scenario.seed, "requests", service.name, name, f"replication {replication}"),
        journal=journal,
        number_at=number_at,
        groups=tuple(groups),
    )


def counts_played(scenario: Scenario, service: Service, up: dict[str, float]) -> dict[str, int]:
    """Instances of each kind that a mixed pool plays for those that are up: in proportion, at least one of each."""
    sampling = scenario.simulation.sampling
    if sampling.mode == "whole":
        return {key: max(round(count), 1) for key, count in up.items()}
    wanted = sum(_wanted(sampling, service.resolved, service.kinds[key].stage) for key in up)
    share = min(wanted / sum(up.values()), 1.0)
    return {key: max(round(share * count), 1) for key, count in up.items()}


def _wanted(sampling: Sampling, resolved: ResolvedService, stage: ResolvedStage) -> int:
    """Instances that thinning keeps of a stage, if it has as many."""
    capacity = stage.capacity_per_s(resolved.service)
    if isinstance(stage.system, GenerationSystem):
        sequences = stage.curve.number_at(capacity)
    else:
        sequences = capacity * resolved.lengths.mean_osl * resolved.service.slo.tpot_p95_s
    return max(
        sampling.instances_kept if sequences < sampling.sequences_kept else 1,
        round(sampling.sequences_kept / max(sequences, 1.0)),
    )


def _long_enough(sampling: Sampling, system: GenerationSystem, capacity_per_s: float) -> Sampling:
    """Windows of images or videos, which are few and slow but quickly played: as long as `window_requests` take at the
    capacity of what is played, and 20 batches at least, after as many of warming up."""
    batch_s = float(system.workers[0].step.base_s[-1])
    warmup_s = max(sampling.warmup_s, 20 * batch_s)
    window_s = max(sampling.window_s, warmup_s, sampling.window_requests / capacity_per_s)
    return sampling.model_copy(update={"warmup_s": warmup_s, "window_s": window_s})
