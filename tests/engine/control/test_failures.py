"""Failures: availability as in renewal theory, spares as in the machine-repair model, requests lost and asked again."""

import numpy as np
import pandas as pd
import pytest
from bed import another, play, same, scenario

from factory_sim.model import queueing
from factory_sim.results.figures import KEYS, by_replication, mark_spans, with_parts
from factory_sim.units import DAY_S, HOUR_S


def one_class(scope="gpu", per_unit_year=100.0, repair_hours=5.0, **more):
    return {
        "classes": {"break": {"scope": scope, "per_unit_year": per_unit_year, "repair_hours": repair_hours, "gpus": 1}},
        **more,
    }


NO_START = {
    "autoscaler": {
        "policy": "fixed",
        "cold_start": {"weights_gb_per_s": 1e9, "engine_start_s": 0, "graph_capture_s": 0},
    }
}


def mean_up(windows):
    spans = windows.end_s - windows.start_s
    return (windows.replicas * spans).sum() / windows.groupby("start_s").end_s.first().sub(
        windows.start_s.unique()
    ).sum()


def test_no_failures_are_infinite_mtbf():
    plain, _ = play(scenario())
    never, events = play(scenario(outages=one_class(per_unit_year=0.0)))
    off, _ = play(scenario(outages=one_class(rate_multiplier=0.0)))
    assert same(plain, never)
    assert same(plain, off)
    assert list(events.kind) == ["stage_begins"]


@pytest.mark.parametrize("seed", [1, 2])
def test_availability_is_mtbf_over_mtbf_and_mttr(seed):
    windows, _ = play(scenario({"requests_per_s": 5}, NO_START, seed=seed, duration_days=60, outages=one_class()))
    up = np.average(windows.replicas, weights=windows.end_s - windows.start_s) / 20
    mtbf_s, mttr_s = 365.25 * DAY_S / 100.0, 5 * HOUR_S
    expected = queueing.availability(mtbf_s, mttr_s)
    failures = 20 * 60 * DAY_S / (mtbf_s + mttr_s)
    # the down share is a mean over `failures` cycles of exponential repair and running times
    error = (1 - expected) * expected * np.sqrt(2 / failures)
    assert abs(up - expected) < 4 * error
    assert abs(1 - windows.gpu_hours_broken.sum() / windows.gpu_hours.sum() - expected) < 4 * error
    assert abs(figure(windows, "availability") - expected) < 4 * error


def figure(windows, name):
    """A figure of the whole run, as summary.json has it."""
    marked = mark_spans(with_parts(windows, {}))
    spans = marked[KEYS].drop_duplicates()
    latency = pd.DataFrame(index=pd.MultiIndex.from_frame(spans))
    found = by_replication(marked, latency, spans.assign(revenue=0.0, cost=0.0, token_cost=0.0))
    return found[(found.figure == name) & (found.window == "whole") & (found.service == "all")].value.item()


def test_spares_and_crews_as_in_the_machine_repair_model():
    needed, spares, crews = 20, 2, 2
    service = NO_START | {"spare_gpus": spares}
    rules = one_class(per_unit_year=365.25 * 24 / 100.0, repair_hours=5.0, repair_crews=crews)
    ups = []
    for seed in range(4):
        windows, _ = play(scenario({"requests_per_s": 5}, service, seed=seed, duration_days=60, outages=rules))
        ups.append(np.average(windows.replicas, weights=windows.end_s - windows.start_s))
    working, _ = queueing.machines_working(needed, spares, crews, 100 * HOUR_S, 5 * HOUR_S)
    assert abs(np.mean(ups) - working) < 4 * np.std(ups, ddof=1) / np.sqrt(len(ups)) + 0.02
    assert working < needed - 0.2  # or the comparison would say nothing


def test_requests_in_flight_are_lost_and_part_is_asked_again():
    event = {"kind": "breakdown", "at_day": 0.5, "service": "chat", "gpus": 10, "hours": 3}
    windows, events = play(
        scenario({"load": 0.6}, NO_START, events=[event], outages=one_class(per_unit_year=0, retry_share=0.5))
    )
    before = windows[windows.end_s == 0.5 * DAY_S].iloc[0]
    lost = windows.requests_lost.sum()
    assert lost > 0
    in_flight = 10 * before.requests_completed / before.instance_s * 0.5  # a request takes about half a second
    assert 0.2 * in_flight < lost < 5 * in_flight
    assert "failure" in set(events.kind)
    assert "repaired" in set(events.kind)
    gap = windows.latent_requests.sum() - windows.granted_requests.sum() - windows.requests_lost_waiting.sum()
    assert gap == pytest.approx(windows.requests_waiting.iloc[-1], abs=1e-6 * windows.latent_requests.sum())


def test_a_rack_takes_all_its_instances():
    event = {"kind": "breakdown", "at_day": 1, "service": "chat", "gpus": 12, "hours": 6}
    windows, _ = play(scenario({"requests_per_s": 5}, NO_START, events=[event]))
    hour = windows[(windows.start_s >= DAY_S + HOUR_S) & (windows.start_s < DAY_S + 5 * HOUR_S)]
    assert set(hour.replicas) == {8.0}
    assert windows.replicas.iloc[-1] == 20.0


def test_gpus_are_conserved_through_failures_and_spares():
    rules = one_class(per_unit_year=365.25 * 24 / 50.0, repair_hours=8.0)
    windows, _ = play(scenario({"requests_per_s": 5}, NO_START | {"spare_gpus": 3}, duration_days=20, outages=rules))
    assert np.allclose(windows.groupby("start_s").gpus.sum(), 23.0)
    assert windows.replicas.min() < 20.0


def test_a_degraded_instance_serves_slower_until_repair():
    rules = one_class(per_unit_year=365.25 * 24 / 200.0, repair_hours=10.0, slow_share=1.0, slow_factor=2.0)
    windows, events = play(scenario({"load": 0.5}, NO_START, duration_days=4, outages=rules))
    assert "degraded" in set(events.kind)
    assert "failure" not in set(events.kind)
    assert np.allclose(windows.groupby("start_s").replicas.sum(), 20.0)
    assert windows.groupby("start_s").size().max() == 2  # healthy and slow instances are told apart


def test_another_service_has_its_own_failures():
    rules = one_class(per_unit_year=50.0)
    alone, _ = play(scenario({"requests_per_s": 5}, duration_days=10, outages=rules))
    raw_other = another()
    raw_other["traffic"]["demand"] = {"requests_per_s": 1}
    from bed import SERVICE

    chat = another()
    chat["traffic"]["demand"] |= {"requests_per_s": 5}
    both, _ = play(scenario(duration_days=10, outages=rules, services={"chat": chat, "idle": raw_other}))
    assert same(alone, both[both.service == "chat"].reset_index(drop=True))
    assert SERVICE["traffic"]["demand"]["requests_per_s"] == 100
