"""JSON lines of requests (gateway logs, length traces) in pieces: straight from Arrow where a piece is tidy, else
line by line."""

import io

from factory_sim.inputs.logs import gateway
from factory_sim.inputs.logs.columns import Mapping
from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.logs.values import plain_name
from factory_sim.inputs.traces.gather import Gather
from factory_sim.inputs.traces.pieces import objects, pieces
from factory_sim.inputs.traces.times import one_unit

PIECE_BYTES = 4 << 20
_DEPTH = 3


def read(source: Source, plan: Mapping, rows: Gather, complaints: Complaints) -> None:
    """Read one request a line, as `plan` names its members, into `rows`."""
    for piece, line in pieces(source, PIECE_BYTES):
        frame = _tidy(piece, line, plan.wanted)
        if frame is None:
            frame = _careful(piece, line, plan.wanted, complaints)
        if len(frame):
            frame = one_unit(frame, plan, complaints)
            rows.add_requests(gateway.requests(frame, plan, str(source.path), complaints), {})


def _tidy(piece: bytes, line: int, wanted: set[str]):
    """Read a piece with Arrow; None if a line is no object, or members change their kind from line to line."""
    import pyarrow
    import pyarrow.json

    lines = piece.count(b"\n") + (not piece.endswith(b"\n"))
    try:
        table = pyarrow.json.read_json(
            io.BytesIO(piece), read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(piece) + 1)
        )
    except pyarrow.ArrowException:
        return None
    if len(table) != lines:
        return None
    columns: dict[str, object] = {}
    _flatten(table, "", 1, columns)
    import pandas as pd

    frame = pd.DataFrame(index=range(line, line + lines))
    for name in sorted(wanted):
        values = columns.get(name)
        frame[name] = None if values is None or pyarrow.types.is_null(values.type) else values.to_pandas().to_numpy()
    return frame


def _flatten(table, prefix: str, depth: int, columns: dict[str, object]) -> None:
    import pyarrow

    for name in table.column_names:
        values, joined = table[name].combine_chunks(), f"{prefix}{plain_name(name)}"
        if pyarrow.types.is_struct(values.type):
            if depth < _DEPTH:
                inner = pyarrow.Table.from_arrays(values.flatten(), names=[field.name for field in values.type])
                _flatten(inner, f"{joined}_", depth + 1, columns)
        elif not pyarrow.types.is_nested(values.type):
            columns.setdefault(joined, values)


def _careful(piece: bytes, line: int, wanted: set[str], complaints: Complaints):
    import pandas as pd

    names, found, numbers = sorted(wanted), [], []
    for record, number in objects(piece, line, complaints):
        flat = gateway.flat(record, _DEPTH)
        found.append([flat.get(name) for name in names])
        numbers.append(number)
    return pd.DataFrame(found, columns=names, index=numbers, dtype=object)
