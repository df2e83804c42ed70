"""What `vllm bench serve` and SGLang's `bench_serving` print at the end of a run, out of a saved log.

Means only, with two decimals, and not which requests failed; the JSON results beside the log are better.
"""

import re
from typing import Any

from factory_sim.calibration.importers import sglang, vllm
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.values import number

FORMAT = "console_log"
TITLE = b"Serving Benchmark Result"
_LINE = re.compile(r"^\s*([A-Za-z][^:]*?):\s+(\S+)\s*$")
_ARGUMENT = re.compile(r"\b(model|random_input_len|random_output_len|max_concurrency)='?([^',)\s]+)")
"""Arguments in the `Namespace(...)` that is printed first."""
_BEFORE_BYTES = 1 << 16
_NAMES = {
    "successful requests": "completed", "failed requests": "failed", "benchmark duration (s)": "duration",
    "maximum request concurrency": "max_concurrency", "max request concurrency": "max_concurrency",
    "max reqeuest concurrency": "max_concurrency",  # spelt so by SGLang for a year
    "request rate configured (rps)": "request_rate", "traffic request rate": "request_rate", "backend": "backend",
    "total input tokens": "total_input_tokens", "total generated tokens": "total_output_tokens",
    "total generated tokens (retokenized)": "total_output_tokens_retokenized",
    "request throughput (req/s)": "request_throughput", "output token throughput (tok/s)": "output_throughput",
    "concurrency": "concurrency", "accept length": "accept_length", "mean ttft (ms)": "mean_ttft_ms",
    "mean tpot (ms)": "mean_tpot_ms", "mean itl (ms)": "mean_itl_ms", "mean e2el (ms)": "mean_e2el_ms",
    "mean e2e latency (ms)": "mean_e2e_latency_ms",
}


def detect(source: Source) -> bool:
    """True where the title of such a table stands anywhere in the text."""
    return source.data.find(TITLE) >= 0


def read(report: Report) -> Found:
    """Return one point for each table in the log."""
    data, at, before, points, tools = report.source.data, 0, 0, [], []
    while (at := data.find(TITLE, at)) >= 0:
        where, start = report.where(at), data.find(b"\n", at)
        following = data.find(TITLE, at + 1)
        end = following if following >= 0 else len(data)
        document = _settings(bytes(data[max(before, at - _BEFORE_BYTES) : at]))
        document |= _document(bytes(data[start:end] if start >= 0 else b""))
        before = at = at + len(TITLE)
        if not {"completed", "duration"} <= document.keys():
            report.complaints.add("dropped, a table without its counts (cut off?)", where)
            continue
        reader = sglang if "mean_e2e_latency_ms" in document or "backend" in document else vllm
        points.append(reader.point(document, where, report).model_copy(update={"format": FORMAT, "label": where}))
        tools.append(reader.TOOL)
    report.note("printed results: means with two decimals; the JSON that the tool saves tells more")
    return Found(points, tools[0] if tools else vllm.TOOL)


def _settings(text: bytes) -> dict[str, Any]:
    """What the lines above a table tell of the load; older versions print it before the run."""
    lines = text.decode("utf-8", "replace")
    found = {name: match for name, match in _ARGUMENT.findall(lines) if match != "None"}
    for line in lines.split("\n"):
        match = _LINE.match(line)
        name = _NAMES.get(" ".join(match[1].lower().split())) if match else None
        if name in ("max_concurrency", "request_rate") and number(match[2]) is not None:
            found[name] = match[2]
    return found


def _document(text: bytes) -> dict[str, Any]:
    """The lines of one table under the names of the JSON result; it ends at a line of nothing but `=`."""
    found: dict[str, Any] = {}
    for line in text.decode("utf-8", "replace").replace("\r", "\n").split("\n"):
        if line.strip() and not line.strip().strip("="):
            break
        match = _LINE.match(line)
        name = _NAMES.get(" ".join(match[1].lower().split())) if match else None
        if name == "backend" or (name and number(match[2]) is not None):
            found[name] = match[2]
    return found
