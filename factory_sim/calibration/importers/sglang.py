"""SGLang `sglang.benchmark.serving` (older: `sglang.bench_serving`): JSONL, one line a run.

TPOT is per request, as in vLLM. Its native backend divides each chunk's gap by the tokens in it; the OpenAI backends do
not. Without streaming TPOT is slightly negative and TTFT the whole latency. A run without details does not tell how
many requests failed. Also reads the `results` of llm-optimizer, which have the same keys.
"""

from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import ratio
from factory_sim.calibration.importers.vllm import plan as result_plan
from factory_sim.calibration.importers.vllm import requests, summary
from factory_sim.inputs.logs.jsonscan import SKIP, Head
from factory_sim.inputs.logs.values import count, number, positive

FORMAT = "sglang_bench_serving"
TOOL = "sglang bench_serving"
_NATIVE = ("sglang", "sglang-native")


def detect(head: Head) -> bool:
    """True for SGLang's keys, bare or inside llm-optimizer's `results`."""
    return head.any("mean_e2e_latency_ms", "results.mean_e2e_latency_ms") or (
        head.has("random_range_ratio", "dataset_name", "backend") and head.any("completed", "duration")
    )


def _plan() -> dict[str, Any]:
    return {**result_plan(), "output_details": SKIP, "results": {**result_plan()}}


def read(report: Report, head: Head) -> Found:
    """Return one point for each run in the file."""
    points = []
    for document, where in report.documents(_plan):
        if isinstance(document.get("results"), dict):
            document = {**document["results"], "llm_optimizer": True}
        if "completed" not in document and "mean_ttft_ms" not in document:
            report.complaints.add("dropped, no result of a serving benchmark", where)
            continue
        points.append(point(document, where, report))
    return Found(points, TOOL)


def point(document: dict[str, Any], where: str, report: Report) -> Point:
    """Return the point of one run, as the plan of vLLM's results keeps it."""
    server = document.get("server_info") if isinstance(document.get("server_info"), dict) else {}
    duration_s, completed = positive(document.get("duration")), count(document.get("completed"))
    facts = summary(document, duration_s, positive(document.get("mean_e2e_latency_ms")))
    facts["concurrency"] = positive(document.get("concurrency")) or facts["concurrency"]
    facts["request_rate_per_s"] = ratio(completed, duration_s) or positive(document.get("request_throughput"))
    asked = facts["output_tokens"]
    detail = requests(_without_silent(document, where, report), where, report)
    if detail:
        found = detail.figures(duration_s)
        for name in ("requests_completed", "requests_failed", "output_tokens", "output_tokens_per_s", "ttft_mean_ms",
                     "tpot_mean_ms", "chunk_gap_mean_ms", "e2e_mean_ms", "zero_output_requests"):
            facts[name] = found[name]
        if detail.failed == 0 and facts["e2e_mean_ms"] is None:
            facts["e2e_mean_ms"] = positive(document.get("mean_e2e_latency_ms"))
        facts["concurrency"] = found["concurrency"] or facts["concurrency"]
        facts["tpot_basis"] = "requests"
        listed = detail.isl.sum
        if listed is not None and facts["input_tokens"] and abs(listed / facts["input_tokens"] - 1) > 0.01:
            report.note(f"{where}: input_lens add up to {listed:.0f}, total_input_tokens is {facts['input_tokens']}: "
                        "the total was used")
    elif facts["requests_failed"] is None:
        report.note(f"{where}: no per-request details: how many requests failed is not known")
    _unstreamed(document, facts, where, report)
    if facts["ttft_mean_ms"] is None and "mean_ttft_ms" not in document and "median_ttft_ms" in document:
        report.note(f"{where}: holds medians of TTFT and ITL, no means: TTFT, TPOT and chunk gap are missing")
    retokenized = number(document.get("total_output_tokens_retokenized"))
    if retokenized and asked and abs(asked / retokenized - 1) > 0.1:
        report.note(f"{where}: total_output_tokens is {asked}, counted again from the text {retokenized:.0f}: "
                    "requests without a token may be counted at the asked length")
    if document.get("backend") in _NATIVE and facts["chunk_gap_mean_ms"] is not None:
        report.note(f"{where}: the native backend divides each gap by the tokens of its chunk: with several tokens a "
                    "chunk the gap here is a gap per token")
    return Point(**facts, **_setting(document, server), source=report.source.path.name, format=FORMAT)


def _without_silent(document: dict[str, Any], where: str, report: Report) -> dict[str, Any]:
    """Set the output length of requests that ended without a token, which OpenAI backends give as asked, to 0."""
    ttfts, osls, failed = document.get("ttfts"), document.get("output_lens"), document.get("errors")
    if not (isinstance(ttfts, list) and isinstance(osls, list) and isinstance(failed, list)):
        return document
    if not len(ttfts) == len(osls) == len(failed):
        return document
    silent = [at for at in range(len(ttfts)) if not failed[at] and positive(ttfts[at]) is None and osls[at]]
    if not silent:
        return document
    report.note(f"{where}: {len(silent)} requests have no first token but the asked output length: counted as 0 tokens")
    osls = list(osls)
    for at in silent:
        osls[at] = 0
    return {**document, "output_lens": osls}


def _unstreamed(document: dict[str, Any], facts: dict[str, Any], where: str, report: Report) -> None:
    tpot_ms, completed = facts["tpot_mean_ms"], facts["requests_completed"]
    stored = number(document.get("mean_tpot_ms"))
    if tpot_ms is None and stored is not None and stored <= 0:
        tpot_ms = stored
    if tpot_ms is None or tpot_ms > 0:
        return
    facts["tpot_mean_ms"] = facts["chunk_gap_mean_ms"] = None
    if completed and facts["output_tokens"] and facts["output_tokens"] > 1.5 * completed:
        facts["ttft_mean_ms"] = None
        report.note(f"{where}: TPOT is {tpot_ms:.4g} ms: not streamed; TTFT (the whole latency), TPOT and chunk gap "
                    "are missing")


def _distribution(spread: float) -> str:
    """Name of the lengths that are drawn uniformly from `spread` x L to L."""
    return "fixed" if spread == 1 else f"uniform[{spread:g}*L,L]"


def _setting(document: dict[str, Any], server: dict[str, Any]) -> dict[str, Any]:
    layout = {name: size for name, key in (("tp", "tp_size"), ("pp", "pp_size"), ("dp", "dp_size"), ("ep", "ep_size"))
              if (size := count(server.get(key)))}
    if isinstance(server.get("enable_dp_attention"), bool):
        layout["dp_attention"] = server["enable_dp_attention"]
    size = None
    if "tp" in layout:
        size = layout["tp"] * layout.get("pp", 1)
        if not layout.get("dp_attention"):
            size *= layout.get("dp", 1)
    isl, osl = positive(document.get("random_input_len")), positive(document.get("random_output_len"))
    random = str(document.get("dataset_name", "")).startswith("random")
    spread = number(document.get("random_range_ratio"))
    return {
        "engine": "sglang" if document.get("backend") in _NATIVE else document.get("backend"),
        "engine_version": server.get("version") if isinstance(server.get("version"), str) else None,
        "model": server.get("model_path") if isinstance(server.get("model_path"), str) else None,
        "parallelism": layout,
        "n_gpus": size,
        "concurrency_set": positive(document.get("max_concurrency")),
        "request_rate_set_per_s": positive(document.get("request_rate")),
        "isl": isl if random else None,
        "osl": osl if random else None,
        "length_distribution": _distribution(spread) if random and spread is not None else None,
        "tokens_per_step": positive(document.get("accept_length")),
        "label": document.get("tag") if isinstance(document.get("tag"), str) else "",
        "extra": {"slo_attainment": number(document.get("slo_attainment"))} if "slo_attainment" in document else {},
    }
