"""Step times of vLLM servers from their latencies under a constant rate: a steady state in closed form, and its fit.

A step of n decoding sequences lasts ``D(n)``, the physical terms of `model/step_time.py`. With r requests/s, each
bringing P seconds of prefill beyond that, a sequence gains a token every ``ITL = D(n) / (1 - r P)`` seconds, and by
Little's law ``n = r (OSL - 1) ITL``: a fixed point. TTFT is a constant, so many steps (scheduling runs a step ahead of
the GPU, and the first token leaves a step later), and P.

Effects of a GPU (its weights) and of a model on a GPU (its whole step) are shrunk towards nothing, so that a GPU or a
model that is not in the table gets the common value.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from factory_sim.calibration.online_rows import OnlineRows, model_on_gpu, online_rows
from factory_sim.model.step_time import experts_touched

PARAMETERS = (
    # name, prior, standard deviation of its logarithm, unit, meaning
    ("step", 2e-3, 0.5, "s", "each step"),
    ("layer", 2e-5, 0.5, "s", "each layer of a step"),
    ("layer_parallel", 1.3, 0.3, "1", "factor on it for several GPUs"),
    ("layer_experts", 1.3, 0.4, "1", "factor on it for a model with experts"),
    ("weights", 1.25, 0.1, "x peak", "reading the weights that every step reads"),
    ("experts", 1.5, 0.3, "x peak", "reading the experts that a step touches"),
    ("experts_fp8", 1.0, 0.4, "1", "factor on it for fp8 experts"),
    ("flops", 1.2, 0.2, "x peak", "arithmetic of each token"),
    ("kv", 1.3, 0.3, "x peak", "reading the KV cache of each attended token"),
    ("sequence", 1.5e-5, 0.5, "s", "each decoding sequence"),
    ("allreduce", 8e-6, 0.5, "s", "each all-reduce and doubling of GPUs"),
    ("link", 1.5, 0.3, "x peak", "bytes of all-reduce of each token"),
    ("prefill_flops", 1.5, 0.1, "x peak", "arithmetic of each computed prompt token"),
    ("uncached_tokens", 30.0, 1.0, "tokens", "computed tokens of a prompt whose rest is in the prefix cache"),
    ("request", 5e-3, 0.7, "s", "each request before its first step"),
    ("request_steps", 2.5, 0.3, "steps", "steps from arrival to first token, prefill apart"),
    ("rate_reasoning-lite", 2.0, 0.5, "requests/s", "the rate that the source does not publish"),
)
GPU_SPREAD = 0.15
"""Standard deviation of the effect of a GPU on the weights' term."""
MODEL_SPREAD = 0.06
"""Standard deviation of the effect of a model on a GPU on the whole step."""
ERROR_TTFT, ERROR_ITL = 0.12, 0.06
"""Scales of the errors in the loss: TTFT is the noisier figure."""


@dataclass(frozen=True)
class OnlineFit:
    """Fitted parameters and effects (logarithms) by GPU and by model on a GPU."""

    parameters: dict[str, float]
    gpu: dict[str, float]
    model: dict[str, float]


@dataclass(frozen=True)
class SteadyState:
    """Closed form of each row: seconds, and sequences that decode at once."""

    ttft_s: np.ndarray
    itl_s: np.ndarray
    sequences: np.ndarray


def packaged_table():
    """The packaged `online_vllm.csv` as a DataFrame."""
    import pandas as pd

    with files("factory_sim.data").joinpath("measurements", "online_vllm.csv").open("rb") as file:
        return pd.read_csv(file)


def step_terms(p: dict[str, float], rows: OnlineRows, gpu_effect, model_effect):
    """Return the parts of a step, each an array: (fixed, per token, per attended token, all experts, per prompt token).

    A step of n sequences that hold H tokens lasts ``fixed + n token + n H kv + experts * share touched by n`` seconds.
    """
    f, several, sparse = rows.facts, rows.tensor > 1, rows.facts.experts > 1
    whole = np.exp(model_effect)
    layer = p["layer"] * np.where(several, p["layer_parallel"], 1.0) * np.where(sparse, p["layer_experts"], 1.0)
    fixed = (
        p["step"] + layer * f.layers + p["weights"] * np.exp(gpu_effect) * f.weights_s + p["allreduce"] * f.allreduces
    )
    narrow = np.array([each == "fp8" for each in rows.precision])
    experts = p["experts"] * np.where(narrow, p["experts_fp8"], 1.0) * f.experts_s
    token = p["flops"] * f.flops_s + p["sequence"] + p["link"] * f.link_s
    return (
        whole * fixed,
        whole * token,
        whole * p["kv"] * f.kv_s,
        whole * experts,
        whole * p["prefill_flops"] * f.flops_s,
    )


def steady_state(p: dict[str, float], rows: OnlineRows, gpu_effect=0.0, model_effect=0.0) -> SteadyState:
    """Solve the fixed point of each row (module docstring); the batch is bounded by `max_sequences`."""
    fixed, token, kv, experts, prompt_token = step_terms(p, rows, gpu_effect, model_effect)
    rate = rates(p, rows)
    each = token + kv * (rows.isl + rows.osl / 2)
    prompt = prompt_token * np.minimum(p["uncached_tokens"], rows.isl)
    itl_s = fixed
    for _ in range(40):
        sequences = np.minimum(rate * (rows.osl - 1) * itl_s, rows.max_sequences)
        decode = fixed + each * sequences + experts * experts_touched(rows.facts, sequences)
        itl_s = (itl_s + decode / np.maximum(1 - rate * prompt, 0.3)) / 2
    sequences = np.minimum(rate * (rows.osl - 1) * itl_s, rows.max_sequences)
    return SteadyState(p["request"] + p["request_steps"] * itl_s + prompt, itl_s, sequences)


def rates(p: dict[str, float], rows: OnlineRows) -> np.ndarray:
    """Requests/s of each row; the fitted one where the source gives none."""
    return np.where(np.isfinite(rows.rate_per_s), rows.rate_per_s, p["rate_reasoning-lite"])


def effects(fit: OnlineFit, rows: OnlineRows) -> tuple[np.ndarray, np.ndarray]:
    """Effects of each row's GPU and of its model on it; zero where it has none."""
    return (
        np.array([fit.gpu.get(gpu.name, 0.0) for gpu in rows.gpus]),
        np.array([fit.model.get(name, 0.0) for name in model_on_gpu(rows)]),
    )


def fit_online(rows: OnlineRows, ttft_s, itl_s) -> OnlineFit:
    """Fit parameters and effects by robust least squares on logarithms of TTFT and ITL."""
    from scipy.optimize import least_squares

    names = [name for name, *_ in PARAMETERS]
    gpus, models = sorted({gpu.name for gpu in rows.gpus}), sorted(set(model_on_gpu(rows)))
    gpu_at = np.array([gpus.index(gpu.name) for gpu in rows.gpus])
    model_at = np.array([models.index(name) for name in model_on_gpu(rows)])
    prior = np.concatenate([np.log([value for _, value, *_ in PARAMETERS]), np.zeros(len(gpus) + len(models))])
    spread = np.array(
        [deviation for _, _, deviation, *_ in PARAMETERS] + [GPU_SPREAD] * len(gpus) + [MODEL_SPREAD] * len(models)
    )

    def split(x):
        return dict(zip(names, np.exp(x))), x[len(names) : len(names) + len(gpus)], x[len(names) + len(gpus) :]

    def residuals(x):
        p, gpu, model = split(x)
        state = steady_state(p, rows, gpu[gpu_at], model[model_at])
        ttft, itl = np.log(state.ttft_s / ttft_s) / ERROR_TTFT, np.log(state.itl_s / itl_s) / ERROR_ITL
        return np.concatenate([ttft, itl, (x - prior) / spread])

    p, gpu, model = split(least_squares(residuals, prior, loss="soft_l1", max_nfev=40).x)
    return OnlineFit(
        {name: float(value) for name, value in p.items()},
        {name: float(value) for name, value in zip(gpus, gpu)},
        {name: float(value) for name, value in zip(models, model)},
    )


def fitted_rows(table) -> np.ndarray:
    """Rows that a fit may use: both latencies present, no failed request (an overload has no steady state)."""
    failed = table["n_failed"].fillna(0).to_numpy(float) if "n_failed" in table.columns else np.zeros(len(table))
    seen = table["ttft_mean_ms"].notna() & table["tpot_ms_from_requested_length"].notna()
    return seen.to_numpy() & (failed == 0)


def fit_table(table) -> OnlineFit:
    """Fit a table with the columns of `online_vllm.csv`."""
    kept = table[fitted_rows(table)].reset_index(drop=True)
    return fit_online(
        online_rows(kept),
        kept["ttft_mean_ms"].to_numpy(float) / 1e3,
        kept["tpot_ms_from_requested_length"].to_numpy(float) / 1e3,
    )


def read_online_fit() -> tuple[OnlineFit, dict[str, dict[str, tuple[float, float]]]]:
    """Return the packaged fit and its bands: rung of trust -> metric -> (P10, P90) of true over predicted."""
    with files("factory_sim.data").joinpath("online", "online_fit.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    part = {
        name: {row["item"]: float(row["value"]) for row in lines if row["part"] == name}
        for name in ("parameter", "gpu", "model")
    }
    bands: dict[str, dict[str, tuple[float, float]]] = {}
    for row in lines:
        if row["part"].startswith("band_"):
            rung = bands.setdefault(row["part"].removeprefix("band_"), {})
            rung[row["item"]] = (float(row["low"]), float(row["high"]))
    return OnlineFit(part["parameter"], part["gpu"], part["model"]), bands
