"""What happens to demand on stated days: spikes, price changes, models that retire or are launched."""

import math

import simpy

from factory_sim.engine.control.service import Service
from factory_sim.engine.journal import Journal
from factory_sim.inputs.events import PriceChange, Retirement, Spike
from factory_sim.inputs.scenario import Scenario
from factory_sim.inputs.training_jobs import Launch
from factory_sim.units import DAY_S, HOUR_S


def spike(env: simpy.Environment, service: Service, event: Spike, scenario: Scenario, journal: Journal):
    """Demand rises for a while and falls back."""
    at_s = event.time_s(scenario.start)
    service.demand.spikes.append((at_s, event.multiplier, event.ramp_hours * HOUR_S, event.hours * HOUR_S))
    yield env.timeout(at_s)
    journal.note(env.now, "spike_begins", service.name, "demand", f"times {event.multiplier:g} for {event.hours:g} h")
    yield env.timeout((2 * event.ramp_hours + event.hours) * HOUR_S)
    journal.note(env.now, "spike_ends", service.name, "demand", "")


def change_price(env: simpy.Environment, service: Service, event: PriceChange, scenario: Scenario, journal: Journal):
    """List prices change, and demand answers from the next interval on."""
    yield env.timeout(event.time_s(scenario.start))
    service.demand.price_factor = event.multiplier
    service.fleet.pulse.fire()
    journal.note(env.now, "price_changed", service.name, "plan", f"times {event.multiplier:g} of the first day's")


def retire(
    env: simpy.Environment,
    service: Service,
    heir: Service | None,
    event: Retirement,
    scenario: Scenario,
    journal: Journal,
):
    """A model is retired: its users leave over some days, part of them for another service."""
    at_s = event.time_s(scenario.start)
    service.demand.fading = (at_s, event.fade_days * DAY_S)
    if heir is not None:
        heir.demand.heirs_of.append((service.demand, event.share))
    yield env.timeout(at_s)
    journal.note(env.now, "retirement_begins", service.name, "plan", f"fades over {event.fade_days:g} days")
    yield env.timeout(event.fade_days * DAY_S)
    journal.note(
        env.now,
        "retired",
        service.name,
        "plan",
        f"{event.share:.0%} of the demand moved to {heir.name}" if heir else "",
    )


def launch(
    env: simpy.Environment,
    service: Service,
    plan: Launch,
    cause: str,
    loss: float,
    launched: simpy.Event,
    journal: Journal,
):
    """A better model (of a loss in nats/token) enters a service: demand grows as it is adopted, and prices change."""
    yield env.timeout(plan.after_days * DAY_S)
    better = plan.loss_before - loss if plan.loss_before is not None else 0.0
    multiplier = plan.demand_multiplier * math.exp(plan.demand_per_nat * better)
    service.demand.launches.append((env.now, multiplier, plan.adoption_days * DAY_S))
    service.launch_price *= plan.price_multiplier
    service.fleet.pulse.fire()
    launched.succeed()
    effect = f"demand times {multiplier:.4g} within {plan.adoption_days:g} days, prices times {plan.price_multiplier:g}"
    if plan.loss_before is not None:
        effect += f"; loss {loss:.3f} nats/token after {plan.loss_before:.3f}"
    journal.note(env.now, "model_launched", service.name, cause, effect)
