"""InferenceX aggregate results: one row a configuration and concurrency. Times are in seconds without suffix.

Per-GPU rates have different denominators (all, prefill or decode GPUs); whole-system rates are put together again. GPU
counts of single-node rows are tp x pp x pcp_size, not times ep. Rows of agents (`scenario_type: agentic-coding`) come
from AIPerf: they hold counts and a duration, and their `itl` is TPOT again, no gap between chunks.
"""

from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import ms, ratio, times, whole
from factory_sim.inputs.logs.jsonscan import Head
from factory_sim.inputs.logs.values import count, number, positive

FORMAT = "inferencex"
TOOL = "InferenceX"
AGENTS = "agentic-coding"
_MTP = {"on": "mtp", "true": "mtp", "1": "mtp", "off": "none", "false": "none", "0": "none"}
SLOWEST_TPOT_MS = 2_000.0
"""A slower mean than this is more likely a table in milliseconds."""


def detect(head: Head) -> bool:
    """True for aggregate rows, and for rows of the API with their nested metrics."""
    return head.any("infmax_model_prefix", "tput_per_gpu", "metrics.tput_per_gpu", "data.tput_per_gpu")


def read(report: Report, head: Head) -> Found:
    """Return one point for each row."""
    points = []
    for document, where in report.documents():
        rows = document.get("data") if isinstance(document.get("data"), list) else [document]
        for at, row in enumerate(rows):
            if not isinstance(row, dict):
                continue
            if isinstance(row.get("metrics"), dict):
                row = {**row, **row["metrics"]}
            place = f"{where}, data[{at}]" if len(rows) > 1 else where
            if isinstance(row.get("request_metrics"), dict):
                row = _flat(row, row["request_metrics"])
            if all(positive(row.get(name)) is None for name in ("mean_tpot", "median_tpot", "mean_ttft",
                                                                "tput_per_gpu")):
                report.complaints.add("dropped, no TTFT, TPOT or throughput", place)
                continue
            points.append(_point(row, place, report))
    return Found(points, TOOL)


def _flat(row: dict[str, Any], nested: dict[str, Any]) -> dict[str, Any]:
    """A row of agents with its nested means under the names of the other rows; sums from means and counts."""
    def inner(*names: str) -> Any:
        found: Any = nested
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    means = {f"mean_{name}": inner("latency", name, "mean") for name in ("ttft", "tpot", "e2el")}
    completed = count(row.get("num_requests_successful"))
    return row | means | {
        "duration_s": inner("throughput", "duration_seconds"),
        "output_tps": inner("throughput", "output", "tokens_per_second"),
        "sum_input_tokens": times(number(inner("tokens", "input", "mean")), completed),
        "sum_output_tokens": times(number(inner("tokens", "output_actual", "mean")), completed),
    }


def _counts(row: dict[str, Any], measured: dict[str, float | None]) -> dict[str, Any]:
    """What rows of agents tell beyond the others: counts, totals, duration, and what follows from them."""
    completed, total = count(row.get("num_requests_successful")), count(row.get("num_requests_total"))
    told = row.get("request_accounting")
    failed = count(told.get("records_error_dropped")) if isinstance(told, dict) else None
    if failed is None and completed is not None and total is not None and total >= completed:
        failed = total - completed
    duration_s = positive(row.get("duration_s"))
    e2e_s = measured["e2el"] and measured["e2el"] / 1000
    found = {
        "requests_completed": completed, "requests_failed": failed, "duration_s": duration_s,
        "input_tokens": whole(number(row.get("sum_input_tokens"))),
        "output_tokens": whole(number(row.get("sum_output_tokens"))),
        "output_tokens_per_s": positive(row.get("output_tps")),
        "request_rate_per_s": ratio(completed, duration_s) if completed else None,
        "concurrency": ratio(times(e2e_s, completed), duration_s),
    }
    return {name: value for name, value in found.items() if value is not None}


def _point(row: dict[str, Any], where: str, report: Report) -> Point:
    split, gpus, decode_gpus = _gpus(row)
    per_gpu = positive(row.get("output_tput_per_gpu"))
    measured = {name: ms(positive(row.get(f"mean_{name}"))) for name in ("ttft", "tpot", "itl", "e2el")}
    if measured["tpot"] and measured["tpot"] > SLOWEST_TPOT_MS:
        report.note(f"{where}: doubtful, mean_tpot of {measured['tpot'] / 1000:g} s a token; times of this format are "
                    "seconds")
    hardware = str(row.get("hw") or row.get("hardware") or "")
    power = _power(row)
    if power is None and any(key.startswith("joules_per_") for key in row):
        report.note(f"{where}: power figures left out (power_valid is not 1 or the schema version is absent)")
    extra: dict[str, Any] = power or {}
    for key in ("total_tput_per_gpu", "tput_per_gpu", "median_ttft", "median_tpot", "std_ttft", "scenario_type",
                "framework", "image", "router"):
        value = row.get(key)
        if isinstance(value, str) or number(value) is not None:
            extra[key] = value
    spec = str(row.get("spec_decoding") or row.get("spec_method") or "") or _MTP.get(str(row.get("mtp")).lower())
    concurrency = positive(row.get("conc"))
    agents = row.get("scenario_type") == AGENTS
    counted = _counts(row, measured) if agents else {}
    if agents:
        report.note("rows of agents: sessions of many turns with cached prefixes; conc is the number of sessions")
        measured["itl"] = None
    elif concurrency:
        report.note("concurrency is the client's limit (conc) of a closed loop; request counts, token totals and "
                    "durations are not in these files")
    rates = {"concurrency": concurrency, "output_tokens_per_s": times(per_gpu, decode_gpus or gpus)}
    return Point(
        ttft_mean_ms=measured["ttft"], tpot_mean_ms=measured["tpot"], chunk_gap_mean_ms=measured["itl"],
        e2e_mean_ms=measured["e2el"], concurrency_set=concurrency, **(rates | counted),
        n_gpus=gpus, gpu=hardware.replace("_", "-").split("-")[0].lower() or None,
        engine=row.get("framework"), engine_version=row.get("image"), precision=row.get("precision"),
        model=row.get("model") or row.get("infmax_model_prefix"), isl=positive(row.get("isl")),
        osl=positive(row.get("osl")), length_distribution=None if agents else "uniform[0.8*L,L]", parallelism=split,
        speculative=spec, measured_on=str(row["date"])[:10] if row.get("date") else None,
        tpot_basis="mean_tpot", label=f"conc {concurrency:g}" if concurrency else "",
        source=report.source.path.name, format=FORMAT, extra=extra,
    )


def _true(value: object) -> bool:
    return value is True or str(value).lower() in ("true", "1")


def _gpus(row: dict[str, Any]) -> tuple[dict[str, Any], float | None, float | None]:
    """Return the layout, the GPUs of the system, and the GPUs its output rate was divided by."""
    prefill, decode = count(row.get("num_prefill_gpu")), count(row.get("num_decode_gpu"))
    if _true(row.get("is_multinode")) or (prefill or decode):
        split: dict[str, Any] = {"mode": "disagg" if _true(row.get("disagg", True)) else "agg"}
        for side, total in (("prefill", prefill), ("decode", decode)):
            workers = count(row.get(f"{side}_num_workers"))
            if workers:
                split[f"{side}_workers"] = workers
                if total:
                    split[f"{side}_gpus_per_worker"] = total // workers
            for name in ("tp", "ep"):
                if count(row.get(f"{side}_{name}")):
                    split[f"{side}_{name}"] = count(row[f"{side}_{name}"])
            if f"{side}_dp_attention" in row:
                split[f"{side}_dp_attention"] = _true(row[f"{side}_dp_attention"])
        gpus = (prefill or 0) + (decode or 0) or None
        return split, gpus, decode or gpus
    split = {"mode": "disagg" if _true(row.get("disagg")) else "agg"}
    for name in ("tp", "pp", "ep", "pcp_size", "dcp_size"):
        if count(row.get(name)):
            split[name] = count(row[name])
    if "dp_attention" in row:
        split["dp_attention"] = _true(row["dp_attention"])
    gpus = None
    if "tp" in split:
        gpus = split["tp"] * split.get("pp", 1) * split.get("pcp_size", 1)
    return split, gpus, gpus


def _power(row: dict[str, Any]) -> dict[str, Any] | None:
    """Board power and energies where the row says that they are valid, else None."""
    if number(row.get("power_valid")) != 1 or row.get("power_metric_schema_version") is None:
        return None
    return {name: number(row.get(name)) for name in ("avg_power_w", "avg_total_gpu_power_w",
                                                     "joules_per_output_token") if number(row.get(name)) is not None}
