"""vLLM `vllm bench serve` (formerly benchmark_serving.py): one JSON object, or several appended.

Summary times are in ms, the arrays of `--save-detailed` in s; failed requests stay in the arrays with zeros; a stored
0.0 means that it could not be measured. Its TPOT is per request, its ITL every chunk gap.
"""

from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import Mean, Tally, ms, ratio, whole
from factory_sim.errors import MeasurementError
from factory_sim.inputs.logs.jsonscan import SKIP, Each, Head
from factory_sim.inputs.logs.values import count, number, positive

FORMAT = "vllm_bench_serve"
TOOL = "vllm bench serve"
_KNOWN = {
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate",
    "burstiness", "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
    "request_throughput", "request_goodput", "request_goodput:", "output_throughput", "total_token_throughput",
    "input_throughput", "errors", "input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times",
    "queue_times", "generated_texts", "max_output_tokens_per_s", "max_concurrent_requests", "rtfx", "best_of",
    "total_input", "total_output", "rps_change_events", "server_queue_times", "server_ttfts",
}
_LAYOUT_KEYS = {"tp": "tp", "tensor_parallel_size": "tp", "tp_size": "tp", "pp": "pp", "pipeline_parallel_size": "pp",
                "pp_size": "pp", "ep": "ep", "dp": "dp", "data_parallel_size": "dp", "dp_size": "dp"}


def detect(head: Head) -> bool:
    """True for the result of a serving benchmark, of whichever version."""
    if head.any("infmax_model_prefix", "mean_e2e_latency_ms", "results_ttft_s_mean"):
        return False
    if head.has("total_input_sequences") or head.has("total_token_throughput", "completed"):
        return True
    return head.has("duration", "completed", "request_throughput") and head.any(
        "mean_ttft_ms", "model_id", "output_throughput", "ttfts", "endpoint_type"
    )


class _Gaps:
    """Sums over the chunk gaps of each request."""

    def __init__(self) -> None:
        self.sums: list[float] = []
        self.counts: list[int] = []

    def take(self, gaps: Any) -> None:
        numbers = [gap for gap in gaps if isinstance(gap, int | float)] if isinstance(gaps, list) else []
        self.sums.append(sum(numbers))
        self.counts.append(len(numbers))

    def result(self) -> "_Gaps":
        return self


class Failures:
    """Which requests ended in an error; the texts are not kept."""

    def __init__(self) -> None:
        self.failed: list[bool] = []

    def take(self, error: Any) -> None:
        self.failed.append(bool(error))

    def result(self) -> list[bool]:
        return self.failed


def plan() -> dict[str, Any]:
    """What to keep of one result: prompts and answers are skipped, gaps are summed while reading."""
    gaps, failures = _Gaps(), Failures()
    return {
        "generated_texts": SKIP,
        "itls": Each(gaps.take, gaps.result),
        "errors": Each(failures.take, failures.result),
    }


def read(report: Report, head: Head) -> Found:
    """Return one point for each result in the file."""
    points = []
    for document, where in report.documents(plan):
        if "total_input_sequences" in document or _pooling(document):
            raise MeasurementError(f"{report.source.path}: {where}: is a pooling (embedding) benchmark, which has no "
                                   "output tokens; a generation benchmark was expected")
        if not any(key in document for key in ("completed", "duration", "request_throughput", "mean_ttft_ms")):
            report.complaints.add("dropped, no result of a serving benchmark", where)
            continue
        points.append(point(document, where, report))
    return Found(points, TOOL)


def _pooling(document: dict[str, Any]) -> bool:
    """True for what older versions wrote about embeddings: input tokens and no output at all."""
    return "total_input_tokens" in document and not any(
        name in document for name in ("total_output_tokens", "output_throughput", "mean_ttft_ms"))


def point(document: dict[str, Any], where: str, report: Report) -> Point:
    """Return the point of one result, as `plan` keeps it."""
    duration_s = positive(document.get("duration"))
    facts = summary(document, duration_s, positive(document.get("mean_e2el_ms")))
    detail = requests(document, where, report)
    if detail:
        facts |= {name: value for name, value in detail.figures(duration_s).items() if value is not None}
        for name in ("ttft_mean_ms", "tpot_mean_ms", "chunk_gap_mean_ms"):
            facts[name] = detail.figures(duration_s)[name]
        facts["tpot_basis"] = "requests"
        facts["length_distribution"] = "fixed" if detail.equal_lengths else None
        if facts["requests_completed"] != count(document.get("completed")):
            report.note(f"{where}: {facts['requests_completed']} successful requests in the arrays, "
                        f"{document.get('completed')} in `completed`: the arrays were used")
    elif isinstance(document.get("latencies"), list):
        _from_latencies(document["latencies"], facts, duration_s)
    _drop_unmeasured(facts, where, report)
    if facts["concurrency"] is None and document.get("max_concurrency"):
        report.note(f"{where}: concurrency was not measured (no latencies in the file); its limit was "
                    f"{document['max_concurrency']}")
    if document.get("ramp_up_strategy"):
        report.note(f"{where}: the load ramped up ({document['ramp_up_strategy']}): no single operating point")
    if facts["requests_completed"] == 0:
        report.note(f"{where}: no request succeeded: its zeros mean missing")
        for name in ("ttft_mean_ms", "tpot_mean_ms", "chunk_gap_mean_ms", "e2e_mean_ms", "concurrency",
                     "output_tokens_per_s", "request_rate_per_s", "input_tokens", "output_tokens"):
            facts[name] = None
    return Point(**facts, **_setting(document), source=report.source.path.name, format=FORMAT)


def summary(document: dict[str, Any], duration_s: float | None, e2e_ms: float | None) -> dict[str, Any]:
    """The facts that the totals and means of a result tell."""
    completed = count(document.get("completed"))
    failed = count(document.get("failed"))
    prompts = count(document.get("num_prompts"))
    if failed is None and prompts is not None and completed is not None and prompts >= completed:
        failed = prompts - completed
    output_tokens = number(document.get("total_output_tokens", document.get("total_output")))
    return {
        "requests_completed": completed,
        "requests_failed": failed,
        "ttft_mean_ms": positive(document.get("mean_ttft_ms")),
        "tpot_mean_ms": number(document.get("mean_tpot_ms")),
        "chunk_gap_mean_ms": positive(document.get("mean_itl_ms")),
        "e2e_mean_ms": e2e_ms,
        "input_tokens": whole(number(document.get("total_input_tokens", document.get("total_input")))),
        "output_tokens": whole(output_tokens),
        "output_tokens_per_s": ratio(output_tokens, duration_s) or positive(document.get("output_throughput")),
        "duration_s": duration_s,
        "concurrency": ratio(e2e_ms and completed and e2e_ms / 1000 * completed, duration_s),
        "request_rate_per_s": ratio(completed, duration_s) or positive(document.get("request_throughput")),
        "tpot_basis": "mean_tpot_ms",
    }


def requests(document: dict[str, Any], where: str, report: Report) -> Tally | None:
    """Add up the requests in the arrays of one result; None where it holds no arrays (or they do not fit)."""
    ttfts, osls, isls = document.get("ttfts"), document.get("output_lens"), document.get("input_lens")
    if not isinstance(ttfts, list) or not isinstance(osls, list) or not ttfts or len(ttfts) != len(osls):
        return None
    gaps, latencies = document.get("itls"), document.get("latencies")
    errors, starts = document.get("errors"), document.get("start_times")
    size = len(ttfts)
    gaps = gaps if isinstance(gaps, _Gaps) and len(gaps.sums) == size else None
    latencies = latencies if isinstance(latencies, list) and len(latencies) == size else None
    isls = isls if isinstance(isls, list) and len(isls) == size else [None] * size
    starts = starts if isinstance(starts, list) and len(starts) == size else [None] * size
    errors = errors if isinstance(errors, list) and len(errors) == size else None
    if gaps is None and latencies is None:
        return None
    tally = Tally()
    silent = 0
    for at in range(size):
        ttft_s, osl = positive(ttfts[at]), number(osls[at])
        failed = errors[at] if errors is not None else (ttft_s is None and not osl)
        if failed:
            tally.fail()
            continue
        e2e_s = positive(latencies[at]) if latencies else None
        if e2e_s is None and gaps is not None and ttft_s is not None:
            e2e_s = ttft_s + gaps.sums[at]
        streamed = gaps is None or gaps.counts[at] > 0 or osl is None or osl <= 1
        if not streamed:
            silent += 1
        tally.add(
            start_s=number(starts[at]), e2e_s=e2e_s, isl=number(isls[at]), osl=osl,
            ttft_s=ttft_s if streamed else None,
            decode_s=e2e_s - ttft_s if streamed and e2e_s is not None and ttft_s is not None else None,
        )
        if gaps is not None and osl:
            tally.gap_s.total += gaps.sums[at]
            tally.gap_s.count += gaps.counts[at]
    if silent:
        report.note(f"{where}: {silent} requests came in one chunk (not streamed): their TTFT is the whole latency and "
                    "was left out")
    if tally.zero_output:
        report.note(f"{where}: {tally.zero_output} requests ended without a token: completed, but left out of TTFT")
    return tally


def _from_latencies(latencies: list[Any], facts: dict[str, Any], duration_s: float | None) -> None:
    """Take e2e and concurrency from the latencies that newer versions always write."""
    e2e_s = Mean()
    for latency in latencies:
        e2e_s.add(positive(latency))
    if e2e_s.count and e2e_s.count == facts["requests_completed"]:
        facts["e2e_mean_ms"] = ms(e2e_s.mean)
        facts["concurrency"] = ratio(e2e_s.sum, duration_s)


def _drop_unmeasured(facts: dict[str, Any], where: str, report: Report) -> None:
    """TPOT of 0 with several tokens a request means that nothing was streamed: then TTFT is the whole latency."""
    tpot_ms, completed = facts["tpot_mean_ms"], facts["requests_completed"]
    if tpot_ms is None or tpot_ms > 0:
        return
    facts["tpot_mean_ms"] = facts["chunk_gap_mean_ms"] = None
    if completed and facts["output_tokens"] and facts["output_tokens"] > 1.5 * completed:
        report.note(f"{where}: TPOT is {tpot_ms:g} ms with several tokens a request: not streamed; TTFT, TPOT and "
                    "chunk gap are missing")
        if facts["e2e_mean_ms"] is None and facts["ttft_mean_ms"] is not None:
            facts["e2e_mean_ms"] = facts["ttft_mean_ms"]
            facts["concurrency"] = ratio(facts["ttft_mean_ms"] / 1000 * completed, facts["duration_s"])
        facts["ttft_mean_ms"] = None


def _setting(document: dict[str, Any]) -> dict[str, Any]:
    layout = {}
    for key, name in _LAYOUT_KEYS.items():
        size = count(document.get(key))
        if size:
            layout[name] = size
    named = next((count(document[key]) for key in ("n_gpus", "num_gpus", "gpu_count", "gpus") if key in document), None)
    size = named
    if size is None and "tp" in layout:
        size = layout["tp"] * layout.get("pp", 1) * layout.get("dp", 1)
    gpu = next((document[key] for key in ("gpu", "hardware", "gpu_type", "gpu_name", "accelerator")
                if isinstance(document.get(key), str)), None)
    drafted = number(document.get("spec_decode_acceptance_length"))
    extra = {key: value for key, value in document.items() if key not in _KNOWN and _plain_scalar(key, value)}
    return {
        "model": _text(document.get("model_id")) or _text(document.get("model")),
        "isl": _asked(document, "random_input_len", "input_len", "isl"),
        "osl": _asked(document, "random_output_len", "output_len", "osl"),
        "engine": _text(document.get("backend") or document.get("endpoint_type")),
        "engine_version": _text(document.get("version") or document.get("vllm_version")),
        "gpu": gpu,
        "n_gpus": size,
        "precision": _text(document.get("precision") or document.get("dtype") or document.get("quantization")),
        "parallelism": layout,
        "concurrency_set": positive(document.get("max_concurrency")),
        "request_rate_set_per_s": positive(document.get("request_rate")),
        "measured_on": _date(document.get("date")),
        "label": _text(document.get("label")) or "",
        "tokens_per_step": drafted,
        "speculative": "yes" if "spec_decode_acceptance_rate" in document else None,
        "extra": extra,
    }


def _asked(document: dict[str, Any], *names: str) -> float | None:
    """A length that a sweep or its user wrote beside the result."""
    return next((length for name in names if (length := positive(document.get(name)))), None)


def _plain_scalar(key: str, value: object) -> bool:
    """True for short texts and finite numbers that are no statistics: what the user added with --metadata."""
    if key.endswith("_ms") or key.startswith("spec_decode_"):
        return False
    return len(value) <= 200 if isinstance(value, str) else number(value) is not None


def _date(value: object) -> str | None:
    text = str(value or "")
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if len(text) >= 8 and text[:8].isdigit() else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
