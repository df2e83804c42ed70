"""Measured benchmark runs: the packaged table and users' own files with the same columns, in base units."""

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from factory_sim.errors import MeasurementError, ProfileError, closest
from factory_sim.inputs.parallelism import Layout, WorkerLayout, parse_parallelism
from factory_sim.units import MILLISECOND_S

if TYPE_CHECKING:
    import pandas as pd

CONFIGURATION = ("model", "gpu", "backend", "precision", "mode", "parallelism")
REQUIRED = (*CONFIGURATION, "isl", "osl", "concurrency", "ttft_ms", "tpot_ms")
"""Columns that a file of measurements must have."""
COUNTS = (
    "tp", "pp", "ep", "replicas", "n_gpus", "prefill_workers", "prefill_gpus_per_worker", "prefill_ep",
    "decode_workers", "decode_gpus_per_worker", "decode_ep",
)  # fmt: skip
SPECULATIONS = ("none", "mtp", "unknown")
SWITCHES = ("dp_attention", "prefill_dp_attention", "decode_dp_attention")
SUSPECT_FLAGS = (
    "spec_decoding_unknown", "n_gpus_unknown", "parallelism_inconsistent", "erratic_series",
    "tpot_far_above_comparable_rows", "batch_vs_concurrency_unclear", "same_point_measured_twice_and_far_apart",
    "repeat_on_another_day_disagrees", "concurrency_assumed_from_batch", "concurrency_assumed_from_decode_batch",
)  # fmt: skip
"""Flags that make a row unfit as a judge (data/measurements/README.md says what each means)."""


@cache
def serving() -> "pd.DataFrame":
    """Return the packaged closed-loop runs (`data/measurements/serving.parquet`), one row a run.

    Columns as in data/measurements/README.md, with times in seconds (`ttft_s`, `tpot_s`) and `clean`: no suspect flag
    and speculation known. Callers must not change the frame.
    """
    import pandas as pd

    with files("factory_sim.data").joinpath("measurements", "serving.parquet").open("rb") as file:
        return normalise(pd.read_parquet(file))


def normalise(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table with the columns of `serving()` in typed form: counts as floats (NaN unknown), times in seconds.

    Missing counts are taken from `parallelism`. Raises MeasurementError that names missing columns. Rows that cannot
    be used keep a reason in `problem`, empty for usable rows.
    """
    import numpy as np
    import pandas as pd

    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise MeasurementError(f"columns missing: {', '.join(missing)}; needed: {', '.join(REQUIRED)}")
    out = pd.DataFrame(index=pd.RangeIndex(len(table)))
    for name in ("measurement_id", "group_id", "origin", "measured_on", "backend_version", "spec_decoding", "flags",
                 "length_distribution", "load", "source", *CONFIGURATION):  # fmt: skip
        column = table[name] if name in table else pd.Series([""] * len(table))
        out[name] = column.astype("object").where(column.notna(), "").astype(str).str.strip().to_numpy(dtype=object)
    spec = out.spec_decoding.str.lower().replace({"off": "none", "false": "none", "no": "none"})
    out["spec_decoding"] = spec.replace("", "unknown" if "spec_decoding" in table else "none")
    for name in ("gpu", "backend", "precision", "mode"):
        out[name] = out[name].str.lower()
    for name in ("isl", "osl", "concurrency", "ttft_ms", "tpot_ms", "mean_input_tokens", "mean_output_tokens",
                 "times_listed", *COUNTS):  # fmt: skip
        out[name] = pd.to_numeric(table[name].to_numpy(), errors="coerce") if name in table else np.nan
        out[name] = out[name].astype(float)
    for name in SWITCHES:
        text = table[name].astype("object") if name in table else pd.Series([None] * len(table), dtype=object)
        out[name] = [_switch(value) for value in text]
    _lengths(out)
    _counts_from_text(out)
    out["ttft_s"] = out.pop("ttft_ms") * MILLISECOND_S
    out["tpot_s"] = out.pop("tpot_ms") * MILLISECOND_S
    out["problem"] = _problems(out)
    suspect = out["flags"].map(lambda text: any(flag in text for flag in SUSPECT_FLAGS))
    out["clean"] = ~suspect & (out.spec_decoding != "unknown") & (out.problem == "")
    return out


def _switch(value) -> float:
    """1.0, 0.0 or NaN of a yes/no cell."""
    text = str(value).strip().lower()
    if text in ("true", "1", "1.0", "t", "yes"):
        return 1.0
    return 0.0 if text in ("false", "0", "0.0", "f", "no") else float("nan")


UNPUBLISHED_LOW_FRACTION = 0.5
"""Shortest over longest length that is played where the spread is not published."""


def _low_fraction(told: str, origin: str) -> float:
    """Shortest over longest length: `fixed`, `uniform[x*L,L]`, InferenceX's own where it is not told, else unpublished."""
    if told == "fixed":
        return 1.0
    if match := re.match(r"uniform\[\s*([\d.]+)\s*\*\s*L", told):
        return float(match[1])
    return 0.8 if told == "" and origin in ("InferenceX", "") else UNPUBLISHED_LOW_FRACTION


def _lengths(out: "pd.DataFrame") -> None:
    """Mean lengths, and the longest and shortest to play.

    Uniform in [0.8 L, L] for InferenceX. NVIDIA's sweeps do not publish a spread; equal lengths would keep requests in
    lockstep, so a wide spread around the nominal length is played: uniform in [2/3 L, 4/3 L], an assumption that is not
    cross-validated. `measured_mean` (lengths of a user's own run, spread unknown) is played in the same way.
    """
    out["low_fraction"] = [_low_fraction(*pair) for pair in zip(out.length_distribution, out.origin)]
    nominal_is_mean = out.low_fraction == UNPUBLISHED_LOW_FRACTION
    for mean, listed in (("mean_input_tokens", "isl"), ("mean_output_tokens", "osl")):
        share = ((1 + out.low_fraction) / 2).mask(nominal_is_mean, 1.0)
        out[mean] = out[mean].fillna(out[listed] * share)
        out[listed + "_longest"] = (out[mean] * 2 / (1 + out.low_fraction)).round()


def _counts_from_text(out: "pd.DataFrame") -> None:
    """Fill counts that the table does not give from the short form in `parallelism`."""
    filled = {name: out[name].to_numpy(copy=True) for name in (*COUNTS, *SWITCHES)}

    def fill(row, name, value):
        if filled[name][row] != filled[name][row]:
            filled[name][row] = value

    for row, text in enumerate(out.parallelism):
        try:
            layout = parse_parallelism(text)
        except ProfileError:
            continue
        fill(row, "n_gpus", float(layout.gpus * layout.instances))
        for worker in layout.workers:
            part = {"both": "", "prefill": "prefill_", "decode": "decode_"}[worker.role]
            if part:
                fill(row, part + "workers", float(worker.count))
            else:
                fill(row, "replicas", float(layout.instances))
                fill(row, "pp", 1.0)
            fill(row, part + "gpus_per_worker" if part else "tp", float(worker.gpus))
            fill(row, part + "ep", float(worker.expert_parallel))
            fill(row, part + "dp_attention", float(worker.data_parallel_attention))
    for name, values in filled.items():
        out[name] = values


def _problems(out: "pd.DataFrame") -> list[str]:
    """Say for each row why it cannot be played, or "" if it can."""
    reasons = [""] * len(out)
    need = {
        "agg": ("tp", "pp", "ep", "replicas", "dp_attention"),
        "disagg": ("prefill_workers", "prefill_gpus_per_worker", "decode_workers", "decode_gpus_per_worker",
                   "decode_dp_attention"),
    }  # fmt: skip
    columns = {name: out[name].to_numpy() for name in ("isl", "osl", "concurrency", *need["agg"], *need["disagg"])}
    for row, (mode, load, spec) in enumerate(zip(out["mode"], out["load"], out.spec_decoding)):
        if load == "open":
            reasons[row] = "load: open (requests at a rate); only closed-loop runs (a fixed concurrency) are played"
            continue
        if spec not in SPECULATIONS:
            reasons[row] = f"spec_decoding '{spec}' is not known{closest(spec, SPECULATIONS)}"
            continue
        if mode not in need:
            reasons[row] = f"mode '{mode}' is not known; use agg or disagg"
            continue
        bad = [name for name in ("isl", "osl", "concurrency") if not columns[name][row] >= 1]
        unknown = [name for name in need[mode] if columns[name][row] != columns[name][row]]
        if bad:
            reasons[row] = f"{', '.join(bad)}: not a positive number"
        elif unknown:
            reasons[row] = f"number of GPUs or workers unknown ({', '.join(unknown)})"
    return reasons


def layout_of(row) -> Layout:
    """Return the layout of one usable row of `serving()` (a named tuple or a mapping-like row)."""
    if row.mode == "agg":
        gpus = int(row.tp * row.pp)
        worker = WorkerLayout("both", 1, gpus, int(row.ep), bool(row.dp_attention) and gpus > 1)
        return Layout((worker,), int(row.replicas))
    pools = (
        ("prefill", row.prefill_workers, row.prefill_gpus_per_worker, row.prefill_ep, row.prefill_dp_attention),
        ("decode", row.decode_workers, row.decode_gpus_per_worker, row.decode_ep, row.decode_dp_attention),
    )
    return Layout(
        tuple(
            WorkerLayout(role, int(count), int(gpus), int(ep) if ep == ep else 1, dpa == 1.0 and gpus > 1)
            for role, count, gpus, ep, dpa in pools
        )
    )
