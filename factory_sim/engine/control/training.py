"""Training jobs: GPUs of their own and lent ones, check-points, lost work, completion, and what it brings."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import simpy

from factory_sim.engine.control.carbon import carbon_multiplier
from factory_sim.engine.control.service import Place
from factory_sim.engine.journal import Journal
from factory_sim.engine.kernel import play_closed_loop
from factory_sim.engine.resolve import planned_system
from factory_sim.engine.rows import JOB_COUNTS
from factory_sim.engine.stage_pool import COUNTS
from factory_sim.engine.watts import host_watts, idle_it_watts, idle_watts, nameplate_watts, training_watts
from factory_sim.errors import FactorySimError, ScenarioError
from factory_sim.inputs import catalog
from factory_sim.inputs.reliability import operation
from factory_sim.inputs.scenario import Scenario
from factory_sim.inputs.services import System
from factory_sim.inputs.training_jobs import Rollouts, TrainingJob
from factory_sim.model import training as laws
from factory_sim.model.outages import FailureKind, failure_kinds, interruptions_per_s, unit_gpus
from factory_sim.model.serving import decode_steps
from factory_sim.model.workload import length_model
from factory_sim.streams import stream
from factory_sim.units import DAY_S, HOUR_S, MINUTE_S, WEEK_S

NEAR_S = 1e-6
"""Times nearer than this count as one."""


@dataclass
class Job:
    """State of one training job."""

    env: simpy.Environment
    name: str
    spec: TrainingJob
    lent: int = 0
    """GPUs that services have lent."""
    done_tokens: float = 0.0
    """Tokens that are safe in a check-point."""
    lost_tokens: float = 0.0
    broken: int = 0
    """Own GPUs in repair."""
    worked_s: float = 0.0
    """Work since the last check-point or change, without writes: what an interruption would lose."""
    ready_s: float = 0.0
    """When it trains again after the last restart."""
    interruptions: int = 0
    gpu_s: float = 0.0
    """GPU-seconds held."""
    speeds: dict[int, float] = field(default_factory=dict)
    """GPUs -> tokens/s while nothing interrupts."""
    steps: dict[int, float] = field(default_factory=dict)
    """GPUs -> tokens of one reinforcement step."""

    def __post_init__(self) -> None:
        self.changed = self.env.event()

    def resize(self, gpus: int) -> None:
        """Lend GPUs to the job, or take them back (negative)."""
        self.lent += gpus
        self.tell()

    def tell(self) -> None:
        """Wake the job: its GPUs or its power changed."""
        event, self.changed = self.changed, self.env.event()
        event.succeed()

    @property
    def held(self) -> int:
        """GPUs that it holds now: own, spare and lent ones, broken ones included."""
        return self.spec.gpus + self.spec.spare_gpus + self.lent

    @property
    def gpus(self) -> int:
        """GPUs that train now: spares take the place of own ones in repair."""
        own = min(self.spec.gpus, self.spec.gpus + self.spec.spare_gpus - self.broken)
        return 0 if own < self.spec.gpus and self.spec.without_spares == "wait" else own + self.lent

    @property
    def params_active(self) -> float:
        """Parameters used per token."""
        return self.spec.params_active or catalog.model(self.spec.model).params_active

    def wanted_tokens(self) -> float:
        """Tokens to train on: stated, or compute-optimal times `over_trained`."""
        if self.spec.tokens:
            return self.spec.tokens
        return self.spec.over_trained * laws.optimal_tokens(laws.scaling_law(), self.params_active)


@dataclass(frozen=True)
class Terms:
    """What holds for a job as long as it trains."""

    target: float
    """Tokens to train on."""
    mfu: float
    busy_w: float
    """Power of a GPU that trains."""
    write_s: float
    """Time to write a check-point."""
    restart_s: float
    """Time from an interruption or a change of size until it trains again."""
    kinds: tuple[FailureKind, ...]


@dataclass(frozen=True)
class Stretch:
    """What a job does until something changes, and when it would end or be interrupted if nothing did."""

    start_s: float
    begins_s: float
    """When it trains, after a restart."""
    gpus: int
    held: int
    broken: int
    halted: bool
    speed: float
    """Tokens/s while it trains."""
    every_s: float
    """Work between two check-points."""
    ends_s: float
    fails_s: float


def train(
    env: simpy.Environment,
    job: Job,
    place: Place,
    scenario: Scenario,
    finished: Callable[[float], None] | None,
    rngs: tuple[np.random.Generator, np.random.Generator],
    journal: Journal,
):
    """Train until the tokens are done: stretch by stretch between interruptions, changes of size and interval ends.

    `finished` gets the loss of the model (nats/token) in the end; `rngs`: of interruptions, and of what is repaired.
    """
    interval_s = scenario.simulation.interval_minutes * MINUTE_S
    place.jobs.append(job)
    yield env.timeout(job.spec.from_day * DAY_S)
    terms = _terms(job, scenario)
    journal.note(env.now, "training_begins", job.name, job.spec.kind, f"{terms.target:.3g} tokens on {job.gpus} GPUs")
    while job.done_tokens < terms.target:
        stretch = _begin(env.now, job, place, scenario, terms, rngs[0])
        boundary = min((math.floor(env.now / interval_s + 1e-9) + 1) * interval_s, scenario.duration_s)
        yield env.timeout(min(boundary, stretch.ends_s, stretch.fails_s) - env.now) | job.changed
        if env.now > stretch.start_s:
            row = _book(env.now, job, place, scenario, terms, stretch, journal)
        if env.now >= stretch.ends_s - NEAR_S:
            job.done_tokens = terms.target
            row["training_end_s"] = env.now
            break
        if env.now >= stretch.fails_s:
            kind = _interrupt(env.now, job, terms, stretch, row, rngs[1], journal)
            env.process(_repair(env, job, kind, terms.restart_s, rngs[1], journal))
        elif job.gpus != stretch.gpus or _halted(job, place) != stretch.halted:
            _change(env.now, job, terms, stretch, row)
        if env.now >= scenario.duration_s:
            return
    place.trains(job.name, 0.0, 0.0)
    loss = _complete(env.now, job, terms, journal)
    if finished is not None:
        finished(loss)


def _terms(job: Job, scenario: Scenario) -> Terms:
    """The terms of a job, with the tables' values for what it leaves open."""
    spec = job.spec
    mfu = laws.mfu_of(spec.mfu)
    return Terms(
        target=_target(job, scenario, mfu),
        mfu=mfu,
        busy_w=training_watts(spec.gpu, spec.precision, mfu, operation("training_memory_utilisation")),
        write_s=operation("checkpoint_write", spec.checkpoint_s),
        restart_s=operation("training_restart", spec.restart_s),
        kinds=failure_kinds(scenario.outages),
    )


def _begin(now: float, job: Job, place: Place, scenario: Scenario, terms: Terms, rng: np.random.Generator) -> Stretch:
    """Begin a stretch: its GPUs draw their power, and its interruption is drawn."""
    spec, gpus, held, halted = job.spec, job.gpus, job.held, _halted(job, place)
    busy = 0 if halted else gpus
    drawn_w = busy * (terms.busy_w + host_watts(spec.gpu, terms.busy_w)) + (held - busy) * idle_it_watts(spec.gpu)
    place.trains(job.name, drawn_w if place.lit else 0.0, held * nameplate_watts(spec.gpu))
    speed = 0.0 if halted else _speed(job, scenario, terms.mfu, gpus)
    rate = 0.0 if halted else interruptions_per_s(terms.kinds, spec.gpu, gpus)
    every_s = (
        spec.checkpoint_minutes * MINUTE_S
        if spec.checkpoint_minutes
        else laws.checkpoint_interval_s(terms.write_s, rate)
    )
    begins_s = max(job.ready_s, now)
    return Stretch(
        start_s=now,
        begins_s=begins_s,
        gpus=gpus,
        held=held,
        broken=job.broken,
        halted=halted,
        speed=speed,
        every_s=every_s,
        ends_s=_finish_s(begins_s, terms.target - job.done_tokens, job.worked_s, speed, every_s, terms.write_s),
        fails_s=begins_s + rng.exponential(1.0 / rate) if rate > 0.0 else math.inf,
    )


def _book(
    now: float, job: Job, place: Place, scenario: Scenario, terms: Terms, stretch: Stretch, journal: Journal
) -> dict:
    """Book a stretch that ends now, and return its row of the journal: only what is in a check-point is trained."""
    seconds, trained_s = now - stretch.start_s, max(now - stretch.begins_s, 0.0)
    job.gpu_s += stretch.gpus * seconds
    job.worked_s, saved_s = _progress(trained_s, job.worked_s, stretch.every_s, terms.write_s)
    active = 0.0 if stretch.halted else trained_s / seconds
    row = _row(job, place, stretch, now, active, terms.busy_w, journal.replication)
    power = scenario.places[job.spec.site].power
    row["carbon_multiplier"] = carbon_multiplier(power, scenario.start, stretch.start_s, now)
    done = now >= stretch.ends_s - NEAR_S
    _keep(job, terms, row, terms.target - job.done_tokens if done else saved_s * stretch.speed)
    journal.windows.append(row)
    return row


def _keep(job: Job, terms: Terms, row: dict, tokens: float) -> None:
    """Book tokens that are in a check-point now."""
    job.done_tokens += tokens
    row["trained_tokens"] += tokens
    row["training_progress"] += tokens / terms.target


def _interrupt(
    now: float, job: Job, terms: Terms, stretch: Stretch, row: dict, rng: np.random.Generator, journal: Journal
) -> FailureKind:
    """Lose the work since the last check-point and restart; returns what kind of failure it was."""
    lost = job.worked_s * stretch.speed
    job.interruptions += 1
    job.lost_tokens += lost
    row["lost_trained_tokens"] += lost
    job.worked_s, job.ready_s = 0.0, now + terms.restart_s
    kind = _kind_of(terms.kinds, job.spec.gpu, stretch.gpus, rng)
    journal.note(now, "training_interrupted", job.name, kind.name, f"{lost:.3g} tokens lost")
    return kind


def _change(now: float, job: Job, terms: Terms, stretch: Stretch, row: dict) -> None:
    """Restart at another size, or halted or no longer so: as that is planned, a check-point is written first."""
    write_s = 0.0
    if job.worked_s:
        write_s = terms.write_s
        _keep(job, terms, row, job.worked_s * stretch.speed)
    job.worked_s, job.ready_s = 0.0, now + write_s + terms.restart_s


def _complete(now: float, job: Job, terms: Terms, journal: Journal) -> float:
    """Note what the training took, and return the loss of the model, nats/token."""
    loss = laws.loss(laws.scaling_law(), job.params_active, terms.target)
    journal.note(
        now, "training_complete", job.name, job.spec.kind,
        f"{terms.target:.4g} tokens, {job.gpu_s / HOUR_S:.4g} GPU-h, {job.interruptions} interruptions, {job.lost_tokens:.3g} tokens lost; "
        f"loss {loss:.3f} nats/token by {laws.DEFAULT_LAW}",
    )  # fmt: skip
    return loss


def _kind_of(kinds: tuple[FailureKind, ...], gpu: str, gpus: int, rng: np.random.Generator) -> FailureKind:
    """The kind of failure that an interruption of a job on so many GPUs was, drawn by the kinds' rates."""
    rates = np.array([interruptions_per_s((kind,), gpu, gpus) for kind in kinds])
    return kinds[int(np.searchsorted(np.cumsum(rates), rng.random() * rates.sum(), side="right"))]


def _repair(env, job: Job, kind: FailureKind, restart_s: float, rng: np.random.Generator, journal: Journal):
    """Own GPUs that an interruption took with it are away until they are repaired, if that takes longer than a restart.

    Lent ones count as back after the restart; a GPU that must be swapped takes its node out.
    """
    repair_s = kind.repair_time_s(rng)
    unit = unit_gpus(kind, job.spec.gpu) or job.spec.gpus
    if kind.name == "gpu_permanent":
        unit = max(unit, int(catalog.gpu(job.spec.gpu).gpus_per_node))
    here = rng.random() * max(job.held, 1) < job.spec.gpus + job.spec.spare_gpus
    hit = min(unit, job.spec.gpus + job.spec.spare_gpus - job.broken) if here else 0
    if not hit or repair_s <= restart_s:
        return
    job.broken += hit
    job.tell()
    left = f"{job.gpus} GPUs train" if job.gpus else "waits"
    journal.note(env.now, "training_gpus_broken", job.name, kind.name, f"{hit} GPUs away, {left}")
    yield env.timeout(repair_s)
    job.broken -= hit
    journal.note(env.now, "training_gpus_repaired", job.name, kind.name, f"{hit} GPUs back, {job.gpus} GPUs train")
    job.tell()


def _halted(job: Job, place: Place) -> bool:
    return job.gpus == 0 or not place.lit or (job.spec.pause_when_curtailed and bool(place.caps_w))


def _finish_s(begins_s: float, tokens: float, worked_s: float, speed: float, every_s: float, write_s: float) -> float:
    """When the tokens would be done without any interruption; `worked_s` of work are not in a check-point yet."""
    if speed <= 0.0:
        return math.inf
    work_s = tokens / speed - worked_s
    if math.isinf(every_s):
        return begins_s + work_s
    writes = math.floor((worked_s + work_s) / every_s - 1e-9)
    return begins_s + work_s + max(writes, 0) * write_s


def _progress(elapsed_s: float, worked_s: float, every_s: float, write_s: float) -> tuple[float, float]:
    """(work since the last check-point, work saved in this stretch), seconds."""
    if math.isinf(every_s):
        return worked_s + elapsed_s, 0.0
    cycle_s = every_s + write_s
    position = worked_s + elapsed_s  # since the last check-point, writes included
    cycles = math.floor(position / cycle_s + 1e-12)
    return min(position - cycles * cycle_s, every_s), cycles * every_s


def _target(job: Job, scenario: Scenario, mfu: float) -> float:
    """Tokens to train on; for reinforcement, the answers of all steps."""
    if job.spec.kind != "reinforcement":
        return job.wanted_tokens()
    gpus = job.gpus or _system(job).gpus
    _speed(job, scenario, mfu, gpus)
    return job.spec.steps * job.steps[gpus]


def _speed(job: Job, scenario: Scenario, mfu: float, gpus: int) -> float:
    """Tokens/s of the job on so many GPUs while nothing interrupts."""
    if gpus not in job.speeds:
        spec = job.spec
        plain = laws.tokens_per_s(spec.gpu, gpus, job.params_active, spec.precision, mfu)
        if spec.rollouts is None:
            job.speeds[gpus] = plain
        else:
            makespan_s, tokens = roll_out(
                spec.rollouts, _system(job), gpus, stream(scenario.seed, "roll_outs", job.name)
            )
            job.steps[gpus], job.speeds[gpus] = tokens, tokens / (makespan_s + tokens / plain)
    return job.speeds[gpus]


def _system(job: Job):
    where = f"training.{job.name}.rollouts.system"
    try:
        wanted = System.model_validate(job.spec.rollouts.system)
        return planned_system(job.spec.model, wanted)
    except FactorySimError as error:
        raise ScenarioError(f"{where}: {error}") from None
    except ValueError as error:
        raise ScenarioError(f"{where}: {error}") from None


def roll_out(rollouts: Rollouts, system, gpus: int, rng: np.random.Generator) -> tuple[float, float]:
    """Generate the answers of one reinforcement step on the serving engine.

    Returns (seconds until the last answer of one instance's share is done, prompt and answer tokens of the whole step):
    every instance gets its share at once, as many sequences at a time as it runs, so the longest answers set the end.
    """
    instances = max(gpus // system.gpus, 1)
    share = math.ceil(rollouts.requests / instances)
    isl, osl = length_model(rollouts.lengths).sample(rng, share)
    isl = np.minimum(isl, system.max_context_tokens - osl)
    limit = sum(worker.max_sequences * worker.count for worker in system.workers if worker.role != "prefill")
    steps = decode_steps(osl, system.tokens_per_step, rng)
    played = play_closed_loop(system, isl, osl, min(share, limit), decode_steps=steps)
    tokens = float((isl + osl).sum()) * rollouts.requests / share
    return float(np.max(played["finish_s"])), tokens


def _row(
    job: Job, place: Place, stretch: Stretch, end_s: float, active: float, busy_w: float, replication: int
) -> dict:
    """One row of the journal: GPUs that are held over a stretch, and train for the `active` share of it."""
    start_s, working, held, broken = stretch.start_s, stretch.gpus, stretch.held, stretch.broken
    seconds = end_s - start_s
    idle_w = idle_watts(job.spec.gpu)
    gpu_w = active * busy_w + (1.0 - active) * idle_w
    unused_j = (held - working) * seconds * idle_w
    gpu_j = working * seconds * gpu_w + unused_j
    it_j = gpu_j + working * seconds * host_watts(job.spec.gpu, gpu_w)
    it_j += (held - working) * seconds * host_watts(job.spec.gpu, idle_w)
    away_hours = (held - working) * seconds / HOUR_S if working else min(broken, held) * seconds / HOUR_S
    row = dict.fromkeys((*COUNTS, *JOB_COUNTS, "requests_turned_away"), 0.0)
    row.pop("requests_refused")
    return row | {
        "replication": replication, "start_s": start_s, "end_s": end_s, "week": int(start_s // WEEK_S) + 1,
        "service": job.name, "stage": job.name, "site": place.name, "profile": f"training mfu {job.spec.mfu}",
        "gpu": catalog.gpu(job.spec.gpu).name, "makes": "tokens", "trust": "extrapolated", "replicas": float(working > 0), "gpus": float(held),
        "gpu_hours": held * seconds / HOUR_S, "gpu_hours_down": away_hours,
        "gpu_hours_broken": min(broken, held) * seconds / HOUR_S, "busy_fraction": active,
        "time_input_s": 0.0, "time_output_s": active * seconds, "time_idle_s": (1.0 - active) * seconds,
        "instance_s": 0.0, "decode_sequences": 0.0, "output_energy_j": gpu_j - unused_j, "idle_energy_j": unused_j,
        "gpu_energy_j": gpu_j, "it_energy_j": it_j, "pue": place.pue, "facility_energy_j": it_j * place.pue,
        "trained_tokens": 0.0, "lost_trained_tokens": 0.0, "training_progress": 0.0, "price_multiplier": 1.0,
        "granted_requests": 0.0, "latent_requests": 0.0, "requests_lost_waiting": 0.0, "requests_sent": 0.0,
        "requests_waiting": 0.0, "limit_requests_per_s": 0.0, "carbon_multiplier": 1.0,
    }  # fmt: skip
