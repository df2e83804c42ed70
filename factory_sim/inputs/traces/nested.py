"""Traces with one JSON object a session: WEKA/AgentX conversations with sub-agents, and LLMServingSim agents."""

import numpy as np

from factory_sim.inputs.logs import jsonscan
from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.logs.values import number, positive
from factory_sim.inputs.traces.gather import Gather, usable

COLUMNS = (
    "isl",
    "osl",
    "arrival_s",
    "agent",
    "think_time_s",
    "e2e_s",
    "ttft_s",
    "cached_tokens",
    "prefix_of",
    "shared_prefix_tokens",
    "row",
)
_NAN = float("nan")


def read(source: Source, rows: Gather, complaints: Complaints) -> None:
    """Read all sessions into `rows`; `prefix_of` and ``row`` number the requests of the file."""
    session = 0
    for document, position in jsonscan.documents(source.data, spread=True):
        if isinstance(document, jsonscan.Loss):
            complaints.add_loss(document, source)
            continue
        if not isinstance(document, dict):
            complaints.add("dropped, not an object", f"byte {position}")
            continue
        if "sub_requests" in document:
            found = _serving_sim(document, rows.rows, complaints)
        else:
            found = _weka(document, rows.rows, complaints)
        if found:
            columns = {name: np.array(values) for name, values in zip(COLUMNS, zip(*found))}
            for name in ("arrival_s", "think_time_s", "e2e_s", "ttft_s"):
                columns[name] = columns[name].astype(np.float64)
            columns = {name: values for name, values in columns.items() if values.dtype != object}
            rows.add(session=np.full(len(found), session), **columns)
            session += 1


def _weka(document: dict, first_row: int, complaints: Complaints) -> list[tuple]:
    """Requests of one conversation. Times of a sub-agent count from its own start; ids are chained, so a trie of ids
    finds the longest prefix that any earlier request of the conversation had (full blocks only)."""
    size = number(document.get("block_size"))
    block = int(size) if usable(size, 0) and size >= 1 else 64
    name = document.get("id")
    found: list[tuple] = []
    trie: dict[tuple[int, int], tuple[int, int]] = {}
    shared = _shared(document)

    def add(item: dict, agent: int, start_s: float, shared: int) -> None:
        isl, osl = number(item.get("in")), number(item.get("out"))
        if not usable(isl, osl):
            complaints.add("dropped, no sensible count of tokens", f"session {name}, t {item.get('t')}")
            return
        row, ids = len(found), item.get("hash_ids")
        cached, prefix_of = _walk(trie, ids if isinstance(ids, list) else [], row)
        moment = number(item.get("t"))
        found.append(
            (
                int(isl),
                int(osl),
                start_s + moment if moment is not None else _NAN,
                agent,
                _or_nan(number(item.get("think_time"))),
                _or_nan(positive(item.get("api_time"))),
                _or_nan(positive(item.get("ttft"))),
                min(cached * block, int(isl)),
                first_row + prefix_of if prefix_of >= 0 else -1,
                shared,
                first_row + row,
            )
        )

    agents = 0
    for item in document.get("requests") if isinstance(document.get("requests"), list) else []:
        if not isinstance(item, dict):
            complaints.add("dropped, not an object", f"session {name}")
        elif isinstance(item.get("requests"), list):
            agents += 1
            for inner in item["requests"]:
                if isinstance(inner, dict):
                    add(inner, agents, number(item.get("t")) or 0.0, _shared(item))
        else:
            add(item, 0, 0.0, shared)
    return found


def _shared(document: dict) -> int:
    counts = [number(document.get(name)) or 0 for name in ("tool_tokens", "system_tokens")]
    return int(sum(count for count in counts if usable(count, 0)))


def _walk(trie: dict, ids: list, row: int) -> tuple[int, int]:
    """Follow `ids` from the root and add what is new: (blocks already there, row that put the last of them there)."""
    node, depth, prefix_of, known = 0, 0, -1, True
    for block in ids:
        if not isinstance(block, int | str):
            break
        child = trie.get((node, block)) if known else None
        if child is None:
            known = False
            child = trie[(node, block)] = (len(trie) + 1, row)
        else:
            depth, prefix_of = depth + 1, child[1]
        node = child[0]
    return depth, prefix_of


def _serving_sim(document: dict, first_row: int, complaints: Complaints) -> list[tuple]:
    """Requests of one agent: each waits for the one before it and for its tool."""
    start_ns = number(document.get("arrival_time_ns"))
    found, pause_s = [], 0.0
    for item in document["sub_requests"] if isinstance(document["sub_requests"], list) else []:
        isl, osl = number(item.get("input_toks")), number(item.get("output_toks"))
        if not usable(isl, osl):
            complaints.add("dropped, no sensible count of tokens", f"session {document.get('session_id')}")
            continue
        start_s = _or_nan(None if start_ns is None else start_ns * 1e-9)
        found.append(
            (
                int(isl),
                int(osl),
                start_s,
                0,
                pause_s if found else _NAN,
                _NAN,
                _NAN,
                None,
                None,
                None,
                first_row + len(found),
            )
        )
        pause_s = max((number(item.get("tool_duration_ns")) or 0.0) * 1e-9, 0.0)
    return found


def _or_nan(value: float | None) -> float:
    return _NAN if value is None else value
