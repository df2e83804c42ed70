import pytest

from factory_sim.inputs import profiles
from factory_sim.inputs.parallelism import parse_parallelism
from factory_sim.model import trust


def rung(parallelism="tp8", gpu="h200", model="DeepSeek-R1", engine="trtllm", precision="fp8", load=None):
    return trust.rung(model, gpu, engine, precision, parse_parallelism(parallelism), "none", load)


def test_each_rung_is_reached_by_its_distance_from_what_was_measured():
    assert rung(load=(1024.0, 1024.0, 32.0)) == "measured"
    assert rung(load=(1024.0, 1024.0, 33.0)) == "interpolated"
    assert rung() == "interpolated"
    assert rung(load=(1024.0, 1024.0, 5000.0)) == "load"
    assert rung(load=(64.0, 1024.0, 32.0)) == "load"
    assert rung("tp4") == "parallelism"
    assert rung(gpu="h100", model="MiniMax-M2.5", engine="vllm") == "model_gpu"
    assert rung(model="Mixtral-8x7B", engine="vllm") == "family"
    assert rung(gpu="mi355x") == "gpu"


def test_every_rung_has_a_band_around_one_for_both_modes():
    for name in trust.RUNGS:
        for pooled in (False, True):
            band = trust.band(name, pooled)
            for low, high in (band.ttft, band.tpot):
                assert 0 < low <= 1 <= high


def test_rungs_of_the_bands_are_those_of_the_ladder():
    assert {name for name, _ in profiles.bands()} == set(trust.RUNGS)


@pytest.mark.parametrize("pooled", [False, True])
def test_a_new_model_family_is_less_certain_than_a_new_load(pooled):
    near, far = trust.band("interpolated", pooled).tpot, trust.band("family", pooled).tpot
    assert far[1] / far[0] > near[1] / near[0]


def test_a_workload_inside_the_measured_range_is_interpolated_and_a_single_point_never_is():
    assert rung(load=(1273.0, 1533.0, 40.0)) == "interpolated"
    assert rung(load=(1273.0, 1533.0, 90.0)) == "load", "beyond the end of its sweep"
    system = ("DeepSeek-R1", "b200", "trtllm", "fp4", parse_parallelism("P3x4-D4x8dep"), "mtp")
    assert trust.rung(*system, (1024.0, 1024.0, 4968.0)) == "measured"
    assert trust.rung(*system, (1024.0, 1000.0, 4968.0)) == "load"
