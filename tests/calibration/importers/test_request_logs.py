"""Request logs and traces as points: failures, rows without streaming, half-written lines, several containers."""

import json
from pathlib import Path

import pandas as pd
import pytest

from factory_sim.calibration.importers import inspect, read_results
from factory_sim.errors import MeasurementError, TraceError

DATA = Path(__file__).parents[2] / "data" / "importers"


def rows(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def lines(items):
    return "\n".join(json.dumps(item) for item in items)


@pytest.fixture
def payloads():
    return rows("litellm/standard_logging.jsonl")


def test_litellm_failures_and_calls_without_streaming(payloads, write):
    payloads[2] |= {"status": "failure", "prompt_tokens": 0, "completion_tokens": 0}
    payloads[3] |= {"stream": None, "completionStartTime": payloads[3]["endTime"]}
    payloads[4] |= {"completion_tokens": 0}
    point = inspect(write("log.jsonl", lines(payloads))).points[0]
    assert (point.requests_completed, point.requests_failed, point.zero_output_requests) == (23, 1, 1)
    assert point.output_tokens == 22 * 50
    assert point.ttft_mean_ms < 330  # the call without streaming would have added its whole latency of seconds


def test_litellm_response_time_is_never_read(payloads, write):
    for row in payloads:
        row["response_time"] = 99.0
    assert inspect(write("log.jsonl", lines(payloads))).points[0].e2e_mean_ms == pytest.approx(1564.4, rel=1e-3)


def test_litellm_rows_exported_as_csv_and_parquet(write, tmp_path):
    frame = pd.DataFrame(rows("litellm/spend_logs.jsonl"))
    frame.to_csv(tmp_path / "spend.csv", index=False)
    for name in ("startTime", "endTime", "completionStartTime"):
        frame[name] = pd.to_datetime(frame[name])
    frame.to_parquet(tmp_path / "spend.parquet")
    for name in ("spend.csv", "spend.parquet"):
        found = inspect(tmp_path / name)
        assert found.format == "litellm"
        assert found.points[0].e2e_mean_ms == pytest.approx(1564.41, rel=1e-4)
        assert found.points[0].spend_usd == pytest.approx(0.001968)


def test_half_written_last_line_is_told(payloads, write):
    found = inspect(write("log.jsonl", lines(payloads)[:-200]))
    assert found.points[0].requests_completed == 23
    assert any("cut off: line 24" in note for note in found.notes)


def test_repeated_rows_count_once(payloads, write):
    found = inspect(write("log.jsonl", lines([*payloads, *payloads[:5]])))
    assert found.points[0].requests_completed == 24
    told = next(note for note in found.notes if "same request" in note)
    assert all(f"id {row['litellm_call_id']}" in told for row in payloads[:5])


def test_bad_times_are_listed(payloads, write):
    payloads[5]["startTime"] = "yesterday"
    found = inspect(write("log.jsonl", lines(payloads)))
    assert found.points[0].requests_completed == 23
    assert any("line 6, found 'yesterday'" in note for note in found.notes)


def test_spans_of_other_operations_and_failed_ones(write):
    spans = rows("otel/openai_v2_spans.jsonl")
    spans[0]["status"] = {"status_code": "ERROR"}
    spans[1]["attributes"]["gen_ai.operation.name"] = "embeddings"
    spans[3]["attributes"] = {"http.request.method": "POST"}
    usage = spans[2]["attributes"]
    usage["gen_ai.usage.prompt_tokens"] = usage.pop("gen_ai.usage.input_tokens")
    usage["gen_ai.usage.completion_tokens"] = usage.pop("gen_ai.usage.output_tokens")
    for text in (lines(spans), "\n".join(json.dumps(span, indent=4) for span in spans)):
        point = inspect(write("spans.json", text)).points[0]
        assert (point.requests_completed, point.requests_failed, point.output_tokens) == (21, 1, 1050)


def test_failed_otlp_span(write):
    batches = rows("otel/openllmetry_spans.otlp.jsonl")
    span = batches[0]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    span["status"] = {"code": 2}
    point = inspect(write("spans.jsonl", lines(batches))).points[0]
    assert (point.requests_completed, point.requests_failed) == (23, 1)


def test_spans_of_the_engine_hold_the_first_token(write):
    told = (("gen_ai.response.model", {"stringValue": "llama"}), ("gen_ai.request.id", {"stringValue": "cmpl-1"}),
            ("gen_ai.usage.prompt_tokens", {"intValue": "100"}), ("gen_ai.usage.completion_tokens", {"intValue": "41"}),
            ("gen_ai.latency.time_in_queue", {"doubleValue": 0.01}),
            ("gen_ai.latency.time_to_first_token", {"doubleValue": 0.2}),
            ("gen_ai.latency.e2e", {"doubleValue": 1.0}))
    span = {"traceId": "aa", "spanId": "bb", "name": "llm_request", "startTimeUnixNano": "1700000000000000000",
            "endTimeUnixNano": "1700000001000000000", "attributes": [{"key": key, "value": value} for key, value in told]}
    batch = {"resourceSpans": [{"scopeSpans": [{"scope": {"name": "vllm.llm_engine"}, "spans": [span]}]}]}
    found = inspect(write("spans.jsonl", json.dumps(batch)))
    (point,) = found.points
    assert (found.tool, point.model, point.input_tokens, point.output_tokens) == ("vllm.llm_engine", "llama", 100, 41)
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.e2e_mean_ms) == pytest.approx((200, 20, 1000), rel=1e-4)


def test_last_chunk_event_is_usage_only_when_there_is_one_more_than_tokens(write):
    batches = rows("otel/openllmetry_spans.otlp.jsonl")
    with_usage = inspect(write("a.jsonl", lines(batches))).points[0].tpot_mean_ms
    for batch in batches:
        for span in batch["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            span["events"] = span["events"][:-1]
    assert inspect(write("b.jsonl", lines(batches))).points[0].tpot_mean_ms == with_usage


def test_spans_of_a_batch_before_a_cut_are_kept(write):
    text = (DATA / "otel" / "openllmetry_spans.otlp.jsonl").read_text()
    first = text.splitlines()[0]
    found = inspect(write("spans.jsonl", first[: int(len(first) * 0.6)]))
    assert 0 < found.points[0].requests_completed < first.count('"spanId"')
    assert found.points[0].ttft_mean_ms > 200
    assert any("cut off: line 1" in note for note in found.notes)


GATEWAY = "timestamp,model,prompt_tokens,completion_tokens,latency_ms,ttft_ms,status\n"


def test_gateway_log_keeps_good_rows_and_lists_bad_ones(write):
    found = inspect(write("log.csv", GATEWAY + "\n".join([
        "2026-01-01T00:00:00Z,m,100,50,1180,200,200",
        "2026-01-01T00:00:02Z,m,100,0,30,,500",
        "2026-01-01T00:00:03Z,m,x,50,1200,200,200",
        "2026-01-01T00:00:04Z,m,-3,50,1200,200,200",
        "2026-01-01T00:00:05Z,m,100,50,1180",
        "nonsense,m,10,50,1200,200,200",
        "2026-01-01T00:00:07Z,m,100,50,1180,200,200",
    ])))
    point = found.points[0]
    assert (point.requests_completed, point.requests_failed) == (2, 1)
    assert (point.ttft_mean_ms, point.tpot_mean_ms) == (pytest.approx(200), pytest.approx(980 / 49))
    assert point.duration_s == pytest.approx(8.18)
    told = " ".join(found.notes)
    for where in ("row 4, column prompt_tokens, found 'x'", "row 5, column prompt_tokens, found '-3'",
                  "row 6, found 5, expected 7", "row 7, column timestamp, found 'nonsense'"):
        assert where in told


def test_durations_without_unit_are_not_used(write):
    found = inspect(write("log.csv", "created_at,input_tokens,output_tokens,latency\n1767225600,100,50,1200\n"))
    assert found.points[0].e2e_mean_ms is None
    assert any("'latency' is not used" in note for note in found.notes)


def test_small_times_without_unit_are_refused(write):
    with pytest.raises(TraceError, match="'time': numbers such as 0 have no unit"):
        inspect(write("log.csv", "time,input_tokens,output_tokens\n0,100,50\n1,100,50\n"))


@pytest.mark.parametrize("factor", [1, 1000, 10**6, 10**9])
def test_unit_of_epoch_times_is_told_by_their_size(write, factor):
    start = 1_767_225_600
    body = "\n".join(f"{(start + at) * factor},100,50" for at in range(5))
    found = inspect(write("log.csv", f"created_at,input_tokens,output_tokens\n{body}\n{start * factor * 1000},1,1\n"))
    assert found.points[0].requests_completed == 5
    assert found.points[0].duration_s == pytest.approx(4)
    assert any("another unit: row 7" in note for note in found.notes)


def test_nested_gateway_records_keep_lengths_and_no_text(write):
    records = [{"created": 1_767_225_600 + at, "messages": [{"content": "SECRET"}], "latency_ms": 100,
                "usage": {"prompt_tokens": 100, "completion_tokens": 5,
                          "prompt_tokens_details": {"cached_tokens": 64}}} for at in range(3)]
    found = inspect(write("log.jsonl", lines(records)))
    assert (found.points[0].input_tokens, found.points[0].cached_input_tokens) == (300, 192)
    assert "SECRET" not in str(found.model_dump())


AZURE = ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
         "2023-11-16 18:15:50.9951690,396,109")


@pytest.mark.parametrize(
    ("name", "text", "format_name", "completed", "tokens"),
    [
        ("azure.csv", AZURE, "azure_llm_trace", 2, (770, 153)),
        ("burst.csv", "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
         "5,ChatGPT,472,18,490,API log\n45,ChatGPT,9,0,9,API log\n", "burstgpt", 1, (472, 18)),
        ("mooncake.jsonl", '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n'
         '{"timestamp": 3000, "input_length": 7322, "output_length": 490, "hash_ids": [0]}\n{"timestamp": 6000, "inp',
         "mooncake_trace", 2, (14_080, 990)),
        ("frontier.csv", "arrived_at,num_prefill_tokens,num_decode_tokens,session_id,block_hash_ids\n0.5,10,20,1,1\n"
         "1.5,10,20,1,1\n", "frontier_trace", 2, (20, 40)),
        ("agentic.csv", "session,agent,turn,t_s,api_time_s,think_time_s,input_tokens,cached_prefix_tokens,"
         "output_tokens\na,0,0,0.0,7.3,0.0,71175,0,169\na,0,1,19.0,9.1,12.0,72762,71168,296\n",
         "agentic_trace", 2, (143_937, 465)),
    ],
)
def test_traces_have_lengths_and_arrivals_only(write, name, text, format_name, completed, tokens):
    path = write(name, text)
    found = inspect(path)
    point = found.points[0]
    assert found.format == format_name
    assert (point.requests_completed, (point.input_tokens, point.output_tokens)) == (completed, tokens)
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.chunk_gap_mean_ms) == (None, None, None)
    with pytest.raises(MeasurementError):
        read_results(path)


def test_trace_with_times_by_session_has_no_duration(write):
    text = ("session,agent,turn,t_s,api_time_s,input_tokens,cached_prefix_tokens,output_tokens\n"
            "a,0,0,0.0,7.3,71175,0,169\nb,0,0,0.0,9.1,72762,71168,296\n")
    point = inspect(write("agentic.csv", text)).points[0]
    assert (point.duration_s, point.request_rate_per_s) == (None, None)
    assert point.cached_input_tokens == 71_168


def test_servegen_rates_are_no_requests(write):
    chunk = inspect(write("chunk-0-trace.csv", "0,1.5,8.598,Weibull,0.3753,0.3968\n600,0.5,1,Gamma,0,0\n")).points[0]
    assert (chunk.request_rate_per_s, chunk.duration_s, chunk.requests_completed) == (1.0, 1200, None)
    table = inspect(write("rates.csv", "t_s,a_rps,b_rps\n0,1,4\n600,3,\n"))
    assert [(point.label, point.request_rate_per_s) for point in table.points] == [("a", 2.0), ("b", 4.0)]
    lengths = inspect(write("chunk-0-dataset.json", {"0": {"input_tokens": "{224: 0.5, 226: 0.5}",
                                                           "output_tokens": "{10: 1.0}"},
                                                     "21600": {"input_tokens": "{}", "output_tokens": "{}"}}))
    assert (lengths.points[0].isl, lengths.points[0].osl) == (225, 10)


def test_requests_without_times_of_arrival_are_one_point(write):
    text = ("request_id,input_tokens,output_tokens,ttft_ms,latency_ms,status\na,100,41,200,1000,200\n"
            "b,200,11,400,1400,200\nc,300,0,,,500\n")
    found = inspect(write("requests.csv", text))
    (point,) = found.points
    assert (point.requests_completed, point.requests_failed, point.input_tokens, point.output_tokens) == (2, 1, 300, 52)
    assert (point.ttft_mean_ms, point.e2e_mean_ms) == pytest.approx((300, 1200))
    assert point.tpot_mean_ms == pytest.approx((800 / 40 + 1000 / 10) / 2)
    assert (point.duration_s, point.concurrency, point.request_rate_per_s, point.output_tokens_per_s) == (None,) * 4
    assert any("no times of arrival" in note for note in found.notes)


def test_rows_in_the_answer_of_litellms_proxy(write):
    answer = {"data": rows("litellm/spend_logs.jsonl"), "total": 24, "page": 1}
    for text in (json.dumps(answer), json.dumps(answer, indent=2)):
        found = inspect(write("logs.json", text))
        assert (found.format, found.points[0].requests_completed) == ("litellm", 24)
        assert found.points[0].ttft_mean_ms == pytest.approx(265.87, rel=0.01)
    cut = inspect(write("cut.json", text[: int(len(text) * 0.6)]))
    assert 10 < cut.points[0].requests_completed < 24


def test_traces_saved_from_jaeger_and_tempo(write):
    tags = [{"key": "gen_ai.operation.name", "type": "string", "value": "chat"},
            {"key": "gen_ai.usage.input_tokens", "type": "int64", "value": 210},
            {"key": "gen_ai.usage.output_tokens", "type": "int64", "value": 50}]
    spans = [{"traceID": "a", "spanID": str(at), "operationName": "chat x", "startTime": 1_700_000_000_000_000 + at,
              "duration": 1_190_000, "tags": tags + extra}
             for at, extra in enumerate(([], [{"key": "error", "type": "bool", "value": True}]))]
    (point,) = inspect(write("jaeger.json", {"data": [{"traceID": "a", "spans": spans}]})).points
    assert (point.requests_completed, point.requests_failed, point.input_tokens) == (1, 1, 210)
    assert point.e2e_mean_ms == pytest.approx(1190, rel=1e-4)
    batches = [batch for line in rows("otel/openai_v2_spans.otlp.jsonl") for batch in line["resourceSpans"]]
    assert inspect(write("tempo.json", {"batches": batches})).points[0].requests_completed == 24
