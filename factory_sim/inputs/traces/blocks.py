"""Traces in JSON lines whose prompts are lists of block hashes (Mooncake and its extensions), read in blocks of
lines."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.inputs.logs import gateway
from factory_sim.inputs.logs.columns import mapping
from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.traces.gather import Gather
from factory_sim.inputs.traces.pieces import objects, pieces
from factory_sim.units import MILLISECOND_S

BLOCK_BYTES = 8 << 20
NAMES = ("timestamp", "input_length", "output_length")
EXTRAS = ("session_id", "delay", "delay_ms")
LIKELY_BLOCK_TOKENS = (512, 16, 32, 64, 128, 256, 1024, 2048)
"""Block sizes tried in this order; Mooncake's own is 512."""

LEAST_FITTING = 0.25
"""Share of the prompts that a block size must fit; below it the file is refused."""


def read(source: Source, gather: Gather, complaints: Complaints) -> None:
    """Read all rows into `gather`. Bad lines are complained of; ids that are no whole numbers are numbered."""
    plan = replace(mapping([*NAMES, "hash_ids"]), start_unit=_unit(source))
    named: dict[object, int] = {}
    last: dict[object, float] = {}
    for frame, lists in _frames(source, complaints, named, last):
        rows = gateway.requests(frame, plan, str(source.path), complaints)
        kept = frame.index.get_indexer(rows.index)
        columns = {
            "arrival_s": rows["start_s"].to_numpy(),
            "isl": rows["isl"].to_numpy().astype(np.int64),
            "osl": rows["osl"].to_numpy().astype(np.int64),
        }
        if "session_id" in frame:
            columns["session"] = gather.number("session", frame["session_id"].to_numpy(object)[kept])
        delays = [
            np.asarray(frame[name].to_numpy()[kept], np.float64) for name in ("delay", "delay_ms") if name in frame
        ]
        if delays:
            columns["think_time_s"] = np.where(np.isnan(delays[0]), delays[-1], delays[0]) * MILLISECOND_S
        gather.add(**columns)
        values, offsets = lists
        counts = np.diff(offsets)[kept]
        starts = np.repeat(offsets[:-1][kept] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        gather.add_blocks(values[starts + np.arange(len(starts))], counts)


def _unit(source: Source) -> str | None:
    """Milliseconds as Mooncake writes them; seconds in Bailian traces (chat_id); None, to be told by size, from 1e11
    on."""
    head = bytes(source.data[: 1 << 16])
    if b'"parent_chat_id"' in head:
        return "s"
    first = re.search(rb'"timestamp"\s*:\s*"?(\d+)', head)
    return None if first and float(first.group(1)) >= 1e11 else "ms"


def _frames(source: Source, complaints: Complaints, named: dict, last: dict) -> Iterator:
    for block, line in pieces(source, BLOCK_BYTES):
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        yield _fast(block, line, lines) or _careful(block, line, complaints, named, last)


def _fast(block: bytes, line: int, lines: int):
    """Read a block of well-formed lines with Arrow; None if anything is unusual."""
    import pyarrow
    import pyarrow.json

    number, fields = pyarrow.float64(), []
    fields += [(name, number) for name in NAMES]
    fields += [
        (name, pyarrow.string() if name == "session_id" else number) for name in EXTRAS if name.encode() in block
    ]
    fields.append(("hash_ids", pyarrow.list_(pyarrow.int64())))
    try:
        table = pyarrow.json.read_json(
            io.BytesIO(block),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=pyarrow.schema(fields), unexpected_field_behavior="ignore"
            ),
        ).combine_chunks()
    except pyarrow.ArrowException:
        return None
    ids = table["hash_ids"].combine_chunks()
    if len(table) != lines or ids.null_count or table["timestamp"].null_count:
        return None
    values = ids.flatten()
    if values.null_count:
        return None
    frame = table.drop_columns(["hash_ids"]).to_pandas()
    frame.index = range(line, line + lines)
    return frame, (values.to_numpy(), ids.offsets.to_numpy().astype(np.int64))


def _careful(block: bytes, line: int, complaints: Complaints, named: dict, last: dict):
    """Read line by line; what is no object, or has no list of hashes, is complained of."""
    import pandas as pd

    rows, numbers, ids, counts = [], [], [], []
    for record, number in objects(block, line, complaints):
        hashes = record.get("hash_ids")
        if not isinstance(hashes, list):
            complaints.add("repaired, no hash_ids: no block is shared", f"line {number}")
            hashes = []
        wrong = next((at for at, block in enumerate(hashes) if not isinstance(block, int | str)), None)
        if wrong is not None:
            complaints.add("repaired, a block id is no id: list cut there", f"line {number}")
            hashes = hashes[:wrong]
        session = record.get("session_id")
        session = session if isinstance(session, int | str) else None
        if record.get("timestamp") is None and ("delay" in record or "delay_ms" in record):
            record["timestamp"] = last.get(session)  # a later turn comes when the one before is answered
        last[session] = record.get("timestamp")
        rows.append([record.get(name) for name in (*NAMES, *EXTRAS)])
        numbers.append(number)
        ids += [h if type(h) is int else named.setdefault(str(h), -2 - len(named)) for h in hashes]
        counts.append(len(hashes))
    frame = pd.DataFrame(rows, columns=[*NAMES, *EXTRAS], index=numbers, dtype=object)
    frame = frame.drop(columns=[name for name in EXTRAS if frame[name].isna().all()])
    for name in ("delay", "delay_ms"):
        if name in frame:
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
    try:
        values = np.array(ids, np.int64)
    except OverflowError:  # hashes of more than 64 bits
        values = np.array([named.setdefault(str(h), -2 - len(named)) for h in ids], np.int64)
    return frame, (values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def settle(arrays: dict[str, np.ndarray], complaints: Complaints, path) -> int:
    """Find the tokens of a block, cut lists that are longer than their prompt, and return the size.

    The size is the one with which most prompts have exactly ceil(isl / size) ids. Raises TraceError if none fits.
    """
    counts = np.diff(arrays["block_offsets"])
    some = counts > 0
    if not some.any():
        return 0
    isl = arrays["isl"]
    fitting = [float(np.mean(counts[some] == -(-isl[some] // size))) for size in LIKELY_BLOCK_TOKENS]
    best = int(np.argmax(fitting))
    if fitting[best] < LEAST_FITTING:
        raise TraceError(
            f"{path}: hash_ids do not cover the prompts with blocks of any known size "
            f"({', '.join(map(str, sorted(LIKELY_BLOCK_TOKENS)))} tokens): the first prompt has {isl[some][0]} tokens "
            f"and {counts[some][0]} ids"
        )
    size = LIKELY_BLOCK_TOKENS[best]
    if arrays["block_ids"].min() < 0:  # hashes that are no whole numbers >= 0 are numbered anew
        arrays["block_ids"] = np.unique(arrays["block_ids"], return_inverse=True)[1].astype(np.int64)
    needed = -(-isl // size)
    long, short = counts > needed, some & (counts < needed)
    if short.any():
        complaints.add(
            "repaired, fewer block ids than the prompt has blocks: the rest is taken as never seen",
            f"{int(short.sum())} requests",
            int(short.sum()),
        )
    if long.any():
        complaints.add(
            "repaired, more block ids than the prompt has blocks: cut", f"{int(long.sum())} requests", int(long.sum())
        )
        place = np.arange(len(arrays["block_ids"])) - np.repeat(arrays["block_offsets"][:-1], counts)
        arrays["block_ids"] = arrays["block_ids"][place < np.repeat(needed, counts)]
        kept = np.minimum(counts, needed)
        arrays["block_offsets"] = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    return size
