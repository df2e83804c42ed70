"""Reference pages generated from the schema: every key of a scenario with type, default and meaning; every figure.

`factory-sim schema` prints them; `docs/reference-scenario.md` and `docs/reference-figures.md` are its output, and a
test holds them to it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from factory_sim.errors import ScenarioError, closest
from factory_sim.inputs.scenario import Scenario
from factory_sim.results.figures import UNITS

FIGURES = {
    "cost_per_million_output_tokens": "all costs of the window over its output tokens, in millions; like every figure per "
    "token without services that make images or videos and without training jobs",
    "cost_per_million_tokens": "the same costs over input plus output tokens, in millions",
    "revenue": "what customers are billed",
    "cost": "rent or ownership, and what the scenario adds: energy, staff, licences, ...",
    "cost_simulated_fleet": "the same at the GPU-hours of the run, where `money.costs.schedule` states what is paid instead; "
    "only of such runs",
    "margin": "revenue less cost",
    "gross_margin": "margin over revenue",
    "output_tokens": "tokens generated for completed and unfinished requests",
    "input_tokens": "prompt tokens taken in, cached ones included",
    "cached_input_tokens": "prompt tokens that a prefix cache held",
    "reasoning_tokens": "hidden reasoning among the output tokens; only of services with traffic.reasoning",
    "batch_requests_submitted": "batch jobs submitted; this and the next four only with a service's `batch`, and jobs are "
    "in no figure of requests, latency or promise",
    "batch_requests_completed": "batch jobs answered within their deadline",
    "batch_input_tokens": "prompt tokens of batch jobs, part of input_tokens",
    "batch_output_tokens": "answer tokens of batch jobs, part of output_tokens",
    "batch_within_deadline": "batch jobs answered, over those answered or dropped; those that still wait count neither "
    "way, so compare completed with submitted",
    "requests_arrived": "requests that asked to be served, refused ones included",
    "requests_completed": "requests answered to the end",
    "requests_turned_away": "requests refused by a limit, or gone before they were let in",
    "requests_lost": "requests let in and lost to a failure or a stop",
    "ttft_p50": "time to first token: from arrival to the first output token, median over requests",
    "ttft_p95": "the same, 95th percentile",
    "ttft_p99": "the same, 99th percentile",
    "images": "images generated; only of services that make images",
    "videos": "videos generated; only of services that make videos",
    "video_seconds": "seconds that these videos play",
    "cost_per_image": "all costs of services that make images over their images",
    "cost_per_video": "all costs of services that make videos over their videos",
    "cost_per_video_second": "the same over the seconds that they play",
    "energy_per_image": "electricity at the meter of services that make images, over their images",
    "energy_per_video": "the same of videos",
    "time_to_output_p50": "from arrival to the finished image or video, median over requests of services that make them; "
    "these have no TTFT, TPOT or E2E",
    "time_to_output_p95": "the same, 95th percentile",
    "time_to_output_p99": "the same, 99th percentile",
    "time_to_first_answer_token_p50": "from arrival to the first output token beyond the hidden reasoning, median; only of "
    "services with traffic.reasoning",
    "time_to_first_answer_token_p95": "the same, 95th percentile",
    "time_to_first_answer_token_p99": "the same, 99th percentile",
    "tpot_p50": "time per output token: (finish - first token) / (output tokens - 1), median over requests",
    "tpot_p95": "the same, 95th percentile",
    "tpot_p99": "the same, 99th percentile",
    "e2e_p50": "from arrival to the last token, median over requests",
    "e2e_p95": "the same, 95th percentile",
    "e2e_p99": "the same, 99th percentile",
    "token_wait_p50": "mean time that a token of an answer is there before its reader reads it, tokens taken to come evenly; "
    "median over requests; only of services with traffic.reading_tokens_per_s",
    "token_wait_p95": "the same, 95th percentile",
    "token_wait_p99": "the same, 99th percentile",
    "reader_wait_p50": "time that a reader waits for tokens after the first of an answer, in all; median over requests; "
    "likewise",
    "reader_wait_p95": "the same, 95th percentile",
    "reader_wait_p99": "the same, 99th percentile",
    "slo_attainment": "completed requests that kept both limits of the promise, over all completed",
    "prefix_cache_hit_rate": "cached input tokens over input tokens",
    "utilisation": "GPU-hours in which a serving step ran, over GPU-hours paid",
    "availability": "GPU-hours not down (failed, changed, warming up), over GPU-hours paid",
    "gpu_hours": "GPU-hours paid (of the run's fleet, also where a schedule is paid instead)",
    "energy": "electricity at the meter: IT power of GPUs and hosts, times PUE",
    "energy_per_output_token": "that energy (of services of tokens) over output tokens",
    "carbon": "emissions of that electricity, by the intensity of the hour; only with money.costs.carbon",
    "output_tokens_per_s_per_gpu": "output tokens over GPU-seconds paid (of services of tokens)",
    "demand": "requests that users would have made had nothing held them",
    "trained_tokens": "tokens trained and safe in a check-point, of training jobs; each job by name is a service here",
    "lost_trained_tokens": "tokens trained and lost to interruptions since the last check-point",
    "cost_per_million_trained_tokens": "all costs of the job, lost work, repair and spares included, over trained tokens",
    "training_progress": "tokens trained in the window over all that the job is to train on",
    "training_days": "day from the start of the scenario on which the job ended, over the replications in which it did",
    "cost_reduction_first_to_last_week": "cost per million output tokens of week 1 over the last week's",
    "revenue_growth_first_to_last_week": "revenue of the last week over week 1's",
    "output_token_growth_first_to_last_week": "output tokens of the last week over week 1's",
    "cost_reduction_first_to_last_stage": "cost per million output tokens of the first stage over the last's",
}
"""What each figure of a run means."""

_HEAD = """# Scenario reference

Every key of a scenario file. Generated by `factory-sim schema`; `factory-sim schema --json` prints the same as JSON
Schema, for editors that complete and check YAML.

A scenario is YAML. Unknown keys, NaN and values outside their range are errors. Units are the last part of a key:
`_s` seconds, `_hours`, `_days`, `_usd`, `_tokens`. A path such as `services.chat.slo.ttft_p95_s` names a key on the
command line (`--set PATH=VALUE`) and in `variants`; `services.NAME.` may be left out where there is one service, and
items of lists are named by their `name` or counted from 0.
"""

_FIGURES_HEAD = """# Figures reference

Every figure of a run, as in `summary.json` and `Run.figures`. Generated by `factory-sim schema figures`.

One row a figure, window and service. Windows: `whole`, `week_1`, `week_2`, ..., and `stage_<name>`; services: each by
name, and `all`. `value` is the median over replications at stated prices; `low` and `high` are the 10th and 90th
percentiles over replications, each with its own draw of profile error, arrivals, lengths and uncertain prices. `trust`
is the weakest rung of the profiles behind the figure: measured, interpolated, extrapolated or estimated. A figure that
is not defined in a window (the cost of no token) is null. Counts stand for the whole factory.
"""


def scenario_schema() -> dict[str, Any]:
    """JSON Schema of a scenario file."""
    return Scenario.model_json_schema()


def scenario_reference() -> str:
    """Markdown: one section a record, from the scenario down, each key with type, default and meaning."""
    schema = scenario_schema()
    return "\n".join([_HEAD, *(_section(*item, schema["$defs"]) for item in _records(schema))])


def record_reference(name: str) -> str:
    """Markdown of one record, e.g. "Demand"; ScenarioError names the closest where there is none."""
    schema = scenario_schema()
    found = {item[0]: item for item in _records(schema)}
    by_lower = {record.lower(): record for record in found}
    if name.lower() not in by_lower:
        raise ScenarioError(f"'{name}' is no part of the schema{closest(name, found)}")
    return _section(*found[by_lower[name.lower()]], schema["$defs"])


def figures_reference() -> str:
    """Markdown: every figure with its unit and meaning. A figure without a meaning is a KeyError."""
    rows = [f"| `{name}` | {unit} | {FIGURES[name]} |" for name, unit in UNITS.items()]
    return "\n".join([_FIGURES_HEAD, "| figure | unit | meaning |", "| --- | --- | --- |", *rows, ""])


def _records(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(name, path in a scenario file, schema) of every record in reading order; each once, where it is first used."""
    records, seen = schema["$defs"], {"Scenario"}

    def below(name: str, path: str, record: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        yield name, path, record
        for key, value in record.get("properties", {}).items():
            for child, place in _children(value, f"{path}.{key}" if path else key):
                if child not in seen:
                    seen.add(child)
                    yield from below(child, place, records[child])

    yield from below("Scenario", "", schema)


def _children(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """(record, path) of every record that a property can hold."""
    if not isinstance(node, dict):
        return
    if "$ref" in node:
        yield node["$ref"].rsplit("/", 1)[-1], path
    for option in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _children(option, path)
    yield from _children(node.get("items"), f"{path}.N")
    for value in _by_name(node):
        yield from _children(value, f"{path}.NAME")


def _by_name(node: Mapping[str, Any]) -> list[Any]:
    """Schemas of the values of a mapping."""
    more = node.get("additionalProperties")
    return [*node.get("patternProperties", {}).values(), *([more] if isinstance(more, dict) else [])]


def _section(name: str, path: str, record: Mapping[str, Any], records: Mapping[str, Any]) -> str:
    lines = [f"## {name}", ""]
    if path:
        lines += [f"`{path}`", ""]
    lines += [_prose(record.get("description", "")), ""]
    if properties := record.get("properties"):
        needed = set(record.get("required", ()))
        lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for key, value in properties.items():
            cells = (f"`{key}`", _type(value), "needed" if key in needed else _default(value), _meaning(value, records))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _prose(text: str) -> str:
    """A docstring as Markdown: single backticks, and indented blocks after `::` fenced."""
    text = text.replace("``", "`")
    return re.sub(r"::\n\n((?:    .*\n?|\n(?=    ))+)", _fenced, text).strip()


def _fenced(match: re.Match) -> str:
    block = "\n".join(line[4:] for line in match.group(1).rstrip().split("\n"))
    return f":\n\n```\n{block}\n```\n"


def _meaning(node: Mapping[str, Any], records: Mapping[str, Any]) -> str:
    """What a key means: its own docstring, else that of the record that it holds, else the kind that it names."""
    text = node.get("description", "")
    if not text and "const" in node:
        text = "says which of the records this is"
    if not text:
        text = next((records[child].get("description", "") for child, _ in _children(node, "")), "")
    return " ".join(text.split("\n\n")[0].replace("``", "`").split())


def _default(node: Mapping[str, Any]) -> str:
    if "default" not in node:
        return "its own" if "$ref" in node else "none"
    value = node["default"]
    if isinstance(value, dict) and value:
        return "its own"
    if value is None or value in ({}, [], ""):
        return "none"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(node: Any) -> str:
    if node is True or not node:
        return "anything"
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    options = [option for option in (*node.get("anyOf", ()), *node.get("oneOf", ())) if option.get("type") != "null"]
    if options:
        return " or ".join(dict.fromkeys(map(_type, options)))
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    kind = node.get("type")
    if kind in ("number", "integer"):
        return {"number": "number", "integer": "whole number"}[kind] + _range(node)
    if kind == "string":
        return {"date": "date", "date-time": "moment"}.get(
            node.get("format", ""), "name" if "pattern" in node else "text"
        )
    if kind == "array":
        return f"list of {_type(node.get('items'))}"
    if kind == "object":
        values = _by_name(node)
        return f"{_type(values[0])} by name" if values else "mapping"
    return {"boolean": "true or false"}.get(kind, str(kind))


def _range(node: Mapping[str, Any]) -> str:
    """Limits of a number, e.g. " 0 to 1", " > 0"; limits too large to matter are left out."""
    least, above = node.get("minimum"), node.get("exclusiveMinimum")
    most, below = node.get("maximum"), node.get("exclusiveMaximum")
    if below is not None and below >= 2**31:
        below = None
    if least is not None and most is not None:
        return f" {least:g} to {most:g}"
    signs = ((">", above), ("≥", least), ("≤", most), ("<", below))
    said = [f"{sign} {value:g}" for sign, value in signs if value is not None]
    return f" {' and '.join(said)}" if said else ""
