"""Traces in a scenario: read from small files, told, scaled, started; and conversations that are made."""

import json
from pathlib import Path

import numpy as np
import pytest

from factory_sim.engine.traces import played_trace, service_trace
from factory_sim.errors import ScenarioError, TraceError
from factory_sim.inputs.overrides import load_scenario
from factory_sim.inputs.traces import packaged_trace
from factory_sim.model.workload import index_of_dispersion
from factory_sim.results.run import run
from factory_sim.streams import stream

REPLAY = Path(__file__).parents[2] / "scenarios" / "replay.yaml"
ONE_AT_A_TIME = ("traffic.trace.pacing=one_at_a_time", "stages.0.system.kv_cache_tokens=2000000000")
AGENTIC = """session,agent,turn,t_s,api_time_s,think_time_s,input_tokens,cached_prefix_tokens,output_tokens
a,0,0,0.0,5,0.0,40000,0,169
a,0,1,19.0,5,12.0,42000,39936,0
a,0,2,16.0,5,8.0,44000,41984,201
a,0,3,62.0,5,18.0,50000,43968,776
a,0,4,90.0,5,12.0,51000,49984,20
b,0,0,0.0,5,0.0,30000,0,169
b,0,1,9.0,5,2.0,31000,29952,50
b,0,2,19.0,5,2.0,894000,30976,50
b,0,3,29.0,5,2.0,32000,30976,50
"""


def replayed(*settings: str, told: list[str] | None = None, variant: str | None = None):
    progress = told.append if told is not None else lambda message: None
    return run(load_scenario(REPLAY, list(settings), variant), progress=progress)


def value(result, figure: str) -> float:
    rows = result.summary["figures"]
    return next(r["value"] for r in rows if (r["figure"], r["window"], r["service"]) == (figure, "whole", "all"))


def mooncake_file(path: Path, rows: int) -> list[dict]:
    trace = packaged_trace("mooncake_conversation").rows(np.arange(rows))
    records = [
        {
            "timestamp": round(1000 * trace.arrival_s[k]),
            "input_length": int(trace.isl[k]),
            "output_length": int(trace.osl[k]),
            "hash_ids": trace.block_ids[trace.block_offsets[k] : trace.block_offsets[k + 1]].tolist(),
        }
        for k in range(rows)
    ]
    path.write_text("\n".join(json.dumps(record) for record in records))
    return records


def counted_hits(records: list[dict]) -> float:
    """Cached share of the input by hand: leading blocks of 512 tokens that an earlier prompt had."""
    seen, cached, total = set(), 0, 0
    for record in records:
        blocks = 0
        for block in record["hash_ids"]:
            if block not in seen:
                break
            blocks += 1
        seen.update(record["hash_ids"])
        cached += min(512 * blocks, record["input_length"])
        total += record["input_length"]
    return cached / total


def test_a_mooncake_file_one_at_a_time_hits_what_its_hashes_say(tmp_path):
    records = mooncake_file(tmp_path / "m.jsonl", 400)
    result = replayed(f"traffic.trace.path={tmp_path / 'm.jsonl'}", *ONE_AT_A_TIME)
    assert value(result, "requests_arrived") == 400
    assert value(result, "prefix_cache_hit_rate") == pytest.approx(counted_hits(records), abs=1e-12)
    assert value(result, "prefix_cache_hit_rate") > 0


def test_the_whole_packaged_mooncake_trace_gives_the_published_ratio():
    assert round(value(replayed(*ONE_AT_A_TIME), "prefix_cache_hit_rate"), 6) == 0.373624


def test_an_azure_file_is_played_whole(tmp_path):
    rows = [f"2023-11-16 18:15:{46 + k // 10}.{680590 + 13 * k:06d}0,{300 + k},{10 + k % 7}" for k in range(100)]
    (tmp_path / "azure.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows))
    result = replayed(f"traffic.trace.path={tmp_path / 'azure.csv'}")
    assert value(result, "requests_arrived") == value(result, "requests_completed") == 100
    assert value(result, "output_tokens") == sum(10 + k % 7 for k in range(100))
    assert value(result, "prefix_cache_hit_rate") == 0.0


def test_an_agentic_file_is_mended_and_told_and_what_fits_no_window_is_turned_away(tmp_path):
    (tmp_path / "agentic.csv").write_text(AGENTIC)
    told: list[str] = []
    result = replayed(f"traffic.trace.path={tmp_path / 'agentic.csv'}", "prefix_cache.block_tokens=64", told=told)
    assert value(result, "requests_arrived") == 9
    assert value(result, "requests_turned_away") == 1
    assert value(result, "requests_completed") == 8
    prompts = 40000 + 42000 + 44000 + 50000 + 51000 + 30000 + 31000 + 32000
    cached = 39936 + 41984 + 43968 + 49984 + 29952 + 30976
    assert value(result, "prefix_cache_hit_rate") == pytest.approx(cached / prompts, rel=1e-12)
    assert value(result, "output_tokens") == 169 + 1 + 201 + 776 + 20 + 169 + 50 + 50
    assert (result.tables["audits"].in_system == 0).all()
    (file,) = result.summary["files"]
    assert file["requests"] == 9
    assert file["repaired"] == {
        "repaired, answers of 0 tokens count as 1": 1,
        "repaired, times go back within a session: raised to the time before": 1,
    }
    for sentence in ("answers of 0 tokens", "times go back within a session", "Poisson process of 0.02 a second"):
        assert any(sentence in note for note in file["notes"])
        assert any(sentence in line for line in told)


def test_coarse_clocks_are_spread_in_the_order_of_the_file_or_left_as_they_are(tmp_path):
    mooncake_file(tmp_path / "m.jsonl", 300)
    found = {}
    for spread in (True, False):
        settings = [f"traffic.trace.path={tmp_path / 'm.jsonl'}", f"traffic.trace.spread_ticks={str(spread).lower()}"]
        service = load_scenario(REPLAY, settings).services["traffic"]
        trace = service_trace(1, "traffic", service)
        assert any("spread_ticks" in note for note in trace.report.notes) == spread
        found[spread] = played_trace(1, "traffic", service, trace, 0, stream(1, "x"))
    assert np.array_equal(found[True].isl, found[False].isl)
    after = found[True].arrival_s - found[False].arrival_s
    assert after.min() >= 0
    assert after.max() < 3.0
    assert np.all(np.diff(found[True].arrival_s) >= 0)
    assert np.mean(np.diff(found[False].arrival_s) == 0) > 0.5
    assert np.mean(np.diff(found[True].arrival_s) == 0) == 0


def bursty_file(path: Path, customers: int = 12, seed: int = 3) -> None:
    """Customers who come in bursts of 8 within a second, about one burst in 100 s each, for 2,000 s."""
    rng, rows = stream(seed, "bursts"), []
    for customer in range(customers):
        for start in np.sort(rng.random(20)) * 2000:
            rows += [(start + spread, customer) for spread in rng.random(8)]
    rows.sort()
    lines = [f"{t:.6f},100,10,customer-{customer}" for t, customer in rows]
    path.write_text("arrival_s,input_tokens,output_tokens,tenant\n" + "\n".join(lines))


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_scaling_keeps_the_index_of_dispersion(tmp_path, factor):
    bursty_file(tmp_path / "bursty.csv")
    settings = [f"traffic.trace.path={tmp_path / 'bursty.csv'}", f"traffic.trace.scale={factor}"]
    service = load_scenario(REPLAY, settings).services["traffic"]
    trace = service_trace(1, "traffic", service)
    before = index_of_dispersion(trace.arrival_s, 10.0)
    played = [played_trace(1, "traffic", service, trace, k, stream(1, "x")) for k in range(8)]
    after = np.mean([index_of_dispersion(scaled.arrival_s, 10.0) for scaled in played])
    assert before > 5
    assert after == pytest.approx(before, rel=0.15)
    assert np.mean([len(scaled) for scaled in played]) == pytest.approx(factor * len(trace), rel=0.05)
    thinned = trace.rows(np.flatnonzero(stream(2, "y").random(len(trace)) < 0.5))
    assert index_of_dispersion(thinned.arrival_s, 10.0) < 0.75 * before  # what leaving out single requests would do


def test_a_scaled_replay_plays_so_many_requests(tmp_path):
    bursty_file(tmp_path / "bursty.csv")
    path = f"traffic.trace.path={tmp_path / 'bursty.csv'}"
    assert value(replayed(path, "traffic.trace.scale=2"), "requests_arrived") == 2 * 12 * 20 * 8
    with pytest.raises(ScenarioError, match=r"traffic.trace.scale: .*sessions"):
        replayed("traffic.trace.path=agentic_claude_code", "traffic.trace.first=50", "traffic.trace.scale=2",
                 "traffic.trace.scale_keeps=swings")  # fmt: skip


CHATS = ("traffic.trace=null", "prefix_cache.block_tokens=16")


def test_conversations_wait_for_their_answers_and_find_what_was_said():
    spec = "{lengths: {fixed: {isl: 160, osl: 32}}, mean_turns: 6, system_tokens: 320, sessions: 40, sessions_per_s: 1, think_median_s: 2}"
    result = replayed(*CHATS, f"traffic.chats={spec}")
    service = load_scenario(REPLAY, [*CHATS, f"traffic.chats={spec}"]).services["traffic"]
    trace = played_trace(1, "traffic", service, service_trace(1, "traffic", service), 0, stream(1, "x"))
    assert value(result, "requests_arrived") == value(result, "requests_completed") == len(trace)
    later = trace.depends_on >= 0
    most = trace.cached_tokens[later].sum() + 320 * (np.sum(~later) - 1)
    assert value(result, "cached_input_tokens") <= most  # but for the answer's last token, which has no KV yet
    assert value(result, "cached_input_tokens") > 0.95 * most
    assert value(result, "input_tokens") == trace.isl.sum()


def test_slower_answers_make_conversations_last_longer():
    spec = "{lengths: {fixed: {isl: 500, osl: 400}}, mean_turns: 8, sessions: 10, sessions_per_s: 1, think_median_s: 0.1, think_p90_s: 0.2}"
    fast = replayed(*CHATS, f"traffic.chats={spec}")
    slow = replayed(*CHATS, f"traffic.chats={spec}", "stages.0.system.max_sequences=1")
    assert value(slow, "requests_arrived") == value(fast, "requests_arrived")
    assert slow.tables["audits"].wall_s.iloc[0] > 1.5 * fast.tables["audits"].wall_s.iloc[0]


def test_the_shipped_variants_of_conversations_hit_their_history():
    assert value(replayed("traffic.chats.sessions=60", variant="chats"), "prefix_cache_hit_rate") > 0.6
    agents = replayed("traffic.chats.sessions=20", variant="coding-agents")
    assert value(agents, "prefix_cache_hit_rate") > 0.8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["traffic.chats={sessions: 5, sessions_per_s: 1}"], "lengths and mean_turns"),
        (["traffic.chats={like: agentic_claude_code, mean_turns: 3, sessions: 5, sessions_per_s: 1}"], "like brings its own mean_turns"),
        (["traffic.chats={lengths: azur, mean_turns: 3, sessions: 5, sessions_per_s: 1}"], r"traffic.chats: lengths: 'azur' is not known"),
        (["traffic.chats={like: agentic_claude_code, sessions: 5, sessions_per_s: 1}", "traffic.trace.path=x"], "exactly one of"),
        (["traffic.trace.scale=0", "traffic.trace.path=azure2023_conv"], "scale"),
    ],
)  # fmt: skip
def test_wrong_conversations_and_scales_are_refused(settings, message):
    first = [] if "traffic.trace.path" in settings[-1] else ["traffic.trace=null"]
    with pytest.raises((ScenarioError, TraceError), match=message):
        replayed(*first, *settings)


def test_requests_offered_in_parts_are_played_the_same(tmp_path, monkeypatch):
    mooncake_file(tmp_path / "m.jsonl", 150)
    settings = (f"traffic.trace.path={tmp_path / 'm.jsonl'}", "simulation.interval_minutes=1")
    whole = replayed(*settings)
    monkeypatch.setattr("factory_sim.engine.replay.OFFERED", 7)
    assert replayed(*settings).summary == whole.summary


def test_a_trace_longer_than_the_scenario_is_refused(tmp_path):
    (tmp_path / "far.csv").write_text("arrival_s,input_tokens,output_tokens\n0,5,10\n1e9,100,3\n")
    with pytest.raises(ScenarioError, match=r"traffic.trace: its last request arrives on day 11,574"):
        replayed(f"traffic.trace.path={tmp_path / 'far.csv'}")


def test_a_file_without_times_is_played_at_a_stated_rate(tmp_path):
    (tmp_path / "lengths.csv").write_text("input_tokens,output_tokens\n" + "".join(f"{100 + k},7\n" for k in range(500)))
    told: list[str] = []
    path = f"traffic.trace.path={tmp_path / 'lengths.csv'}"
    result = replayed(path, "traffic.trace.requests_per_s=4", told=told)
    assert value(result, "requests_completed") == 500
    assert value(result, "input_tokens") == sum(100 + k for k in range(500))
    assert result.tables["audits"].wall_s.iloc[0] == pytest.approx(500 / 4, rel=4 / np.sqrt(500))
    assert any("Poisson process of 4 a second" in line for line in told)
    with pytest.raises(ScenarioError, match="tells its own times"):
        replayed("traffic.trace.path=azure2023_conv", "traffic.trace.requests_per_s=4")
