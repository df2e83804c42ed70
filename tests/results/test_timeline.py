"""Course and spans of a replication: what they add up to is what the journal says."""

import numpy as np
import pytest

from factory_sim.results.timeline import course, spans


@pytest.fixture(scope="module")
def windows(small_run):
    return small_run.tables["windows"]


@pytest.mark.parametrize("replication", [0, 1])
def test_the_course_adds_up_to_the_journal(windows, replication):
    own, shown = windows[windows.replication == replication], course(windows, replication)
    for figure, column in (("requests_completed", "requests_completed"), ("demand", "latent_requests")):
        assert shown.value[shown.figure == figure].sum() == pytest.approx(own[column].sum(), rel=1e-9)
    power = shown[shown.figure == "power"]
    assert (power.value * (power.end_s - power.start_s)).sum() == pytest.approx(own.facility_energy_j.sum(), rel=1e-9)
    assert np.allclose(power.start_s.to_numpy()[1:], power.end_s.to_numpy()[:-1])


def test_spans_hold_every_gpu_hour(windows):
    own = windows[windows.replication == 0].assign(row=windows.service + "." + windows.stage)
    most = own.groupby("row").gpus.max()
    shown = spans(windows, 0)
    hours = (shown.share * shown.row.map(most) * (shown.end_s - shown.start_s)).groupby(shown.row).sum() / 3600
    for row, found in hours.items():
        assert found == pytest.approx(own[own.row == row].gpu_hours.sum(), rel=2e-3)


def test_broken_gpus_are_told_from_those_being_changed(windows):
    half = windows.assign(gpu_hours_broken=0.5 * windows.gpu_hours_down)
    shown = spans(half, 0)
    area = (shown.share * (shown.end_s - shown.start_s)).groupby(shown.state).sum()
    assert area["broken"] == pytest.approx(area["down"], rel=1e-2)
    assert "broken" not in set(spans(windows, 0).state)
