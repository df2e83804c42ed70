"""Folders: every run once, whatever the number of its files; what is left out is told with its reason."""

import json
import shutil
from pathlib import Path

import pytest

from factory_sim.calibration.importers import inspect
from factory_sim.errors import MeasurementError

DATA = Path(__file__).parents[2] / "data" / "importers"


def test_runs_of_one_tool_are_points_in_order(sample, write, tmp_path):
    result = sample("vllm/concurrency4_detailed.json")
    for size in (1, 2, 4):
        write(f"run{size}.json", result | {"max_concurrency": size, "duration": result["duration"] * size})
    found = inspect(tmp_path)
    assert found.format == "vllm_bench_serve"
    assert [(point.source, point.concurrency_set) for point in found.points] == [
        ("run1.json", 1), ("run2.json", 2), ("run4.json", 4)]


def test_copies_and_summaries_of_results_count_once(sample, write, tmp_path):
    result = sample("vllm/concurrency4_detailed.json")
    other = result | {"duration": 9.0}
    write("a.json", result)
    write("copy of a.json", result)
    write("b.json", other)
    write("summary.json", [result, other])
    found = inspect(tmp_path)
    assert [point.source for point in found.points] == ["a.json", "b.json"]
    assert "copy of a.json: left out, a copy of a.json" in found.notes


def test_broken_and_foreign_files_do_not_spoil_the_rest(sample, write, tmp_path):
    text = json.dumps(sample("vllm/concurrency4_detailed.json"))
    write("good.json", text)
    write("cut.json", text[:9000])
    write("foreign.json", {"apples": 1})
    write("run.pytorch.json", [{"benchmark": {}}])
    write(".hidden.json", "{")
    write("empty.csv", "")
    found = inspect(tmp_path)
    assert [point.source for point in found.points] == ["good.json"]
    told = {note.split(":")[0] for note in found.notes}
    assert told >= {"cut.json", "foreign.json", "run.pytorch.json", "empty.csv"}
    assert any("line 1, column 9001" in note for note in found.notes)


def test_folder_without_results_is_refused(write, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(MeasurementError, match="nothing usable in this folder: it is empty"):
        inspect(tmp_path / "nothing")
    write("a/foreign.json", {"apples": 1})
    with pytest.raises(MeasurementError, match=r"foreign\.json: left out"):
        inspect(tmp_path / "a")


def test_summary_and_records_of_different_runs_are_not_put_together(tmp_path):
    lines = (DATA / "aiperf" / "profile_export.jsonl").read_text().splitlines()
    shutil.copy(DATA / "aiperf" / "profile_export_aiperf.json", tmp_path)
    (tmp_path / "profile_export.jsonl").write_text("\n".join(lines[:20]))
    found = inspect(tmp_path)
    assert found.points[0].requests_completed == 24
    assert any("16 successful requests here, 24 in" in note for note in found.notes)


def test_records_stand_in_for_a_cut_summary(tmp_path):
    shutil.copy(DATA / "aiperf" / "profile_export.jsonl", tmp_path)
    text = (DATA / "aiperf" / "profile_export_aiperf.json").read_text()
    (tmp_path / "profile_export_aiperf.json").write_text(text[: len(text) // 2])
    found = inspect(tmp_path)
    assert (found.points[0].source, found.points[0].requests_completed) == ("profile_export.jsonl", 24)
    assert any(note.startswith("profile_export_aiperf.json: left out") for note in found.notes)


def test_order_of_files_does_not_depend_on_the_system(tmp_path):
    for folder in ("vllm", "sglang", "guidellm"):
        shutil.copytree(DATA / folder, tmp_path / folder)
    assert inspect(tmp_path) == inspect(tmp_path)
    assert [point.source.split("/")[0] for point in inspect(tmp_path).points] == ["guidellm", "sglang", "vllm"]
