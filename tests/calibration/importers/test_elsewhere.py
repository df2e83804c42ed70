"""Files that another command reads, and names that are not there, are told as such."""

import pytest

from factory_sim.calibration.importers import inspect
from factory_sim.errors import MeasurementError


def refusal(path):
    with pytest.raises(MeasurementError) as caught:
        inspect(path)
    return str(caught.value)


def test_missing_file_names_the_nearest_beside_it(write, tmp_path):
    write("run-4.json", "{}")
    assert refusal(tmp_path / "run_4.json").endswith("is not there; did you mean 'run-4.json'?")
    assert "neither is the folder" in refusal(tmp_path / "none" / "run.json")


def test_scenario_is_sent_to_run(write):
    path = write("calm.yaml", "name: calm\nservices: {chat: {}}\nsite: {gpus: 8}\n")
    assert f"`factory-sim run {path}` plays it" in refusal(path)


def test_run_folder_is_sent_to_its_commands(write, tmp_path):
    write("calm/run.json", "{}")
    path = write("calm/summary.json", "{}")
    for place in (path, path.parent):
        assert f"factory-sim statement {tmp_path / 'calm'}" in refusal(place)


def test_energy_table_is_sent_to_validate(write):
    path = write("energy.csv", "model,gpu,avg_batch_size,energy_per_output_token_j\nm,h100,8,0.5\n")
    assert f"`factory-sim profiles validate --kind energy --measurements {path}`" in refusal(path)


def test_table_with_missing_values_of_pandas_own_kind_is_read(tmp_path):
    import pandas as pd

    table = pd.DataFrame({"ttft_ms": [100.0, 200.0], "tpot_ms": [10.0, 20.0], "concurrency": pd.array([4, None], "Int64")})
    table.to_parquet(tmp_path / "rows.parquet")
    found = inspect(tmp_path / "rows.parquet").points
    assert [point.concurrency for point in found] == [4.0, None]
