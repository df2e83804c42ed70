"""Scaling laws, throughput against published training runs, check-points."""

import math

import pytest

from factory_sim.errors import ScenarioError
from factory_sim.inputs import catalog
from factory_sim.model import training as laws


@pytest.mark.parametrize("name", ["hoffmann_2022", "besiroglu_2024"])
def test_optimal_size_is_the_minimum_of_loss_at_its_compute(name):
    law = laws.scaling_law(name)
    params, tokens = laws.optimal_size(law, 1e23)
    assert 6 * params * tokens == pytest.approx(1e23)
    best = laws.loss(law, params, tokens)
    for factor in (0.9, 1.1):
        assert laws.loss(law, params * factor, tokens / factor) > best
    assert laws.optimal_tokens(law, params) == pytest.approx(tokens, rel=1e-6)


def test_the_refit_agrees_with_about_twenty_tokens_a_parameter():
    law = laws.scaling_law("besiroglu_2024")
    assert 15 < laws.optimal_tokens(law, 70e9) / 70e9 < 30


def test_converged_is_within_so_many_nats_of_the_limit():
    law = laws.scaling_law()
    tokens = laws.converged_tokens(law, 8e9, 0.02)
    assert laws.loss(law, 8e9, tokens) - laws.loss(law, 8e9, 1e30) == pytest.approx(0.02, rel=1e-3)


def test_llama_405b_needs_the_published_gpu_hours_within_a_fifth():
    rate = laws.tokens_per_s("h100", 1.0, 405e9, "bf16", laws.mfu_of("Llama 3.1-405B"))
    assert 15.6e12 / rate / 3600 == pytest.approx(
        30.84e6, rel=0.2
    )  # tokenization.csv: 30.84 million H100-h, restarts included


def test_deepseek_v3_throughput_is_a_plausible_utilisation():
    active = catalog.model("DeepSeek-V3").params_active
    mfu = 1543 * 6 * active / catalog.gpu("h100").peak("bf16")  # tokenization.csv: 1,543 tokens/s/GPU on H800
    assert 0.2 < mfu < 0.5


def test_young_interval_minimises_daly_duration():
    rate, write = 1 / 20_000, 30.0
    best = laws.checkpoint_interval_s(write, rate)
    durations = [laws.expected_duration_s(1e6, best * f, write, 600, rate) for f in (0.5, 1.0, 2.0)]
    assert durations[1] < min(durations[0], durations[2])
    assert laws.expected_duration_s(1e6, best, write, 600, 0.0) == pytest.approx(1e6 * (1 + write / best))
    assert math.isinf(laws.checkpoint_interval_s(write, 0.0))


def test_unknown_law_is_named():
    with pytest.raises(ScenarioError, match="did you mean 'hoffmann_2022'"):
        laws.scaling_law("hofmann_2022")
