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


@pytest.mark.parametrize("model", MODELS)
def test_weights_and_arithmetic_take_at_least_their_time_at_peak(model):
    one = facts(model)
    for excess in (1e-6, 0.3):
        parameters = np.full(len(step_time.PARAMETERS), excess)
        for name in ("decode_step", "prefill_step", "routing"):
            parameters[step_time.INDEX[name]] = 1.0
        parameters[step_time.BASE_CURVE] = 1.0
        decode = step_time.base_s(one, parameters, 64.0, 1, 512.0)
        assert decode >= one.weights_s + one.experts_s * step_time.experts_touched(one, 64) + 64 * one.flops_s
        assert step_time.prefill_costs(one, parameters)[0] >= one.flops_s


def test_arithmetic_of_routed_experts_is_a_part_of_all_that_is_active():
    for model in MODELS:
        one = facts(model)
        assert 0 <= one.expert_flops_s < one.flops_s
        assert (one.expert_flops_s > 0) == (catalog.model(model).experts > 0)


def test_tokens_of_a_step_lie_between_one_and_all_that_are_verified():
    parameters = np.stack([priors()] * 4)
    parameters[:, step_time.INDEX["acceptance"]] = [1e-9, 1.0, 3.0, 1e9]
    found = step_time.tokens_per_step(parameters, 4)
    assert found == pytest.approx([1, 1 + 1 / 2 + 1 / 4 + 1 / 8, 1 + 3 / 4 + 9 / 16 + 27 / 64, 4])
    assert step_time.tokens_per_step(parameters, 1) == pytest.approx(1)


def test_experts_behind_tensor_parallel_attention_exchange_by_the_all_reduce():
    tensor, spread, data = facts(), facts(ep=8), facts(ep=8, dpa=True)
    assert (spread.exchanges, spread.exchange_s, spread.link_s) == (0, 0, tensor.link_s)
    assert data.exchanges == 2 * catalog.model("DeepSeek-R1").moe_layers


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
