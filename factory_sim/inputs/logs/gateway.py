"""Gateway logs and traces as tables: CSV, JSONL or Parquet with one row a request, columns known by their names.

Times need a unit in the name (`latency_ms`) or in themselves (ISO text, epoch numbers); a column of durations without
unit is left out and told, since a wrong guess is a factor of a thousand.
"""

from typing import TYPE_CHECKING, Any

from factory_sim.errors import TraceError
from factory_sim.inputs.logs.columns import Mapping
from factory_sim.inputs.logs.records import COLUMNS, NUMBER_COLUMNS, Complaints
from factory_sim.inputs.logs.values import SECONDS_PER_UNIT

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LONGEST_TOKENS = 100_000_000
_EPOCH_FACTORS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (1e8, 1.0))
_BAD_WORDS = {"false", "failed", "failure", "error", "errored", "timeout", "timed_out", "cancelled", "canceled",
              "aborted", "rejected", "no", "fail"}


def flat(record: dict[str, Any], depth: int = 3, prefix: str = "") -> dict[str, Any]:
    """Return the scalar members of a nested record under joined names: usage.prompt_tokens -> usage_prompt_tokens."""
    from factory_sim.inputs.logs.values import plain_name

    found: dict[str, Any] = {}
    for key, value in record.items():
        name = f"{prefix}{plain_name(str(key))}"
        if isinstance(value, dict):
            if depth > 1:
                for inner, cell in flat(value, depth - 1, f"{name}_").items():
                    found.setdefault(inner, cell)
        elif isinstance(value, list):
            found.setdefault(name, None)
        elif not (isinstance(value, str) and len(value) > 512):
            found[name] = value
    return found


def requests(frame: "pd.DataFrame", plan: Mapping, path: str, complaints: Complaints) -> "pd.DataFrame":
    """Return the rows of `frame` as requests (columns of `Request`); bad rows are dropped and complained of."""
    import numpy as np
    import pandas as pd

    roles = plan.roles
    keep = np.ones(len(frame), bool)
    out: dict[str, Any] = {name: np.full(len(frame), np.nan) for name in NUMBER_COLUMNS}
    out |= {"session": None, "tenant": None, "model": None, "key": None}
    for role in ("isl", "osl"):
        out[role], bad = _numbers(frame[roles[role].name])
        bad |= np.isnan(out[role])
        failed_empty = bad & _empty(frame[roles[role].name]) & ~_succeeded(frame, plan) if bad.any() else bad
        _complain(complaints, "dropped, no count of tokens", frame, bad & ~failed_empty, roles[role].name)
        keep &= ~bad | failed_empty
        for kind, wrong in (
            ("dropped, negative count", out[role] < 0),
            (f"dropped, more than {LONGEST_TOKENS:,} tokens", out[role] > LONGEST_TOKENS),
            ("dropped, count of tokens is not whole", np.abs(out[role] - np.rint(out[role])) > 1e-6),
        ):
            _complain(complaints, kind, frame, wrong & keep, roles[role].name)
            keep &= ~wrong
    for role in ("cached_tokens", "reasoning_tokens", "spend"):
        if role in roles:
            out["spend_usd" if role == "spend" else role], bad = _numbers(frame[roles[role].name])
            _complain(complaints, "read as missing, not a number", frame, bad, roles[role].name)
    _times(frame, plan, path, out, keep, complaints)
    out["ok"] = _succeeded(frame, plan)
    if plan.zero_output_failed:
        out["ok"] = out["ok"] & (out["osl"] > 0)
    for role in ("session", "tenant", "model", "key"):
        if role in roles:
            column = frame[roles[role].name]
            out[role] = column.where(~_empty(column), None).to_numpy(object)
    return pd.DataFrame({name: out[name] for name in COLUMNS}, index=frame.index)[keep]


def _times(frame, plan: Mapping, path: str, out, keep, complaints: Complaints) -> None:
    import numpy as np

    roles = plan.roles
    if "start" in roles:
        out["start_s"], bad = moments(frame[roles["start"].name], roles["start"].unit or plan.start_unit,
                                      roles["start"].name, path)
        _complain(complaints, "dropped, no time or one in another unit", frame, bad & keep, roles["start"].name)
        keep &= ~bad
    for role, target in (("e2e", "e2e_s"), ("ttft", "ttft_s")):
        if role in roles:
            found, bad = _numbers(frame[roles[role].name])
            _complain(complaints, "read as missing, not a number", frame, bad, roles[role].name)
            negative = found < 0
            _complain(complaints, "read as missing, negative time", frame, negative, roles[role].name)
            found[negative | (found == 0)] = np.nan
            out[target] = found * SECONDS_PER_UNIT[roles[role].unit]
    for role, target in (("end", "e2e_s"), ("first", "ttft_s")):
        if role in roles and "start" in roles and np.isnan(out[target]).all():
            at, bad = moments(frame[roles[role].name], roles[role].unit or plan.start_unit, roles[role].name, path)
            span = at - out["start_s"]
            _complain(complaints, "read as missing, not a time after the start", frame,
                      (bad & ~_empty(frame[roles[role].name])) | (span < 0), roles[role].name)
            span[~(span > 0)] = np.nan
            out[target] = span
    late = out["ttft_s"] > out["e2e_s"] * (1 + 1e-9)
    _complain(complaints, "TTFT read as missing, later than the end", frame, late,
              roles["ttft"].name if "ttft" in roles else "")
    out["ttft_s"][late] = np.nan
    if "ttft" not in roles:  # completionStartTime equals the end where nothing was streamed
        out["ttft_s"][out["ttft_s"] >= out["e2e_s"] - 1e-6] = np.nan
    out["decode_s"] = out["e2e_s"] - out["ttft_s"]


def moments(column: "pd.Series", unit: str | None, name: str, path: str) -> tuple["np.ndarray", "np.ndarray"]:
    """Return times in seconds and a mask of the cells that are none.

    Numbers are seconds since some moment when `unit` tells so, or epoch times, whose size tells the unit. Raises
    `TraceError` for small numbers without unit, and when a column mixes epoch units.
    """
    import numpy as np
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        return _stamp_seconds(column), column.isna().to_numpy()
    if _written_out(column):
        found = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
        missing = found.isna().to_numpy()
        if missing.any():
            text = column[missing].astype("string").str.strip()
            text = text.str.replace(r"(?<=\d),(?=\d{3,6}(\D|$))", ".", regex=True)
            text = text.str.replace(r" UTC$", "+00:00", regex=True)
            found[missing] = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
        return _stamp_seconds(found), found.isna().to_numpy()
    values = pd.to_numeric(column, errors="coerce").to_numpy("float64", na_value=np.nan, copy=True)
    values[~np.isfinite(values)] = np.nan
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return values, np.isnan(values)
    size = float(np.median(known))
    epoch = next((factor for least, factor in _EPOCH_FACTORS if size >= least), None)
    if unit is not None and (epoch is None or unit != "s" or size < 1e11):
        return values * SECONDS_PER_UNIT[unit], np.isnan(values) | (values < 0)
    if epoch is None:
        raise TraceError(
            f"{path}: column {name!r}: numbers such as {known[0]:g} have no unit; name the column arrival_s or "
            "arrival_ms, or give ISO 8601 times"
        )
    least = size / 100
    return values * epoch, np.isnan(values) | (values < least) | (values > size * 100)


def _written_out(column: "pd.Series") -> bool:
    """True when the first cells that are filled are texts and no numbers: dates."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return False
    filled = column.iloc[:200][~_empty(column.iloc[:200])]
    return len(filled) > 0 and bool(pd.to_numeric(filled, errors="coerce").isna().mean() > 0.5)


def _stamp_seconds(column: "pd.Series") -> "np.ndarray":
    import numpy as np

    stamps = column.astype("datetime64[ns, UTC]") if column.dt.tz is not None else column.astype("datetime64[ns]")
    whole = stamps.astype("int64").to_numpy()
    seconds = whole / 1e9
    seconds[column.isna().to_numpy()] = np.nan
    return seconds


def _numbers(column: "pd.Series") -> tuple["np.ndarray", "np.ndarray"]:
    """Return the numbers of a column (NaN where there is none) and a mask of the cells that are something else."""
    import numpy as np
    import pandas as pd

    if column.dtype == "str" and (quick := _all_numbers(column)) is not None:
        return quick, np.zeros(len(quick), bool)
    values = pd.to_numeric(column, errors="coerce").to_numpy("float64", na_value=np.nan, copy=True)
    missing = np.isnan(values)
    if missing.any():
        rest = column[missing].astype("string").str.strip()
        if rest.str.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", na=False).any():
            values[missing] = pd.to_numeric(rest.str.replace(",", ""), errors="coerce").to_numpy(
                "float64", na_value=np.nan
            )
    infinite = np.isinf(values)
    values[infinite] = np.nan
    missing = np.isnan(values)
    return values, missing & (~_empty(column) | infinite) if missing.any() else missing


def _all_numbers(column: "pd.Series") -> "np.ndarray | None":
    """The numbers of a column of texts that are all finite numbers or empty, else None; many times as fast."""
    import numpy as np
    import pyarrow
    import pyarrow.compute

    try:
        texts = pyarrow.array(column)
        texts = pyarrow.compute.if_else(pyarrow.compute.equal(texts, ""), None, texts)
        values = pyarrow.compute.cast(texts, pyarrow.float64())
    except pyarrow.ArrowException:
        return None
    if isinstance(values, pyarrow.ChunkedArray):
        values = values.combine_chunks()
    found = values.to_numpy(zero_copy_only=False).copy()
    return found if int(np.isfinite(found).sum()) == len(values) - values.null_count else None


def _empty(column: "pd.Series") -> "np.ndarray":
    missing = column.isna().to_numpy(bool)
    if column.dtype == object or str(column.dtype) in ("string", "str"):
        missing = missing | column.astype("string").str.strip().str.lower().isin(
            ["", "null", "none", "nan", "n/a", "na", "-"]).fillna(True).to_numpy(bool)
    return missing


def _succeeded(frame: "pd.DataFrame", plan: Mapping) -> "np.ndarray":
    """True for each request that succeeded, from its status (HTTP code, word or truth value) and its error column."""
    import numpy as np
    import pandas as pd

    ok = np.ones(len(frame), bool)
    if "status" in plan.roles:
        column = frame[plan.roles["status"].name]
        if pd.api.types.is_bool_dtype(column):
            ok &= column.to_numpy(bool)
        else:
            text = column.astype("string").str.strip().str.lower().fillna("")
            codes = pd.to_numeric(text, errors="coerce").to_numpy("float64", na_value=np.nan)
            ok &= ~(text.isin(_BAD_WORDS).to_numpy(bool) | (codes >= 400) | (codes == 0))
    if "error" in plan.roles:
        column = frame[plan.roles["error"].name]
        text = column.astype("string").str.strip().str.lower().fillna("")
        ok &= (_empty(column) | text.isin(["false", "0", "{}", "[]", "ok"]).to_numpy(bool))
    return ok


def _complain(complaints: Complaints, kind: str, frame: "pd.DataFrame", rows: "np.ndarray", column: str) -> None:
    if rows.any():
        import numpy as np

        at = np.flatnonzero(rows)
        first = at[: complaints.shown_per_kind]
        found = [frame[column].iloc[row] for row in first] if column in frame else []
        complaints.add_rows(kind, frame.index[at], column, found)
