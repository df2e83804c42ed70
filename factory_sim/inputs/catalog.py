"""GPUs and models: facts from published tables, in base units, each with its source.

``data/catalog/gpu_facts.csv`` keeps every source; the row marked ``chosen`` is the one used where sources disagree
(the rule stands in ``data/catalog/README.md``). A value that nobody published is a ``guess`` row with a range.
"""

import csv
import re
from functools import cache
from importlib.resources import files
from typing import Literal

from factory_sim.errors import ScenarioError, closest
from factory_sim.records import Record
from factory_sim.units import BILLION, GIGABYTE_BYTES, MILLION, TERABYTE_BYTES, TERAFLOP

FactBasis = Literal["read", "secondary", "estimate", "computed", "measured", "guess"]

_KILOWATT_W = 1e3
_TO_BASE = {
    "TFLOP/s": TERAFLOP,
    "TB/s": TERABYTE_BYTES,
    "GB/s": GIGABYTE_BYTES,
    "GB": GIGABYTE_BYTES,
    "W": 1.0,
    "kW/GPU": _KILOWATT_W,
    "GPUs": 1.0,
    "1": 1.0,
}
_PEAKS = {"bf16": "dense_bf16", "fp8": "dense_fp8", "fp4": "dense_fp4", "int8": "dense_int8"}
_PRECISIONS = {
    "fp16": "bf16",
    "bf16": "bf16",
    "fp8": "fp8",
    "fp4": "fp4",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "int8": "int8",
}
_SELLER = re.compile(r"^(nvidia|amd|instinct|tesla|hbm\d?e?)$")
_MEMORY_GB = re.compile(r"^\d+gb$")
_NEXT_WIDER = {"fp4": ("fp4", "fp8", "bf16"), "fp8": ("fp8", "bf16"), "int8": ("int8", "bf16"), "bf16": ("bf16",)}
_FIELDS = {
    "memory_bytes": "hbm_capacity",
    "memory_bandwidth_bytes_per_s": "hbm_bandwidth",
    "scale_up_bandwidth_bytes_per_s": "scale_up_bandwidth_per_direction",
    "scale_up_domain_gpus": "scale_up_domain",
    "scale_out_bandwidth_bytes_per_s": "scale_out_bandwidth_per_direction",
    "tdp_w": "tdp",
    "gpus_per_node": "gpus_per_node",
}


class Fact(Record):
    """One published (or guessed) quantity of one GPU, in the unit of its source."""

    gpu: str
    quantity: str
    value: float | None
    unit: str
    low: float | None
    high: float | None
    chosen: bool
    as_of: str
    basis: FactBasis
    source: str
    note: str


class Gpu(Record):
    """One kind of accelerator."""

    name: str
    """Short name, as in scenarios and measurement tables: h100, b200, gb200."""
    label: str
    """Name to print."""
    memory_bytes: float
    """Memory that one GPU offers, bytes."""
    memory_bandwidth_bytes_per_s: float
    """Peak memory bandwidth, bytes/s."""
    peak_flops: dict[str, float]
    """Dense peak by precision (bf16, fp8, fp4, int8), FLOP/s; a precision that the hardware lacks is absent."""
    scale_up_bandwidth_bytes_per_s: float
    """Bandwidth to the other GPUs of the scale-up domain (NVLink, Infinity Fabric), one direction, bytes/s."""
    scale_up_domain_gpus: int
    """GPUs that share the scale-up links."""
    scale_out_bandwidth_bytes_per_s: float
    """Bandwidth of the network port of one GPU, one direction, bytes/s."""
    tdp_w: float
    """Board power limit, W."""
    host_share_w: float
    """Share of host and network cards that comes with one GPU, W (all-in IT power less board power, one vintage)."""
    gpus_per_node: int
    """GPUs of one server or tray."""
    basis: dict[str, str]
    """How each quantity is known: read, secondary, computed, guess, ..."""
    sources: dict[str, str]
    """Source of each quantity, with its date."""

    def peak(self, precision: str) -> float:
        """Dense peak FLOP/s of a precision (fp16 as bf16, nvfp4 and mxfp4 as fp4).

        A precision without hardware of its own runs at the peak of the next wider one, as engines do: fp4 weights
        on Hopper are computed in fp8 or bf16.
        """
        wanted = _PRECISIONS.get(precision.lower())
        if wanted is None:
            raise ScenarioError(f"precision '{precision}' is not known{closest(precision, sorted(_PRECISIONS))}")
        for name in _NEXT_WIDER[wanted]:
            if name in self.peak_flops:
                return self.peak_flops[name]
        raise ScenarioError(f"GPU {self.name} has no published dense peak for '{precision}'")


class ModelSpec(Record):
    """Architecture of one served model, from its published configuration."""

    name: str
    huggingface_id: str
    attention: str
    """As in the table: gqa, mla, with +slidingN, +linear, +sparseN."""
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int | None
    """Absent for MLA."""
    vocab_size: int
    full_attention_layers: int
    moe_layers: int
    experts: int
    experts_per_token: int
    params_total: float
    """Parameters."""
    params_active: float
    """Parameters used per token."""
    params_always_read: float
    """Parameters read in every step, whatever the batch."""
    params_per_expert: float
    """Parameters of one routed expert in one layer."""
    kv_elements_per_token: float
    """KV-cache elements per token over all full-attention layers."""
    attention_flops_per_token_pair: float
    """FLOPs per (query token, key token) pair over all full-attention layers."""
    max_context_tokens: int
    source: str
    note: str

    @property
    def latent(self) -> bool:
        """True for multi-head latent attention, whose KV cache tensor parallelism does not split."""
        return self.attention.startswith("mla")

    @property
    def linear_attention(self) -> bool:
        """True where all but the full-attention layers use linear attention."""
        return "+linear" in self.attention

    @property
    def sliding_window_tokens(self) -> int:
        """Window of the sliding layers (half of the layers), tokens; 0 without."""
        return _suffix_number(self.attention, "+sliding")

    @property
    def sparse_top_tokens(self) -> int:
        """Tokens that a sparse-attention query attends to at most; 0 without."""
        return _suffix_number(self.attention, "+sparse")


def _suffix_number(attention: str, mark: str) -> int:
    return int(attention.split(mark)[1].split("+")[0]) if mark in attention else 0


def _rows(name: str) -> list[dict[str, str]]:
    with files("factory_sim.data").joinpath("catalog", name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _key(name: str) -> str:
    """Spelling-free form of a name: case, spaces, underscores and the owner before a slash do not matter."""
    return name.strip().lower().replace(" ", "-").replace("_", "-")


def _number(text: str) -> float | None:
    return float(text) if text else None


@cache
def facts() -> tuple[Fact, ...]:
    """All rows of the GPU table whose value is a number, every source of every quantity, in the source's unit."""
    return tuple(
        Fact(
            gpu=row["gpu"],
            quantity=row["quantity"],
            value=_number(row["value"]),
            unit=row["unit"],
            low=_number(row["low"]),
            high=_number(row["high"]),
            chosen=row["chosen"] == "x",
            as_of=row["as_of"],
            basis=row["basis"],
            source=row["source"],
            note=row["note"],
        )
        for row in _rows("gpu_facts.csv")
        if row["unit"] != "date"
    )


@cache
def _gpu_names() -> dict[str, str]:
    names = {}
    for row in _rows("gpus.csv"):
        for alias in (row["gpu"], row["label"], *filter(None, row["aliases"].split(";"))):
            names[_key(alias)] = row["gpu"]
    return names


@cache
def gpu_name(name: str) -> str:
    """Return the short name of a GPU given by any known name; ScenarioError names the closest."""
    found = _gpu_names().get(_key(name)) or _product_name(_key(name))
    if found is None:
        raise ScenarioError(f"GPU '{name}' is not known{closest(_key(name), sorted(set(_gpu_names().values())))}")
    return found


def _product_name(key: str) -> str | None:
    """Short name of a GPU given as its driver or a data sheet does, such as `nvidia-h100-80gb-hbm3`; None if unknown.

    A size of memory belongs to the name: without it the name must be that of a GPU with as much.
    """
    told = [re.sub(r"^sxm\d?$", "sxm", part) for part in key.split("-") if not _SELLER.match(part)]
    size = next((float(part[:-2]) for part in told if _MEMORY_GB.match(part)), None)
    for parts, judged in ((told, None), ([part for part in told if not _MEMORY_GB.match(part)], size)):
        for form in (parts, [part for part in parts if part != "sxm"]):
            found = _gpu_names().get("-".join(form))
            if found and (judged is None or _has_memory(found, judged)):
                return found
    return None


def _has_memory(short: str, gigabytes: float) -> bool:
    """Whether a GPU has so much memory (7 % apart: GB or GiB); also true where its memory is not published."""
    sizes = [fact.value for fact in facts() if fact.gpu == short and fact.quantity == "hbm_capacity" and fact.value]
    return not sizes or any(abs(gigabytes / size - 1) < 0.07 for size in sizes)


@cache
def gpu(name: str) -> Gpu:
    """Return the facts of a GPU by name or alias, in base units.

    Raises ScenarioError for an unknown name (with the closest known) and for a product whose facts are incomplete.
    """
    short = gpu_name(name)
    chosen = {fact.quantity: fact for fact in facts() if fact.gpu == short and fact.chosen}
    missing = [quantity for quantity in _FIELDS.values() if quantity not in chosen]
    if missing:
        raise ScenarioError(
            f"GPU '{short}' has prices but too few published facts to simulate it; missing: {', '.join(missing)}"
        )
    used = {field: chosen[quantity] for field, quantity in _FIELDS.items()}
    peaks = {p: chosen[quantity] for p, quantity in _PEAKS.items() if quantity in chosen}
    host_share_w, used["host_share_w"] = _host_share(chosen)
    used |= {f"peak_{precision}": fact for precision, fact in peaks.items()}
    label = next(row["label"] for row in _rows("gpus.csv") if row["gpu"] == short)
    return Gpu(
        name=short,
        label=label,
        peak_flops={p: _base(fact) for p, fact in peaks.items()},
        host_share_w=host_share_w,
        basis={field: fact.basis for field, fact in used.items()},
        sources={field: _cite(fact) for field, fact in used.items()},
        **{field: _base(used[field]) for field in _FIELDS},
    )


def _host_share(chosen: dict[str, Fact]) -> tuple[float, Fact]:
    """All-in IT power less board power of the same vintage, or the guess where no all-in figure exists."""
    if "host_share" in chosen:
        return _base(chosen["host_share"]), chosen["host_share"]
    whole, board = chosen["all_in_it_power"], chosen["tdp"]
    if whole.as_of != board.as_of:
        raise ScenarioError(f"gpu_facts.csv: all-in power and board power of {whole.gpu} are of different vintages")
    return _base(whole) - _base(board), whole


def _base(fact: Fact) -> float:
    if fact.value is None:
        raise ScenarioError(f"gpu_facts.csv: the chosen row of {fact.gpu} {fact.quantity} has no value")
    return fact.value * _TO_BASE[fact.unit]


def _cite(fact: Fact) -> str:
    return f"{fact.source}, {fact.as_of}" if fact.as_of else fact.source


@cache
def gpus() -> tuple[str, ...]:
    """Names of the GPUs whose facts are complete, in the order of the table."""
    held: dict[str, set[str]] = {}
    for fact in facts():
        if fact.chosen:
            held.setdefault(fact.gpu, set()).add(fact.quantity)
    needed = set(_FIELDS.values())
    return tuple(row["gpu"] for row in _rows("gpus.csv") if needed <= held.get(row["gpu"], set()))


@cache
def _models() -> dict[str, ModelSpec]:
    found = {}
    for row in _rows("models.csv"):
        found[row["model"]] = ModelSpec(
            name=row["model"],
            huggingface_id=row["huggingface_id"],
            attention=row["attention"],
            head_dim=int(row["head_dim"]) if row["head_dim"] else None,
            params_total=float(row["params_total_b"]) * BILLION,
            params_active=float(row["params_active_b"]) * BILLION,
            params_always_read=float(row["params_always_read_b"]) * BILLION,
            params_per_expert=float(row["params_per_expert_m"]) * MILLION,
            kv_elements_per_token=float(row["kv_elements_per_token"]),
            attention_flops_per_token_pair=float(row["attention_flops_per_token_pair"]),
            max_context_tokens=int(row["max_context"]),
            source=row["source"],
            note=row["note"],
            **{
                field: int(row[field])
                for field in (
                    "layers", "hidden_size", "heads", "kv_heads", "vocab_size", "full_attention_layers",
                    "moe_layers", "experts", "experts_per_token",
                )
            },
        )  # fmt: skip
    return found


_PRECISION_TAGS = ("-fp8-dynamic", "-fp8", "-nvfp4", "-mxfp4", "-fp4", "-bf16", "-fp16", "-int8", "-awq", "-gptq")


def _model_keys(name: str) -> list[str]:
    """Spellings to look for: as given, without the owner, without a precision suffix, without an instruct suffix."""
    key = _key(name)
    keys = [key, key.split("/")[-1]]
    for tag in _PRECISION_TAGS:
        if keys[-1].endswith(tag):
            keys.append(keys[-1][: -len(tag)])
            break
    for tag in ("-instruct", "-chat", "-hf"):
        if keys[-1].endswith(tag):
            keys.append(keys[-1][: -len(tag)])
    return keys


@cache
def _model_names() -> dict[str, str]:
    names: dict[str, str] = {}
    for row in _rows("models.csv"):
        for alias in (row["model"], row["huggingface_id"], *filter(None, row["aliases"].split(";"))):
            for key in (_key(alias), _key(alias).split("/")[-1]):
                names.setdefault(key, row["model"])
    return names


@cache
def model(name: str) -> ModelSpec:
    """Return the architecture of a model by short name, published name or another table's spelling.

    Precision suffixes (``-FP8``, ``-NVFP4``) and ``-Instruct`` are ignored, since they do not change the shapes.
    Raises ScenarioError with the closest known name.
    """
    names = _model_names()
    for key in _model_keys(name):
        if key in names:
            return _models()[names[key]]
    known = {key.lower(): short for key, short in names.items()}
    match = closest(_key(name).split("/")[-1], sorted(known))
    for key, short in known.items():
        match = match.replace(f"'{key}'", f"'{short}'")
    raise ScenarioError(f"model '{name}' is not known{match}")


@cache
def models() -> tuple[str, ...]:
    """Short names of all models in the table, in its order."""
    return tuple(_models())
