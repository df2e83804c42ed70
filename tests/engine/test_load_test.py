"""Load tests: time rescales exactly, capacity falls with the promise, a load that does not settle is not capacity."""

from dataclasses import replace

import numpy as np
import pytest

from factory_sim.engine.load_test import FluidModel, load_test
from factory_sim.engine.warm_start import in_progress
from factory_sim.errors import TraceError
from factory_sim.model.serving import ServingSystem, StepCosts, Worker
from factory_sim.model.workload import RequestMix, length_model

LENGTHS = length_model({"uniform": {"isl": 400, "osl": 200, "low_fraction": 0.5}})


def system(step_s: float = 0.01, per_sequence_s: float = 2e-4, kv_tokens: int = 500_000) -> ServingSystem:
    """An aggregated worker whose step takes step_s + per_sequence_s a token."""
    base_s = step_s + per_sequence_s * np.arange(4097)
    base_s[0] = 0.0
    worker = Worker("both", 1, 8, StepCosts(base_s, 0.0, 0.0, 0.0), kv_tokens, 128, 2048)
    return ServingSystem("plain", "h200", 8, (worker,), 1.0, model="DeepSeek-R1", precision="fp8")


def test_twice_the_step_times_is_half_the_capacity_at_twice_the_promise_exactly():
    fast = load_test(system(), LENGTHS, 0.05, router="least_outstanding", seed=1)
    slow = load_test(system().scaled(2.0), LENGTHS, 0.1, router="least_outstanding", seed=1)
    assert slow.rate_per_s == pytest.approx(fast.rate_per_s / 2, rel=1e-9)
    assert slow.capacity_per_s(20.0, 0.1) == pytest.approx(fast.capacity_per_s(10.0, 0.05) / 2, rel=1e-6)
    assert fast.capacity_per_s(10.0, 0.05, slowdown=1.25) == pytest.approx(fast.capacity_per_s(8.0, 0.04) / 1.25)


def test_a_tighter_promise_never_raises_capacity():
    curve = load_test(system(), LENGTHS, 0.05, router="least_outstanding", seed=1)
    capacities = [curve.capacity_per_s(10.0, limit) for limit in np.linspace(0.012, 0.08, 20)]
    assert all(np.diff(capacities) >= 0)
    assert curve.capacity_per_s(10.0, 0.001) == 0.0


def test_capacity_never_exceeds_what_the_steps_can_carry():
    curve = load_test(system(), LENGTHS, 1.0, router="least_outstanding", seed=1)
    full = 128 / (LENGTHS.mean_osl * (0.01 + 2e-4 * 128))  # a full batch that only decodes
    assert curve.capacity_per_s(1e3, 1.0) < full


def test_the_fluid_model_agrees_with_the_closed_form_of_decode_without_prompts():
    plain = FluidModel(system(), isl=0.0, osl=200.0, pairs=0.0)
    rate, tpot_s = plain.at(50.0)
    assert tpot_s == pytest.approx(0.01 + 2e-4 * 50, rel=1e-3)
    assert rate == pytest.approx(50 / (199 * tpot_s), rel=1e-3)
    assert plain.at(plain.number_at(rate))[0] == pytest.approx(rate, rel=1e-3)


def test_requests_in_progress_are_length_biased_and_uniformly_far_along():
    rng = np.random.default_rng(5)
    lengths = length_model({"uniform": {"isl": 100, "osl": 1000, "low_fraction": 0.1}})
    requests = in_progress(rng, lengths, system(), 40_000, 7.0)
    _, osl = lengths.sample(rng, 200_000)
    left = (osl.astype(float) ** 2).mean() / osl.mean() / 2  # mean residual life of a renewal process
    assert requests.osl.mean() == pytest.approx(left, rel=0.02)
    assert (requests.osl >= 1).all()
    assert (requests.cached_tokens == requests.isl - 1).all()
    assert (requests.arrival_s == 7.0).all()


@pytest.mark.parametrize("window", [1200, 2500])
def test_a_window_that_refuses_long_requests_has_the_capacity_of_those_it_lets_in(window):
    lengths = length_model("azure2023_conv")
    small = replace(system(), max_context_tokens=window)
    mix = RequestMix(lengths, refuse=True)
    let_in, share = mix.let_in(window)
    isl, osl = let_in.sample(np.random.default_rng(1), 10_000)
    assert (isl + osl).max() <= window
    assert let_in.mean_osl == pytest.approx(osl.mean(), rel=0.03)
    refusing = load_test(small, lengths, 0.03, router="least_outstanding", seed=1, mix=mix).capacity_per_s(5.0, 0.03)
    only = load_test(small, let_in, 0.03, router="least_outstanding", seed=1).capacity_per_s(5.0, 0.03)
    assert share < 0.9
    assert refusing * share == pytest.approx(only, rel=0.06)  # a load test errs by some 3 %


def test_a_window_that_lets_nobody_in_is_an_error():
    with pytest.raises(TraceError, match="hardly any fit into 5 tokens"):
        RequestMix(length_model("azure2023_conv"), refuse=True).let_in(5)
