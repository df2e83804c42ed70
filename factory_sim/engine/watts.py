"""Joules of a played window, worker kind by worker kind, from the power curve of its GPU."""

import numpy as np

from factory_sim.inputs import catalog
from factory_sim.model.energy import (
    PRECISION_CLASS,
    WindowLoad,
    busy_fraction_of_board_power,
    energy_split_j,
    host_power_w,
    power_curve,
    window_power_w,
)
from factory_sim.model.serving import ServingSystem, Worker
from factory_sim.model.step_time import facts_at_peak


def window_joules(system: ServingSystem, difference: dict, seconds: float) -> dict[str, float]:
    """GPU joules of all played workers over a window of `seconds`: input, output, idle and their low and high totals.

    `difference` holds the pool's counters over the window, per worker in the order of the system's workers, repeated
    for each instance.
    """
    curve = power_curve(system.gpu)
    model, gpu = catalog.model(system.model), catalog.gpu(system.gpu)
    joules = dict.fromkeys(("input_energy_j", "output_energy_j", "idle_energy_j", "low_energy_j", "high_energy_j"), 0.0)
    roles = worker_kinds(system, len(difference["busy_s"]))
    for kind, worker in enumerate(system.workers):
        facts = facts_at_peak(
            model, gpu, system.precision, worker.gpus, worker.expert_parallel, worker.data_parallel_attention
        )
        load = _load(
            system,
            worker,
            {name: np.asarray(values)[roles == kind] for name, values in difference.items() if np.ndim(values)},
            seconds,
        )
        spread = worker.expert_parallel > 1
        split = energy_split_j(curve, facts, load, system.precision, spread)
        watts = window_power_w(curve, facts, load, system.precision, spread)
        for name, part in zip(("input_energy_j", "output_energy_j", "idle_energy_j"), split):
            joules[name] += float(np.sum(part)) * worker.gpus
        for name, part in zip(("low_energy_j", "high_energy_j"), watts[1:]):
            joules[name] += float(np.sum(part)) * seconds * worker.gpus
    return joules


def worker_kinds(system: ServingSystem, n: int) -> np.ndarray:
    """Index into `system.workers` of each of a pool's `n` workers (its instances are alike)."""
    one = [kind for kind, worker in enumerate(system.workers) for _ in range(worker.count)]
    return np.tile(np.array(one), n // len(one))


def idle_watts(gpu: str) -> float:
    """Watts of one GPU that runs nothing."""
    curve = power_curve(gpu)
    return curve.board_power_w * curve.idle


def idle_it_watts(gpu: str) -> float:
    """Watts of one GPU that runs nothing, with its host and network."""
    return idle_watts(gpu) + host_watts(gpu, idle_watts(gpu))


def host_watts(gpu: str, gpu_w: float) -> float:
    """Watts of host and network that come with one GPU while that draws `gpu_w`; linear, so it holds for means too."""
    return float(host_power_w(power_curve(gpu), gpu_w))


def _load(system: ServingSystem, worker: Worker, counters: dict[str, np.ndarray], seconds: float) -> WindowLoad:
    step = worker.step
    decoding = 0.0 if worker.role == "prefill" else step.tokens_per_sequence / system.tokens_per_step
    steps = counters["steps"].astype(float)
    with_prefill = counters["base_s_mixed"] / np.maximum(
        counters["base_s_mixed"] + counters["base_s_decode_only"], 1e-300
    )
    return WindowLoad(
        duration_s=np.full(len(steps), seconds),
        busy_s=counters["busy_s"],
        steps=steps,
        decode_tokens=counters["decode_tokens"] * decoding,
        prefill_tokens=counters["prefill_tokens"].astype(float),
        kv_tokens=counters["kv_s"] / step.kv_s if step.kv_s else 0.0 * steps,
        pairs=counters["pair_s"] / step.pair_s if step.pair_s else 0.0 * steps,
        decode_only_steps=steps * (1.0 - with_prefill),
    )


def nameplate_watts(gpu: str) -> float:
    """Watts of one GPU at board power, with its host and network."""
    board_w = power_curve(gpu).board_power_w
    return board_w + host_watts(gpu, board_w)


def training_watts(gpu: str, precision: str, mfu: float, memory_utilisation: float) -> float:
    """Watts of one GPU that trains at a share `mfu` of its peak and moves a share of its memory bandwidth."""
    curve = power_curve(gpu)
    facts = catalog.gpu(gpu)
    products = PRECISION_CLASS[precision]
    arithmetic = mfu * facts.peak(products) / facts.peak("bf16")
    share = busy_fraction_of_board_power(
        curve.floor, curve.memory, curve.compute[products], curve.ceiling, curve.sharpness, memory_utilisation, arithmetic
    )
    return curve.board_power_w * float(share)
