"""What calibration ships can be made again: same tables and code, same bytes."""

from importlib.resources import files

import pandas as pd
import pytest

from factory_sim.calibration import accuracy, refit
from factory_sim.inputs.measurements import serving as measured


@pytest.mark.parametrize(
    ("write", "place", "names"),
    [
        (refit.write_energy, "power", ("power_curves.csv", "energy_fit.csv")),
        (refit.write_online, "online", ("online_fit.csv",)),
    ],
)
def test_refit_gives_the_bytes_that_ship(tmp_path, write, place, names):
    write(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names)
    for name in names:
        assert (tmp_path / "new" / name).read_bytes() == files("factory_sim.data").joinpath(place, name).read_bytes()


def test_bands_and_accuracy_are_those_of_the_shipped_residuals(tmp_path):
    """Tables of errors follow from residuals.csv alone."""
    root = files("factory_sim.data").joinpath("profiles")
    with root.joinpath("residuals.csv").open() as file:
        residuals = pd.read_csv(file)
    who = measured().set_index("measurement_id")[["model", "gpu"]]
    residuals = residuals.join(who, on="measurement_id")
    for name, table in (("bands", accuracy.band_table(residuals)), ("accuracy", accuracy.accuracy_table(residuals))):
        with root.joinpath(f"{name}.csv").open() as file:
            shipped = pd.read_csv(file)
        pd.testing.assert_frame_equal(table, shipped, rtol=2e-3, check_dtype=False)


def test_coverage_of_every_rung_is_seventy_to_ninety_per_cent():
    with files("factory_sim.data").joinpath("profiles", "accuracy.csv").open() as file:
        found = pd.read_csv(file)
    assert found.coverage.between(70, 90).all()
