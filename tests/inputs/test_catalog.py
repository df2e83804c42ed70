"""The catalog: every fact has one chosen row, a source, and base units that make physical sense."""

from collections import Counter

import pytest

from factory_sim.errors import ScenarioError
from factory_sim.inputs import catalog


def test_each_quantity_has_exactly_one_chosen_row():
    count = Counter((fact.gpu, fact.quantity) for fact in catalog.facts() if fact.chosen)
    every = {(fact.gpu, fact.quantity) for fact in catalog.facts()}
    assert set(count) == every
    assert set(count.values()) == {1}


def test_every_fact_has_a_unit_a_source_and_a_date():
    for fact in catalog.facts():
        assert fact.unit, fact
        assert fact.source, fact
        assert fact.as_of, fact
        assert fact.value is not None or (fact.low is not None and fact.high is not None), fact


def test_every_guess_carries_a_range_that_holds_its_value():
    guesses = [fact for fact in catalog.facts() if fact.basis == "guess"]
    assert guesses
    for fact in guesses:
        assert fact.low <= fact.value <= fact.high, fact


@pytest.mark.parametrize("name", catalog.gpus())
def test_a_gpu_comes_in_base_units_with_sources(name):
    gpu = catalog.gpu(name)
    assert 1e9 < gpu.memory_bytes < 1e12
    assert 1e11 < gpu.memory_bandwidth_bytes_per_s < 1e14
    assert 1e14 < gpu.peak_flops["bf16"] < 1e17
    assert 1e10 < gpu.scale_up_bandwidth_bytes_per_s < gpu.memory_bandwidth_bytes_per_s
    assert 100 < gpu.tdp_w < 3000
    assert 100 < gpu.host_share_w < 2000
    assert set(gpu.sources) == set(gpu.basis)
    assert all(gpu.sources.values())


def test_the_gpus_of_the_measurement_tables_are_there():
    assert {"a100", "h100", "h200", "b200", "b300", "gb200", "gb300", "mi300x", "mi355x", "l40s", "vr200"} <= set(
        catalog.gpus()
    )
    assert catalog.gpu("a100_80gb").name == "a100"
    assert catalog.gpu("H200-SXM-141GB").name == "h200"
    assert catalog.gpu("GB200-NVL72-192GB").scale_up_domain_gpus == 72


def test_board_power_and_host_share_add_up_to_the_published_all_in_power():
    all_in = {f.gpu: f.value * 1e3 for f in catalog.facts() if f.quantity == "all_in_it_power" and f.as_of == "2026-07"}
    for name in set(all_in) & set(catalog.gpus()):
        gpu = catalog.gpu(name)
        assert gpu.tdp_w + gpu.host_share_w == pytest.approx(all_in[name]), name


def test_a_precision_without_hardware_runs_at_the_next_wider_peak():
    hopper, blackwell = catalog.gpu("h100"), catalog.gpu("b200")
    assert hopper.peak("fp4") == hopper.peak("fp8") == 1978e12
    assert blackwell.peak("nvfp4") == 9000e12
    assert catalog.gpu("a100").peak("fp8") == 312e12
    with pytest.raises(ScenarioError, match="fp8"):
        hopper.peak("fp9")


def test_an_unknown_gpu_names_the_closest():
    with pytest.raises(ScenarioError, match="did you mean 'h200'"):
        catalog.gpu("h2000")
    with pytest.raises(ScenarioError, match="missing"):
        catalog.gpu("tpu-v5e")


@pytest.mark.parametrize(
    ("given", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"), ("H100-SXM5-80GB", "h100"), ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100"), ("NVIDIA A100-SXM4-40GB", "a100-40gb"), ("NVIDIA GH200 480GB", "gh200"),
        ("AMD Instinct MI300X", "mi300x"), ("NVIDIA B200", "b200"),
    ],
)  # fmt: skip
def test_names_that_drivers_print_find_the_gpu(given, short):
    assert catalog.gpu_name(given) == short


@pytest.mark.parametrize("given", ["H100 40GB", "NVIDIA A100 80GB PCIe", "NVIDIA H20"])
def test_another_product_of_nearly_the_same_name_is_not_taken_for_it(given):
    with pytest.raises(ScenarioError, match="is not known"):
        catalog.gpu_name(given)


@pytest.mark.parametrize(
    ("given", "short"),
    [
        ("DeepSeek-R1", "DeepSeek-R1"),
        ("deepseek-ai/DeepSeek-R1", "DeepSeek-R1"),
        ("DeepSeek R1 0528", "DeepSeek-R1"),
        ("deepseek-ai/DeepSeek-R1+deepseek-ai/DeepSeek-V3", "DeepSeek-R1"),
        ("Qwen/Qwen3-235B-A22B-Thinking-2507-FP8", "Qwen3-235B-A22B"),
        ("nvidia/Qwen3-32B-NVFP4", "Qwen3-32B"),
        ("Llama 3.3 70B", "Llama-3.1-70B"),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", "Llama-4-Maverick"),
        ("RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic", "Llama-4-Scout"),
        ("codellama/CodeLlama-34b-Instruct-hf", "CodeLlama-34B"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("zhipuai/GLM-5", "GLM-5"),
    ],
)
def test_other_tables_spellings_find_the_architecture(given, short):
    assert catalog.model(given).name == short


def test_models_hold_their_own_arithmetic():
    for name in catalog.models():
        spec = catalog.model(name)
        assert spec.params_always_read <= spec.params_active * 1.001, name
        assert spec.params_active <= spec.params_total, name
        if spec.attention == "gqa":
            assert spec.kv_elements_per_token == 2 * spec.layers * spec.kv_heads * spec.head_dim, name
    assert catalog.model("DeepSeek-V3.2").sparse_top_tokens == 2048
    assert catalog.model("gpt-oss-20b").sliding_window_tokens == 128
    assert catalog.model("DeepSeek-V3").latent
    assert catalog.model("Qwen3.5-27B").linear_attention


def test_an_unknown_model_names_the_closest():
    with pytest.raises(ScenarioError, match="did you mean 'DeepSeek-R1'"):
        catalog.model("DeepSeek-R2")
