"""Logs as workloads: arrivals and lengths in order, failures out, repairs told, texts never kept."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from factory_sim.errors import TraceError
from factory_sim.inputs.logs import read_request_log

DATA = Path(__file__).parents[2] / "data" / "importers"


def test_litellm_log():
    frame = read_request_log(DATA / "litellm" / "standard_logging.jsonl")
    assert len(frame) == 24
    assert frame.arrival_s.is_monotonic_increasing
    assert frame.arrival_s.iloc[0] == 0
    assert set(frame.isl) == {210}
    assert set(frame.osl) == {50}
    assert frame.model.cat.categories.tolist() == ["mock-8b"]
    assert frame.session.nunique() == 24


@pytest.mark.parametrize("name", ["openai_v2_spans", "openai_v2_spans.otlp", "openllmetry_spans.otlp"])
def test_spans(name):
    frame = read_request_log(DATA / "otel" / f"{name}.jsonl")
    assert (len(frame), frame.isl.sum(), frame.osl.sum()) == (24, 5040, 1200)
    assert frame.arrival_s.iloc[-1] == pytest.approx(5.97, rel=0.02)


def test_benchmark_results_with_details():
    frame = read_request_log(DATA / "vllm" / "concurrency4_detailed.json")
    assert (len(frame), frame.isl.sum(), frame.osl.sum()) == (24, 4800, 1200)
    records = read_request_log(DATA / "aiperf" / "profile_export.jsonl")
    assert (len(records), records.isl.sum()) == (24, 5040)  # warm-up out, the server's count


def test_failures_empty_prompts_and_silent_answers(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("arrival_s,input_tokens,output_tokens,status\n3,10,5,ok\n1,10,0,ok\n2,0,5,ok\n4,10,0,failed\n")
    frame = read_request_log(path)
    assert frame[["arrival_s", "isl", "osl"]].to_numpy().tolist() == [[0, 10, 1], [2, 10, 5]]
    told = " ".join(frame.attrs["notes"])
    for repair in ("1 failed requests", "1 requests without a prompt", "1 answers of 0 tokens count as 1", "sorted"):
        assert repair in told


def test_nothing_usable_is_an_error(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\nx,10,5\n")
    with pytest.raises(TraceError, match=r"no usable request is left.*row 2, column arrival_s"):
        read_request_log(path)


@pytest.mark.parametrize(
    ("header", "row", "isl", "cached"),
    [
        ("timestamp,prompt_tokens,completion_tokens,cached_tokens", "2026-01-01T00:00:00Z,100,5,64", 100, 64),
        ("Created At,Input Tokens,Output Tokens,cache_read_input_tokens", "2026-01-01 00:00:00+01:00,100,5,64", 100,
         64),
        ("ts;tokens_in;tokens_out;cachedTokens", "1767225600123;100;5;64", 100, 64),
        ("request_start,promptTokens,completionTokens,native_tokens_cached", "1767225600.5,100,5,64", 100, 64),
    ],
)
def test_names_that_gateways_use(tmp_path, header, row, isl, cached):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(f"{header}\n{row}\n".encode("utf-16")))
    frame = read_request_log(path)
    assert (frame.isl[0], frame.cached_tokens[0], frame.osl[0]) == (isl, cached, 5)


def test_parquet_with_times_and_durations(tmp_path):
    path = tmp_path / "log.parquet"
    pd.DataFrame({
        "started_at": pd.to_datetime(["2026-01-01T00:00:01Z", "2026-01-01T00:00:00Z"]), "tokens_in": [100, 200],
        "tokens_out": [5, 6], "duration_seconds": [1.5, 2.5], "user_id": ["b", "a"], "prompt": ["SECRET", "SECRET"],
    }).to_parquet(path)
    frame = read_request_log(path)
    assert frame.isl.tolist() == [200, 100]
    assert frame.e2e_s.tolist() == [2.5, 1.5]
    assert frame.tenant.tolist() == [0, 1]
    assert "SECRET" not in frame.to_string()
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(TraceError, match="not a whole Parquet file"):
        read_request_log(path)


def test_latency_from_start_end_and_first_token(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("start_time,end_time,first_token_time,input_tokens,output_tokens\n"
                    "2026-01-01T00:00:00Z,2026-01-01T00:00:02Z,2026-01-01T00:00:00.5Z,10,4\n"
                    "2026-01-01T00:00:01Z,2026-01-01T00:00:00Z,,10,4\n")
    frame = read_request_log(path)
    assert (frame.e2e_s[0], frame.ttft_s[0]) == (2.0, 0.5)
    assert frame.e2e_s.isna().tolist() == [False, True]
    assert any("row 3, column end_time" in note for note in frame.attrs["notes"])


def test_epoch_times_of_two_units_are_not_mixed(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"created": at, "input_tokens": 1, "output_tokens": 1}) + "\n"
                            for at in (1_767_225_600, 1_767_225_601, 1_767_225_602_000)))
    frame = read_request_log(path)
    assert frame.arrival_s.tolist() == [0, 1]
    assert any("in another unit" in note for note in frame.attrs["notes"])
