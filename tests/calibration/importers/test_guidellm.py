"""GuideLLM: three generations of reports in three containers, partial lists of requests, runs without streaming."""

import json
from pathlib import Path

import pytest
import yaml

from factory_sim.calibration.importers import inspect
from factory_sim.errors import MeasurementError

DATA = Path(__file__).parents[2] / "data" / "importers"

TTFT_MS, TPOT_MS = 205.55, 19.983


@pytest.fixture
def report(sample):
    return sample("guidellm/concurrent4.json")


def test_version_1_has_args_for_config(report, write):
    report["metadata"] |= {"version": 1, "guidellm_version": "0.5.0"}
    report["args"] = report.pop("config")
    found = inspect(write("run.json", report))
    assert found.tool_version == "0.5.0"
    assert (found.points[0].concurrency_set, found.points[0].model) == (4, "mock-8b")
    assert found.points[0].tpot_mean_ms == pytest.approx(TPOT_MS, rel=1e-3)


@pytest.mark.parametrize(
    ("data", "spread"),
    [(["prompt_tokens=256,output_tokens=128"], "fixed"), ('{"prompt_tokens": 256, "output_tokens": 128}', "fixed"),
     (["prompt_tokens=256,output_tokens=128,output_tokens_stdev=10"], None),
     (["prompt_tokens=256,output_tokens=128,prompt_tokens_min=1,prompt_tokens_max=512"], None)],
)  # fmt: skip
def test_lengths_in_the_text_of_the_command_line_are_read(report, write, data, spread):
    report["metadata"] |= {"version": 1, "guidellm_version": "0.6.0"}
    del report["config"]
    report["args"] = {"data": data, "profile": "sweep"}
    point = inspect(write("run.json", report)).points[0]
    assert (point.isl, point.osl, point.length_distribution) == (256, 128, spread)


def test_oldest_version_is_read_and_its_tpot_is_not_taken(report, write):
    benchmark = report["benchmarks"][0]
    benchmark["args"] = {"strategy": {"type_": "concurrent", "streams": 4}}
    benchmark["run_stats"] = {"start_time": 1.0, "end_time": 8.2}
    benchmark["request_totals"] = benchmark["metrics"].pop("request_totals")
    benchmark["metrics"]["time_per_output_token_ms"]["successful"]["mean"] = 19.6
    for name in ("config", "scheduler_metrics", "scheduler_state"):
        del benchmark[name]
    for request in benchmark["requests"]["successful"]:
        del request["info"]
    found = inspect(write("run.json", {"benchmarks": [benchmark]}))
    point = found.points[0]
    assert (point.requests_completed, point.requests_failed, point.concurrency_set) == (24, 0, 4)
    assert point.tpot_mean_ms == pytest.approx(TPOT_MS, rel=1e-3)
    assert any("0.3 or older" in note for note in found.notes)


def test_tpot_is_never_the_field_that_includes_the_first_token(report, write):
    stored = report["benchmarks"][0]["metrics"]["time_per_output_token_ms"]["successful"]["mean"]
    assert stored == pytest.approx(23.69, rel=1e-3)
    assert inspect(write("run.json", report)).points[0].tpot_mean_ms == pytest.approx(TPOT_MS, rel=1e-3)


def test_tpot_by_request_differs_from_the_mean_weighted_by_tokens(report, write):
    first = report["benchmarks"][0]["requests"]["successful"][0]
    moments = first["info"]["timings"]
    moments["last_token_iteration"] = moments["first_token_iteration"] + 1.0
    first["output_tokens"] = 2
    first["output_metrics"]["text_tokens"] = 2
    point = inspect(write("run.json", report)).points[0]
    assert point.tpot_mean_ms == pytest.approx((23 * TPOT_MS + 1000.0) / 24, rel=1e-2)


def test_listed_sample_of_requests_does_not_change_the_counts(report, write):
    benchmark = report["benchmarks"][0]
    benchmark["requests"]["successful"] = benchmark["requests"]["successful"][:5]
    benchmark["metrics"]["request_totals"] |= {"errored": 3, "incomplete": 2, "total": 29}
    point = inspect(write("run.json", report)).points[0]
    assert (point.requests_completed, point.requests_failed, point.requests_incomplete) == (24, 3, 2)
    assert point.tpot_basis == "inter_token_latency_ms"


def test_without_streaming_zeros_are_missing(report, write):
    benchmark = report["benchmarks"][0]
    benchmark["metrics"]["time_to_first_token_ms"]["successful"] |= {"mean": 0.0, "count": 0}
    benchmark["metrics"]["inter_token_latency_ms"]["successful"] |= {"mean": 0.0}
    for request in benchmark["requests"]["successful"]:
        request["info"]["timings"] |= {"first_token_iteration": None, "last_token_iteration": None}
        request["time_to_first_token_ms"] = request["inter_token_latency_ms"] = None
    point = inspect(write("run.json", report)).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms) == (None, None)
    assert point.e2e_mean_ms == pytest.approx(1185.74, rel=1e-3)


def test_when_all_failed_nothing_is_zero(report, write):
    benchmark = report["benchmarks"][0]
    benchmark["requests"] = {"successful": [], "incomplete": [], "errored": []}
    benchmark["metrics"]["request_totals"] |= {"successful": 0, "errored": 24}
    for metric in benchmark["metrics"].values():
        if isinstance(metric, dict) and isinstance(metric.get("successful"), dict):
            metric["successful"] |= {"mean": 0.0, "count": 0, "total_sum": 0.0}
    point = inspect(write("run.json", report)).points[0]
    assert (point.requests_completed, point.requests_failed) == (0, 24)
    assert (point.e2e_mean_ms, point.output_tokens, point.output_tokens_per_s) == (None, None, None)


def test_benchmarks_before_a_cut_are_kept(report, write):
    second = json.loads(json.dumps(report["benchmarks"][0]))
    second["config"]["id_"] = "second"
    text = json.dumps({**report, "benchmarks": [report["benchmarks"][0], second]})
    assert len(inspect(write("whole.json", text)).points) == 2
    where = text.index('"second"') + 100
    found = inspect(write("cut.json", text[:where]))
    assert len(found.points) == 1
    assert any(f"column {where + 1}" in note for note in found.notes)


def test_cut_before_the_first_metrics_leaves_nothing(report, write):
    text = json.dumps(report)
    with pytest.raises(MeasurementError, match="cut off"):
        inspect(write("cut.json", text[: text.index('"scheduler_metrics"')]))


def test_cut_yaml_is_told_though_it_is_still_yaml(write):
    text = (DATA / "guidellm" / "concurrent4.yaml").read_text()
    found = inspect(write("cut.yaml", text[: text.index("time_to_first_token_ms:")] + "time_to_f"))
    assert found.points[0].ttft_mean_ms is None
    assert found.points[0].e2e_mean_ms == pytest.approx(1185.74, rel=1e-3)
    assert any("ends before its metadata" in note for note in found.notes)


def test_csv_has_a_row_for_each_benchmark_and_lists_a_broken_one(write):
    text = (DATA / "guidellm" / "concurrent4.csv").read_text()
    row = text.splitlines(keepends=True)[3]
    found = inspect(write("run.csv", text + row + row[:400]))
    assert len(found.points) == 2
    assert any("row 6" in note for note in found.notes)


def test_oldest_csv_has_one_header_row(write):
    header = ("Type,Run Id,Id,Name,Start Time,End Time,Duration,Successful Requests,Successful Request latency mean,"
              "Successful Prompt token count mean,Successful Output token count mean,"
              "Successful Time to first token ms mean,Successful Time per output token ms mean,"
              "Successful Inter token latency ms mean,Incomplete Requests,Errored Requests")
    row = ("generative_benchmark,r,i,concurrent@4,2025-01-01,2025-01-01,7.189,24,1.18574,210.0,50.0,205.55,19.6,"
           "19.98,0,1")
    point = inspect(write("benchmarks.csv", f"{header}\n{row}\n")).points[0]
    assert (point.requests_completed, point.requests_failed, point.concurrency_set) == (24, 1, 4)
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.output_tokens) == (205.55, 19.98, 1200)


def test_oldest_version_gives_silent_requests_a_negative_time(report, write):
    benchmark = report["benchmarks"][0]
    before = inspect(write("before.json", report)).points[0]
    silent = benchmark["requests"]["successful"][0]
    silent |= {"time_to_first_token_ms": -1.8e12, "inter_token_latency_ms": 0.0, "info": {}}
    benchmark["metrics"]["time_to_first_token_ms"]["successful"]["mean"] = -7e10
    found = inspect(write("guidellm.json", report))
    point = found.points[0]
    assert point.requests_completed == 24
    assert point.output_tokens == before.output_tokens - 50
    assert point.ttft_mean_ms == pytest.approx(before.ttft_mean_ms, rel=0.02)
    assert point.tpot_mean_ms == pytest.approx(before.tpot_mean_ms, rel=0.01)
    assert any("1 requests ended without a token" in note for note in found.notes)


def test_csv_finds_the_streams_in_the_profile():
    point = inspect(DATA / "guidellm" / "concurrent4.csv").points[0]
    assert point.concurrency_set == 4


def first_generation(requests, **members):
    results = [
        {"request": {"prompt": "secret"}, "output": "secret", "prompt_token_count": isl, "output_token_count": osl,
         "start_time": 1.7e9 + start_s, "end_time": 1.7e9 + end_s, "first_token_time": 1.7e9 + first_s,
         "last_token_time": 1.7e9 + end_s}
        for start_s, first_s, end_s, isl, osl in requests
    ]
    benchmark = {"mode": "asynchronous", "rate": 5.0, "results": results,
                 "errors": [{"request": {"prompt": "secret"}, "message": "boom"}], "concurrencies": [{"time": 1.0}]}
    args = {"backend_type": "openai_server", "model": "llama", "mode": "sweep"}
    return {"benchmarks": [{"benchmarks": [benchmark | members], "args": args}]}


REQUESTS = ((0.0, 0.2, 1.0, 100, 41), (0.5, 0.9, 2.0, 200, 12))


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump])
def test_first_generation_is_computed_from_its_requests(write, dump):
    suffix = "json" if dump is json.dumps else "yaml"
    found = inspect(write(f"report.{suffix}", dump(first_generation(REQUESTS))))
    (point,) = found.points
    assert (found.format, point.label, point.model) == ("guidellm", "asynchronous@5", "llama")
    assert (point.requests_completed, point.requests_failed, point.input_tokens, point.output_tokens) == (2, 1, 300, 53)
    assert point.ttft_mean_ms == pytest.approx((200 + 400) / 2, rel=1e-4)
    assert point.tpot_mean_ms == pytest.approx((800 / 40 + 1100 / 11) / 2, rel=1e-4)
    assert point.e2e_mean_ms == pytest.approx((1000 + 1500) / 2, rel=1e-4)
    assert (point.duration_s, point.concurrency) == pytest.approx((2.0, 2.5 / 2.0), rel=1e-4)
    assert (point.chunk_gap_mean_ms, point.concurrency_set, point.request_rate_set_per_s) == (None, None, 5.0)
    assert "secret" not in point.model_dump_json()


def test_earliest_files_hold_the_first_token_as_a_span(write):
    report = first_generation(REQUESTS[:1], errors=[])
    result = report["benchmarks"][0]["benchmarks"][0]["results"][0]
    del result["last_token_time"]
    result |= {"first_token_time": 0.2, "decode_times": {"data": [0.02] * 40}}
    (point,) = inspect(write("report.json", report)).points
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.chunk_gap_mean_ms) == pytest.approx((200, 20, 20))


def test_first_generation_up_to_a_cut(write):
    text = json.dumps(first_generation(REQUESTS))
    found = inspect(write("report.json", text[: text.rindex('"prompt_token_count"')]))
    assert found.points[0].requests_completed == 1
    assert any("cut off" in note for note in found.notes)


def test_impossible_totals_are_missing(report, write):
    metrics = report["benchmarks"][0]["metrics"]
    metrics["prompt_token_count"]["successful"]["total_sum"] = -1
    assert inspect(write("run.json", report)).points[0].input_tokens is None
