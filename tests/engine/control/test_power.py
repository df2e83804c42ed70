"""Power: the cap holds, what never binds changes nothing, energy closes, PUE as stated, priorities cut last."""

import numpy as np
import pytest
from bed import another, play, same, scenario

from factory_sim.engine.control.power import check_power, clock_energy, keep_below, outside_c, pue_at
from factory_sim.engine.watts import idle_it_watts, idle_watts, nameplate_watts, training_watts
from factory_sim.errors import ScenarioError
from factory_sim.inputs.operations import Cooling
from factory_sim.inputs.scenario import Site
from factory_sim.model.energy import power_curve
from factory_sim.units import DAY_S, HOUR_S, MEGAWATT_W

BUSY = {"load": 0.9}


def meter_mw(windows):
    energy = windows.groupby(["start_s", "end_s"]).facility_energy_j.sum()
    return energy / (energy.index.get_level_values(1) - energy.index.get_level_values(0)) / MEGAWATT_W


def call(share, **more):
    return {"kind": "curtailment", "at_day": 0.5, "hours": 6, "share": share} | more


def full_mw():
    windows, _ = play(scenario(BUSY))
    return float(meter_mw(windows).max())


def test_a_cap_that_never_binds_changes_no_byte():
    plain, events = play(scenario(BUSY))
    capped, same_events = play(scenario(BUSY, site={"gpus": 200, "power": {"mw": 50}}))
    assert same(plain, capped)
    assert same(events, same_events)


def test_a_curtailment_that_never_binds_leaves_every_fact_alone():
    plain, _ = play(scenario(BUSY))
    event = {"kind": "curtailment", "at_day": 0.5, "hours": 6, "mw": 50}
    called, events = play(scenario(BUSY, events=[event]))
    assert same(plain, called)
    assert list(events.kind)[1:] == ["curtailment_begins", "curtailment_ends"]


@pytest.mark.parametrize("by", ["frequency", "priority", "shed"])
def test_the_cap_holds_while_it_lasts(by):
    cap = 0.8 * full_mw()
    event = {"kind": "curtailment", "at_day": 0.5, "hours": 6, "mw": cap}
    windows, events = play(scenario(BUSY, site={"gpus": 200, "power": {"by": by}}, events=[event]))
    power = meter_mw(windows)
    inside = (power.index.get_level_values(0) >= 0.5 * DAY_S) & (
        power.index.get_level_values(1) <= 0.5 * DAY_S + 6 * HOUR_S
    )
    assert (power[inside] <= cap * (1 + 1e-9)).all()
    assert (power[~inside] > cap).any()
    assert {"power_capped", "power_free"} <= set(events.kind)
    served = windows.set_index("start_s").output_tokens
    assert served[0.5 * DAY_S + 2 * HOUR_S] > 0.5 * served[0.5 * DAY_S - 2 * HOUR_S]


def test_by_priority_the_least_urgent_is_clocked_and_switched_off_before_the_next_is_touched():
    def draw(slower, dark):
        return sum(10.0 * (10.0 - dark[i]) / slower[i] for i in (0, 1))

    slower, dark, power = keep_below(140.0, "priority", [1.0, 1.25], [0, 1], draw, lambda index: 10.0)
    assert slower == {0: 1.0, 1: 1.25}
    assert dark == {0: 0.0, 1: 5.0}
    assert power == pytest.approx(140.0)


def test_shedding_saves_power_by_serving_fewer_and_clocks_by_serving_slower():
    cap = 0.8 * full_mw()
    found = {}
    for by in ("frequency", "shed"):
        event = {"kind": "curtailment", "at_day": 0.5, "hours": 6, "mw": cap}
        windows, _ = play(scenario(BUSY, site={"gpus": 200, "power": {"by": by}}, events=[event]))
        found[by] = windows[windows.start_s == 0.5 * DAY_S + 2 * HOUR_S].iloc[0]
    assert found["frequency"].replicas == 20
    assert found["shed"].replicas < 20
    assert found["shed"].gpu_hours == found["frequency"].gpu_hours == 20  # switched off or not, they are paid for


def test_the_less_urgent_service_is_cut_first():
    chat, batch = another(priority=0), another(priority=1)
    chat["traffic"]["demand"] = {"load": 0.9}
    batch["traffic"]["demand"] = {"load": 0.9}
    services = {"chat": chat, "batch": batch}
    cap = 0.9 * 2 * full_mw()
    event = {"kind": "curtailment", "at_day": 0.5, "hours": 6, "mw": cap}
    free, _ = play(scenario(services=services))
    windows, _ = play(scenario(services=services, site={"gpus": 200, "power": {"by": "shed"}}, events=[event]))
    inside = windows[windows.start_s == 0.5 * DAY_S + HOUR_S].set_index("service").replicas
    assert inside["chat"] == 20
    assert inside["batch"] < 20
    assert free.replicas.min() == 20


def test_energy_closes_with_weather_and_load():
    site = {"gpus": 200, "pue": 1.3, "cooling": {"outside_c": 20, "daily_swing_c": 8}}
    wave = {"kind": "heat_wave", "at_day": 1, "days": 1, "rise_k": 12}
    windows, _ = play(scenario({"load": 0.6, "rhythm": "servegen_deepseek-r1"}, site=site, events=[wave]))
    assert (windows.it_energy_j * windows.pue).sum() == pytest.approx(windows.facility_energy_j.sum(), rel=1e-12)
    cool, hot = windows[windows.start_s < DAY_S].pue, windows[windows.start_s >= DAY_S].pue
    assert hot.max() > cool.max() > 1.3
    gpu = windows.input_energy_j + windows.output_energy_j + windows.idle_energy_j
    assert np.allclose(gpu, windows.gpu_energy_j)


def test_pue_at_full_load_in_cool_weather_is_the_stated_one():
    site = Site(gpus=8, pue=1.25, cooling=Cooling(fixed_share=0.4, slope_per_k=0.03, above_c=18))
    assert pue_at(site, 1.0, 10.0) == pytest.approx(1.25)
    assert pue_at(site, 0.5, 10.0) == pytest.approx(1 + 0.25 * (0.4 / 0.5 + 0.6))
    assert pue_at(site, 1.0, 28.0) == pytest.approx(1 + 0.25 * 1.3)
    assert outside_c(Cooling(outside_c=15, daily_swing_c=5), 15.0, 0.0) == pytest.approx(20)
    assert outside_c(Cooling(outside_c=15, daily_swing_c=5), 3.0, 2.0) == pytest.approx(12)


def test_idle_and_host_power_of_a_fleet_without_requests():
    windows, _ = play(scenario({"requests_per_s": 1e-9}))
    assert meter_mw(windows).max() * MEGAWATT_W < 20 * nameplate_watts("h100") * 1.25


def test_slower_clocks_save_energy_an_operation():
    assert clock_energy(1.0) == 1.0
    assert 0 < clock_energy(1.5) < clock_energy(1.2) < 1.0


def test_keep_below_takes_the_fastest_clock_that_fits():
    slower, dark, power = keep_below(
        80.0, "frequency", [1.0, 1.1, 1.2, 1.3, 1.4], [0], lambda slow, off: 100.0 / slow[0], lambda index: 10.0
    )
    assert slower == {0: 1.3}
    assert dark == {0: 0.0}
    assert power == pytest.approx(100 / 1.3)


def test_a_curtailment_needs_a_cap_of_one_kind():
    from factory_sim.errors import ScenarioError

    with pytest.raises(ScenarioError, match="exactly one of mw and share"):
        scenario(events=[{"kind": "curtailment", "at_day": 1, "hours": 1}])
    assert call(0.5)["share"] == 0.5


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8", "int8", "fp4", "int4"])
def test_a_training_gpu_of_any_precision_draws_between_idle_and_board_power(precision):
    watts = training_watts("b200", precision, 0.4, 0.3)
    assert idle_watts("b200") < watts <= power_curve("b200").board_power_w


def test_a_site_that_cannot_power_its_idle_gpus_is_an_error():
    needed_mw = 20 * idle_it_watts("h100") * 1.25 / MEGAWATT_W
    check_power(scenario(site={"gpus": 200, "power": {"mw": 1.01 * needed_mw}}))
    with pytest.raises(ScenarioError, match=r"site.power.mw: .* on day 0 draw .* MW at the meter while they idle"):
        check_power(scenario(site={"gpus": 200, "power": {"mw": 0.99 * needed_mw}}))


def test_no_more_gpus_break_down_than_there_are():
    event = {"kind": "breakdown", "service": "chat", "at_day": 0.5, "hours": 3}
    scenario(events=[event | {"gpus": 20}])
    with pytest.raises(ScenarioError, match=r"events.0 \(breakdown\) on day 0.5: 21 GPUs stop, but chat holds 20"):
        scenario(events=[event | {"gpus": 21}])
