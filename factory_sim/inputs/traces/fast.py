"""A quick way through large CSV traces: typed columns straight from Arrow, no text on the way.

The file goes by in pieces of some megabytes. A piece in which every cell is what it should be is taken as it is, ten
times faster than reading cells as text; a piece with one bad cell goes the careful way (`logs.gateway`), which knows
what to mend, count and tell.
"""

import io
import re

import numpy as np

from factory_sim.inputs.logs import gateway, tables
from factory_sim.inputs.logs.columns import Mapping
from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.logs.values import SECONDS_PER_UNIT, plain_name
from factory_sim.inputs.traces.gather import Gather
from factory_sim.inputs.traces.pieces import pieces
from factory_sim.inputs.traces.times import one_unit

PIECE_BYTES = 4 << 20
LONGEST_PLAIN_S = 1e8
"""Numbers with a unit beyond this many seconds (three years) may be epoch times: the careful way decides."""
_ROLES = {"isl", "osl", "start", "e2e"}


def read(source: Source, plan: Mapping, rows: Gather, complaints: Complaints) -> bool:
    """Read a CSV into `rows`; False, with nothing read, when it has other columns or quoted cells."""
    if source.parquet or set(plan.roles) - _ROLES or plan.zero_output_failed or plan.session_relative:
        return False
    head, delimiter = tables.head_rows(source, 1)
    names = [plain_name(name) for name in head[0]]
    if len(set(names)) != len(names) or source.data.find(b'"') >= 0:
        return False
    position = source.data.find(b"\n") + 1
    first_line = bytes(source.data[:position])
    if position == 0 or not first_line.strip():
        return False
    for piece, line in pieces(source, PIECE_BYTES, position, 2):
        tidy = _tidy(piece, names, delimiter, plan, rows)
        if tidy is None:
            _careful(Source(source.path, first_line + piece), line - 2, plan, rows, complaints)
        elif len(tidy["isl"]):
            rows.add(**tidy)
    return True


def _tidy(piece: bytes, names: list[str], delimiter: str, plan: Mapping, rows: Gather) -> dict[str, np.ndarray] | None:
    """Return the columns of a piece, or None if any cell needs care."""
    import pyarrow
    import pyarrow.csv

    number, unit = pyarrow.float64(), None
    types = {plan.roles["isl"].name: pyarrow.int64(), plan.roles["osl"].name: pyarrow.int64()}
    if "start" in plan.roles:
        unit = plan.roles["start"].unit or plan.start_unit
        types[plan.roles["start"].name] = number if unit else pyarrow.timestamp("ns")
    if "e2e" in plan.roles:
        types[plan.roles["e2e"].name] = number
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(piece),
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=len(piece) + 1, column_names=names),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
    except pyarrow.ArrowException:
        return None
    columns = {role: table[column.name].combine_chunks() for role, column in plan.roles.items()}
    if any(column.null_count for column in columns.values()):
        return None
    found = {"isl": columns["isl"].to_numpy(), "osl": columns["osl"].to_numpy()}
    if len(found["isl"]) == 0:
        return found
    lengths = [values for values in found.values()]
    if min(v.min() for v in lengths) < 0 or max(v.max() for v in lengths) > gateway.LONGEST_TOKENS:
        return None
    if unit:
        found["arrival_s"] = columns["start"].to_numpy() * SECONDS_PER_UNIT[unit]
        if not (np.isfinite(found["arrival_s"]).all() and found["arrival_s"].min() >= 0):
            return None
        if found["arrival_s"].max() > LONGEST_PLAIN_S:
            return None
    elif "start" in columns:
        stamps_ns = columns["start"].to_numpy().astype(np.int64)
        rows.first_ns = int(stamps_ns[0]) if rows.first_ns is None else rows.first_ns
        found["arrival_s"] = (stamps_ns - rows.first_ns) / 1e9  # from the first one: nanoseconds survive
    if "e2e" in columns:
        found["e2e_s"] = columns["e2e"].to_numpy() * SECONDS_PER_UNIT[plan.roles["e2e"].unit]
        if not (np.isfinite(found["e2e_s"]).all() and found["e2e_s"].min() > 0):
            return None
    return found


def _careful(piece: Source, lines_before: int, plan: Mapping, rows: Gather, complaints: Complaints) -> None:
    """Read one piece (with the header before it) as text; rows are told by their line in the whole file."""
    own = Complaints(complaints.shown_per_kind)
    for frame in tables.blocks(piece, plan.wanted, own):
        frame.index = frame.index + lines_before
        part = gateway.requests(one_unit(frame, plan, complaints), plan, str(piece.path), complaints)
        if "start" in plan.roles and not (plan.roles["start"].unit or plan.start_unit) and len(part):
            if rows.first_ns is None:
                rows.first_ns = round(float(part["start_s"].iloc[0]) * 1e9)
            part = part.assign(start_s=part["start_s"] - rows.first_ns / 1e9)
        rows.add_requests(part, {})
    for kind, places in own.examples.items():
        moved = [re.sub(r"^row (\d+)", lambda m: f"row {int(m[1]) + lines_before}", place) for place in places]
        for at, place in enumerate(moved):
            complaints.add(kind, place, own.counts[kind] - len(moved) + 1 if at == len(moved) - 1 else 1)
