"""A site's power: PUE by load and weather, a cap from the grid, and what is done to stay below it."""

import math
from collections.abc import Callable

import simpy

from factory_sim.engine.control.carbon import carbon_series
from factory_sim.engine.control.fleet import Pulse
from factory_sim.engine.control.service import Place
from factory_sim.engine.journal import Journal
from factory_sim.engine.watts import idle_it_watts, nameplate_watts
from factory_sim.errors import ScenarioError
from factory_sim.inputs.calendar_rules import gpus_held
from factory_sim.inputs.events import Curtailment, HeatWave
from factory_sim.inputs.operations import Cooling, PowerCap
from factory_sim.inputs.reliability import operation
from factory_sim.inputs.scenario import Scenario, Site
from factory_sim.units import DAY_S, HOUR_S, MEGAWATT_W

STEP = 1.05
"""Clocks are set so that step times are a power of this times those at the full clock."""
NEAR = 1e-9
"""Relative difference of two powers that counts as none."""


def pue_at(site: Site, load: float, outside_c: float) -> float:
    """PUE of a site at a load (IT power over nameplate) and an outside temperature; see `Cooling` for the formula."""
    cooling = site.cooling
    if cooling is None:
        return site.pue
    fixed = operation("cooling_fixed_share", cooling.fixed_share)
    slope = operation("cooling_slope", cooling.slope_per_k)
    part = min(max(load, cooling.least_load), 1.0)
    overhead = (site.pue - 1.0) * (fixed / part + 1.0 - fixed)
    return 1.0 + overhead * (1.0 + slope * max(0.0, outside_c - cooling.above_c))


def outside_c(cooling: Cooling | None, hour_of_day: float, rise_k: float) -> float:
    """Outside temperature: a mean, a daily swing with its top at 15:00, and what the weather adds, degrees Celsius."""
    if cooling is None:
        return 0.0
    return cooling.outside_c + cooling.daily_swing_c * math.cos(2 * math.pi * (hour_of_day - 15.0) / 24.0) + rise_k


def check_power(scenario: Scenario) -> None:
    """Raise ScenarioError where a site's own cap does not even power its GPUs while they idle, on any stage's first day,
    and TraceError where its series of carbon intensity cannot be read."""
    days = sorted({0.0} | {stage.from_day for service in scenario.services.values() for stage in service.stages})
    for name, site in scenario.places.items():
        if site.power and site.power.carbon_series:
            carbon_series(site.power.carbon_series)
        for day in days if site.power and site.power.mw else ():
            idle_w = sum(
                (job.gpus + job.spare_gpus) * idle_it_watts(job.gpu)
                for job in scenario.training.values()
                if job.site == name
            )
            for service, spec in scenario.services.items():
                if spec.site == name:
                    gpu = [stage for stage in spec.stages if stage.from_day <= day][-1].system.gpu
                    idle_w += gpus_held(scenario, service, day) * idle_it_watts(gpu)
            if idle_w * site.pue > site.power.mw * MEGAWATT_W:
                raise ScenarioError(
                    f"{'site' if name == 'main' else f'sites.{name}'}.power.mw: {site.power.mw:g} MW; the GPUs there on "
                    f"day {day:g} draw {idle_w * site.pue / MEGAWATT_W:.4g} MW at the meter while they idle"
                )


def cap_w(site: Site, place: Place) -> float:
    """Most watts at the meter that the site may draw now; infinite without a cap."""
    own = site.power.mw * MEGAWATT_W if site.power and site.power.mw else math.inf
    return min([own, *place.caps_w])


def clock_energy(slower: float) -> float:
    """Energy of an operation at the clock at which steps take `slower` times as long, over that at the full clock.

    Step time goes as clock to minus `clock_time_exponent`, energy of an operation as clock to `clock_energy_exponent`
    (operations.csv; guesses).
    """
    if slower == 1.0:
        return 1.0
    return slower ** (-operation("clock_energy_exponent") / operation("clock_time_exponent"))


def slow_downs(cap: PowerCap | None) -> list[float]:
    """Step times that clocks can be set to, full clock first."""
    slowest = cap.slowest if cap else 1.0
    return [1.0, *(STEP**n for n in range(1, math.floor(math.log(slowest) / math.log(STEP) + 1e-9) + 1))]


def curtail(
    env: simpy.Environment, event: Curtailment, scenario: Scenario, place: Place, pulse: Pulse, journal: Journal, gpus
):
    """Hold a site below the cap that the grid calls for, for as long as it says."""
    site = scenario.places[event.site]
    yield env.timeout(event.time_s(scenario.start))
    whole = cap_w(site, place)
    cap = (
        event.mw * MEGAWATT_W
        if event.mw
        else event.share * (whole if math.isfinite(whole) else nameplate(gpus) * site.pue)
    )
    journal.note(env.now, "curtailment_begins", event.site, "grid", f"{cap / MEGAWATT_W:.3f} MW for {event.hours:g} h")
    place.caps_w.append(cap)
    place.tell_jobs()
    pulse.fire()
    yield env.timeout(event.hours * HOUR_S)
    place.caps_w.remove(cap)
    place.tell_jobs()
    journal.note(env.now, "curtailment_ends", event.site, "grid", "")
    pulse.fire()


def heat(env: simpy.Environment, event: HeatWave, scenario: Scenario, place: Place, pulse: Pulse, journal: Journal):
    """The weather turns hot for some days."""
    yield env.timeout(event.time_s(scenario.start))
    journal.note(env.now, "heat_wave_begins", event.site, "weather", f"{event.rise_k:+g} K for {event.days:g} days")
    place.rise_k += event.rise_k
    pulse.fire()
    yield env.timeout(event.days * DAY_S)
    place.rise_k -= event.rise_k
    journal.note(env.now, "heat_wave_ends", event.site, "weather", "")
    pulse.fire()


def nameplate(gpus: dict[str, int]) -> float:
    """IT power of GPUs (by kind) and their hosts at board power, W."""
    return sum(count * nameplate_watts(gpu) for gpu, count in sorted(gpus.items()))


def at_site(plans: list, place: Place) -> float:
    """Nameplate IT power of everything at a site in a stretch: fleets of its services and training GPUs, W."""
    total = place.training_nameplate_w
    for plan in plans:
        for count in plan.counts:
            system = plan.service.kinds[count.key].stage.system
            gpus = (count.up + count.idle) * system.gpus + count.down_gpus + count.broken_gpus
            total += gpus * nameplate_watts(system.gpu)
    return total


def keep_below(
    limit_w: float,
    mode: str,
    clocks: list[float],
    urgency: list[int],
    draw: Callable[[dict[int, float], dict[int, float]], float],
    instances: Callable[[int], float],
) -> tuple[dict[int, float], dict[int, float], float]:
    """Find clocks and switched-off instances that keep a site's power below `limit_w`.

    `urgency` holds the priority of each service (0 most urgent) by its index; `draw(slower, dark)` plays the stretch
    with step times `slower[i]` and `dark[i]` instances off, and returns the power at the meter, W; `instances(i)` is
    how many serve. Returns (slower, dark, power). The least urgent services are cut first where the mode says so.
    """
    slower, dark = dict.fromkeys(range(len(urgency)), 1.0), dict.fromkeys(range(len(urgency)), 0.0)
    fits = limit_w * (1 + NEAR)
    power = draw(slower, dark)
    if power <= fits:
        return slower, dark, power
    order = sorted(range(len(urgency)), key=lambda i: (-urgency[i], i))
    for group in [[i] for i in order] if mode == "priority" else [order]:
        if mode != "shed":
            slower = _clock_down(group, slower, clocks, lambda trial, dark=dark: draw(trial, dark) <= fits)
        for i in group:
            if draw(slower, dark) <= fits:
                break
            dark = _switch_off(i, dark, instances(i), lambda trial, slower=slower: draw(slower, trial) <= fits)
        power = draw(slower, dark)
        if power <= fits:
            break
    return slower, dark, power


def _clock_down(
    group: list[int], slower: dict[int, float], clocks: list[float], holds: Callable[[dict[int, float]], bool]
) -> dict[int, float]:
    """The fastest clock of a group at which the cap `holds`, by bisection (power falls with the clock); else the slowest."""
    low, high = 0, len(clocks) - 1
    if holds({**slower, **dict.fromkeys(group, clocks[high])}):
        while high - low > 1:
            middle = (low + high) // 2
            enough = holds({**slower, **dict.fromkeys(group, clocks[middle])})
            low, high = (low, middle) if enough else (middle, high)
    return {**slower, **dict.fromkeys(group, clocks[high])}


def _switch_off(
    i: int, dark: dict[int, float], most: float, holds: Callable[[dict[int, float]], bool]
) -> dict[int, float]:
    """The fewest instances of a service to switch off so that the cap `holds`; else all `most` of them."""
    low, high = 0.0, most
    if holds({**dark, i: high}):
        while high - low > 1.0:
            middle = math.floor((low + high) / 2)
            low, high = (low, middle) if holds({**dark, i: middle}) else (middle, high)
    return {**dark, i: high}
