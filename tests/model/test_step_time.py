"""Laws of the physical terms; no fitted number appears here."""

import numpy as np
import pytest

from factory_sim.inputs import catalog, profiles
from factory_sim.model import step_time

MODELS = ["DeepSeek-R1", "Llama-3.1-70B", "gpt-oss-120b"]


def facts(model="DeepSeek-R1", gpus=8, ep=1, dpa=False, gpu="h200", precision="fp8"):
    return step_time.facts_at_peak(catalog.model(model), catalog.gpu(gpu), precision, gpus, ep, dpa)


def priors():
    return np.array([term.prior for term in profiles.terms()])


def test_no_tokens_cost_nothing_and_base_never_falls_with_tokens():
    tokens = np.arange(5000)
    for model in MODELS:
        base = step_time.base_s(facts(model), priors(), tokens, 1, 512.0)
        assert base[0] == 0
        assert np.all(np.diff(base[1:]) >= 0)


def test_experts_touched_is_the_mean_number_of_distinct_experts():
    rng = np.random.default_rng(1)
    experts, chosen, tokens = 64, 4, 12
    draws = [
        len(np.unique(np.concatenate([rng.choice(experts, chosen, replace=False) for _ in range(tokens)])))
        for _ in range(2000)
    ]
    model = catalog.model("DeepSeek-R1").model_copy(update={"experts": experts, "experts_per_token": chosen})
    one = step_time.facts_at_peak(model, catalog.gpu("h200"), "fp8", 8, 1, False)
    expected = experts * step_time.experts_touched(one, tokens)
    assert abs(np.mean(draws) - expected) < 4 * np.std(draws) / np.sqrt(len(draws))


def test_tensor_parallelism_splits_weights_and_grouped_kv_up_to_its_heads_but_not_a_latent_cache():
    one, eight = facts("Llama-3.1-70B", 1), facts("Llama-3.1-70B", 8)
    assert one.weights_s == pytest.approx(8 * eight.weights_s)
    assert one.kv_s == pytest.approx(8 * eight.kv_s)
    heads = catalog.model("Qwen3-235B-A22B").kv_heads
    assert facts("Qwen3-235B-A22B", 8).kv_s == pytest.approx(facts("Qwen3-235B-A22B", heads).kv_s)
    assert facts("DeepSeek-R1", 1).kv_s == facts("DeepSeek-R1", 8).kv_s


def test_data_parallel_attention_splits_the_cache_and_copies_the_shared_weights():
    tensor, data = facts(), facts(ep=8, dpa=True)
    assert data.kv_s == pytest.approx(tensor.kv_s / 8)
    assert data.weights_s == pytest.approx(8 * tensor.weights_s)
    assert data.experts_s == tensor.experts_s
    assert (data.allreduces, tensor.exchanges) == (0, 0)


def test_twice_the_bandwidth_halves_the_times_of_memory_alone():
    gpu = catalog.gpu("h200")
    fast = gpu.model_copy(update={"memory_bandwidth_bytes_per_s": 2 * gpu.memory_bandwidth_bytes_per_s})
    slow_facts, fast_facts = (
        step_time.facts_at_peak(catalog.model("DeepSeek-R1"), one, "fp8", 8, 1, False) for one in (gpu, fast)
    )
    assert fast_facts.weights_s == pytest.approx(slow_facts.weights_s / 2)
    assert fast_facts.kv_s == pytest.approx(slow_facts.kv_s / 2)
    assert fast_facts.flops_s == slow_facts.flops_s


def test_kv_capacity_is_what_memory_leaves_over_bytes_a_token():
    model, gpu, engine = catalog.model("Llama-3.1-8B"), catalog.gpu("h100"), profiles.engine("vllm")
    capacity = step_time.kv_capacity_tokens(model, gpu, "bf16", 1, False, engine)
    weights = sum(step_time.weight_bytes(model, "bf16"))
    held = capacity * step_time.kv_bytes_per_token(model, "bf16") / engine.free_fraction
    assert held + weights + engine.reserve_bytes_per_gpu == pytest.approx(
        gpu.memory_bytes * engine.memory_utilisation
    )


def test_a_curve_is_flat_outside_its_nodes_and_log_linear_between_two():
    parameters = priors()
    parameters[step_time.BASE_CURVE] = np.exp(np.arange(len(step_time.BASE_NODES_LOG2)))
    nodes = 2.0**step_time.BASE_NODES_LOG2
    at = step_time.curve(parameters, step_time.BASE_CURVE, step_time.BASE_NODES_LOG2, [0.5, nodes[0], nodes[-1] * 9])
    assert at == pytest.approx([1, 1, parameters[step_time.BASE_CURVE][-1]])
    middle = step_time.curve(
        parameters, step_time.BASE_CURVE, step_time.BASE_NODES_LOG2, np.sqrt(nodes[0] * nodes[1])
    )
    assert middle == pytest.approx(np.exp(0.5))


def test_one_worker_and_many_give_the_same_base():
    parameters = np.stack([priors(), 1.1 * priors()])
    both = step_time.WorkerFacts(*(np.full(2, getattr(facts(), name)) for name in facts().__dataclass_fields__))
    many = step_time.base_s(both, parameters, np.array([30.0, 700.0]), 1.0, 512.0)
    for index, tokens in enumerate((30.0, 700.0)):
        assert many[index] == pytest.approx(float(step_time.base_s(facts(), parameters[index], tokens, 1.0, 512.0)))
