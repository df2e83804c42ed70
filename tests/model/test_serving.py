import numpy as np
import pytest

from factory_sim.errors import CapacityError, ProfileError, ScenarioError
from factory_sim.model.serving import decode_steps, serving_system


def system(**change):
    facts = {"model": "DeepSeek-R1", "gpu": "h200", "engine": "trtllm", "precision": "fp8", "parallelism": "tp8"}
    return serving_system(**(facts | change))


def test_a_step_table_covers_every_step_that_the_worker_can_run():
    for change in ({}, {"parallelism": "P1x4-D1x8dep", "gpu": "gb200", "precision": "fp4"}, {"speculation": "mtp"}):
        for worker in system(**change).workers:
            step = worker.step
            largest = worker.max_batched_tokens + worker.max_sequences * step.tokens_per_sequence
            assert len(step.base_s) > largest
            assert step.base_s[0] == 0
            assert np.all(step.base_s[1:] > 0)
            # the fitted curve over batch may dip between its first nodes, never by much
            assert np.all(step.base_s >= 0.8 * np.maximum.accumulate(step.base_s))
            assert min(step.kv_s, step.prefill_s, step.pair_s) > 0


def test_scaling_multiplies_every_step_time_and_nothing_else():
    plain = system()
    slow = plain.scaled(1.25)
    for before, after in zip(plain.workers, slow.workers):
        assert np.array_equal(after.step.base_s, before.step.base_s * 1.25)
        assert after.step.kv_s == before.step.kv_s * 1.25
        assert after.kv_capacity_tokens == before.kv_capacity_tokens
    assert slow.request_overhead_s == plain.request_overhead_s


def test_gpus_of_an_instance_are_those_of_its_workers():
    pooled = system(gpu="b200", precision="fp4", parallelism="P3x4-D4x8dep")
    assert pooled.gpus == 3 * 4 + 4 * 8 == sum(worker.count * worker.gpus for worker in pooled.workers)


def test_newer_software_is_picked_by_date_and_the_newest_without():
    old, new = (
        serving_system("DeepSeek-R1", "gb200", "trtllm", "fp4", "P1x4-D1x8dep", as_of=date)
        for date in ("2025-11", "2026-03")
    )
    newest = serving_system("DeepSeek-R1", "gb200", "trtllm", "fp4", "P1x4-D1x8dep")
    assert new.workers[1].step.base_s[4000] < old.workers[1].step.base_s[4000]
    assert newest.workers[1].step.base_s[4000] == new.workers[1].step.base_s[4000]


def test_a_model_that_does_not_fit_is_an_error_before_the_run():
    with pytest.raises(CapacityError, match="does not fit"):
        system(parallelism="tp4", gpu="h100")


@pytest.mark.parametrize(
    ("change", "error", "hint"),
    [
        ({"gpu": "h20000"}, ScenarioError, "h200"),
        ({"engine": "trt-llm"}, ProfileError, "trtllm"),
        ({"precision": "fp9"}, ProfileError, "fp8"),
        ({"model": "DeepSeek-R2"}, ScenarioError, "DeepSeek-R1"),
        ({"parallelism": "eight"}, ProfileError, "tp8"),
    ],
)
def test_unknown_names_are_errors_with_the_closest(change, error, hint):
    with pytest.raises(error, match=hint):
        system(**change)


def test_decode_steps_keep_the_mean_and_the_bounds():
    osl = np.full(20000, 101)
    assert np.array_equal(decode_steps(osl, 1.0), osl - 1)
    steps = decode_steps(osl, 1.7, np.random.default_rng(0))
    assert abs(steps.mean() - 100 / 1.7) < 4 * steps.std() / np.sqrt(len(steps))
    assert list(decode_steps(np.array([1, 2, 3]), 9.0)) == [0, 1, 1]
