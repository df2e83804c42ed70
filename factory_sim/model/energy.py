"""Watts of one GPU as a function of what it does, and of the host that comes with it.

While an engine runs, a GPU draws a floor and, on top, energy for each byte read and each operation done::

    demand = floor + memory * u_memory + compute[precision] * u_compute       (fractions of board power)
    power  = board power * (demand^-k + ceiling^-k)^(-1/k)

with ``u_memory`` the bytes moved over peak bandwidth and ``u_compute`` the FLOPs done over the dense bf16 peak, both
means over the time in which the worker is busy. The second line is a soft minimum: measured power bends over well
before the board limit. Without load the GPU draws its idle power.

`calibration/energy.py` fits floor, memory, compute and k to measured power under decode load (H100, B200). What the
tables do not hold is an estimate and says so: idle power, prefill-only power (the formula beyond its data), and every
other GPU (the curve of a measured one, as fractions of board power, bandwidth and peak).
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from factory_sim.errors import ProfileError, closest
from factory_sim.inputs import catalog
from factory_sim.inputs.reliability import operation
from factory_sim.model.step_time import WorkerFacts, experts_touched

PRECISION_CLASS = {"bf16": "bf16", "fp16": "bf16", "fp8": "fp8", "int8": "fp8", "fp4": "fp4", "int4": "bf16"}
"""Which compute coefficient a weight precision uses: 4-bit integer weights are computed in 16 bit."""


@dataclass(frozen=True)
class PowerCurve:
    """Power of one kind of GPU against load; see the module for the formula."""

    gpu: str
    board_power_w: float
    host_share_w: float
    """Host and network share that comes with one GPU at board power, W; see `host_power_w`."""
    floor: float
    """Fraction of board power while an engine runs and moves nothing."""
    memory: float
    """Fraction of board power at full memory bandwidth, before the soft minimum."""
    experts: float
    """Power of a byte of routed experts over that of other weights."""
    experts_spread: float
    """The same where experts are spread over GPUs whole (expert parallelism)."""
    kv: float
    """Power of a byte of KV cache over that of other weights."""
    compute: dict[str, float]
    """Fraction of board power at the dense bf16 peak, by precision class, before the soft minimum."""
    ceiling: float
    """Largest fraction of board power."""
    sharpness: float
    """Exponent k of the soft minimum."""
    idle: float
    """Fraction of board power without load (an estimate)."""
    band: tuple[float, float]
    """P10 and P90 of true power over predicted power under load."""
    idle_band: tuple[float, float]
    """Low and high of true idle power over `idle`."""
    trust: str
    """"interpolated" for a measured kind of GPU, "estimated" for a kind that borrows another's curve."""
    source: str


def busy_fraction_of_board_power(floor, memory, compute, ceiling, sharpness, u_memory, u_compute):
    """Power of a busy GPU as a fraction of board power (the module's formula); arguments broadcast."""
    demand = floor + memory * np.asarray(u_memory) + compute * np.asarray(u_compute)
    return (demand**-sharpness + ceiling**-sharpness) ** (-1.0 / sharpness)


@cache
def _rows(name: str) -> list[dict[str, str]]:
    with files("factory_sim.data").joinpath("power", name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def power_curve(gpu: str) -> PowerCurve:
    """Return the power curve of a GPU by name or alias.

    Raises ScenarioError for an unknown GPU and ProfileError for one that the table `data/power/gpus.csv` lacks.
    """
    facts = catalog.gpu(gpu)
    gpus = {row["gpu"]: row for row in _rows("gpus.csv")}
    if facts.name not in gpus:
        raise ProfileError(f"no power curve for GPU '{facts.name}'{closest(facts.name, sorted(gpus))}")
    own = gpus[facts.name]
    lender = own["curve_of"] or facts.name
    fitted = {row["item"]: row for row in _rows("power_curves.csv") if row["gpu"] in ("all", lender)}
    band = fitted["band_other_gpu" if own["curve_of"] else "band"]
    value = {item: float(row["value"]) for item, row in fitted.items()}
    idle = float(own["idle"])
    return PowerCurve(
        gpu=facts.name,
        board_power_w=facts.tdp_w,
        host_share_w=facts.host_share_w,
        floor=value["floor"],
        memory=value["memory"],
        experts=value["experts"],
        experts_spread=value["experts"] * value["experts_expert_parallel"],
        kv=value["kv"],
        compute={p: value["compute"] * value.get(f"compute_{p}", 1.0) for p in ("bf16", "fp8", "fp4")},
        ceiling=value["ceiling"],
        sharpness=value["sharpness"],
        idle=idle,
        band=(float(band["low"]), float(band["high"])),
        idle_band=(float(own["idle_low"]) / idle, float(own["idle_high"]) / idle),
        trust="estimated" if own["curve_of"] else "interpolated",
        source=own["source"] if own["curve_of"] else fitted["floor"]["source"],
    )


def gpu_power_w(curve: PowerCurve, busy_fraction, memory_utilisation, compute_utilisation, precision: str = "bf16"):
    """Mean watts of one GPU over a window; arrays broadcast.

    `busy_fraction`: share of the window in which steps ran. `memory_utilisation` and `compute_utilisation`: bytes and
    FLOPs of the *whole* window over what peak bandwidth and the dense bf16 peak could do in it; they are spread over
    the busy part. `precision`: of the weights (bf16, fp8, fp4, int8, int4).
    """
    if precision not in PRECISION_CLASS:
        raise ProfileError(f"precision '{precision}' is not known{closest(precision, sorted(PRECISION_CLASS))}")
    busy = np.clip(np.asarray(busy_fraction, dtype=float), 0.0, 1.0)
    share = np.maximum(busy, 1e-12)
    running = busy_fraction_of_board_power(
        curve.floor,
        curve.memory,
        curve.compute[PRECISION_CLASS[precision]],
        curve.ceiling,
        curve.sharpness,
        np.asarray(memory_utilisation) / share,
        np.asarray(compute_utilisation) / share,
    )
    return curve.board_power_w * (busy * running + (1.0 - busy) * curve.idle)


def gpu_power_band_w(curve: PowerCurve, power_w, busy_fraction):
    """Return (low, high) watts around `power_w`: the band under load for the busy part, that of idle for the rest."""
    busy = np.clip(np.asarray(busy_fraction, dtype=float), 0.0, 1.0)
    idle_w = curve.board_power_w * curve.idle * (1.0 - busy)
    running_w = np.asarray(power_w) - idle_w
    low, high = (running_w * curve.band[side] + idle_w * curve.idle_band[side] for side in (0, 1))
    return low, np.minimum(high, curve.board_power_w)


def host_power_w(curve: PowerCurve, power_w):
    """Watts of the share of host and network cards that comes with one GPU while that draws `power_w`.

    The catalogue's host share is drawn at board power. A part of it (operations.csv: host_idle_share) is drawn
    whatever the load; the rest, fans, losses of power supplies and processors, follows the GPU's power.
    """
    idle = operation("host_idle_share")
    return curve.host_share_w * (idle + (1.0 - idle) * np.asarray(power_w) / curve.board_power_w)


def it_power_w(curve: PowerCurve, power_w):
    """Watts of one GPU that draws `power_w` with its share of host and network cards."""
    return np.asarray(power_w) + host_power_w(curve, power_w)


@dataclass(frozen=True)
class WindowLoad:
    """What one kind of worker did in windows of time: arrays of one shape (or scalars), differences of counters."""

    duration_s: np.ndarray
    """Seconds of worker time in the window: wall clock times the workers that were up."""
    busy_s: np.ndarray
    """Seconds of it in which steps ran."""
    steps: np.ndarray
    """Steps."""
    decode_tokens: np.ndarray
    """Tokens put through steps for decoding: sequences times tokens a sequence and step."""
    prefill_tokens: np.ndarray
    """Prompt tokens computed (cached ones cost nothing)."""
    kv_tokens: np.ndarray
    """Cached tokens attended to by decoding sequences, summed over steps: time of the KV term / `kv_s`."""
    pairs: np.ndarray
    """(query, key) pairs of prefill: time of the pair term / `pair_s`."""
    decode_only_steps: np.ndarray = 0.0
    """Steps without a prefill token (their weights are read for output alone); only the split by cause reads it."""


@dataclass(frozen=True)
class _Demand:
    """Terms of power of one GPU, fractions of board power times seconds, over windows."""

    weights: np.ndarray
    kv: np.ndarray
    decode: np.ndarray
    prefill: np.ndarray


def _demand(curve: PowerCurve, facts: WorkerFacts, load: WindowLoad, precision: str, experts_spread: bool) -> _Demand:
    if precision not in PRECISION_CLASS:
        raise ProfileError(f"precision '{precision}' is not known{closest(precision, sorted(PRECISION_CLASS))}")
    gpu = catalog.gpu(curve.gpu)
    steps = np.asarray(load.steps, dtype=float)
    tokens = np.asarray(load.decode_tokens, dtype=float) + load.prefill_tokens
    experts = curve.experts_spread if experts_spread else curve.experts
    experts_s = facts.experts_s * experts_touched(facts, tokens / np.maximum(steps, 1e-12))
    compute = curve.compute[PRECISION_CLASS[precision]]
    token_s = facts.flops_s * gpu.peak(precision) / gpu.peak("bf16")
    return _Demand(
        weights=curve.memory * steps * (facts.weights_s + experts * experts_s),
        kv=curve.memory * curve.kv * np.asarray(load.kv_tokens, dtype=float) * facts.kv_s,
        decode=compute * np.asarray(load.decode_tokens, dtype=float) * token_s,
        prefill=compute * (load.prefill_tokens * token_s + np.asarray(load.pairs, dtype=float) * facts.pair_s),
    )


def window_power_w(
    curve: PowerCurve, facts: WorkerFacts, load: WindowLoad, precision: str, experts_spread: bool = False
):
    """Mean watts of one GPU of a worker in each window: (value, low, high), arrays of the shape of `load`.

    `facts`: seconds at peak of the worker (`step_time.facts_at_peak`); `precision`: of its weights; `experts_spread`:
    expert parallelism. Experts are counted at the mean tokens of a step. A window without busy time draws idle power.
    """
    demand = _demand(curve, facts, load, precision, experts_spread)
    duration_s = np.maximum(np.asarray(load.duration_s, dtype=float), 1e-12)
    busy_s = np.minimum(np.asarray(load.busy_s, dtype=float), duration_s)
    running = busy_fraction_of_board_power(
        curve.floor,
        1.0,
        1.0,
        curve.ceiling,
        curve.sharpness,
        (demand.weights + demand.kv) / np.maximum(busy_s, 1e-12),
        (demand.decode + demand.prefill) / np.maximum(busy_s, 1e-12),
    )
    busy = busy_s / duration_s
    power_w = curve.board_power_w * (busy * running + (1.0 - busy) * curve.idle)
    low_w, high_w = gpu_power_band_w(curve, power_w, busy)
    return power_w, low_w, high_w


def energy_split_j(
    curve: PowerCurve, facts: WorkerFacts, load: WindowLoad, precision: str, experts_spread: bool = False
):
    """Joules of one GPU in each window by cause: (input, output, idle); they add up to watts times duration.

    Prefill tokens and pairs belong to input, KV and decoded tokens to output. Weights (and with them the floor and the
    bend of the curve) belong to output in decode-only steps and are shared in proportion to the rest in mixed ones.
    """
    power_w, _, _ = window_power_w(curve, facts, load, precision, experts_spread)
    demand = _demand(curve, facts, load, precision, experts_spread)
    total_j = power_w * np.asarray(load.duration_s, dtype=float)
    idle_s = np.maximum(np.asarray(load.duration_s, dtype=float) - load.busy_s, 0.0)
    busy_j = np.maximum(total_j - curve.board_power_w * curve.idle * idle_s, 0.0)
    own_output = demand.kv + demand.decode
    own = own_output + demand.prefill
    mixed = 1.0 - np.clip(load.decode_only_steps / np.maximum(load.steps, 1e-12), 0.0, 1.0)
    mixed_share = np.where(own > 0, demand.prefill / np.maximum(own, 1e-300), 0.0)
    shared = demand.weights + curve.floor * np.asarray(load.busy_s, dtype=float)
    whole = np.maximum(own + shared, 1e-300)
    input_j = busy_j * (demand.prefill + shared * mixed * mixed_share) / whole
    return input_j, busy_j - input_j, total_j - busy_j
