"""A quick way through large, tidy CSV traces: typed columns straight from Arrow, no text on the way.

Ten times faster than reading cells as text, and only for files in which every cell is what it should be. The first
cell that is not sends the whole file the careful way (`logs.gateway`), which knows what to mend, count and tell.
"""

import numpy as np

from factory_sim.inputs.logs.columns import Mapping
from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.gateway import LONGEST_TOKENS
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.logs.tables import head_rows
from factory_sim.inputs.logs.values import SECONDS_PER_UNIT, plain_name
from factory_sim.inputs.traces.gather import Gather

BLOCK_BYTES = 16 << 20
_ROLES = {"isl", "osl", "start", "e2e"}


def read(source: Source, plan: Mapping, complaints: Complaints) -> Gather | None:
    """Return the rows of a tidy CSV, or None when it has other columns or a cell that needs care."""
    import pyarrow
    import pyarrow.csv

    if source.parquet or set(plan.roles) - _ROLES or plan.zero_output_failed or plan.session_relative:
        return None
    rows, delimiter = head_rows(source, 1)
    names = [plain_name(name) for name in rows[0]]
    if len(set(names)) != len(names):
        return None
    number = pyarrow.float64()
    types = {plan.roles["isl"].name: pyarrow.int64(), plan.roles["osl"].name: pyarrow.int64()}
    unit = None
    if "start" in plan.roles:
        unit = plan.roles["start"].unit or plan.start_unit
        types[plan.roles["start"].name] = number if unit else pyarrow.timestamp("ns")
    if "e2e" in plan.roles:
        types[plan.roles["e2e"].name] = number
    broken: list[tuple[int, int]] = []

    def refuse(row) -> str:
        broken.append((row.number or 0, row.actual_columns))
        return "skip"

    found = Gather()
    try:
        with pyarrow.csv.open_csv(
            pyarrow.BufferReader(pyarrow.py_buffer(source.data)),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, column_names=names, skip_rows=1
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=refuse),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types, include_columns=list(types)),
        ) as reader:
            for part in reader:
                if not _add(found, part, plan, unit):
                    return None
    except pyarrow.ArrowException:
        return None
    for at, cells in broken:
        complaints.add("dropped, wrong number of columns", f"row {at}, found {cells}, expected {len(names)}")
    return found if found.rows else None


def _add(found: Gather, part, plan: Mapping, unit: str | None) -> bool:
    columns = {role: part.column(part.schema.get_field_index(column.name)) for role, column in plan.roles.items()}
    if any(column.null_count for column in columns.values()):
        return False
    isl, osl = columns["isl"].to_numpy(), columns["osl"].to_numpy()
    if len(isl) == 0:
        return True
    if min(isl.min(), osl.min()) < 0 or max(isl.max(), osl.max()) > LONGEST_TOKENS:
        return False
    rows = {"isl": isl, "osl": osl}
    if "start" in columns:
        if unit:
            rows["arrival_s"] = columns["start"].to_numpy() * SECONDS_PER_UNIT[unit]
            if not np.isfinite(rows["arrival_s"]).all() or rows["arrival_s"].min() < 0 or rows["arrival_s"].max() > 1e8:
                return False
        else:
            stamps_ns = columns["start"].to_numpy().astype(np.int64)
            found.first_ns = int(stamps_ns[0]) if found.first_ns is None else found.first_ns
            rows["arrival_s"] = (stamps_ns - found.first_ns) / 1e9  # from the first one: nanoseconds survive
    if "e2e" in columns:
        e2e_s = columns["e2e"].to_numpy() * SECONDS_PER_UNIT[plan.roles["e2e"].unit]
        if not np.isfinite(e2e_s).all() or e2e_s.min() <= 0:
            return False
        rows["e2e_s"] = e2e_s
    found.add(**rows)
    return True
