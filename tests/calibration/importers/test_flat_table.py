"""Results of vLLM and SGLang put into a table, as `vllm bench sweep` and pandas do."""

import json

import pandas as pd
import pytest

from factory_sim.calibration.importers import inspect

VLLM = "vllm/concurrency4_detailed.json"
SGLANG = "sglang/concurrency4_details.jsonl"
DETAILS = ("ttfts", "itls", "errors", "input_lens", "output_lens", "start_times", "generated_texts")


@pytest.fixture
def runs(sample):
    """Two runs of one combination, as a sweep keeps them (no details, but all latencies)."""
    result = {name: value for name, value in sample(VLLM).items() if name not in DETAILS}
    again = result | {"duration": result["duration"] * 1.02, "latencies": [1.01 * e2e for e2e in result["latencies"]]}
    asked = {"random_input_len": 200, "random_output_len": 50}
    return [result | {"run_number": 0} | asked, again | {"run_number": 1} | asked]


def test_table_gives_what_the_results_give(tmp_path, runs, write):
    pd.DataFrame.from_records(runs).to_csv(tmp_path / "summary.csv")
    found = inspect(tmp_path / "summary.csv")
    alone = [inspect(write(f"run={at}.json", run)).points[0] for at, run in enumerate(runs)]
    assert [point.figures() for point in found.points] == [point.figures() for point in alone]
    assert [point.label for point in found.points] == ["row 2", "row 3"]
    first = found.points[0]
    assert first.e2e_mean_ms == pytest.approx(1183.72, rel=1e-3)
    assert (first.concurrency, first.concurrency_set) == (pytest.approx(4.0, rel=0.01), 4)
    assert (first.model, first.isl, first.osl, first.n_gpus) == ("mock-8b", 200, 50, 2)


def test_sweep_folder_gives_each_run_once_and_no_warm_up(tmp_path, runs, write):
    folder = "20251028/SERVE--max_num_seqs=32-BENCH--max_concurrency=4"
    for at, run in enumerate(runs):
        write(f"{folder}/run={at}.json", run)
    write(f"{folder}/warmup.json", runs[0] | {"completed": 2, "mean_ttft_ms": 900.0})
    write(f"{folder}/run=2.failure.json", {"run_number": 2, "error_type": "RuntimeError", "error": "x"})
    write(f"{folder}/summary.json", json.dumps(runs, indent=4))
    pd.DataFrame.from_records(runs).to_csv(tmp_path / "20251028" / "summary.csv")
    found = inspect(tmp_path)
    assert [point.source.rsplit("/", 1)[1] for point in found.points] == ["run=0.json", "run=1.json"]
    assert sum("left out, the same run" in note for note in found.notes) == 4
    assert sum("not a result by itself" in note for note in found.notes) == 2


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_failed_requests_of_sglang_are_counted_in_a_table(tmp_path, sample, suffix):
    result = sample(SGLANG)
    result["errors"][3] = "boom"
    result["ttfts"][3], result["output_lens"][3] = 0.0, 0
    del result["server_info"], result["itls"][3][:]
    path = tmp_path / f"runs.{suffix}"
    frame = pd.DataFrame.from_records([result])
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    (point,) = inspect(path).points
    assert (point.requests_completed, point.requests_failed, point.output_tokens) == (23, 1, 1150)
    assert point.ttft_mean_ms == pytest.approx(203.4, rel=0.01)


def test_empty_and_half_empty_rows_are_listed(write):
    text = "completed,duration,request_throughput,model_id,mean_ttft_ms\n,,,,\n24,7.1,3.4,m,200\n,,3,m,\n"
    found = inspect(write("runs.csv", text))
    assert [(point.label, point.requests_completed) for point in found.points] == [("row 3", 24)]
    assert any("row 2; row 4" in note for note in found.notes)
