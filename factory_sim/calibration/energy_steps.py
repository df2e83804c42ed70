"""Joules per output token of a saturated vLLM server: seconds of its mean step, times the power curve.

The rows of `energy_llm.csv` are steady states at a full batch of n sequences. With prompts of I tokens and answers of O
tokens the mean step decodes n tokens and prefills n I/O::

    step = s0 + s1 n + layers * l + bytes / bandwidth * m + FLOPs / peak * c + requests ended in a step * v

with always-read weights, touched experts, KV cache and recurrent state as bytes, and v (pictures and films only) the
seconds that one request's images cost. Joules per token are then the step's seconds times GPUs times watts over n.
The factors are fitted to the measured steps and joules together, by least squares on logarithms under a Cauchy loss
(whole groups lie far off: servers slowed by their host), with the power curve held as fitted before (`energy.py`). They
are those of this benchmark's servers (vLLM without asynchronous scheduling, several servers sharing a host), not of a
serving profile.
"""

import csv
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from factory_sim.calibration.energy import (
    ISL_TEXT,
    POWER_PARAMETERS,
    fit_power,
    packaged_table,
    power_fraction,
)
from factory_sim.calibration.energy_rows import (
    REQUIRED,
    Architecture,
    EnergyRows,
    check_row,
    energy_rows,
)
from factory_sim.calibration.error_report import errors, report
from factory_sim.errors import FactorySimError, MeasurementError

MEMORY_UTILISATION = 0.9
"""Share of memory that vLLM takes by default (engine argument gpu_memory_utilization)."""
ACTIVATION_BYTES_PER_GPU = 2e9
"""Taken for activations and graphs of one GPU: a rounding of common vLLM start-up reports."""
STEP_PARAMETERS = (
    # name, prior, standard deviation of its logarithm, unit, meaning
    ("step", 1.5e-3, 0.6, "s", "each step"),
    ("step_blackwell", 1.0, 0.4, "1", "the same on B200, factor"),
    ("sequence", 2e-5, 0.6, "s", "each sequence of a step"),
    ("sequence_blackwell", 1.0, 0.4, "1", "the same on B200, factor"),
    ("layer", 3e-5, 0.6, "s", "each layer of a step"),
    ("layer_blackwell", 1.0, 0.4, "1", "the same on B200, factor"),
    ("layer_experts", 1.0, 0.5, "1", "addition for a model with experts"),
    ("layer_parallel", 1.5, 0.5, "1", "factor for several GPUs"),
    ("memory", 1.25, 0.1, "x peak", "bytes over bandwidth"),
    ("memory_blackwell", 1.0, 0.1, "1", "the same on B200, factor"),
    ("experts", 1.3, 0.3, "1", "bytes of routed experts, factor"),
    ("experts_fp8", 1.0, 0.4, "1", "the same for block-scaled fp8 experts, factor"),
    ("experts_mxfp4", 1.0, 0.4, "1", "the same for mxfp4 experts, factor"),
    ("experts_mxfp4_blackwell", 1.0, 0.4, "1", "and on B200, factor"),
    ("experts_spread", 1.0, 0.4, "1", "the same under expert parallelism, factor"),
    ("kv", 1.3, 0.4, "1", "bytes of KV cache, factor"),
    ("state", 1.3, 0.5, "1", "bytes of recurrent state, factor"),
    ("compute", 1.7, 0.1, "x peak", "FLOPs over the bf16 peak"),
    ("compute_blackwell", 1.0, 0.1, "1", "the same on B200, factor"),
    ("compute_fp8", 0.7, 0.4, "1", "the same for fp8 weights, factor"),
    ("compute_experts", 1.5, 0.4, "1", "the same for a model with experts, factor"),
    ("compute_experts_fp8", 1.0, 0.4, "1", "and block-scaled fp8 experts, factor"),
    ("compute_mxfp4", 1.0, 0.4, "1", "the same for mxfp4 weights, factor"),
    ("compute_mxfp4_blackwell", 1.0, 0.4, "1", "and on B200, factor"),
    ("compute_experts_spread", 1.0, 0.3, "1", "and expert parallelism, factor"),
    ("media", 0.03, 1.0, "s", "each request with pictures or films"),
    ("media_blackwell", 1.0, 0.5, "1", "the same on the hosts of B200, factor"),
    ("media_gpus", 0.7, 0.5, "1", "power of the GPUs by which it falls: host cores come with GPUs"),
    ("isl_sourcegraph-fim", 2000.0, 0.5, "tokens", "prompt of a code completion"),
    ("isl_image-chat", 500.0, 0.6, "tokens", "prompt with pictures, beyond their own cost"),
    ("isl_video-chat", 1000.0, 0.6, "tokens", "prompt with a film, beyond its own cost"),
)
WEIGHT_STEP, WEIGHT_ENERGY = 0.5, 1.0


@dataclass(frozen=True)
class EnergyFit:
    """Fitted parameters of power and steps."""

    power: dict[str, float]
    steps: dict[str, float]


def _batch(rows: EnergyRows, per_sequence_bytes) -> np.ndarray:
    """Sequences that run: `max_num_seqs`, or what the KV cache holds."""
    f = rows.facts
    experts = f["moe_layers"] * f["experts"] * f["params_per_expert"] * f["expert_bytes"]
    weights = f["params_always_read"] * f["always_bytes"] + experts
    memory = np.array([gpu.memory_bytes for gpu in rows.gpus])
    free = rows.n_gpus * (MEMORY_UTILISATION * memory - ACTIVATION_BYTES_PER_GPU) - weights
    return np.minimum(rows.max_sequences, np.maximum(free / per_sequence_bytes, 4.0))


def step_seconds(p: dict[str, float], rows: EnergyRows):
    """Return (mean seconds of a step, sequences in it) of each row."""
    f, new, several = rows.facts, rows.blackwell, rows.n_gpus > 1
    spread, media = rows.expert_parallel, rows.task >= 3
    sparse = f["experts"] > 0

    def side(name):
        return p[name] * np.where(new, p[f"{name}_blackwell"], 1.0)

    isl = np.array([*ISL_TEXT, p["isl_sourcegraph-fim"], p["isl_image-chat"], p["isl_video-chat"]])[rows.task]
    attended = isl + rows.osl / 2
    kv = f["kv_bytes_per_token"] * attended + f["window_bytes_per_token"] * np.minimum(attended, f["window_tokens"])
    batch = _batch(rows, kv + f["state_bytes_per_sequence"])
    tokens = batch * (1 + isl / rows.osl)
    chosen = np.minimum(f["experts_per_token"] / np.maximum(f["experts"], 1), 0.999999)
    touched = f["experts"] * -np.expm1(tokens * np.log1p(-chosen))
    experts = f["moe_layers"] * touched * f["params_per_expert"] * f["expert_bytes"] / rows.n_gpus
    experts = experts * p["experts"] * np.where(f["block_fp8"] > 0, p["experts_fp8"], 1.0)
    experts = experts * np.where(f["mxfp4"] > 0, side("experts_mxfp4"), 1.0)
    experts = experts * np.where(spread, p["experts_spread"], 1.0)
    always = f["params_always_read"] * f["always_bytes"] / rows.n_gpus
    state = 2 * f["state_bytes_per_sequence"] / rows.n_gpus
    moved = always + experts + batch * (p["kv"] * kv / f["kv_split"] + p["state"] * state)
    compute = side("compute") * np.where(f["fp8"] > 0, p["compute_fp8"], 1.0)
    compute_experts = p["compute_experts"] * np.where(f["block_fp8"] > 0, p["compute_experts_fp8"], 1.0)
    compute_experts = compute_experts * np.where(spread, p["compute_experts_spread"], 1.0)
    compute = compute * np.where(sparse, compute_experts, 1.0)
    compute = compute * np.where(f["mxfp4"] > 0, side("compute_mxfp4"), 1.0)
    layers = side("layer") * f["layers"] * np.where(sparse, 1 + p["layer_experts"], 1.0)
    seconds = (
        side("step")
        + side("sequence") * batch
        + layers * np.where(several, p["layer_parallel"], 1.0)
        + side("memory") * moved / f["bandwidth"]
        + compute * 2 * f["params_active"] * tokens / rows.n_gpus / f["peak_bf16"]
        + np.where(media, side("media") * rows.n_gpus ** -p["media_gpus"], 0.0) * batch / rows.osl
    )
    return seconds, batch


def joules_per_token(fit: EnergyFit, rows: EnergyRows) -> np.ndarray:
    """Joules of all GPUs for each output token of each row."""
    seconds, batch = step_seconds(fit.steps, rows)
    isl = {name: value for name, value in fit.steps.items() if name.startswith("isl_")}
    watts = power_fraction(fit.power | isl, rows, batch, seconds) * rows.facts["board_power_w"]
    return watts * rows.n_gpus * seconds / batch


@dataclass(frozen=True)
class Measured:
    """What was measured in each row; only fits read it."""

    batch: np.ndarray
    step_s: np.ndarray
    power_fraction: np.ndarray
    joules_per_token: np.ndarray

    def take(self, keep) -> "Measured":
        """Return the rows at the index `keep`."""
        return Measured(**{name: values[keep] for name, values in self.__dict__.items()})


def measured(table, rows: EnergyRows) -> Measured:
    """Measured arrays of a table with the columns of `energy_llm.csv`."""
    batch = table["avg_batch_size"].to_numpy(float)
    return Measured(
        batch=batch,
        step_s=batch / table["output_tokens_per_s"].to_numpy(float),
        power_fraction=table["avg_power_w_per_gpu"].to_numpy(float) / rows.facts["board_power_w"],
        joules_per_token=table["energy_per_output_token_j"].to_numpy(float),
    )


def fit_energy(rows: EnergyRows, seen: Measured, start: EnergyFit | None = None) -> EnergyFit:
    """Fit the power curve, then the steps with that curve held; `start` speeds up a refit of nearly the same rows."""
    from scipy.optimize import least_squares

    power = fit_power(rows, seen.batch, seen.step_s, seen.power_fraction, start.power if start else None)
    names = [name for name, *_ in STEP_PARAMETERS]
    prior = np.log([value for _, value, *_ in STEP_PARAMETERS])
    spread = np.array([deviation for _, _, deviation, *_ in STEP_PARAMETERS])

    def residuals(x):
        steps = dict(zip(names, np.exp(x)))
        seconds, _ = step_seconds(steps, rows)
        joules = joules_per_token(EnergyFit(power, steps), rows)
        return np.concatenate(
            [
                WEIGHT_STEP * np.log(seconds / seen.step_s) / 0.12,
                WEIGHT_ENERGY * np.log(joules / seen.joules_per_token) / 0.1,
                (x - prior) / spread,
            ]
        )

    x = prior if start is None else np.log([start.steps[name] for name in names])
    solved = least_squares(residuals, x, loss="cauchy", max_nfev=60 if start is None else 12)
    return EnergyFit(power, dict(zip(names, (float(value) for value in np.exp(solved.x)))))


def left_out(rows: EnergyRows, seen: Measured, groups: list[str], whole: EnergyFit) -> np.ndarray:
    """Log (measured / predicted joules per token), each group left out of the fit that predicts it."""
    residual = np.full(len(groups), np.nan)
    for group in sorted(set(groups)):
        out = np.array([each == group for each in groups])
        fitted = fit_energy(rows.take(~out), seen.take(~out), whole)
        residual[out] = np.log(seen.joules_per_token[out] / joules_per_token(fitted, rows.take(out)))
    return residual


def model_on_gpu(rows: EnergyRows) -> list[str]:
    """The group of each row that cross-validation leaves out whole: architecture and GPU."""
    return [f"{a.name}|{gpu.name}" for a, gpu in zip(rows.architectures, rows.gpus)]


def regimes(rows: EnergyRows) -> list[str]:
    """Where errors differ: "text" (chat, reasoning), "prompt" (code completion), "media" (pictures, films)."""
    return [("text", "text", "prompt", "media", "media")[task] for task in rows.task]


def write_energy_fit(path) -> None:
    """Fit the packaged table and write parameters, bands and seen groups to `path` (data/power/energy_fit.csv)."""
    table = packaged_table()
    rows = energy_rows(table)
    seen = measured(table, rows)
    fit = fit_energy(rows, seen)
    told = "fit to energy_llm.csv (ML.ENERGY leaderboard, 2026-02-16), calibration/energy_steps.py"
    lines = ["part,item,value,low,high,unit,meaning,source"]
    for name, *_ in POWER_PARAMETERS:
        lines.append(f'power,{name},{fit.power[name]:.6g},,,1,power curve; see energy.py,"{told}"')
    for name, _, _, unit, meaning in STEP_PARAMETERS:
        lines.append(f'steps,{name},{fit.steps[name]:.6g},,,{unit},"{meaning}","{told}"')
    groups = model_on_gpu(rows)
    for rung, residual in (
        ("model_on_gpu", left_out(rows, seen, groups, fit)),
        ("gpu", left_out(rows, seen, [gpu.name for gpu in rows.gpus], fit)),
    ):
        for regime in ("text", "prompt", "media"):
            here = residual[[each == regime for each in regimes(rows)]]
            low, high = np.exp(np.quantile(here, [0.1, 0.9]))
            meaning = f"P10 and P90 with each {rung.replace('_', ' ')} left out"
            lines.append(f'band_{rung},{regime},1,{low:.3f},{high:.3f},true over predicted,"{meaning}","{told}"')
    for group in sorted(set(groups)):
        lines.append(f'seen,{group},1,,,1,rows of this architecture and GPU are in the fit,"{told}"')
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(lines) + "\n")


def read_energy_fit() -> tuple[EnergyFit, dict[str, dict[str, tuple[float, float]]], set[str]]:
    """Return the packaged fit, bands by rung and regime, and the groups it has seen."""
    with files("factory_sim.data").joinpath("power", "energy_fit.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    part = {
        name: {row["item"]: float(row["value"]) for row in lines if row["part"] == name} for name in ("power", "steps")
    }
    bands = {
        rung: {row["item"]: (float(row["low"]), float(row["high"])) for row in lines if row["part"] == f"band_{rung}"}
        for rung in ("model_on_gpu", "gpu")
    }
    return EnergyFit(part["power"], part["steps"]), bands, {row["item"] for row in lines if row["part"] == "seen"}


COLUMNS = {
    "energy_per_output_token": (
        "predicted_energy_per_output_token_j",
        "energy_per_output_token_low_j",
        "energy_per_output_token_high_j",
    )
}
"""Columns of the predictions: metric -> (value, low, high)."""


def validate_energy(table):
    """Predict joules per output token of a table with the columns of `energy_llm.csv`; return (DataFrame, report).

    No measured column is read for it: throughput, ITL, power, energy and mean batch only enter the errors, where
    present. The DataFrame has one row for each row of `table`, in its order: measurement_id, `COLUMNS`, trust, profile,
    reason; a row that cannot be predicted has empty values and a reason. Trust: "interpolated" (architecture and GPU
    are in the fit), "extrapolated" (the GPU is), "estimated" (another GPU, or shapes guessed from parameters alone).
    Raises MeasurementError for missing columns.
    """
    import pandas as pd

    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise MeasurementError(f"energy table: missing columns: {', '.join(missing)}")
    table = table.reset_index(drop=True)
    reasons = [_reason(row) for row in table.to_dict("records")]
    usable = np.array([not reason for reason in reasons])
    out = pd.DataFrame({"measurement_id": table.get("measurement_id", pd.Series(range(1, len(table) + 1)))})
    for name in COLUMNS["energy_per_output_token"]:
        out[name] = np.nan
    out["trust"], out["profile"], out["reason"] = "", "", reasons
    if usable.any():
        fit, bands, known = read_energy_fit()
        rows = energy_rows(table[usable])
        joules = joules_per_token(fit, rows)
        trust = [_trust(a, group, known) for a, group in zip(rows.architectures, model_on_gpu(rows))]
        rung = ["gpu" if each == "estimated" else "model_on_gpu" for each in trust]
        band = np.array([bands[r][regime] for r, regime in zip(rung, regimes(rows))])
        for name, values in zip(COLUMNS["energy_per_output_token"], (joules, joules * band[:, 0], joules * band[:, 1])):
            out.loc[usable, name] = values
        out.loc[usable, "trust"] = trust
        out.loc[usable, "profile"] = "energy_fit"
    actual = {"energy_per_output_token": table.get("energy_per_output_token_j", pd.Series(np.nan, table.index))}
    by = {name: table[name] for name in ("model", "gpu", "task", "weight_precision")} | {"trust": out["trust"]}
    return out, report(out, actual, COLUMNS, by)


def _reason(row: dict) -> str:
    """Why a row cannot be predicted, or an empty string."""
    try:
        check_row(row)
    except FactorySimError as error:
        return str(error)
    return ""


def _trust(a: Architecture, group: str, known: set[str]) -> str:
    gpus = {each.split("|")[1] for each in known}
    if not a.known or group.split("|")[1] not in gpus:
        return "estimated"
    return "interpolated" if group in known else "extrapolated"


def crossvalidate_energy() -> dict:
    """Errors and coverage with each model on each GPU left out of the fit; bands come from the other groups' residuals.

    Returns the form of `error_report.errors` (per cent).
    """
    table = packaged_table()
    rows = energy_rows(table)
    seen = measured(table, rows)
    groups = np.array(model_on_gpu(rows))
    residual = left_out(rows, seen, list(groups), fit_energy(rows, seen))
    regime = np.array(regimes(rows))
    predicted = seen.joules_per_token * np.exp(-residual)
    low, high = np.full((2, len(groups)), np.nan)
    for group in sorted(set(groups)):
        for each in sorted(set(regime[groups == group])):
            here = (groups == group) & (regime == each)
            others = residual[(groups != group) & (regime == each)]
            low[here], high[here] = predicted[here, None].T * np.exp(np.quantile(others, [0.1, 0.9]))[:, None]
    return errors(seen.joules_per_token, predicted, low, high)
