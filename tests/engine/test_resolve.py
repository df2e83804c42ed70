"""Systems of a scenario: whose profiles they take, and at which load they are judged."""

import shutil
from importlib.resources import files

import numpy as np
import pytest

from factory_sim.engine.resolve import planned_system
from factory_sim.errors import ProfileError
from factory_sim.inputs.services import System

SYSTEM = {"gpu": "h200", "engine": "vllm", "precision": "fp8", "parallelism": "tp4"}


@pytest.fixture
def own(tmp_path):
    """A copy of the packaged profiles, as `profiles fit --out` would write them."""
    for name in ("effects.csv", "index.csv"):
        shutil.copy(files("factory_sim.data").joinpath("profiles", name), tmp_path / name)
    return tmp_path


def base_s(**changes) -> np.ndarray:
    return planned_system("Llama-3.1-70B", System(**SYSTEM | changes)).workers[0].step.base_s


def test_own_profiles_are_what_a_stage_runs_on(own):
    assert np.array_equal(base_s(), base_s(profiles=str(own)))
    effects = own / "effects.csv"
    effects.write_text(effects.read_text() + "model,Llama-3.1-70B,step,1.5\n")
    changed = own.rename(own.with_name("changed"))
    assert base_s(profiles=str(changed))[8] > base_s()[8]


def test_a_folder_without_profiles_is_one_clear_error(tmp_path):
    with pytest.raises(ProfileError, match=r"no effects\.csv in it.*profiles import"):
        base_s(profiles=str(tmp_path))


def test_trust_and_bands_are_those_of_the_load():
    wanted = System(**SYSTEM)
    near, far = (planned_system("Llama-3.1-70B", wanted, (1024.0, 1024.0, load)) for load in (30.0, 3000.0))
    assert (near.trust, far.trust) == ("interpolated", "extrapolated")
    assert far.tpot_band[1] / far.tpot_band[0] > near.tpot_band[1] / near.tpot_band[0]
