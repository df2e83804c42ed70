"""`factory-sim profiles ...` as a stranger uses it."""

import json
from importlib.resources import files

import numpy as np
import pytest
from typer.testing import CliRunner

from factory_sim.calibration.catalogue import OTHER_FITS
from factory_sim.cli.app import app
from factory_sim.errors import FactorySimError


def profiles(*arguments) -> str:
    done = CliRunner().invoke(app, ["profiles", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def records(*arguments) -> list[dict]:
    return json.loads(profiles(*arguments, "--json"))


def test_list_is_filtered_by_what_one_asks_for():
    every = records("list")
    chosen = records("list", "--model", "deepseek-r1", "--gpu", "b200", "--engine", "trtllm", "--mode", "agg")
    assert 0 < len(chosen) < len(every)
    assert {(row["model"], row["gpu"], row["engine"], row["mode"]) for row in chosen} == {
        ("DeepSeek-R1", "b200", "trtllm", "agg")
    }
    assert {row["gpu"] for row in records("list", "--trust", "estimated")} >= {"mi300x", "mi355x", "vr200"}
    assert all(row["rows"] >= 10 and row["tpot_error_percent"] <= 2
               for row in records("list", "--least-rows", "10", "--most-error", "2"))  # fmt: skip


def test_show_tells_coefficients_with_units_range_errors_and_sources(tmp_path):
    name = "llama-3.1-70b.h200.vllm.fp8"
    text = profiles("show", name, "--chart", tmp_path / "chart.svg")
    for word in ("Coefficients", "x peak", "Fit range", "TTFT median", "extrapolated: model_gpu", "Sources"):
        assert word in text
    assert (tmp_path / "chart.svg").stat().st_size > 10_000
    with pytest.raises(FactorySimError, match="did you mean 'llama-3.1-70b.h200.vllm.fp8'"):
        profiles("show", "llama-3.1-70b.h200.vlm.fp8")


def test_estimate_says_how_far_from_a_measurement_it_stands():
    common = ("--precision", "fp8", "--parallelism", "tp8", "--concurrency", "4")
    measured, guessed = (
        records("estimate", "--model", "DeepSeek-R1", "--gpu", gpu, *common)[0] for gpu in ("h200", "mi300x")
    )
    assert (measured["trust"], guessed["trust"]) == ("measured", "estimated")
    spread = [np.log(row["tpot_high_s"] / row["tpot_low_s"]) for row in (measured, guessed)]
    assert spread[1] > 4 * spread[0]
    with pytest.raises(FactorySimError, match="'b2000' is not known; did you mean 'b200'"):
        records("estimate", "--model", "DeepSeek-R1", "--gpu", "b2000", *common)
    with pytest.raises(FactorySimError, match="speculation 'mpt' is not known; did you mean 'mtp'"):
        records("estimate", "--model", "DeepSeek-R1", "--gpu", "b200", *common, "--speculation", "mpt")


def test_new_hardware_scales_with_the_predecessor_that_is_named():
    ask = ("estimate", "--model", "DeepSeek-R1", "--gpu", "vr200", "--precision", "fp4", "--parallelism", "tp8")
    by_table, by_name = (records(*ask, "--concurrency", "4", *like)[0] for like in ((), ("--like", "b200")))
    assert by_table["profile"].endswith("like.gb300")
    assert by_name["profile"].endswith("like.b200")
    assert by_table["tpot_s"] != by_name["tpot_s"]


def test_the_command_that_made_a_packaged_file_makes_it_again(tmp_path):
    profiles("fit", "--kind", "generation", "--out", tmp_path)
    for name in OTHER_FITS["generation"]:
        assert (tmp_path / name).read_bytes() == files("factory_sim.data").joinpath(*name.split("/")).read_bytes()
    with pytest.raises(FactorySimError, match="--force"):
        profiles("fit", "--kind", "generation", "--out", tmp_path)


def test_mlperf_stands_alone_with_its_footnotes():
    page = profiles("mlperf", "deepseek-r1", "--accelerator", "B200")
    assert "MLPerf® Inference" in page
    assert "registered and unregistered trademarks" in page
    found = json.loads(profiles("mlperf", "deepseek-r1", "--json"))
    assert found["results"]
    assert found["footnotes"]


def test_a_narrow_window_lists_profile_by_profile_and_cuts_nothing(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = profiles("list").splitlines()
    assert max(map(len, lines)) <= 80
    every = records("list")
    assert sum(line.startswith("  ") for line in lines) == 1 + sum(bool(row["layout"]) for row in every)
    at = lines.index("deepseek-r1.b200.sglang.fp4, agg, measured")
    first = next(row for row in every if row["profile"] == "deepseek-r1.b200.sglang.fp4")
    assert lines[at + 1].split()[:3] == [first["layout"], str(first["rows"]), first["concurrency"]]


def test_an_estimate_of_a_video_model_takes_the_batches_that_were_measured():
    found = records("estimate", "--model", "HunyuanVideo", "--gpu", "b200", "--parallelism", "tp8", "--precision", "bf16")
    assert [row["batch"] for row in found] == [1, 2, 4, 8, 16]
    assert {row["trust"] for row in found} == {"measured"}
    asked = records("estimate", "--model", "HunyuanVideo", "--gpu", "b200", "--parallelism", "tp8", "--precision", "bf16",
                    "--concurrency", "3")  # fmt: skip
    assert [row["batch"] for row in asked] == [3]
