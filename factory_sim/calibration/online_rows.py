"""Rows of `online_vllm.csv` as arrays: vLLM servers under a constant rate of repeated prompts.

100 prompts (10 groups of 10, as the load generator reports) are asked over and over, so nearly every prompt is in the
prefix cache: what is computed of it is the last, unfinished KV block. The length of that rest is fitted.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from factory_sim.errors import FactorySimError, MeasurementError, closest
from factory_sim.inputs import catalog
from factory_sim.inputs.catalog import Gpu, ModelSpec
from factory_sim.model.step_time import WEIGHT_BYTES, WorkerFacts, facts_at_peak, kv_bytes_per_token

PRECISIONS = {"fp16": "bf16", "bf16": "bf16", "bfloat16": "bf16", "float16": "bf16", "fp8": "fp8", "int8": "int8"}
PRECISIONS |= {"int4": "int4", "w4a16": "int4", "awq": "int4", "gptq": "int4", "fp4": "fp4", "nvfp4": "fp4"}
PRECISIONS |= {"w8a8": "fp8", "w8a16": "int8", "mxfp4": "fp4"}
REQUIRED = (
    "model", "gpu", "tp", "precision", "workload", "request_rate_per_s", "system_prompt_tokens", "question_tokens",
    "requested_output_tokens",
)  # fmt: skip
DEFAULTS = {"max_num_batched_tokens": 2048.0, "max_num_seqs": 128.0, "max_model_len": 4096.0}
DEFAULTS |= {"gpu_memory_utilization": 0.9, "stage_duration_s": 600.0}
"""Documented settings of the runs (README of the table), taken where a row leaves them empty."""

MOST_REQUESTS = 2e6
"""Requests of one experiment beyond which a row is refused: the longest published has 12,000."""
MOST_TOKENS = 1e6
"""Tokens of one request or step beyond which a row is refused."""


@dataclass(frozen=True)
class OnlineRows:
    """Features of n rows; arrays of shape (n,)."""

    models: tuple[ModelSpec, ...]
    gpus: tuple[Gpu, ...]
    precision: tuple[str, ...]
    facts: WorkerFacts
    """Seconds at peak, each field an array."""
    tensor: np.ndarray
    """GPUs of the server."""
    rate_per_s: np.ndarray
    """NaN where it was not published."""
    isl: np.ndarray
    osl: np.ndarray
    duration_s: np.ndarray
    max_sequences: np.ndarray
    max_batched_tokens: np.ndarray
    max_context_tokens: np.ndarray
    memory_utilisation: np.ndarray

    def take(self, keep) -> "OnlineRows":
        """Return the rows at the (integer or boolean) index `keep`."""
        at = np.arange(len(self.isl))[keep]
        values = {
            name: tuple(each[i] for i in at) if isinstance(each, tuple) else each[at]
            for name, each in self.__dict__.items()
            if name != "facts"
        }
        facts = WorkerFacts(**{field.name: getattr(self.facts, field.name)[at] for field in fields(WorkerFacts)})
        return OnlineRows(facts=facts, **values)


def server_facts(model: ModelSpec, gpu: Gpu, precision: str, tensor: int) -> WorkerFacts:
    """Seconds at peak of one vLLM server; its KV cache is 16 bit whatever the weights (vLLM's default).

    4-bit integer weights are computed in 16 bit: `facts_at_peak` of bf16 with the weights' bytes shrunk.
    """
    if precision == "int4":
        facts = facts_at_peak(model, gpu, "bf16", tensor, 1, False)
        share = WEIGHT_BYTES["int4"] / WEIGHT_BYTES["bf16"]
        return replace(facts, weights_s=facts.weights_s * share, experts_s=facts.experts_s * share)
    facts = facts_at_peak(model, gpu, precision, tensor, 1, False)
    wide = kv_bytes_per_token(model, "bf16") / kv_bytes_per_token(model, precision)
    return replace(facts, kv_s=facts.kv_s * wide, handoff_s=facts.handoff_s * wide)


def check_row(row: dict) -> tuple[ModelSpec, Gpu, str]:
    """Return model, GPU and precision of one row; MeasurementError or ScenarioError names what is wrong with it."""
    for name in ("tp", "system_prompt_tokens", "question_tokens", "requested_output_tokens"):
        if not _number(row[name]) > 0:
            raise MeasurementError(f"{name} '{row[name]}' is not a positive number")
    rate = _number(row["request_rate_per_s"])
    if not (np.isnan(rate) or (np.isfinite(rate) and rate > 0)):
        raise MeasurementError(f"request_rate_per_s '{row['request_rate_per_s']}' is not a positive number")
    duration_s = _number(row.get("stage_duration_s", np.nan))
    if rate * (duration_s if duration_s > 0 else DEFAULTS["stage_duration_s"]) > MOST_REQUESTS:
        raise MeasurementError(f"request_rate_per_s times stage_duration_s is over {MOST_REQUESTS:,.0f} requests")
    tokens = sum(_number(row[name]) for name in ("system_prompt_tokens", "question_tokens", "requested_output_tokens"))
    context = _number(row.get("max_model_len", np.nan))
    if tokens > (context if context > 0 else MOST_TOKENS):
        raise MeasurementError(f"prompt and output have {tokens:,.0f} tokens, more than the server takes")
    for name in ("max_num_batched_tokens", "max_num_seqs"):
        if _number(row.get(name, np.nan)) > MOST_TOKENS:
            raise MeasurementError(f"{name} '{row[name]}' is over {MOST_TOKENS:,.0f}")
    precision = PRECISIONS.get(str(row["precision"]).lower())
    if precision is None:
        raise MeasurementError(
            f"precision '{row['precision']}' is not known{closest(str(row['precision']), PRECISIONS)}"
        )
    return catalog.model(str(row["model"])), catalog.gpu(str(row["gpu"])), precision


def reason(row: dict) -> str:
    """Why a row cannot be predicted; empty if it can."""
    try:
        check_row(row)
    except FactorySimError as error:
        return str(error)
    return ""


def _number(value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def online_rows(table) -> OnlineRows:
    """Return the features of all rows of a table (a DataFrame) with the columns `REQUIRED`.

    Raises MeasurementError for missing columns, and what `check_row` raises.
    """
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise MeasurementError(f"online table: missing columns: {', '.join(missing)}")
    models, gpus, precisions = zip(*(check_row(row) for row in table.to_dict("records")))

    def column(name: str) -> np.ndarray:
        return np.array([_number(value) for value in table[name]])

    tensor = column("tp").astype(int)
    facts = [server_facts(m, g, p, int(n)) for m, g, p, n in zip(models, gpus, precisions, tensor)]

    def setting(name: str) -> np.ndarray:
        values = column(name) if name in table.columns else np.full(len(table), np.nan)
        return np.where(np.isfinite(values) & (values > 0), values, DEFAULTS[name])

    isl, osl = column("system_prompt_tokens") + column("question_tokens"), column("requested_output_tokens")
    return OnlineRows(
        models=models,
        gpus=gpus,
        precision=precisions,
        facts=WorkerFacts(
            **{f.name: np.array([getattr(each, f.name) for each in facts], dtype=float) for f in fields(WorkerFacts)}
        ),
        tensor=tensor.astype(float),
        rate_per_s=column("request_rate_per_s"),
        isl=isl,
        osl=osl,
        duration_s=setting("stage_duration_s"),
        max_sequences=setting("max_num_seqs"),
        max_batched_tokens=setting("max_num_batched_tokens"),
        max_context_tokens=np.maximum(setting("max_model_len"), isl + osl),
        memory_utilisation=setting("gpu_memory_utilization"),
    )


def model_on_gpu(rows: OnlineRows) -> list[str]:
    """Name of each row's model, GPU and precision."""
    return [f"{m.name}|{g.name}|{p}" for m, g, p in zip(rows.models, rows.gpus, rows.precision)]
