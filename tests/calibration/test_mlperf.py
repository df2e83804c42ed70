"""The page of MLPerf® results keeps its owner's rules, and nobody else reads the table."""

import re
from pathlib import Path

import pytest

import factory_sim
from factory_sim.calibration.mlperf import COMPATIBLE, TRADEMARK, Chosen, mlperf_page, mlperf_rows
from factory_sim.errors import MeasurementError


def test_every_page_carries_the_trademark_text_and_the_mark_at_each_use_of_the_name():
    for page in (mlperf_page(Chosen()), mlperf_page(Chosen("llama2-70b", accelerator="H200"))):
        assert TRADEMARK in page
        assert "MLPerf®" in page
        assert not re.search(r"MLPerf(?!®)", page.replace(TRADEMARK, ""))


def test_a_table_holds_one_benchmark_scenario_division_and_compatible_versions():
    page = mlperf_page(Chosen("deepseek-r1"))
    titles = [line for line in page.splitlines() if line.startswith("deepseek-r1, ")]
    assert any("v5.1 to v6.0" in title for title in titles)
    assert any(title.endswith("division, v6.1") for title in titles)
    assert len(titles) == len(set(titles))
    for body in page.split("\n\n")[1:]:
        versions = set(re.findall(r"^(v\d\.\d)  ", body, re.MULTILINE))
        assert len(versions) <= 1 or versions <= set(COMPATIBLE["deepseek-r1"])


def test_nothing_is_derived_and_unverified_results_say_so():
    page = mlperf_page(Chosen("gptj-6b"))
    assert "per accelerator" not in page
    assert "Result not verified by MLCommons Association." in page
    assert "not MLPerf® metrics" in page


def test_every_result_has_a_footnote():
    page = mlperf_page(Chosen("llama3.1-405b", scenario="Server", version="v5.1"))
    results = [line for line in page.splitlines() if line.startswith("v5.1  ")]
    assert results
    assert all(re.search(r"(Tokens|Samples|Queries)/s \(\d+(,\d+)*\)", line) for line in results)


def test_unknown_names_and_empty_filters_are_told():
    with pytest.raises(MeasurementError, match="llama2-70b"):
        mlperf_page(Chosen("llama2-70"))
    with pytest.raises(MeasurementError, match="no result"):
        mlperf_page(Chosen("deepseek-r1", version="v3.1"))


def test_no_other_module_reads_the_table():
    root = Path(factory_sim.__file__).parent
    readers = [path.name for path in sorted(root.rglob("*.py")) if "mlperf.csv" in path.read_text(encoding="utf-8")]
    assert set(readers) == {"mlperf.py"}


def test_rows_for_programs_are_as_published_without_rates_per_chip():
    rows = mlperf_rows(Chosen("llama2-70b", version="v5.1"))
    assert rows
    assert all(row["submitter"] and row["benchmark"] and row["round"] == "v5.1" for row in rows)
    assert not any("per_accelerator" in name for row in rows for name in row)
