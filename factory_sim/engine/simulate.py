"""Play a scenario: SimPy decides by the minute, the kernel serves by the token, the journal keeps the facts."""

import itertools
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import simpy

from factory_sim.engine.control.autoscaler import AUTOSCALERS, autoscale, begin, check_policies, keep_spot
from factory_sim.engine.control.batch import JobQueue
from factory_sim.engine.control.demand import Backlog, DemandState, rate_series
from factory_sim.engine.control.fleet import Fleet, Pulse
from factory_sim.engine.control.market import change_price, launch, retire, spike
from factory_sim.engine.control.outages import fail_site, fail_units, site_breakdown, stated_breakdown
from factory_sim.engine.control.power import curtail, heat
from factory_sim.engine.control.rollouts import deliver, lateness_s, maintain, move, rollout, upgrade
from factory_sim.engine.control.service import Kind, Place, Service
from factory_sim.engine.control.serving import Group, serve
from factory_sim.engine.control.stretch import Counter
from factory_sim.engine.control.training import Job, train
from factory_sim.engine.control.user_policy import user_policy
from factory_sim.engine.journal import Journal
from factory_sim.engine.mixed_pool import MixedPool
from factory_sim.engine.parts import linked
from factory_sim.engine.pools import counts_played, mixed_pool, stage_pool
from factory_sim.engine.resolve import ResolvedService
from factory_sim.engine.rows import window_facts
from factory_sim.engine.stage_pool import StagePool
from factory_sim.errors import FactorySimError, ScenarioError, SimulationStopped
from factory_sim.inputs.scenario import Scenario
from factory_sim.model.outages import failure_kinds
from factory_sim.model.training import mfu_of
from factory_sim.streams import stream
from factory_sim.units import HOUR_S, MINUTE_S, WEEK_S

__all__ = ["simulate", "window_facts"]

Policies = Mapping[str, Callable]


def simulate(
    scenario: Scenario,
    services: tuple[ResolvedService, ...],
    replication: int,
    *,
    policies: Policies | None = None,
    allow_code: bool = False,
) -> Journal:
    """Play one replication and return its journal. Replications share nothing and may run side by side, and so may the
    parts of one (`parts.independent`): `services` are all of the scenario's, or those of one part.

    `policies`: the caller's own autoscalers by name, functions of (View, Autoscaler) that return a number of instances.
    `allow_code`: scenarios may name `file.py:function`. Raises SimulationStopped, with the journal so far marked
    incomplete, where a policy fails on the way.
    """
    factory = Factory(scenario, services, replication, policies or {}, allow_code)
    return factory.play()


class Factory:
    """One replication: everything that lives in it, wired together. `play` runs it once."""

    def __init__(self, scenario, services, replication: int, policies: Policies, allow_code: bool):
        self.env = simpy.Environment()
        self.scenario, self.journal = scenario, Journal(replication)
        check_policies(scenario, policies, allow_code)
        self.policies, self.workers = policies, []
        self.pools: dict[tuple[str, str, float, bool], StagePool] = {}
        self.places = {name: Place(self.env, name, pue=site.pue) for name, site in scenario.places.items()}
        self.services: dict[str, Service] = {}
        resolved = {service.name: service for service in services}
        together = [names for names in linked(scenario) if names[0] in resolved]
        self.groups = [Group([], Pulse(self.env)) for _ in together]
        for group, names in zip(self.groups, together):
            for name in names:
                self.services[name] = self._service(resolved[name], group.pulse)
                group.services.append(self.services[name])
        first = next(iter(scenario.services)) in resolved
        here = {scenario.services[name].site for name in resolved}
        served = {service.site for service in scenario.services.values()}
        self.jobs = {
            name: Job(self.env, name, spec)
            for name, spec in scenario.training.items()
            if spec.site in here or (first and spec.site not in served)
        }
        self.launched = {name: self.env.event() for name in scenario.training}
        self.pulse_of = {service.name: group.pulse for group in self.groups for service in group.services}

    def play(self) -> Journal:
        """Run to the end of the scenario and drain what is in the pools."""
        counter = Counter(self.scenario, self.journal, self._pool, self._mixed)
        try:
            serving = [self.env.process(serve(self.env, counter, group)) for group in self.groups]
            self._supply()
            self._trouble()
            self._happenings()
            self._training()
            self._run(serving)
        finally:
            for worker in self.workers:
                worker.close()
        for pool in self.pools.values():
            pool.drain()
            self.journal.audits.append(pool.audit())
        return self.journal

    def _run(self, serving: list[simpy.Process]) -> None:
        try:
            self.env.run(until=self.env.all_of(serving))
        except FactorySimError as error:
            self.journal.note(self.env.now, "stopped", "simulation", "policy", str(error))
            self.journal.incomplete = f"stopped on day {self.env.now / (24 * HOUR_S):.3f}: {error}"
            raise SimulationStopped(self.journal.incomplete, self.journal) from None

    def _service(self, resolved: ResolvedService, pulse: Pulse) -> Service:
        spec, scenario, replication = resolved.service, self.scenario, self.journal.replication
        demand = spec.traffic.demand
        start = scenario.start
        offset_h = start.weekday() * 24.0 + start.hour + start.minute / 60.0
        relative = rate_series(demand.series).mean_over if demand.series else _weekly(resolved.rhythm, offset_h)

        sizes = {stage.stage.name: stage.system.gpus for stage in resolved.fleets}
        fleet = Fleet(self.env, sizes, pulse, scenario.simulation.sampling.fleet_tolerance)
        first = resolved.stages[0]
        state = DemandState(
            demand, resolved.level_per_s, float(resolved.forecast_drifts[replication]), relative, offset_h,
            _list_price(scenario, resolved.name),
        )  # fmt: skip
        service = Service(
            self.env, resolved.name, resolved, replication, fleet, state, Backlog(demand.patience_hours * HOUR_S),
            self.places[spec.site], self.journal,
            {stage.stage.name: Kind(stage.stage.name, stage, stage.stage.name) for stage in resolved.fleets},
            first.stage.name,
        )  # fmt: skip
        if spec.batch is not None:
            service.jobs = JobQueue(spec.batch.deadline_hours * HOUR_S, spec.batch.requests_per_s)
        if spec.autoscaler:
            service.cold_start = spec.autoscaler.cold_start
        if scenario.outages:
            service.retry_share = scenario.outages.retry_share
        fleet.shift(first.stage.name, up=first.instances, down_gpus=spec.spare_gpus)
        service.spare_gpus = spec.spare_gpus
        for each in resolved.beside:
            fleet.shift(each.stage.name, up=each.instances)
        self.journal.note(
            0.0,
            "stage_begins",
            f"{resolved.name}.{first.stage.name}",
            "initial",
            f"{first.stage.gpus} GPUs from the start",
        )
        return service

    def _pool(self, service: Service, key: str, slower: float, filled: bool) -> StagePool:
        """The pool of a kind of instance at a clock, with its own random stream; made when it is first needed."""
        name = (service.name, key, round(slower, 6), filled)
        if name not in self.pools:
            self.pools[name] = stage_pool(self.scenario, service, key, slower, self.journal, filled)
        return self.pools[name]

    def _mixed(self, service: Service, up: dict[str, float], slower: float) -> MixedPool:
        """The pool of several kinds of instances behind one router, for those that are up."""
        counts = counts_played(self.scenario, service, up)
        name = (service.name, " ".join(f"{key}:{count}" for key, count in counts.items()), round(slower, 6), False)
        if name not in self.pools:
            self.pools[name] = mixed_pool(self.scenario, service, counts, slower, self.journal)
        return self.pools[name]

    def _supply(self) -> None:
        """Stages, deliveries, scaling and spot capacity."""
        env, scenario, journal = self.env, self.scenario, self.journal
        interval_s = scenario.simulation.interval_minutes * MINUTE_S
        for name, service in self.services.items():
            stages = service.resolved.service.stages
            for before, after in itertools.pairwise(stages):
                rng = self._stream("stage_delay", name, after.name)
                late_s = lateness_s(rng, after.change.delay_days)
                awaited = self.launched[after.after_training] if after.after_training else None
                env.process(rollout(env, service, before, after, journal, interval_s, late_s, awaited))
            rule, spot = service.resolved.service.autoscaler, service.resolved.service.spot
            if rule and not (rule.policy == "fixed" and rule.maximum is None):
                self._check_minimum(service, rule)
                job = self.jobs[rule.lend_to] if rule.lend_to else None
                begin(service, rule, journal, job)
                env.process(autoscale(env, service, rule, self._policy(name, rule), journal, job))
            if spot:
                env.process(keep_spot(env, service, spot, self._stream("spot", name), journal, scenario.site.gpus))
            if scenario.maintenance:
                env.process(maintain(env, service, scenario.maintenance, journal))

    def _check_minimum(self, service: Service, rule) -> None:
        first = service.resolved.stages[0]
        if rule.initial is not None and rule.initial > first.instances:
            raise ScenarioError(
                f"services.{service.name}.autoscaler.initial: {rule.initial} instances exceed the {first.instances} of stage {first.stage.name}"
            )
        for stage in service.resolved.stages:
            if rule.minimum > stage.instances:
                raise ScenarioError(
                    f"services.{service.name}.autoscaler.minimum: {rule.minimum} instances exceed the {stage.instances} of stage {stage.stage.name}"
                )

    def _policy(self, name: str, rule):
        """The autoscaler's function by name: built in, the caller's, or a user's file in a process of its own."""
        if rule.policy in self.policies:
            return self._guarded(name, self.policies[rule.policy])
        if rule.policy in AUTOSCALERS:
            return AUTOSCALERS[rule.policy]
        where = f"services.{name}.autoscaler.policy"
        worker = user_policy(where, rule.policy, rule.deadline_s)
        self.workers.append(worker)
        return worker.decide

    def _guarded(self, name: str, function):
        def decide(view, rule):
            try:
                return function(view, rule)
            except Exception as error:
                day = self.env.now / (24 * HOUR_S)
                raise ScenarioError(
                    f"services.{name}.autoscaler.policy: raised {type(error).__name__} on day {day:.3f}: {error}"
                ) from error

        return decide

    def _trouble(self) -> None:
        """Random failures."""
        scenario, rules = self.scenario, self.scenario.outages
        kinds = failure_kinds(rules)
        crews = {
            name: simpy.Resource(self.env, rules.repair_crews) if rules and rules.repair_crews else None
            for name in self.places
        }
        for kind in kinds:
            if kind.scope == "site":
                for place in self.places.values():
                    there = [service for service in self.services.values() if service.place is place]
                    rng = self._stream("failures", kind.name, place.name)
                    self.env.process(fail_site(self.env, place, there, kind, rng, self.journal))
                continue
            for name, service in self.services.items():
                most = scenario.places[service.place.name].gpus
                most += service.resolved.service.spot.gpus if service.resolved.service.spot else 0
                rng = self._stream("failures", kind.name, name)
                self.env.process(
                    fail_units(self.env, service, kind, rules, most, rng, crews[service.place.name], self.journal)
                )

    def _happenings(self) -> None:
        """The events of the scenario's calendar."""
        env, scenario, journal = self.env, self.scenario, self.journal
        for number, event in enumerate(scenario.events):
            named = getattr(event, "service", None)
            if named and named not in self.services:
                continue
            service = self.services.get(named or "")
            other = self.services.get(getattr(event, "to", None) or "")
            if event.kind == "spike":
                env.process(spike(env, service, event, scenario, journal))
            elif event.kind == "price_change":
                env.process(change_price(env, service, event, scenario, journal))
            elif event.kind == "retirement":
                env.process(retire(env, service, other, event, scenario, journal))
            elif event.kind == "delivery":
                late_s = lateness_s(self._stream("delivery", str(number)), event.delay_days, event.delay)
                env.process(deliver(env, service, event, scenario, journal, late_s))
            elif event.kind == "move":
                env.process(move(env, service, other, event, scenario, journal))
            elif event.kind == "upgrade":
                env.process(upgrade(env, service, event, scenario, journal, number))
            elif event.kind == "breakdown":
                self._break(event, service)
            else:
                self._weather(event)

    def _break(self, event, service) -> None:
        if service is not None:
            self.env.process(stated_breakdown(self.env, service, event, self.scenario, self.journal))
            return
        place = self.places[event.site]
        there = [each for each in self.services.values() if each.place is place]
        if not there:
            return
        self.env.process(site_breakdown(self.env, place, there, event, self.scenario, self.journal))

    def _weather(self, event) -> None:
        place = self.places[event.site]
        there = [service for service in self.services.values() if service.place is place]
        if not there:
            return
        pulse = self.pulse_of[there[0].name]
        if event.kind == "heat_wave":
            self.env.process(heat(self.env, event, self.scenario, place, pulse, self.journal))
            return
        gpus: dict[str, int] = {}
        for service in there:
            first = service.resolved.stages[0]
            gpus[first.system.gpu] = gpus.get(first.system.gpu, 0) + first.stage.gpus
        self.env.process(curtail(self.env, event, self.scenario, place, pulse, self.journal, gpus))

    def _training(self) -> None:
        """Training jobs, on GPUs of their own and lent ones."""
        for name, job in self.jobs.items():
            place = self.places[job.spec.site]
            try:
                mfu_of(job.spec.mfu)
            except ScenarioError as error:
                raise ScenarioError(f"training.{name}.{error}") from None
            finished = partial(self._launch, job) if job.spec.launch else None
            rngs = self._stream("training", name), self._stream("training_repairs", name)
            self.env.process(train(self.env, job, place, self.scenario, finished, rngs, self.journal))

    def _launch(self, job: Job, loss: float) -> None:
        """A finished job hands its model over."""
        plan, event = job.spec.launch, self.launched[job.name]
        self.env.process(launch(self.env, self.services[plan.service], plan, job.name, loss, event, self.journal))

    def _stream(self, *name: str) -> np.random.Generator:
        return stream(self.scenario.seed, *name, f"replication {self.journal.replication}")


def _weekly(rhythm, offset_h: float) -> Callable[[float, float], float]:
    """Mean relative rate over two scenario times; the same hours of each week are computed once."""
    known: dict[tuple[float, float], float] = {}

    def relative(start_s: float, end_s: float) -> float:
        phase_s = start_s % WEEK_S
        span = (phase_s, end_s - start_s)
        if span not in known:
            known[span] = rhythm.mean_over(offset_h + phase_s / HOUR_S, offset_h + (phase_s + span[1]) / HOUR_S)
        return known[span]

    return relative


def _list_price(scenario: Scenario, service: str) -> float | None:
    """Price of a million output tokens at the start, where the plan states one."""
    plan = scenario.money.plans.get(service, scenario.money.plans.get("all"))
    first = plan[0] if isinstance(plan, tuple) else plan
    return first.output_usd_per_million if first is not None else None
