"""Rows of `energy_llm.csv` as arrays: the architecture, the work of a step, and what was measured.

Nothing measured (ITL, throughput, power, energy) enters a feature: a row to be predicted has the same features. The
batch is `max_num_seqs` bounded by the KV cache, not the measured mean batch. Input lengths are not published: one
length a task is fitted beside the rest.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from factory_sim.errors import MeasurementError, ScenarioError, closest
from factory_sim.inputs import catalog
from factory_sim.inputs.catalog import Gpu, ModelSpec
from factory_sim.model.step_time import WEIGHT_BYTES
from factory_sim.units import BILLION

TASKS = ("lm-arena-chat", "gpqa", "sourcegraph-fim", "image-chat", "video-chat")
PRECISIONS = {"bfloat16": "bf16", "bf16": "bf16", "float16": "bf16", "fp16": "bf16", "fp8": "fp8", "mxfp4": "mxfp4"}
PRECISIONS |= {"fp4": "fp4", "nvfp4": "fp4", "int8": "int8", "int4": "int4", "w4a16": "int4", "awq": "int4"}
PRECISIONS |= {"gptq": "int4", "w8a8": "fp8", "w8a16": "int8"}


@dataclass(frozen=True)
class Architecture:
    """What a step of one model reads and computes; bytes are at 16 bit."""

    name: str
    family: str
    layers: int
    hidden_size: int
    kv_heads: int
    moe_layers: int
    experts: int
    experts_per_token: int
    params_always_read: float
    params_active: float
    params_total: float
    params_per_expert: float
    kv_bytes_per_token: float
    """Full-attention layers, 16 bit."""
    window_bytes_per_token: float
    """Layers that attend to a window, 16 bit."""
    window_tokens: int
    state_bytes_per_sequence: float
    """Recurrent state of state-space layers, 32 bit."""
    known: bool
    """False where shapes are guessed from the numbers of parameters alone."""


@cache
def _extra() -> dict[str, dict[str, str]]:
    path = files("factory_sim.data").joinpath("measurements", "energy_models.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name.lower(): row for row in rows for name in (row["model"], *row["aliases"].split(";"))}


def _of_spec(spec: ModelSpec) -> Architecture:
    head_dim = spec.head_dim or 0
    window_layers = spec.layers - spec.full_attention_layers if spec.sliding_window_tokens else 0
    return Architecture(
        name=spec.name,
        family=_family(spec.name),
        layers=spec.layers,
        hidden_size=spec.hidden_size,
        kv_heads=1 if spec.latent else spec.kv_heads,
        moe_layers=spec.moe_layers,
        experts=spec.experts,
        experts_per_token=spec.experts_per_token,
        params_always_read=spec.params_always_read,
        params_active=spec.params_active,
        params_total=spec.params_total,
        params_per_expert=spec.params_per_expert,
        kv_bytes_per_token=2.0 * spec.kv_elements_per_token,
        window_bytes_per_token=2.0 * window_layers * 2 * spec.kv_heads * head_dim,
        window_tokens=spec.sliding_window_tokens,
        state_bytes_per_sequence=0.0,
        known=True,
    )


def _of_row(row: dict[str, str]) -> Architecture:
    per_layer = 2.0 * 2 * int(row["kv_heads"]) * int(row["head_dim"])
    return Architecture(
        name=row["model"],
        family=_family(row["model"]),
        layers=int(row["layers"]),
        hidden_size=int(row["hidden_size"]),
        kv_heads=int(row["kv_heads"]),
        moe_layers=0,
        experts=0,
        experts_per_token=0,
        params_always_read=float(row["params_always_read_b"]) * BILLION,
        params_active=float(row["params_active_b"]) * BILLION,
        params_total=float(row["params_total_b"]) * BILLION,
        params_per_expert=0.0,
        kv_bytes_per_token=per_layer * int(row["full_attention_layers"]),
        window_bytes_per_token=per_layer * int(row["window_layers"]),
        window_tokens=int(row["window_tokens"]),
        state_bytes_per_sequence=4.0 * float(row["state_elements_per_sequence"]),
        known=True,
    )


def _family(name: str) -> str:
    return name.lower().split("-")[0].rstrip("0123456789.")


def _of_parameters(name: str, total: float, active: float) -> Architecture:
    """Shapes of an unknown model from its parameters alone, by those of the nearest known model in both."""
    known = [_of_spec(catalog.model(each)) for each in catalog.models()]
    sparse = total > 1.3 * active
    peers = [each for each in known if bool(each.experts) == sparse]
    near = min(peers, key=lambda a: np.log(a.params_total / total) ** 2 + np.log(a.params_active / active) ** 2)
    scale = total / near.params_total
    return Architecture(
        **{
            **near.__dict__,
            "name": name,
            "family": _family(name),
            "params_always_read": near.params_always_read * active / near.params_active,
            "params_active": active,
            "params_total": total,
            "params_per_expert": near.params_per_expert * scale,
            "known": False,
        }
    )


@cache
def architecture(model: str, total_billion: float = 0.0, active_billion: float = 0.0) -> Architecture:
    """Return the shapes of a model by name; of an unknown one from its total and active parameters (billions).

    Raises MeasurementError where neither name nor parameters are known.
    """
    try:
        return _of_spec(catalog.model(model))
    except ScenarioError as error:
        bare = model.lower()
        for name in (bare, bare.removesuffix("-fp8"), bare.split("/")[-1], bare.split("/")[-1].removesuffix("-fp8")):
            if name in _extra():
                return _of_row(_extra()[name])
        if total_billion > 0 and active_billion > 0:
            return _of_parameters(model.split("/")[-1], total_billion * BILLION, active_billion * BILLION)
        raise MeasurementError(f"{error}; its parameters are not given either") from None


@dataclass(frozen=True)
class EnergyRows:
    """Features of n rows; arrays of shape (n,) unless said otherwise."""

    architectures: tuple[Architecture, ...]
    gpus: tuple[Gpu, ...]
    precision: tuple[str, ...]
    task: np.ndarray
    """int: index into `TASKS`."""
    n_gpus: np.ndarray
    expert_parallel: np.ndarray
    """bool: experts spread over GPUs whole."""
    max_sequences: np.ndarray
    osl: np.ndarray
    """Mean output tokens."""
    blackwell: np.ndarray
    """bool: of the B200 family; others follow H100."""
    facts: dict[str, np.ndarray]
    """Architecture figures and peaks as arrays, see `_facts`."""

    def take(self, keep: np.ndarray) -> "EnergyRows":
        """Return the rows at the (integer or boolean) index `keep`."""
        at = np.arange(len(self.task))[keep]
        return EnergyRows(
            **{
                name: tuple(each[i] for i in at) if isinstance(each, tuple) else
                {key: values[at] for key, values in each.items()} if isinstance(each, dict) else each[at]
                for name, each in self.__dict__.items()
            }
        )  # fmt: skip


REQUIRED = ("model", "gpu", "n_gpus", "weight_precision", "task", "max_num_seqs", "avg_output_tokens")


def check_row(row: dict) -> tuple[Architecture, Gpu, str]:
    """Return architecture, GPU and precision of one row.

    Raises MeasurementError or ScenarioError that names the value which is not known, absent or not positive.
    """
    for name in ("n_gpus", "max_num_seqs", "avg_output_tokens"):
        if _positive(row[name]) == 0.0:
            raise MeasurementError(f"{name} '{row[name]}' is not a positive number")
    precision = PRECISIONS.get(str(row["weight_precision"]).lower())
    if precision is None:
        raise MeasurementError(
            f"weight_precision '{row['weight_precision']}' is not known"
            f"{closest(str(row['weight_precision']), PRECISIONS)}"
        )
    if row["task"] not in TASKS:
        raise MeasurementError(f"task '{row['task']}' is not known{closest(str(row['task']), TASKS)}")
    total, active = _positive(row.get("total_params_billion")), _positive(row.get("activated_params_billion"))
    return architecture(str(row["model"]), total, active), catalog.gpu(str(row["gpu"])), precision


def energy_rows(table) -> EnergyRows:
    """Return the features of all rows of a table (a DataFrame) with the columns `REQUIRED` of `energy_llm.csv`.

    Raises MeasurementError or ScenarioError, see `check_row`.
    """
    architectures, gpus, precisions = zip(*(check_row(row) for row in table.to_dict("records")))
    n_gpus = table["n_gpus"].to_numpy(float)
    ep = [_positive(value) for value in table["ep"]] if "ep" in table.columns else np.ones(len(table))
    return EnergyRows(
        architectures=architectures,
        gpus=gpus,
        precision=precisions,
        task=np.array([TASKS.index(name) for name in table["task"]]),
        n_gpus=n_gpus,
        expert_parallel=np.asarray(ep) > 1,
        max_sequences=table["max_num_seqs"].to_numpy(float),
        osl=table["avg_output_tokens"].to_numpy(float),
        blackwell=np.array([_newer(gpu) for gpu in gpus]),
        facts=_facts(architectures, gpus, precisions, n_gpus),
    )


def _newer(gpu: Gpu) -> bool:
    """True for GPUs nearer to B200 than to H100 in bandwidth."""
    old, new = (catalog.gpu(name).memory_bandwidth_bytes_per_s for name in ("h100", "b200"))
    return gpu.memory_bandwidth_bytes_per_s > (old * new) ** 0.5


def _positive(value) -> float:
    """The value as a float where it is a finite positive number, else 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if np.isfinite(number) and number > 0 else 0.0


def _facts(architectures, gpus, precisions, n_gpus) -> dict[str, np.ndarray]:
    """Architecture and hardware as arrays: bytes of one GPU's share, FLOPs, peaks."""
    names = (
        "layers", "hidden_size", "kv_heads", "moe_layers", "experts", "experts_per_token", "params_always_read",
        "params_active", "params_per_expert", "kv_bytes_per_token", "window_bytes_per_token", "window_tokens",
        "state_bytes_per_sequence", "known",
    )  # fmt: skip
    facts = {name: np.array([float(getattr(a, name)) for a in architectures]) for name in names}
    # gpt-oss keeps all but its routed experts in 16 bit; NVFP4 and INT4 checkpoints of the tables are not of that kind.
    facts["expert_bytes"] = np.array([WEIGHT_BYTES["int4" if p == "mxfp4" else p] for p in precisions])
    facts["always_bytes"] = np.array([WEIGHT_BYTES["bf16" if p == "mxfp4" else p] for p in precisions])
    facts["bandwidth"] = np.array([gpu.memory_bandwidth_bytes_per_s for gpu in gpus])
    facts["peak_bf16"] = np.array([gpu.peak("bf16") for gpu in gpus])
    facts["fp8"] = np.array([float(p == "fp8") for p in precisions])
    # Meta's fp8 checkpoints scale whole rows; those of the other makers scale blocks, with kernels of their own.
    block = [p == "fp8" and a.family != "llama" for p, a in zip(precisions, architectures)]
    facts["block_fp8"] = np.array(block, dtype=float)
    facts["mxfp4"] = np.array([float(p in ("mxfp4", "fp4")) for p in precisions])
    facts["board_power_w"] = np.array([gpu.tdp_w for gpu in gpus])
    facts["kv_split"] = np.minimum(n_gpus, facts["kv_heads"])
    return facts
