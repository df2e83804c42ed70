"""The committed accuracy of a small sample holds for the data, calibration and kernel as they are."""

import csv

import pytest

from factory_sim.calibration import selfcheck


def test_a_refit_of_the_sample_is_what_the_committed_table_says(tmp_path):
    found = selfcheck.measure()
    assert sum(int(row["runs"]) for row in found) >= 100
    assert selfcheck.complaints(found, selfcheck.committed()) == []
    selfcheck.write(found, tmp_path / "sample.csv")
    with (tmp_path / "sample.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == found


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("digest", "0" * 64, "selfcheck --write"), ("mean_percent", "1e6", "has grown"), ("metric", "itl", "not in")],
)
def test_another_digest_a_grown_error_and_a_missing_row_are_told(column, value, said):
    before = selfcheck.committed()
    now = [before[0] | {column: value}, *before[1:]]
    assert any(said in line for line in selfcheck.complaints(now, before))
