"""Supply: stages, deliveries, moves, upgrades with a trial, maintenance; GPUs are never made or lost."""

import numpy as np
import pytest
from bed import STAGE, another, play, scenario

from factory_sim.units import DAY_S, HOUR_S


def stage(name, from_day, gpus=20, **change):
    return STAGE | {
        "name": name,
        "from_day": from_day,
        "gpus": gpus,
        "change": {"kind": "restart", "duration_days": 0.25} | change,
    }


def at(windows, day):
    return windows[(windows.start_s <= day * DAY_S) & (windows.end_s > day * DAY_S)]


def test_a_stage_of_larger_instances_takes_over_all_gpus():
    service = {"stages": [STAGE, stage("big", 0.5)]}
    windows, events = play(scenario({"load": 0.5}, service), sizes={"big": 4}, factors={"big": 0.5})
    assert np.allclose(windows.groupby("start_s").gpus.sum(), 20)
    assert list(at(windows, 1.5).stage) == ["big"]
    assert at(windows, 1.5).replicas.item() == 5
    assert {"stage_begins", "stage_complete"} <= set(events.kind)


def test_instances_that_begin_to_limp_during_a_change_of_stage_take_their_gpus_along():
    slow = {"break": {"scope": "gpu", "per_unit_year": 800, "repair_hours": 200, "repair": "fixed", "gpus": 1}}
    service = {"stages": [STAGE, stage("next", 0.001, duration_days=0.75)]}
    rules = {"classes": slow, "slow_share": 1.0}
    windows, events = play(scenario({"load": 0.5}, service, duration_days=3, outages=rules))
    change = events[events.kind.isin(["stage_begins", "stage_complete"]) & (events.subject == "chat.next")].time_s
    limped = events[events.kind == "degraded"].time_s
    assert change.iloc[0] < limped.min()  # none of them was there when the change began
    assert limped.between(change.iloc[0], change.iloc[1] - HOUR_S).sum() > 5
    held = (windows.gpus * (windows.end_s - windows.start_s)).groupby(windows.start_s).sum()
    assert held.to_numpy() == pytest.approx((20 * windows.groupby("start_s").end_s.first() - 20 * held.index).to_numpy())
    assert set(at(windows, 2.5).stage) == {"next"}
    assert at(windows, 2.5).replicas.sum() == 20


def test_hardware_comes_late_by_a_drawn_time_with_the_stated_mean():
    service = {"stages": [STAGE, stage("next", 0.5, delay_days=0.3)]}
    lates = []
    for seed in range(40):
        _, events = play(scenario({"requests_per_s": 1}, service, seed=seed, duration_days=1))
        begins = events[events.subject == "chat.next"].time_s
        lates.append(begins.iloc[0] / DAY_S - 0.5 if len(begins) else 0.5)
    mean = 0.3 * (1 - np.exp(-0.5 / 0.3))  # of the delay cut off at the end of the scenario
    assert abs(np.mean(lates) - mean) < 4 * np.std(lates) / np.sqrt(len(lates))


def test_delivered_gpus_are_paid_for_before_they_serve():
    event = {"kind": "delivery", "at_day": 0.5, "service": "chat", "gpus": 10, "commissioning_hours": 6}
    windows, _ = play(scenario({"load": 0.5}, events=[event]))
    assert at(windows, 0.6).gpus.sum() == 30
    assert at(windows, 0.6).replicas.sum() == 20
    assert at(windows, 0.8).replicas.sum() == 30


def test_nodes_move_between_services():
    services = {"chat": another(), "code": another()}
    event = {"kind": "move", "at_day": 0.5, "service": "chat", "to": "code", "gpus": 8, "downtime_minutes": 120}
    windows, _ = play(scenario(services=services, events=[event]))
    assert np.allclose(at(windows, 0.52).groupby("service").gpus.sum(), [12, 28])
    later = at(windows, 1).groupby("service").replicas.sum()
    assert list(later) == [12, 28]


def test_an_upgrade_raises_capacity_after_its_trial():
    event = {
        "kind": "upgrade",
        "at_day": 0.25,
        "service": "chat",
        "speedup": 1.25,
        "hours": 6,
        "canary_hours": 3,
        "canary_share": 0.1,
    }
    windows, events = play(scenario({"load": 0.5}, events=[event]))
    assert list(events.kind)[1:] == ["canary_begins", "canary_passed", "upgraded"]
    first, last = windows.iloc[0], windows[windows.end_s == windows.end_s.max()]
    assert last.limit_requests_per_s.sum() == pytest.approx(1.25 * first.limit_requests_per_s, rel=1e-6)
    assert np.allclose(windows.groupby("start_s").gpus.sum(), 20)


def test_a_slower_version_is_rolled_back():
    event = {
        "kind": "upgrade",
        "at_day": 0.25,
        "service": "chat",
        "speedup": 0.7,
        "hours": 6,
        "canary_hours": 3,
        "canary_share": 0.1,
    }
    windows, events = play(scenario({"load": 0.5}, events=[event]))
    assert list(events.kind)[1:] == ["canary_begins", "rolled_back"]
    last = windows[windows.end_s == windows.end_s.max()]
    assert last.limit_requests_per_s.sum() == pytest.approx(windows.limit_requests_per_s.iloc[0])
    assert last.replicas.sum() == 20


def test_maintenance_takes_its_share_at_its_hour():
    rule = {"every_days": 1, "from_hour": 2, "share": 0.1, "hours": 2, "batches": 2}
    windows, events = play(scenario({"load": 0.5}, maintenance=rule))
    assert list(events[events.kind == "maintenance"].time_s / HOUR_S) == [2, 4, 26, 28]
    assert at(windows, 3 / 24).replicas.item() == 18
    assert at(windows, 7 / 24).replicas.item() == 20


def test_changes_of_few_instances_do_not_cut_the_hours_and_count_by_their_time():
    rule = {"every_days": 1, "from_hour": 2.5, "share": 0.05, "hours": 1}
    sampling = scenario().simulation.model_dump()
    sampling["sampling"]["fleet_tolerance"] = 0.2
    windows, _ = play(scenario({"load": 0.5}, maintenance=rule, simulation=sampling))
    assert len(windows) == 48
    assert at(windows, 2.75 / 24).replicas.item() == pytest.approx(19.5)
    assert windows.gpu_hours_down.sum() == pytest.approx(2.0)
