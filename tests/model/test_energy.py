"""Power of a GPU: bounds, monotone in load, energy split that closes, estimates that say so."""

import numpy as np
import pytest

from factory_sim.errors import FactorySimError
from factory_sim.inputs import catalog
from factory_sim.inputs.reliability import operation
from factory_sim.model.energy import (
    WindowLoad,
    energy_split_j,
    gpu_power_band_w,
    gpu_power_w,
    host_power_w,
    it_power_w,
    power_curve,
    window_power_w,
)
from factory_sim.model.step_time import facts_at_peak


def load(duration_s=10.0, busy_s=10.0, steps=400.0, batch=16.0, prefill=2000.0, decode_only=0.0):
    return WindowLoad(
        duration_s=np.array([duration_s]),
        busy_s=np.array([busy_s]),
        steps=np.array([steps]),
        decode_tokens=np.array([steps * batch]),
        prefill_tokens=np.array([prefill]),
        kv_tokens=np.array([steps * batch * 800.0]),
        pairs=np.array([prefill * 500.0]),
        decode_only_steps=np.array([decode_only]),
    )


def facts(gpu="h100", model="Llama-3.1-70B", precision="bf16", gpus=4):
    return facts_at_peak(catalog.model(model), catalog.gpu(gpu), precision, gpus, 1, False)


@pytest.mark.parametrize("gpu", ["a100", "h100", "h200", "b200", "b300", "gb200", "gb300", "mi300x", "mi355x", "l40s"])
def test_power_lies_between_idle_and_board_power_and_grows_with_load(gpu):
    curve = power_curve(gpu)
    use = np.linspace(0.0, 1.0, 11)
    power_w = gpu_power_w(curve, 1.0, use, use / 2)
    assert np.all(np.diff(power_w) > 0)
    assert power_w[0] >= curve.idle * curve.board_power_w * 0.99
    assert power_w[-1] <= curve.board_power_w
    assert gpu_power_w(curve, 0.0, 0.0, 0.0) == pytest.approx(curve.idle * curve.board_power_w)
    low_w, high_w = gpu_power_band_w(curve, power_w, 1.0)
    assert np.all(low_w < power_w)
    assert np.all(high_w <= curve.board_power_w)


def test_only_measured_gpus_are_more_than_an_estimate():
    assert {gpu: power_curve(gpu).trust for gpu in ("h100", "b200", "h200", "gb300")} == {
        "h100": "interpolated",
        "b200": "interpolated",
        "h200": "estimated",
        "gb300": "estimated",
    }
    measured, borrowed = power_curve("b200"), power_curve("gb300")
    assert borrowed.band[1] - borrowed.band[0] > measured.band[1] - measured.band[0]


def test_window_without_steps_draws_idle_power_and_the_host_comes_on_top():
    curve = power_curve("h100")
    power_w, _, _ = window_power_w(curve, facts(), load(busy_s=0.0, steps=0.0, prefill=0.0), "bf16")
    assert power_w[0] == pytest.approx(curve.idle * curve.board_power_w)
    share = operation("host_idle_share")
    host_w = catalog.gpu("h100").host_share_w * (share + (1 - share) * curve.idle)
    assert it_power_w(curve, power_w)[0] == pytest.approx(power_w[0] + host_w)


def test_host_power_is_the_catalogues_at_board_power_and_falls_in_proportion_to_what_the_gpu_saves():
    curve, host_w = power_curve("h200"), catalog.gpu("h200").host_share_w
    at = [float(host_power_w(curve, share * curve.board_power_w)) for share in (0.0, 0.5, 1.0)]
    assert at[2] == pytest.approx(host_w)
    assert at[1] == pytest.approx((at[0] + at[2]) / 2)
    assert at[0] == pytest.approx(operation("host_idle_share") * host_w)


def test_window_power_is_the_busy_weighted_mean_of_running_and_idle():
    curve = power_curve("b200")
    full, _, _ = window_power_w(curve, facts("b200"), load(), "bf16")
    half, _, _ = window_power_w(curve, facts("b200"), load(duration_s=20.0), "bf16")
    assert half[0] == pytest.approx((full[0] + curve.idle * curve.board_power_w) / 2)


def test_energy_split_closes_and_follows_causes():
    curve = power_curve("h100")
    whole = load(duration_s=12.0, busy_s=9.0, decode_only=200.0)
    power_w, _, _ = window_power_w(curve, facts(), whole, "bf16")
    parts = energy_split_j(curve, facts(), whole, "bf16")
    assert sum(parts)[0] == pytest.approx(power_w[0] * 12.0)
    assert min(part[0] for part in parts) > 0
    no_prefill = energy_split_j(curve, facts(), load(prefill=0.0), "bf16")
    assert no_prefill[0][0] == 0
    more_decode_only = energy_split_j(curve, facts(), load(decode_only=400.0), "bf16")
    mixed = energy_split_j(curve, facts(), load(decode_only=0.0), "bf16")
    assert more_decode_only[0][0] < mixed[0][0]


def test_unknown_names_are_errors_that_help():
    with pytest.raises(FactorySimError, match="h100"):
        power_curve("h101")
    with pytest.raises(FactorySimError, match="fp9"):
        gpu_power_w(power_curve("h100"), 1.0, 0.1, 0.1, "fp9")
