"""Saturated throughput as a check, and hardware that nobody measured."""

import numpy as np
import pytest

from factory_sim.calibration.offline import offline_checks, offline_summary, parallelism, saturated_tokens_per_s
from factory_sim.engine.kernel import play_closed_loop
from factory_sim.errors import FactorySimError, ProfileError
from factory_sim.inputs import catalog
from factory_sim.model.hardware import predecessors, sheet_range
from factory_sim.model.serving import serving_system


def test_closed_form_throughput_is_what_the_kernel_plays():
    system = serving_system("Llama-3.1-70B", "h200", "trtllm", "fp8", "tp4", max_sequences=64)
    n = 64 * 20
    rng = np.random.default_rng(1)
    isl, osl = rng.integers(410, 615, n), rng.integers(205, 308, n)
    played = play_closed_loop(system, isl, osl, 64)
    middle = np.sort(played["finish_s"])[n // 4 : 3 * n // 4]
    rate = 256 * (len(middle) - 1) / (middle[-1] - middle[0])
    assert saturated_tokens_per_s(system, 512, 256) == pytest.approx(rate, rel=0.1)


def test_larger_batches_give_more_and_longer_prompts_less():
    system = serving_system("Llama-3.1-70B", "h200", "trtllm", "fp8", "tp4")
    rates = [saturated_tokens_per_s(system, 1024, 1024, batch) for batch in (8, 32, 128)]
    assert rates[0] < rates[1] < rates[2]
    assert saturated_tokens_per_s(system, 4096, 1024, 32) < rates[1]


def test_checks_cover_the_published_rows_and_their_middle_is_sane():
    checks = offline_checks()
    kept = checks[checks.ratio.notna()]
    assert len(kept) > 500
    assert (checks.reason[checks.ratio.isna()] != "").all()
    assert 0.5 < kept.ratio.median() < 1.5
    near = kept[kept.trust == "interpolated"]
    assert 0.67 < near.ratio.median() < 1.5
    assert offline_summary(checks).rows.sum() == len(kept)


def test_printed_parallelism_is_read_or_refused():
    assert [parallelism(text) for text in ("TP8", "DEP4", "EP2")] == ["tp8", "tp4ep4dpaT", "tp2ep2"]
    with pytest.raises(ProfileError, match="TP1PP8"):
        parallelism("TP1PP8")


def test_new_hardware_is_an_estimate_with_a_wide_band_and_faster_where_its_sheet_is():
    old = serving_system("DeepSeek-R1", "gb300", "trtllm", "fp4", "tp8ep8dpaT")
    new = serving_system("DeepSeek-R1", "vr200", "trtllm", "fp4", "tp8ep8dpaT")
    assert new.trust == "estimated"
    assert new.tpot_band[1] / new.tpot_band[0] > old.tpot_band[1] / old.tpot_band[0]
    assert new.workers[0].step.base_s[512] < old.workers[0].step.base_s[512]
    low, high = sheet_range("vr200", "fp4")
    assert low < 1 < high
    assert sheet_range("h100", "fp8") == (1.0, 1.0)


def test_every_predecessor_is_measured_and_odd_questions_are_errors():
    for name, source in predecessors().items():
        assert catalog.gpu(name).name == name
        assert serving_system("Llama-3.1-8B", name, "vllm", "bf16", "tp1", predecessor=source).trust == "estimated"
    assert serving_system("Llama-3.1-8B", "vr200", "vllm", "bf16", "tp1").profile.endswith(".like.gb300")
    assert serving_system("Llama-3.1-8B", "h100", "trtllm", "bf16", "tp1").trust != "estimated"
    with pytest.raises(ProfileError, match="never measured"):
        serving_system("Llama-3.1-8B", "vr200", "vllm", "bf16", "tp1", predecessor="mi300x")
    with pytest.raises(FactorySimError, match="fp9"):
        serving_system("Llama-3.1-8B", "vr200", "vllm", "fp9", "tp1")
