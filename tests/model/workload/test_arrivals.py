"""Arrival streams have the rate, the gaps and the dispersion they were asked for, however they are sliced."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_sim.errors import TraceError
from factory_sim.inputs import workloads
from factory_sim.model.workload.arrivals import ArrivalStream, arrival_times, index_of_dispersion
from factory_sim.model.workload.bursts import (
    MEASURED,
    burstiness_like,
    burstiness_model,
    measured_burstiness,
    non_negative_least_squares,
)
from factory_sim.streams import stream


def within_four_errors(samples, expected, bias=0.0):
    samples = np.asarray(samples)
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert abs(samples.mean() - expected) < 4 * error + bias, (samples.mean(), expected, error)


def test_poisson_counts_have_mean_and_variance_of_the_rate():
    counts = np.array([len(arrival_times(stream(k, "arrivals"), 5.0, 100.0)) for k in range(300)])
    within_four_errors(counts, 500.0)
    within_four_errors((counts - 500.0) ** 2, 500.0)


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.5])
def test_gamma_gaps_have_their_coefficient_of_variation(cv):
    gaps = np.diff(arrival_times(stream(1, "arrivals"), 50.0, 4000.0, {"gamma": {"cv": cv}}))
    assert gaps.mean() == pytest.approx(0.02, rel=5 * cv / np.sqrt(len(gaps)))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.02)


def test_gamma_start_is_stationary():
    """The first gap is the equilibrium residual: mean (1 + cv^2) / 2 gaps, not one gap."""
    first = [arrival_times(stream(k, "a"), 1.0, 500.0, {"gamma": {"cv": 2.0}})[0] for k in range(1500)]
    within_four_errors(first, 2.5)


def test_thinned_gamma_gaps_have_the_variation_of_random_thinning():
    """Keeping each point with probability p turns cv^2 into 1 + p (cv^2 - 1)."""
    gaps = np.diff(arrival_times(stream(2, "a"), 100.0, 4000.0, {"gamma": {"cv": 3.0}}, share=0.25))
    assert gaps.mean() == pytest.approx(0.04, rel=0.02)
    assert (gaps.std() / gaps.mean()) ** 2 == pytest.approx(1 + 0.25 * 8, rel=0.04)


@pytest.mark.parametrize("name", MEASURED)
def test_calibrated_swings_reproduce_the_published_dispersion(name):
    burst = measured_burstiness(name)
    rate = burst.reference_rate_per_s
    published = workloads.statistics(name, "index_of_dispersion_of_counts")
    windows = (60,) if name == "mooncake_conversation" else (1, 10, 60)
    for window in windows:
        assert burst.index_of_dispersion(window, rate) == pytest.approx(published[f"window_{window}s"].number, rel=0.05)


@pytest.mark.parametrize("name", MEASURED)
def test_sampled_arrivals_have_the_dispersion_of_the_closed_form(name):
    burst = measured_burstiness(name)
    rate = burst.reference_rate_per_s
    for window in (1, 10):
        sampled = []
        for k in range(24):
            times = arrival_times(stream(k, "a", name), rate, 3600.0, burst)
            counts = np.bincount((times / window).astype(int), minlength=3600 // window)
            sampled.append(np.mean((counts - rate * window) ** 2) / (rate * window))  # around the known mean: unbiased
        within_four_errors(sampled, burst.index_of_dispersion(window, rate))


def test_dispersion_is_kept_at_another_rate_or_grows_with_it_as_asked():
    kept = burstiness_model("azure2023_conv")
    grown = burstiness_model({"named": "azure2023_conv", "keep": "swings"})
    rate = kept.reference_rate_per_s
    for window in (1, 10, 60):
        here = kept.index_of_dispersion(window, rate)
        assert kept.index_of_dispersion(window, 20 * rate) == pytest.approx(here, rel=1e-12)
        assert grown.index_of_dispersion(window, 20 * rate) - 1 == pytest.approx(20 * (here - 1), rel=1e-12)


def test_a_random_share_of_a_bursty_service_is_less_dispersed_in_proportion():
    burst, rate = burstiness_model("azure2023_code"), 40.0
    sampled = []
    for k in range(40):
        times = arrival_times(stream(k, "share"), rate, 1000.0, burst, share=0.1)
        counts = np.bincount((times / 10).astype(int), minlength=100)
        sampled.append(np.mean((counts - 40.0) ** 2) / 40.0)
    expected = burst.index_of_dispersion(10, 4.0, whole_rate_per_s=40.0)
    assert expected - 1 == pytest.approx(0.1 * (burst.index_of_dispersion(10, 40.0) - 1))
    within_four_errors(sampled, expected)


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.floats(0, 200), max_size=8).map(sorted),
    name=st.sampled_from(["poisson", "azure2023_conv", "azure2023_code", "gamma"]),
    seed=st.integers(0, 1000),
)
def test_slices_change_nothing(cuts, name, seed):
    burst = {"gamma": {"cv": 2}} if name == "gamma" else name
    rates = (np.array([0.0, 60.0, 90.0]), np.array([3.0, 0.0, 8.0]))
    whole = ArrivalStream(stream(seed, "a"), burst, whole_rate_per_s=4.0).take(200.0, rates)
    parts = ArrivalStream(stream(seed, "a"), burst, whole_rate_per_s=4.0)
    sliced = np.concatenate([parts.take(cut, rates) for cut in [*cuts, 200.0]])
    assert len(whole) == len(sliced)
    assert sliced == pytest.approx(whole, abs=1e-8)
    assert np.all(np.diff(whole) >= 0)
    assert not np.any((whole > 60.0) & (whole < 90.0))
    assert np.all(whole < 200.0)


def test_piecewise_rates_are_followed():
    rates = (np.array([0.0, 100.0, 200.0]), np.array([20.0, 0.0, 60.0]))
    times = arrival_times(stream(3, "a"), rates, 300.0)
    assert np.sum(times < 100) == pytest.approx(2000, abs=4 * np.sqrt(2000))
    assert np.sum((times >= 100) & (times < 200)) == 0
    assert np.sum(times >= 200) == pytest.approx(6000, abs=4 * np.sqrt(6000))


def test_same_stream_same_bytes_and_another_seed_other_times():
    first = arrival_times(stream(4, "a"), 10.0, 100.0, "azure2023_code")
    assert first.tobytes() == arrival_times(stream(4, "a"), 10.0, 100.0, "azure2023_code").tobytes()
    assert first.tobytes() != arrival_times(stream(5, "a"), 10.0, 100.0, "azure2023_code").tobytes()


def test_no_rate_no_arrivals():
    assert len(arrival_times(stream(6, "a"), 0.0, 1000.0)) == 0
    assert len(arrival_times(stream(6, "a"), 5.0, 0.0)) == 0


def test_dispersion_of_regular_and_paired_arrivals():
    assert index_of_dispersion(np.arange(100) + 0.5, 10.0, 100.0) == 0.0
    pairs = np.repeat(np.arange(0, 100, 2) + 0.5, 2)
    assert index_of_dispersion(pairs, 1.0, 100.0) == pytest.approx(1.0)
    assert np.isnan(index_of_dispersion(np.array([1.0]), 10.0, 15.0))


@pytest.mark.parametrize("name", ["azure2023_conv", "azure2023_code"])
def test_burstiness_measured_in_a_trace_is_that_of_its_published_statistics(name):
    measured = burstiness_like(name, "test", workloads.packaged_columns(name)["arrival_s"])
    published = measured_burstiness(name)
    for window in (1, 10, 60):
        here = measured.index_of_dispersion(window, measured.reference_rate_per_s)
        assert here == pytest.approx(published.index_of_dispersion(window, published.reference_rate_per_s), rel=0.03)


def test_coarse_clocks_and_short_traces_give_no_false_dispersion():
    mooncake = burstiness_like("m", "test", workloads.packaged_columns("mooncake_conversation")["arrival_s"])
    assert mooncake.index_of_dispersion(60, mooncake.reference_rate_per_s) == pytest.approx(2.9, rel=0.1)
    with pytest.raises(TraceError, match="too few"):
        burstiness_like("short", "test", np.arange(5.0))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_non_negative_least_squares_meets_its_optimality_conditions(seed):
    rng = np.random.default_rng(seed)
    matrix, target = rng.random((6, 4)), rng.normal(size=6)
    x = non_negative_least_squares(matrix, target)
    gradient = matrix.T @ (matrix @ x - target)
    assert np.all(x >= 0)
    assert np.all(gradient > -1e-7)
    assert np.all(np.abs(gradient[x > 0]) < 1e-7)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("azure2023_cod", "did you mean 'azure2023_code'"),
        ({"gamma": {"cv": 0}}, "coefficient of variation"),
        ({"gama": 2}, "one of gamma"),
        ({"dispersion": {10: 3.0}}, "rate must be positive"),
        ({"dispersion": {10: 3.0}, "rate_per_s": 2, "keeps": "swings"}, "did you mean 'keep'"),
        ({"named": "azure2023_conv", "keep": "all"}, "'dispersion' or 'swings'"),
    ],
)
def test_wrong_burstiness_says_what_would_be_right(spec, message):
    with pytest.raises(TraceError, match=message):
        burstiness_model(spec)


@pytest.mark.parametrize(("rate", "duration"), [(-1.0, 10.0), (np.nan, 10.0), (1.0, -5.0), (1.0, np.inf)])
def test_absurd_rates_and_durations_are_refused(rate, duration):
    with pytest.raises(TraceError):
        arrival_times(stream(1, "a"), rate, duration)
