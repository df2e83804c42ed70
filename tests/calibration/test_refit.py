"""What calibration ships can be made again: same tables and code, same bytes."""

from importlib.resources import files

import pandas as pd
import pytest

from factory_sim.calibration import accuracy, catalogue
from factory_sim.inputs.measurements import serving as measured


@pytest.mark.parametrize("kind", ["energy", "online"])
def test_refit_gives_the_bytes_that_ship(tmp_path, kind):
    catalogue.fit_other(kind, tmp_path)
    for name in catalogue.OTHER_FITS[kind]:
        assert (tmp_path / name).read_bytes() == files("factory_sim.data").joinpath(*name.split("/")).read_bytes()


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
