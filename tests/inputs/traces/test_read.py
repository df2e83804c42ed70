"""Files as users have them: every format read, every trouble mended or refused, counted and told."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_sim.errors import TraceError
from factory_sim.inputs import workloads
from factory_sim.inputs.traces import Trace, infinite_cache_hits, packaged_trace, read_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
MOONCAKE = '{"timestamp": %s, "input_length": %s, "output_length": %s, "hash_ids": %s}\n'


@pytest.fixture
def read(tmp_path):
    def write_and_read(name: str, text: str | bytes, **options) -> Trace:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_trace(path, **options)

    return write_and_read


def azure_text(columns, rows=None):
    import pandas as pd

    times = pd.Timestamp("2023-11-16 18:15:46.680590") + pd.to_timedelta(columns["arrival_s"][:rows], unit="s")
    lines = [
        f"{t.strftime('%Y-%m-%d %H:%M:%S')}.{t.microsecond:06d}0,{i},{o}"
        for t, i, o in zip(times, columns["isl"], columns["osl"])
    ]
    return AZURE + "\n".join(lines)


def mooncake_text(trace):
    return "".join(
        MOONCAKE
        % (
            round(trace.arrival_s[k] * 1000),
            trace.isl[k],
            trace.osl[k],
            trace.block_ids[trace.block_offsets[k] : trace.block_offsets[k + 1]].tolist(),
        )
        for k in range(len(trace))
    )


# --- formats ------------------------------------------------------------------------------------------------------


def test_azure_trace_is_read_whole_with_its_times(read):
    columns = workloads.packaged_columns("azure2023_conv")
    trace = read("conv.csv", azure_text(columns))
    assert trace.report.format == "azure_llm_trace"
    assert len(trace) == 19_366
    assert np.array_equal(trace.isl, columns["isl"])
    assert trace.arrival_s == pytest.approx(columns["arrival_s"], abs=2e-6)
    assert trace.report.dropped == trace.report.repaired == {}


def test_quick_and_careful_reading_agree(read):
    columns = workloads.packaged_columns("azure2023_code")
    text = azure_text(columns, 2000)
    quick = read("quick.csv", text)
    quoted = read("quoted.csv", text.replace("ContextTokens", '"ContextTokens"'))
    assert np.array_equal(quick.isl, quoted.isl)
    assert np.array_equal(quick.osl, quoted.osl)
    assert quick.arrival_s == pytest.approx(quoted.arrival_s, abs=1e-6)


def test_one_bad_row_in_a_large_file_is_told_by_its_line(read, monkeypatch):
    from factory_sim.inputs.traces import fast

    monkeypatch.setattr(fast, "PIECE_BYTES", 4000)
    lines = azure_text(workloads.packaged_columns("azure2023_code"), 3000).split("\n")
    lines[1999] = lines[1999].rsplit(",", 2)[0] + ",-5,7"
    lines[2500] = lines[2500].rsplit(",", 1)[0]
    trace = read("bad.csv", "\n".join(lines))
    whole = workloads.packaged_columns("azure2023_code")
    assert len(trace) == 2998
    assert trace.report.dropped == {"dropped, negative count": 1, "dropped, wrong number of columns": 1}
    told = "\n".join(trace.report.lines())
    assert "row 2000, column context_tokens, found '-5'" in told
    assert "row 2501" in told
    keep = np.delete(np.arange(3000), [1998, 2499])
    assert np.array_equal(trace.isl, whole["isl"][keep])
    assert trace.arrival_s == pytest.approx(whole["arrival_s"][keep], abs=2e-6)


def test_mooncake_replay_hits_exactly_what_its_hashes_say(read):
    packaged = packaged_trace("mooncake_conversation")
    trace = read("m.jsonl", mooncake_text(packaged))
    assert len(trace) == 12_031
    assert trace.block_tokens == 512
    assert np.array_equal(trace.block_ids, packaged.block_ids)
    ratio = infinite_cache_hits(trace).sum() / trace.isl.sum()
    assert round(ratio, 6) == 0.373624
    assert any("grid" in note for note in trace.report.notes)


def test_mooncake_lines_of_any_shape_are_read_the_careful_way_alike(read):
    packaged = packaged_trace("mooncake_conversation").rows(np.arange(500))
    text = mooncake_text(packaged)
    careful = read("c.jsonl", text.replace('"hash_ids": [', '"hash_ids":   ["x", ', 1))
    quick = read("q.jsonl", text)
    assert np.array_equal(quick.isl, careful.isl)
    assert np.array_equal(quick.block_ids, packaged.block_ids)
    assert careful.block_ids.min() >= 0
    assert np.array_equal(infinite_cache_hits(quick), infinite_cache_hits(careful))


def agentic_text(rows):
    columns = workloads.packaged_columns("agentic_claude_code")
    names = "session,agent,turn,t_s,api_time_s,think_time_s,input_tokens,cached_prefix_tokens,output_tokens,model,stop,"
    lines = [names + "tool_tokens,system_tokens"]
    for k in range(rows):
        c = {name: values[k] for name, values in columns.items()}
        api, think = (("" if np.isnan(c[name]) else c[name]) for name in ("api_time_s", "think_time_s"))
        lines.append(
            f"trace_{c['session'] + 1:04d},{c['agent']},{c['turn']},{c['arrival_s']},{api},{think},{c['isl']},"
            f"{c['cached_tokens']},{c['osl']},m,s,{c['shared_prefix_tokens'] - 50},50"
        )
    return "\n".join(lines) + "\n"


def test_agentic_sessions_are_read_as_chains(read):
    trace = read("a.csv", agentic_text(3000))
    assert trace.session_relative
    packaged = packaged_trace("agentic_claude_code").rows(np.arange(len(trace)))
    for name in ("isl", "osl", "session", "agent", "depends_on", "cached_tokens", "prefix_of", "shared_prefix_tokens"):
        assert np.array_equal(getattr(trace, name), getattr(packaged, name)), name
    waits = trace.depends_on >= 0
    assert np.all(trace.session[waits] == trace.session[trace.depends_on[waits]])
    assert np.all(trace.depends_on[waits] < np.flatnonzero(waits))
    main = waits & (trace.agent == 0)
    assert np.all(trace.agent[trace.depends_on[main]] == 0)
    assert (~waits).sum() == trace.sessions


def test_sub_agents_wait_for_the_main_agent_and_not_the_other_way_round():
    trace = packaged_trace("agentic_claude_code")
    firsts = np.flatnonzero((trace.agent > 0) & (trace.depends_on >= 0))
    firsts = firsts[trace.agent[trace.depends_on[firsts]] == 0]
    assert len(firsts) == 42
    assert np.all(trace.arrival_s[trace.depends_on[firsts]] <= trace.arrival_s[firsts])


def test_burstgpt_failures_are_left_out(read):
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    trace = read("b.csv", header + "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,0,1087,API log\n")
    assert len(trace) == 1
    assert trace.report.dropped == {"left out, failed requests": 1}


def test_weka_sub_agents_have_their_own_clock_and_find_their_prefixes(read):
    request = {"type": "s", "out": 5}
    sub = [{"t": 0.0, "in": 130, "hash_ids": [9, 8]}, {"t": 2.0, "in": 200, "hash_ids": [9, 8, 7], "think_time": 1.0}]
    session = {
        "id": "c",
        "block_size": 64,
        "tool_tokens": 100,
        "system_tokens": 28,
        "requests": [
            request | {"t": 0.0, "in": 200, "hash_ids": [1, 2, 3], "api_time": 2.0},
            {"t": 3.0, "type": "subagent", "tool_tokens": 64, "requests": [request | r for r in sub]},
            request | {"t": 9.0, "in": 300, "hash_ids": [1, 2, 3, 4], "think_time": 7.0},
        ],
    }
    trace = read("w.jsonl", json.dumps(session) + "\n" + json.dumps(session))
    assert trace.arrival_s.tolist() == [0.0, 3.0, 5.0, 9.0] * 2
    assert trace.cached_tokens.tolist() == [0, 0, 128, 192] * 2
    assert trace.prefix_of.tolist() == [-1, -1, 1, 0, -1, -1, 5, 4]
    assert trace.depends_on.tolist() == [-1, 0, 1, 0, -1, 4, 5, 4]
    assert trace.think_time_s.tolist() == [0.0, 1.0, 1.0, 7.0] * 2
    assert trace.shared_prefix_tokens.tolist() == [128, 64, 64, 128] * 2


def test_serving_sim_agents_wait_for_their_tools(read):
    one = {"input_toks": 100, "output_toks": 10, "tool_duration_ns": 1_500_000_000}
    text = json.dumps({"session_id": "x", "arrival_time_ns": 5_000_000_000, "sub_requests": [one, one, one]})
    trace = read("l.jsonl", text)
    assert trace.depends_on.tolist() == [-1, 0, 1]
    assert trace.think_time_s.tolist() == [0.0, 1.5, 1.5]


def test_mooncake_sessions_with_delays_are_chains(read):
    line = '{"session_id": "%s"%s, "input_length": %s, "output_length": 5, "hash_ids": %s%s}\n'
    text = line % ("a", ', "timestamp": 0', 512, "[1]", "") + line % ("b", ', "timestamp": 10', 512, "[9]", "")
    text += line % ("a", ', "timestamp": 5000', 1024, "[1, 2]", ', "delay": 2500')
    text += line % ("b", "", 1024, "[9, 3]", ', "delay_ms": 500')
    trace = read("s.jsonl", text)
    assert trace.depends_on.tolist() == [-1, -1, 1, 0]
    assert trace.think_time_s.tolist() == [0.0, 0.0, 0.5, 2.5]
    assert infinite_cache_hits(trace).tolist() == [0, 0, 512, 512]


def test_bailian_and_nanosecond_times_have_their_own_units(read):
    bailian = '{"chat_id": %d, "parent_chat_id": -1, "timestamp": %s, "input_length": 20, "output_length": 3, '
    bailian += '"hash_ids": [1, 2]}\n'
    trace = read("b.jsonl", bailian % (1, 61.0) + bailian % (2, 63.5))
    assert trace.arrival_s.tolist() == [0.0, 2.5]
    assert trace.block_tokens == 16
    nano = MOONCAKE.replace("%s", '"%s"', 1)
    trace = read(
        "n.jsonl", nano % (1753780607550317897, 600, 8, "[7, 8]") + nano % (1753780608550317897, 600, 8, "[7, 8]")
    )
    assert trace.arrival_s == pytest.approx([0.0, 1.0], abs=1e-6)


def test_benchmark_data_sets_give_lengths_and_no_text(read):
    def words(text: str) -> int:
        return len(text.split())

    turns = [{"from": "human", "value": "one two three"}, {"from": "gpt", "value": "four five"}]
    text = json.dumps([{"id": "1", "conversations": turns}, {"id": "2", "conversations": turns[:1]}])
    trace = read("sharegpt.json", text, count_tokens=words)
    assert (trace.isl.tolist(), trace.osl.tolist(), trace.arrival_s) == ([3], [2], None)
    assert sum(trace.report.dropped.values()) == 1
    trace = read(
        "custom.jsonl",
        '{"prompt": "a b c", "output_tokens": 7}\n{"prompt": "a", "output_tokens": 9}\n',
        count_tokens=words,
    )
    assert (trace.isl.tolist(), trace.osl.tolist()) == ([3, 1], [7, 9])
    result = {
        "input_lens": [10, 20, 30],
        "output_lens": [5, 0, 7],
        "errors": ["", "boom", ""],
        "start_times": [100.0, 100.5, 103.0],
    }
    trace = read("result.json", json.dumps(result))
    assert (trace.isl.tolist(), trace.osl.tolist(), trace.arrival_s.tolist()) == ([10, 30], [5, 7], [0.0, 3.0])


def test_tables_with_lengths_only_have_no_times(read):
    trace = read("l.csv", "input_tokens,output_tokens\n10,5\n2,3\n")
    assert trace.arrival_s is None
    assert trace.isl.tolist() == [10, 2]


def test_parquet_and_gzip_are_the_same_trace(read, tmp_path):
    table = pa.table(
        {
            "arrival_s": [0.0, 1.0, 2.5],
            "input_tokens": [10, 20, 30],
            "output_tokens": [1, 2, 3],
            "session_id": list("aba"),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    first = read_trace(tmp_path / "t.parquet")
    text = "arrival_s,input_tokens,output_tokens,session_id\n0,10,1,a\n1.0,20,2,b\n2.5,30,3,a\n"
    second = read("t.csv.gz", gzip.compress(text.encode()))
    for name in ("arrival_s", "isl", "osl", "session"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def gateway_line(k, **change):
    usage = {"prompt_tokens": 10 + k % 50, "completion_tokens": 1 + k % 7, "details": {"cached_tokens": k % 5}}
    record = {"timestamp": f"2026-01-01T00:00:{k % 60:02d}.{k:06d}Z", "model": "m", "user": f"u{k % 3}", "usage": usage}
    return json.dumps(record | {"messages": ["secret"], "status": "success"} | change)


def test_json_lines_are_read_alike_by_the_quick_and_the_careful_way(read, monkeypatch):
    from factory_sim.inputs.traces import lines

    monkeypatch.setattr(lines, "PIECE_BYTES", 3000)
    text = [gateway_line(k) for k in range(200)]
    text[50] = gateway_line(50, status="failure")
    quick = read("q.jsonl", "\n".join(text))
    monkeypatch.setattr(lines, "_tidy", lambda *_: None)
    careful = read("c.jsonl", "\n".join(text))
    assert len(quick) == len(careful) == 199
    for name in ("isl", "osl", "arrival_s", "tenant", "cached_tokens"):
        assert np.array_equal(getattr(quick, name), getattr(careful, name)), name
    assert quick.report.dropped == {"left out, failed requests": 1}


def test_bad_json_lines_are_told_by_their_number(read, monkeypatch):
    from factory_sim.inputs.traces import lines

    monkeypatch.setattr(lines, "PIECE_BYTES", 3000)
    text = [gateway_line(k) for k in range(200)]
    text[120] = text[120][:50]
    text[150] = gateway_line(150, usage={"prompt_tokens": -4, "completion_tokens": 5})
    trace = read("b.jsonl", "\n".join(text) + "\n" + gateway_line(1)[:40])
    assert len(trace) == 198
    told = "\n".join(trace.report.lines())
    assert "line 121" in told
    assert "row 151" in told
    assert trace.report.dropped == {"dropped, not JSON": 1, "dropped, negative count": 1, "dropped, cut off": 1}


# --- trouble ------------------------------------------------------------------------------------------------------


def test_unsorted_duplicate_and_empty_rows_are_mended_and_told(read):
    rows = ["18:15:48.0000000,10,5", "18:15:46.6805900,374,44", "18:15:46.6805900,11,0", "18:15:49.0000000,0,3"]
    trace = read("u.csv", AZURE + "".join(f"2023-11-16 {row}\n" for row in rows))
    assert trace.isl.tolist() == [374, 11, 10]
    assert trace.osl.tolist() == [44, 1, 5]
    assert trace.arrival_s == pytest.approx([0.0, 0.0, 1.31941])
    assert trace.report.repaired == {
        "repaired, answers of 0 tokens count as 1": 1,
        "repaired, requests earlier than the one before them: sorted by time": 1,
    }
    assert trace.report.dropped == {"left out, requests without a prompt": 1}
    assert "kept, 1 requests at the same time" in "\n".join(trace.report.lines())


@pytest.mark.parametrize("last", ["2023-11-16 18:15:47.0000000,37", "2023-11-16 18", "2023-11-16 18:15:47.0000000,"])
def test_half_written_last_line_is_dropped_and_told(read, last):
    trace = read("h.csv", AZURE + "2023-11-16 18:15:46.6805900,374,44\n" + last)
    assert len(trace) == 1
    assert sum(trace.report.dropped.values()) == 1


def test_half_written_last_line_of_mooncake_is_dropped_and_told(read):
    trace = read("h.jsonl", MOONCAKE % (0, 1024, 5, "[1, 2]") + '{"timestamp": 3000, "input_le')
    assert len(trace) == 1
    assert trace.report.dropped == {"dropped, cut off": 1}


def test_absurd_lengths_are_dropped_one_by_one(read):
    cells = ["-37,4", "37,4000000000", "37,4.5", "x,4", "37,4", "nan,3", "inf,3"]
    trace = read("n.csv", AZURE + "".join(f"2023-11-16 18:15:47.0000000,{cell}\n" for cell in cells))
    assert len(trace) == 1
    assert sum(trace.report.dropped.values()) == 6


def test_epoch_times_in_two_units_are_each_read_by_their_size(read):
    rows = [f"{1_700_000_000 + i},10,5" if i % 3 else f"{(1_700_000_000 + i) * 1000},10,5" for i in range(30)]
    trace = read("m.csv", "timestamp,input_tokens,output_tokens\n" + "\n".join(rows))
    assert trace.arrival_s.tolist() == list(range(30))
    assert trace.report.repaired == {"repaired, epoch times in several units: each read by its size": 10}


def test_agentic_times_that_go_back_are_raised_and_told(read):
    header = "session,agent,turn,t_s,api_time_s,think_time_s,input_tokens,cached_prefix_tokens,output_tokens\n"
    rows = [
        "s1,0,0,0,7,0,1000,0,10",
        "s1,0,1,20,5,13,1200,960,0",
        "s1,0,2,15,5,-3,1300,1400,4",
        "s1,0,3,40,5,,1400,1300,4",
    ]
    trace = read("a.csv", header + "\n".join(rows))
    assert trace.arrival_s.tolist() == [0.0, 20.0, 20.0, 40.0]
    assert trace.think_time_s.tolist() == [0.0, 13.0, 0.0, 15.0]
    assert trace.cached_tokens.tolist() == [0, 960, 1200, 1300]
    assert trace.osl.tolist() == [10, 1, 4, 4]
    told = trace.report.repaired
    assert told["repaired, times go back within a session: raised to the time before"] == 1
    assert told["repaired, negative think time: taken as missing"] == 1
    assert told["repaired, cached tokens outside the prompt: cut to it"] == 1


def test_agentic_rows_in_any_order_are_the_same_sessions(read):
    lines = agentic_text(600).strip().split("\n")
    rng = np.random.default_rng(3)
    shuffled = [lines[0], *(lines[1 + k] for k in rng.permutation(600))]
    plain, mixed = read("p.csv", "\n".join(lines)), read("x.csv", "\n".join(shuffled))
    key = lambda t: sorted(zip(t.isl, t.osl, t.cached_tokens, t.think_time_s, t.depends_on >= 0))  # noqa: E731
    assert key(plain) == key(mixed)
    assert any("turns out of order" in kind for kind in mixed.report.repaired)


def test_block_lists_that_do_not_fit_their_prompts(read):
    good = MOONCAKE % (0, 1024, 5, "[1, 2]") * 4
    trace = read("b.jsonl", good + MOONCAKE % (1, 600, 5, "[1, 2, 3, 4]") + MOONCAKE % (2, 3000, 5, "[1, 2]"))
    assert np.diff(trace.block_offsets).tolist() == [2, 2, 2, 2, 2, 2]
    assert len(trace.report.repaired) == 2
    with pytest.raises(TraceError, match="do not cover the prompts"):
        read("n.jsonl", MOONCAKE % (0, 5000, 5, "[1, 2]") * 4)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("e.csv", "", "is empty"),
        ("h.csv", AZURE, "no usable request is left"),
        ("b.csv", b"\x00\x01\x02" * 99, "binary"),
        ("c.csv", "TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,3\n", "no column of output_tokens; found: timestamp"),
        ("d.csv", "timestamp,input_tokens,output_tokens\n0,10,5\n1,2,3\n", "have no unit"),
        ("j.jsonl", '{"a": 1}\n', "no log or trace"),
        ("z.csv", AZURE + "2023-11-16 18:15:46.6805900,0,44\n", "no usable request is left"),
        ("t.json", '[{"conversations": [{"value": "x"}, {"value": "y"}]}]', "tokenizer"),
    ],
)
def test_files_that_are_no_traces_are_refused_with_their_path(read, monkeypatch, name, text, message):
    import sys

    monkeypatch.setitem(sys.modules, "bpe_openai", None)
    with pytest.raises(TraceError, match=message) as refused:
        read(name, text)
    assert name in str(refused.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(TraceError, match=r"nothing\.csv"):
        read_trace(tmp_path / "nothing.csv")


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(0, 1e5, allow_nan=False),
            st.one_of(st.integers(-3, 5000), st.just("x"), st.just("")),
            st.integers(-2, 900),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_every_row_is_kept_mended_or_counted(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "r.csv"
    lines = [f"{t!r},{i},{o}" for t, i, o in rows]
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(lines) + "\n")
    good = [(t, i, max(o, 1)) for t, i, o in rows if isinstance(i, int) and i >= 1 and o >= 0]
    if not good:
        with pytest.raises(TraceError):
            read_trace(path)
        return
    trace = read_trace(path)
    assert len(trace) + sum(trace.report.dropped.values()) == len(rows)
    assert sorted(zip(trace.isl, trace.osl)) == sorted((i, o) for _, i, o in good)
    assert np.all(np.diff(trace.arrival_s) >= 0)
    assert trace.arrival_s[0] == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.json", '{"id": 1, "block_size": 64, "requests": [{"t": 0, "in": 99999999999999999999, "out": 1}, %s]}'),
        ("w.json", '{"id": 1, "block_size": 64, "requests": [{"t": 0, "in": 9, "out": 1, "hash_ids": [{}]}, %s]}'),
        ("w.json", '{"id": 1, "block_size": 1e308, "tool_tokens": 1e308, "requests": [%s]}'),
    ],
)
def test_absurd_members_of_sessions_do_no_harm(read, name, text):
    trace = read(name, text % '{"t": 1, "in": 100, "out": 2, "hash_ids": [1]}')
    assert trace.isl[-1] == 100
    assert trace.osl[-1] == 2


def test_absurd_hashes_are_numbered_or_cut(read):
    line = '{"timestamp": 0, "input_length": 1000, "output_length": 2, "hash_ids": [%s]}\n'
    trace = read("h.jsonl", line % "1, null" + line % "1, 99999999999999999999999" + line % "1, {}" + line % "1, 2" * 3)
    assert np.diff(trace.block_offsets).tolist() == [1, 2, 1, 2, 2, 2]
    assert "list cut there" in "\n".join(trace.report.lines())
    header = "arrived_at,num_prefill_tokens,num_decode_tokens,block_hash_ids\n"
    trace = read("f.csv", header + '0,20,5,"[1, 99999999999999999999999]"\n1,20,5,"[1, 99999999999999999999999]"\n')
    assert infinite_cache_hits(trace).tolist() == [0, 20]


def test_lengths_of_results_that_are_no_lengths_are_dropped(read):
    result = {"input_lens": [10, 1e300, None, 30], "output_lens": [5, 1, 1, -7]}
    trace = read("r.json", json.dumps(result))
    assert trace.isl.tolist() == [10]
    assert trace.report.dropped == {"dropped, no sensible count of tokens": 3}


def test_stray_carriage_returns_are_no_traceback(read):
    with pytest.raises(TraceError):
        read("r.csv", "TIMESTAMP,Context\rTokens,GeneratedTokens\n2023-11-16 18:15:46.68,3,4\n")


def test_members_that_json_records_lack_are_named(read):
    with pytest.raises(TraceError, match=r"no member of output_tokens; found: timestamp, input_length"):
        read("m.jsonl", '{"timestamp": 0, "input_length": 5, "hash_ids": [1]}\n')


def test_seconds_in_a_mooncake_file_are_suspected_and_told(read):
    lines = [f'{{"timestamp": {t}, "input_length": 600, "output_length": 5, "hash_ids": [0, {t}]}}' for t in range(10)]
    assert any("if they are seconds" in note for note in read("m.jsonl", "\n".join(lines)).report.notes)
    slower = [line.replace(', "input_length"', '000, "input_length"') for line in lines]
    assert not any("if they are seconds" in note for note in read("n.jsonl", "\n".join(slower)).report.notes)


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_last_line_without_an_end_is_told(read, end):
    found = read("t.csv", f"arrival_s,input_tokens,output_tokens\n0,5,6\n1,7,8{end}")
    assert any("no end of line" in note for note in found.report.notes) == (end == "")


def test_texts_are_counted_by_the_installed_tokenizer(read):
    pytest.importorskip("bpe_openai", reason="bpe-openai is not installed (extra: tokenizers)")
    found = read("custom.jsonl", '{"prompt": "one two three four <|endoftext|>", "output_tokens": 9}\n')
    assert 5 <= found.isl[0] <= 13
    assert found.osl[0] == 9


def test_agents_of_a_session_that_follow_each_other_in_the_file_are_sorted_by_time_and_told(read):
    header = "session,agent,turn,t_s,think_time_s,input_tokens,cached_prefix_tokens,output_tokens\n"
    rows = "a,0,0,0,0,100,0,5\na,1,0,1,0,50,0,5\na,1,1,9,1,60,0,5\na,0,1,4,1,120,64,5\n"
    found = read("s.csv", header + rows)
    assert found.arrival_s.tolist() == [0, 1, 4, 9]
    kind = "repaired, times go back within a session from one agent to another: sorted by time"
    assert found.report.repaired == {kind: 1}
