"""AIPerf and GenAI-Perf: versions, cancelled and killed runs, aggregates, sweeps, runs without streaming."""

import copy
import json
import shutil
from pathlib import Path

import pytest

from factory_sim.calibration.importers import inspect, read_results
from factory_sim.errors import MeasurementError

DATA = Path(__file__).parents[2] / "data" / "importers"

SUMMARY = "aiperf/profile_export_aiperf.json"


@pytest.fixture
def summary(sample):
    return sample(SUMMARY)


@pytest.fixture
def records():
    return [json.loads(line) for line in (DATA / "aiperf" / "profile_export.jsonl").read_text().splitlines()]


def lines(items):
    return "\n".join(json.dumps(item) for item in items)


def test_oldest_version_without_version_keys(summary, write):
    for name in ("schema_version", "aiperf_version", "benchmark_id", "run_info", "is_complete", "warmup_metrics",
                 "benchmark_duration", "total_isl", "total_osl"):
        del summary[name]
    for name in ("input_sequence_length", "output_sequence_length"):
        del summary[name]["sum"], summary[name]["count"]
    summary |= {
        "input_config": {"endpoint": {"model_names": ["m"], "streaming": True},
                         "loadgen": {"concurrency": 4, "request_count": 24}},
        "error_request_count": None,
        "min_request_timestamp": {"unit": "ns", "avg": 1.7955e18},
        "max_response_timestamp": {"unit": "ns", "avg": 1.7955e18 + 7.141e9},
    }
    point = inspect(write("profile_export_aiperf.json", summary)).points[0]
    assert (point.input_tokens, point.output_tokens, point.concurrency_set) == (4800, 1200, 4)
    assert (point.requests_failed, point.model) == (0, "m")
    assert point.duration_s == pytest.approx(7.141, rel=1e-3)


def test_units_are_read_and_not_assumed(summary, write):
    for name, metric in summary.items():
        if isinstance(metric, dict) and metric.get("unit") == "ms":
            summary[name] = {**metric, "unit": "sec", "avg": metric["avg"] / 1000}
    point = inspect(write("run.json", summary)).points[0]
    assert point.ttft_mean_ms == pytest.approx(203.31, rel=1e-3)
    assert point.e2e_mean_ms == pytest.approx(1183.9, rel=1e-3)


def test_cancelled_run_is_shown_and_not_fitted(summary, write):
    summary |= {"was_cancelled": True, "is_complete": False, "error_request_count": {"unit": "requests", "avg": 1.0}}
    path = write("run.json", summary)
    found = inspect(path)
    assert (found.points[0].cancelled, found.points[0].requests_failed) == (True, 1)
    assert any("cancelled or is incomplete" in note for note in found.notes)
    with pytest.raises(MeasurementError, match="cancelled"):
        read_results(path)


def test_without_streaming_ttft_is_missing(summary, write):
    for name in ("time_to_first_token", "inter_token_latency", "inter_chunk_latency"):
        del summary[name]
    point = inspect(write("run.json", summary)).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.chunk_gap_mean_ms) == (None, None, None)
    assert point.e2e_mean_ms == pytest.approx(1183.9, rel=1e-3)


def test_reasoning_tokens_count_as_output(summary, write):
    summary["total_osl"]["avg"], summary["total_output_tokens"]["avg"] = 1200.0, 400.0
    summary["total_reasoning_tokens"] = {"unit": "tokens", "avg": 800.0}
    point = inspect(write("run.json", summary)).points[0]
    assert (point.output_tokens, point.reasoning_tokens) == (1200, 800)


def test_records_drop_warm_up_and_count_failed_and_cancelled(records, write):
    records[10] = {**records[10], "error": {"code": 500}, "metrics": {"error_isl": {"value": 200, "unit": "tokens"}}}
    records[11]["metadata"]["was_cancelled"] = True
    records[12]["error"] = None
    point = inspect(write("run.jsonl", lines(records))).points[0]
    assert (point.requests_completed, point.requests_failed, point.output_tokens) == (22, 2, 1100)
    assert point.tpot_mean_ms == pytest.approx(20.012, rel=1e-3)


def test_half_written_last_record_is_told(records, write):
    found = inspect(write("run.jsonl", lines(records)[:-300]))
    assert found.points[0].requests_completed == 23
    assert any("line 28" in note for note in found.notes)


def test_only_warm_up_is_nothing(records, write):
    with pytest.raises(MeasurementError, match="4 warm-up records dropped"):
        inspect(write("run.jsonl", lines(records[:4])))


def test_killed_run_leaves_records_that_are_enough(tmp_path):
    shutil.copy(DATA / "aiperf" / "profile_export.jsonl", tmp_path)
    (tmp_path / "inputs.json").write_text('{"data": []}')
    found = inspect(tmp_path)
    assert found.points[0].requests_completed == 24
    assert any(note.startswith("inputs.json: left out") for note in found.notes)


def test_result_without_any_metric_is_nothing(summary, write):
    bare = {name: part for name, part in summary.items() if name in ("aiperf_version", "run_info", "benchmark_id")}
    with pytest.raises(MeasurementError, match="without any figure"):
        inspect(write("run.json", {**bare, "input_config": {}, "timeslices": []}))


def test_layout_before_version_0_2_names_metrics_as_in_the_report(write):
    early = {"input_config": {"endpoint": {"streaming": True}}, "was_cancelled": False,
             "records": {"Time to First Token": {"unit": "ms", "avg": 30.5}, "Time to Last Token": {"unit": "ms",
                                                                                               "avg": 522.2}}}
    point = inspect(write("profile_export_aiperf.json", early)).points[0]
    assert (point.ttft_mean_ms, point.e2e_mean_ms, point.requests_completed) == (30.5, 522.2, None)


SWEEP = {
    "aggregation_type": "sweep",
    "per_combination_metrics": [
        {"parameters": {"phases.profiling.concurrency": size},
         "metrics": {"time_to_first_token_avg": {"mean": 200.0 + size, "unit": "ms"},
                     "request_count_avg": {"mean": 24, "unit": "requests"},
                     "request_throughput_avg": {"mean": 3.36, "unit": "requests/sec"}}}
        for size in (1, 8)
    ],
}


@pytest.mark.parametrize("suffix", ["_avg", ""])
def test_sweep_file_has_a_point_for_each_combination(write, suffix):
    sweep = json.loads(json.dumps(SWEEP).replace('_avg"', f'{suffix}"'))
    points = inspect(write("profile_export_aiperf_sweep.json", sweep)).points
    assert [point.concurrency_set for point in points] == [1, 8]
    assert [point.ttft_mean_ms for point in points] == [201, 208]


def test_sweep_folder_gives_its_runs_once(summary, write, tmp_path):
    for size in (1, 8):
        run = json.loads(json.dumps(summary))
        run["benchmark_id"] = f"id{size}"
        run["input_config"]["phases"][1]["concurrency"] = size
        run["request_latency"]["avg"] += size
        write(f"concurrency_{size}/profile_export_aiperf.json", run)
        write(f"concurrency_{size}/phases/warmup/profile_export_aiperf.json", run)
    write("sweep_aggregate/profile_export_aiperf_sweep.json", SWEEP)
    found = inspect(tmp_path)
    assert [point.concurrency_set for point in found.points] == [1, 8]
    assert any("summary of the runs" in note for note in found.notes)


@pytest.mark.parametrize("nested", [True, False])
def test_aggregate_over_runs_is_one_point(write, nested):
    metrics = SWEEP["per_combination_metrics"][0]["metrics"]
    body = {"schema_version": "1.0", "metadata": {"aggregation_type": "confidence", "num_profile_runs": 3}}
    body |= {"metrics": metrics} if nested else metrics
    found = inspect(write("profile_export_aiperf_aggregate.json", body))
    assert found.points[0].ttft_mean_ms == 201
    assert any("3 runs" in note for note in found.notes)


def test_genai_perf_without_streaming_stores_latency_as_ttft(sample, write):
    summary = sample("genai-perf/profile_export_genai_perf.json")
    summary["input_config"]["endpoint"]["streaming"] = False
    summary["time_to_first_token"] = summary["request_latency"]
    point = inspect(write("run.json", summary)).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms) == (None, None)
    assert point.e2e_mean_ms == pytest.approx(1182.41, rel=1e-3)
    assert point.concurrency == pytest.approx(3.998, rel=1e-3)  # rate x end-to-end time


def test_genai_perf_requests_without_a_token_are_missed(sample, write):
    summary = sample("genai-perf/profile_export_genai_perf.json")
    summary["request_count"]["avg"] = 22.0
    point = inspect(write("run.json", summary)).points[0]
    assert (point.requests_completed, point.requests_failed) == (22, 2)


def test_genai_perf_raw_export_is_read_up_to_a_cut(write):
    text = (DATA / "genai-perf" / "profile_export.json").read_text()
    found = inspect(write("profile_export.json", text[: len(text) // 2]))
    assert 0 < found.points[0].requests_completed < 24
    assert found.points[0].ttft_mean_ms == pytest.approx(202.3, rel=0.01)
    assert any("cut off" in note for note in found.notes)


def test_records_appended_a_second_time_are_counted_once(tmp_path):
    source = (Path(__file__).parents[2] / "data" / "importers" / "aiperf" / "profile_export.jsonl").read_bytes()
    (tmp_path / "profile_export.jsonl").write_bytes(source + source)
    found = inspect(tmp_path / "profile_export.jsonl")
    assert found.points[0].requests_completed == 24
    assert any("same request as an earlier record" in note for note in found.notes)


def test_record_of_an_error_without_its_text_is_a_failure(records, write):
    failed = copy.deepcopy(records[-1])
    failed["metadata"]["x_request_id"] = "silent"
    failed |= {"metrics": {"error_isl": {"value": 200, "unit": "tokens"}}, "error": None}
    point = inspect(write("profile_export.jsonl", "\n".join(json.dumps(one) for one in [*records, failed]))).points[0]
    assert (point.requests_completed, point.requests_failed) == (24, 1)


def flat_arguments(result, **more):
    """The layout before 0.0.12: the arguments of the command as they were parsed."""
    result["input_config"] = {
        "model": ["llama"], "formatted_model_name": "llama", "backend": "tensorrtllm", "endpoint_type": "chat",
        "service_kind": "openai", "streaming": True, "concurrency": 4, "request_rate": None, "request_count": 24,
        "synthetic_input_tokens_mean": 200, "synthetic_input_tokens_stddev": 0, "output_tokens_mean": 50,
        "output_tokens_stddev": 0, "subcommand": "profile", "extra_inputs": {},
    } | more
    return result


def test_genai_perf_with_flat_arguments(sample, write):
    result = flat_arguments(sample("genai-perf/profile_export_genai_perf.json"))
    found = inspect(write("profile_export_genai_perf.json", result))
    (point,) = found.points
    assert (found.format, point.requests_completed, point.requests_failed) == ("genai_perf", 24, 0)
    assert point.ttft_mean_ms == pytest.approx(202.32, rel=1e-3)
    assert (point.model, point.concurrency_set, point.isl, point.osl, point.length_distribution, point.streaming) == (
        "llama", 4, 200, 50, "fixed", True)


def test_genai_perf_with_flat_arguments_and_without_counts(sample, write):
    result = flat_arguments(sample("genai-perf/profile_export_genai_perf.json"), streaming=False, request_count=0)
    del result["request_count"]
    (point,) = inspect(write("profile_export_genai_perf.json", result)).points
    assert (point.requests_completed, point.requests_failed, point.output_tokens, point.duration_s) == (None,) * 4
    assert (point.ttft_mean_ms, point.tpot_mean_ms) == (None, None)
    assert point.e2e_mean_ms == pytest.approx(1182.41, rel=1e-3)
    assert point.concurrency == pytest.approx(3.998, rel=1e-3)  # rate x end-to-end time


def test_summary_cut_down_to_its_metrics_is_read(write):
    metrics = {"request_latency": {"unit": "sec", "avg": 1.18}, "time_to_first_token": {"unit": "ms", "avg": 200.0},
               "inter_token_latency": {"unit": "ms", "avg": 20.0}, "request_throughput": {"unit": "req/s", "avg": 3.4}}
    found = inspect(write("run.json", metrics))
    (point,) = found.points
    assert (found.format, point.e2e_mean_ms, point.tpot_mean_ms) == ("aiperf", pytest.approx(1180), 20)
    assert (point.requests_completed, point.duration_s) == (None, None)
    assert point.concurrency == pytest.approx(3.4 * 1.18)
