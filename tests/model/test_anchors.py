"""Anchors: published throughput is met at its own point, the rest of the system stays, and misuse is named."""

import csv
from importlib.resources import files

import numpy as np
import pytest

from factory_sim.errors import ProfileError
from factory_sim.inputs.anchors import anchors
from factory_sim.model.anchors import anchored, predicted_tokens_per_s_per_gpu
from factory_sim.model.serving import serving_system

EVERY = sorted(anchors())
BOTH = {"prefill": "sglang-2025-05", "decode": "deepseek-2025-02"}


def system(gpu="h800", model="DeepSeek-R1", precision="fp8", parallelism="P3x32dep-D1x144dep", **more):
    return serving_system(model, gpu, "sglang", precision, parallelism, **more)


@pytest.mark.parametrize(("role", "name"), EVERY)
@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_an_anchored_worker_does_what_was_published_at_that_point(role, name, engine):
    at = anchors()[role, name]
    plain = serving_system("DeepSeek-R1", at.gpu, engine, "fp8", at.parallelism)
    (worker,) = [one for one in anchored(plain, engine, {role: name}).workers if one.role == role]
    assert predicted_tokens_per_s_per_gpu(worker, at, 1.0) == pytest.approx(at.tokens_per_s_per_gpu, rel=1e-12)


def test_published_rates_are_those_of_the_measured_table():
    with files("factory_sim.data").joinpath("measurements", "offline_throughput.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["vendor_source"] == "DeepSeek inference system overview"]
    (prefill,) = [float(row["prefill_tokens_per_s_per_gpu"]) for row in rows if row["prefill_tokens_per_s_per_gpu"]]
    (decode,) = [float(row["output_tokens_per_s_per_gpu"]) for row in rows if row["output_tokens_per_s_per_gpu"]]
    assert anchors()["prefill", "deepseek-2025-02"].tokens_per_s_per_gpu == pytest.approx(prefill * (1 - 342 / 608))
    assert anchors()["decode", "deepseek-2025-02"].tokens_per_s_per_gpu == decode


def test_the_published_speed_of_a_user_gives_the_sequences_of_a_gpu():
    at = anchors()["decode", "deepseek-2025-02"]
    assert 20 < at.tokens_per_s_per_gpu / at.sequences_per_gpu < 22


def test_only_the_step_times_of_the_anchored_role_move_by_one_factor():
    plain = system()
    held = anchored(plain, "sglang", {"decode": BOTH["decode"]})
    assert held.workers[0] is plain.workers[0]
    before, after = plain.workers[1].step, held.workers[1].step
    factor = after.kv_s / before.kv_s
    assert factor < 1
    np.testing.assert_allclose(after.base_s, factor * before.base_s, rtol=1e-12)
    assert after.prefill_s == pytest.approx(factor * before.prefill_s)
    assert held.workers[1].kv_capacity_tokens == plain.workers[1].kv_capacity_tokens


def test_an_anchored_system_is_estimated_and_says_by_what():
    held = anchored(system("h100"), "sglang", BOTH)
    assert held.trust == "estimated"
    assert held.profile == "deepseek-r1.h100.sglang.fp8.anchored.prefill-sglang-2025-05.decode-deepseek-2025-02"


@pytest.mark.parametrize(
    ("wrong", "names", "words"),
    [
        (system("b200"), BOTH, "anchor.prefill: 'sglang-2025-05' is of H100.*, not of B200"),
        (system(model="Kimi-K2.5"), BOTH, "not of Kimi-K2.5"),
        (system(precision="fp4"), BOTH, "is of fp8, not of fp4"),
        (system("h200", parallelism="tp8"), BOTH, "only disaggregated systems"),
        (system("h200", parallelism="P1x8-D1x8dep", speculation="mtp"), BOTH, "without speculation"),
        (system(), {"decode": "deepseek-2025-03"}, "did you mean 'deepseek-2025-02'"),
    ],
)
def test_a_wrong_anchor_is_named(wrong, names, words):
    with pytest.raises(ProfileError, match=words):
        anchored(wrong, "sglang", names)
