"""Image and video generation: measured where measured, and a service the kernel can play."""

import numpy as np
import pytest

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.errors import ProfileError
from factory_sim.model.generation import (
    bands,
    generation_energy_j,
    generation_model,
    generation_models,
    generation_service,
    generation_system,
    measured_rows,
    peak_exponent,
)


def test_measured_points_come_back_as_measured():
    flux = [r for r in measured_rows() if "FLUX" in r.model and r.gpu == "h100" and r.n_gpus == 1]
    row = next(r for r in flux if r.batch_size == 4)
    service = generation_service("flux.1-dev", "h100", 1, 4)
    assert service.trust == "measured"
    assert service.latency_s == pytest.approx(row.batch_latency_s)
    assert service.energy_per_output_j == pytest.approx(row.power_w * row.batch_latency_s / 4)
    assert service.outputs_per_s * service.latency_s == pytest.approx(4)


def test_every_model_serves_and_a_batch_between_lies_between():
    for model in generation_models():
        low, mid, high = (generation_service(model, "b200", 1, batch) for batch in (1, 3, 4))
        assert low.latency_s < mid.latency_s < high.latency_s
        assert mid.trust == "interpolated"
        assert mid.output_unit in ("image", "video")


def test_trust_falls_and_bands_widen_with_distance():
    near = generation_service("PixArt", "h100", 1, 2)
    steps = generation_service("PixArt", "h100", 1, 2, inference_steps=40)
    size = generation_service("PixArt", "h100", 1, 2, height_px=2048)
    other = generation_service("PixArt", "a100", 1, 2)
    assert [s.trust for s in (near, steps, size, other)] == ["measured", "extrapolated", "extrapolated", "estimated"]
    assert steps.latency_s == pytest.approx(2 * near.latency_s)
    assert size.latency_s == pytest.approx(near.latency_s * 2**1.5)
    width = [s.latency_band[1] / s.latency_band[0] for s in (near, size, other)]
    assert width[0] < min(width[1:])
    assert other.latency_s > near.latency_s
    assert 0 < peak_exponent() < 1


def test_best_batch_keeps_the_latency_limit_and_says_when_none_does():
    free = generation_service("stable-diffusion-3.5-large", "h100", 1)
    held = generation_service("stable-diffusion-3.5-large", "h100", 1, max_latency_s=free.latency_s / 2)
    assert held.latency_s <= free.latency_s / 2
    assert held.outputs_per_s <= free.outputs_per_s
    with pytest.raises(ProfileError, match="no measured batch"):
        generation_service("stable-diffusion-3.5-large", "h100", 1, max_latency_s=0.001)


def test_the_kernel_plays_batches_of_waiting_requests():
    service = generation_service("PixArt", "h100", 1, 4)
    pool = Pool([(generation_system(service), 1)])
    ones = np.ones(5, dtype=np.int64)
    pool.offer(Requests(arrival_s=np.zeros(5), isl=ones, osl=ones))
    pool.drain()
    finish_s = np.sort(pool.finished()["finish_s"])
    assert finish_s[:4] == pytest.approx([service.latency_s] * 4)
    assert finish_s[4] == pytest.approx(service.latency_s + service.latency_by_batch_s[0])


def test_energy_of_full_batches_is_that_of_the_outputs_and_idle_time_costs():
    service = generation_service("PixArt", "h100", 1, 4)
    busy_s, system = 10 * service.latency_s, generation_system(service)
    working, idle, (low, high) = generation_energy_j(system, [4] * 10, busy_s, busy_s)
    assert working == pytest.approx(40 * service.energy_per_output_j)
    assert idle == 0.0
    assert low < working < high
    assert generation_energy_j(system, [4] * 10, busy_s, 2 * busy_s)[1] > 0


def test_energy_of_mixed_batches_is_the_sum_of_each_at_its_own_power():
    system = generation_system(generation_service("SANA1.5_1.6B", "b200", 1, 16))
    sizes, latency_s = np.array([1, 1, 16]), system.workers[0].step.base_s
    working, _, _ = generation_energy_j(system, sizes, latency_s[sizes].sum(), latency_s[sizes].sum())
    power_w = np.array(system.power_by_batch_w)
    assert working == pytest.approx(sum(latency_s[n] * power_w[n - 1] for n in sizes))
    mean = np.interp(sizes.mean(), np.arange(1, 17), power_w)
    assert working != pytest.approx(mean * latency_s[sizes].sum(), rel=0.01)  # watts do not follow the mean batch


def test_names_that_are_unknown_ambiguous_or_sound_are_told():
    assert generation_model("wan2.1-t2v-14b") == "Wan-AI/Wan2.1-T2V-14B-Diffusers"
    with pytest.raises(ProfileError, match="could be"):
        generation_model("SANA")
    with pytest.raises(ProfileError, match="audio or speech"):
        generation_model("whisper-large-v3")
    with pytest.raises(ProfileError, match="FLUX"):
        generation_model("FLUX2-dev")
    with pytest.raises(ProfileError, match="not 3"):
        generation_service("PixArt", "h100", 3)


def test_bands_hold_one_and_lie_in_order():
    for quantities in bands().values():
        for low, high in quantities.values():
            assert low < 1.0 < high
