"""Real files of every tool, written from one known load: each reader must get the same truth out of them."""

from pathlib import Path

import pytest

from factory_sim.calibration.importers import inspect

DATA = Path(__file__).parents[2] / "data" / "importers"
FIELDS = ("ttft_mean_ms", "tpot_mean_ms", "chunk_gap_mean_ms", "e2e_mean_ms", "output_tokens_per_s", "duration_s",
          "concurrency")
RATES = ("output_tokens_per_s", "concurrency", "request_rate_per_s")
TRUTH = {
    "vllm/concurrency4_detailed.json": (203.63, 20.002, 20.002, 1183.72, 168.87, 7.106, 4.00),
    "sglang/concurrency4_details.jsonl": (203.40, 19.999, 19.999, 1183.35, 168.75, 7.111, 3.99),
    "aiperf": (203.31, 20.012, 20.012, 1183.90, 168.04, 7.141, 3.98),
    "aiperf/profile_export_aiperf.json": (203.31, 20.012, 20.012, 1183.90, 168.04, 7.141, 3.98),
    "aiperf/profile_export_aiperf.csv": (203.31, 20.012, 20.012, 1183.90, 168.04, 7.141, 3.98),
    "aiperf/profile_export.jsonl": (203.31, 20.012, 20.012, 1183.90, 168.04, 7.141, 3.98),
    "genai-perf": (202.32, 20.002, 20.002, 1182.41, 169.07, 7.098, 4.00),
    "genai-perf/profile_export_genai_perf.json": (202.32, 20.002, None, 1182.41, 169.07, 7.098, 4.00),
    "genai-perf/profile_export_genai_perf.csv": (202.32, 20.002, None, 1182.41, 169.07, 7.098, 4.00),
    "guidellm": (205.55, 19.983, None, 1185.74, 166.92, 7.189, 3.96),
    "guidellm/concurrent4.json": (205.55, 19.983, None, 1185.74, 166.92, 7.189, 3.96),
    "guidellm/concurrent4.yaml": (205.55, 19.983, None, 1185.74, 166.92, 7.189, 3.96),
    "guidellm/concurrent4.csv": (205.55, 19.983, None, 1185.74, 166.92, 7.189, 3.96),
    "inference-perf": (202.41, 20.007, 20.007, 1183.25, 168.00, 7.143, 3.98),
    "inference-perf/stage_0_lifecycle_metrics.json": (202.41, 20.007, 20.007, 1183.25, 168.00, 7.143, 3.98),
    "inference-perf/summary_lifecycle_metrics.json": (202.41, 20.007, 20.007, 1183.25, 168.00, 7.143, 3.98),
    "inference-perf/per_request_lifecycle_metrics.json": (202.41, 20.007, 20.007, 1183.25, 168.00, 7.143, 3.98),
    "inference-perf/inference-perf.partial.stage_0.yaml": (202.41, 20.007, 20.007, 1183.25, 168.00, 7.143, 3.98),
    "litellm": (265.87, 26.501, None, 1564.41, 119.80, 10.017, 3.75),
    "litellm/spend_logs.jsonl": (265.87, 26.501, None, 1564.41, 119.80, 10.017, 3.75),
    "litellm/standard_logging.jsonl": (265.87, 26.501, None, 1564.41, 119.80, 10.017, 3.75),
    "otel/openai_v2_spans.jsonl": (None, None, None, 1193.20, 167.36, 7.170, 3.99),
    "otel/openai_v2_spans.otlp.jsonl": (None, None, None, 1193.20, 167.36, 7.170, 3.99),
    "otel/openllmetry_spans.otlp.jsonl": (211.51, 20.014, None, 1194.56, 167.08, 7.182, 3.99),
}
INPUT_TOKENS = {"guidellm": 5040, "litellm": 5040, "otel": 5040}
CONCURRENCY_SET = ("vllm", "sglang", "aiperf", "genai-perf", "guidellm", "inference-perf")


@pytest.mark.parametrize("name", TRUTH)
def test_sample_gives_the_known_figures(name):
    found = inspect(DATA / name)
    assert len(found.points) == 1
    point = found.points[0]
    for field, expected in zip(FIELDS, TRUTH[name]):
        value = getattr(point, field)
        if expected is None:
            assert value is None, field
        else:
            assert value == pytest.approx(expected, rel=0.03 if field in RATES else 0.01), field
    assert point.requests_completed == 24
    assert point.requests_failed == (None if name.endswith("genai_perf.csv") else 0)
    assert point.output_tokens == 1200
    assert point.input_tokens == INPUT_TOKENS.get(name.split("/")[0], 4800)
    assert point.request_rate_per_s == pytest.approx(24 / TRUTH[name][5], rel=0.03)


@pytest.mark.parametrize("folder", CONCURRENCY_SET)
def test_concurrency_that_was_set_is_read(folder):
    assert inspect(DATA / folder).points[0].concurrency_set == 4


def test_raw_perf_analyzer_export_has_times_but_no_token_counts():
    point = inspect(DATA / "genai-perf" / "profile_export.json").points[0]
    assert point.ttft_mean_ms == pytest.approx(202.32, rel=0.01)
    assert point.chunk_gap_mean_ms == pytest.approx(20.002, rel=0.01)
    assert point.e2e_mean_ms == pytest.approx(1182.41, rel=0.01)
    assert (point.tpot_mean_ms, point.output_tokens, point.input_tokens) == (None, None, None)


def test_litellm_spend_is_added_up():
    for name in ("spend_logs.jsonl", "standard_logging.jsonl"):
        point = inspect(DATA / "litellm" / name).points[0]
        assert point.spend_usd == pytest.approx(0.001968, rel=1e-6)
        assert point.zero_output_requests == 0


def test_versions_are_read_where_the_file_tells_them():
    assert inspect(DATA / "aiperf").tool_version == "0.13.0"
    assert inspect(DATA / "guidellm").tool_version == "0.8.1"
    assert inspect(DATA / "guidellm" / "concurrent4.csv").tool_version == "0.8.1"
    assert inspect(DATA / "otel" / "openllmetry_spans.otlp.jsonl").tool_version == "0.62.4"


def test_aiperf_warm_up_and_server_counts_are_told():
    found = inspect(DATA / "aiperf" / "profile_export.jsonl")
    assert any("4 warm-up" in note for note in found.notes)
    assert found.points[0].server_input_tokens == 5040


def test_gpus_are_read_only_where_somebody_typed_them():
    vllm = inspect(DATA / "vllm").points[0]
    assert (vllm.gpu, vllm.n_gpus, vllm.parallelism) == ("H100", 2, {"tp": 2})
    assert inspect(DATA / "sglang").points[0].n_gpus == 2
    for folder in ("aiperf", "genai-perf", "guidellm", "inference-perf", "litellm", "otel"):
        assert inspect(DATA / folder).points[0].n_gpus is None


def test_whole_folder_is_one_point_a_run():
    found = inspect(DATA)
    assert found.format == "mixed"
    assert len(found.points) == 9  # two instrumentations in otel/
    assert all(point.requests_completed == 24 for point in found.points)
    repeated = [note for note in found.notes if "the same run is in" in note]
    assert len(repeated) == 4  # guidellm csv and yaml, litellm, otel
