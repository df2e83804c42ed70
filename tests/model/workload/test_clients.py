"""Clients have the published shares and burstiness, and together the dispersion that follows from both."""

import numpy as np
import pytest

from factory_sim.errors import TraceError
from factory_sim.inputs import workloads
from factory_sim.model.workload.arrivals import index_of_dispersion
from factory_sim.model.workload.clients import Clients, ClientStream, client_arrivals, client_shares, clients
from factory_sim.streams import stream

SERVEGEN = [name for name in workloads.workload_names() if name.startswith("servegen_")]


@pytest.mark.parametrize("name", SERVEGEN)
def test_shares_fall_and_match_the_published_ones(name):
    share = client_shares(name)
    assert len(share) == workloads.statistics(name, "clients")["count"].number
    assert np.all(np.diff(share) <= 1e-15)
    assert np.all(share > 0)
    assert share.sum() == pytest.approx(1.0, rel=1e-12)
    for top, row in workloads.statistics(name, "client_share").items():
        assert share[: int(top.removeprefix("top"))].sum() == pytest.approx(row.number, rel=1e-9)


@pytest.mark.parametrize("name", SERVEGEN)
@pytest.mark.parametrize("quantile", ["p25", "p50", "p75"])
def test_cvs_have_the_published_quantiles_over_requests_on_average(name, quantile):
    published = workloads.statistics(name, "client_interarrival_cv")[f"{quantile}_request_weighted"].number
    drawn = [clients(name, stream(k, "clients", quantile)) for k in range(150)]
    below = np.array([who.share[who.cv <= published].sum() for who in drawn])
    expected = float(quantile[1:]) / 100
    assert below.mean() == pytest.approx(expected, abs=3.5 * below.std() / np.sqrt(len(below)))


def test_client_arrivals_have_their_shares_and_together_the_rate():
    times, client = client_arrivals(stream(1, "a"), "servegen_deepseek-r1", 20.0, 5000.0)
    who = client_shares("servegen_deepseek-r1")
    assert np.all(np.diff(times) >= 0)
    assert len(times) == pytest.approx(100_000, rel=0.05)
    assert np.bincount(client, minlength=73)[0] / len(times) == pytest.approx(who[0], rel=0.15)


def test_dispersion_in_long_windows_is_share_weighted_cv_squared_at_any_rate():
    who = Clients("two", "test", np.array([0.7, 0.3]), np.array([1.0, 3.0]))
    assert who.long_window_dispersion == pytest.approx(0.7 + 0.3 * 9)
    for rate in (10.0, 80.0):
        sampled = []
        for k in range(30):
            times, _ = ClientStream(stream(k, "d"), who).take(60_000.0 / rate, rate)
            sampled.append(index_of_dispersion(times, 600.0 / rate, 60_000.0 / rate))
        error = np.std(sampled) / np.sqrt(len(sampled))
        assert np.mean(sampled) == pytest.approx(who.long_window_dispersion, abs=4 * error + 0.15)


def test_slices_change_nothing():
    who = clients("servegen_mm-image", stream(2, "c"))
    whole = ClientStream(stream(3, "a"), who).take(300.0, 10.0)
    parts = ClientStream(stream(3, "a"), who)
    sliced = [parts.take(until, 10.0) for until in (11.0, 150.0, 300.0)]
    assert np.concatenate([times for times, _ in sliced]) == pytest.approx(whole[0], abs=1e-8)
    assert np.array_equal(np.concatenate([client for _, client in sliced]), whole[1])


def test_unknown_workload_is_refused():
    with pytest.raises(TraceError, match="no 'clients'"):
        clients("azure2023_conv", stream(1, "c"))
