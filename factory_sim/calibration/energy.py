"""Fit of the power curves and of joules per token to `energy_llm.csv`: deterministic, refit by `write_power_curves`."""

from importlib.resources import files

import numpy as np

from factory_sim.calibration.energy_rows import EnergyRows, energy_rows
from factory_sim.model.energy import busy_fraction_of_board_power

CEILING = 0.97
"""Largest fraction of board power: the highest measured mean is 0.99 (H100), the 99th percentile 0.96."""
POWER_PARAMETERS = (
    # name, prior, standard deviation of its logarithm around the prior
    ("floor", 0.30, 0.3),
    ("floor_blackwell", 1.0, 0.3),
    ("memory", 0.35, 0.4),
    ("memory_blackwell", 1.0, 0.3),
    ("compute", 0.57, 0.6),
    ("compute_blackwell", 1.0, 0.3),
    ("compute_fp8", 0.6, 0.3),
    ("kv", 1.0, 0.3),
    ("experts", 1.0, 0.3),
    ("experts_expert_parallel", 1.0, 0.4),
    ("sharpness", 6.0, 0.3),
    ("isl_sourcegraph-fim", 1500.0, 0.5),
    ("isl_image-chat", 500.0, 0.6),
    ("isl_video-chat", 1000.0, 0.6),
)
ISL_TEXT = (150.0, 200.0)
"""Prompt tokens taken for chat and GPQA questions; short beside their outputs, so the fit cannot tell."""


def packaged_table():
    """The packaged `energy_llm.csv` as a DataFrame."""
    import pandas as pd

    with files("factory_sim.data").joinpath("measurements", "energy_llm.csv").open("rb") as file:
        return pd.read_csv(file)


def power_fraction(parameters: dict[str, float], rows: EnergyRows, batch, step_s):
    """Fraction of board power of each row from its batch and the mean seconds of a step."""
    f, p = rows.facts, parameters
    isl = np.array([*ISL_TEXT, p["isl_sourcegraph-fim"], p["isl_image-chat"], p["isl_video-chat"]])[rows.task]
    tokens = batch * (1 + isl / rows.osl)
    chosen = f["experts_per_token"] / np.maximum(f["experts"], 1)
    touched = f["experts"] * -np.expm1(tokens * np.log1p(-np.minimum(chosen, 0.999999)))
    experts = f["moe_layers"] * touched * f["params_per_expert"] * f["expert_bytes"]
    experts = experts * p["experts"] * np.where(rows.expert_parallel, p["experts_expert_parallel"], 1.0)
    weights = (f["params_always_read"] * f["always_bytes"] + experts) / rows.n_gpus
    attended = isl + rows.osl / 2
    kv = f["kv_bytes_per_token"] * attended + f["window_bytes_per_token"] * np.minimum(attended, f["window_tokens"])
    kv = batch * (kv / f["kv_split"] + 2 * f["state_bytes_per_sequence"] / rows.n_gpus)
    u_memory = (weights + p["kv"] * kv) / step_s / f["bandwidth"]
    u_compute = 2 * f["params_active"] * tokens / rows.n_gpus / step_s / f["peak_bf16"]
    new = rows.blackwell

    def side(name):
        return p[name] * np.where(new, p[f"{name}_blackwell"], 1.0)

    compute = side("compute") * np.where(f["fp8"] > 0, p["compute_fp8"], 1.0)
    return busy_fraction_of_board_power(
        side("floor"), side("memory"), compute, CEILING, p["sharpness"], u_memory, u_compute
    )


def fit_power(rows: EnergyRows, batch, step_s, measured, start=None) -> dict[str, float]:
    """Fit the power parameters to measured fractions of board power by robust least squares on logarithms.

    `start`: parameters to begin at (all of them), for a refit of nearly the same rows.
    """
    from scipy.optimize import least_squares

    names = [name for name, _, _ in POWER_PARAMETERS]
    prior = np.log([value for _, value, _ in POWER_PARAMETERS])
    spread = np.array([deviation for _, _, deviation in POWER_PARAMETERS])

    def residuals(x):
        predicted = power_fraction(dict(zip(names, np.exp(x))), rows, batch, step_s)
        return np.concatenate([np.log(predicted / measured) / 0.1, (x - prior) / spread])

    x = prior if start is None else np.log([start[name] for name in names])
    solved = least_squares(residuals, x, loss="soft_l1", max_nfev=80 if start is None else 15)
    return dict(zip(names, (float(value) for value in np.exp(solved.x))))


def power_residuals(table, groups):
    """Log (predicted / measured power) of each row, each group left out of the fit that predicts it."""
    rows = energy_rows(table)
    batch = table["avg_batch_size"].to_numpy(float)
    step_s = batch / table["output_tokens_per_s"].to_numpy(float)
    measured = table["avg_power_w_per_gpu"].to_numpy(float) / rows.facts["board_power_w"]
    residual = np.full(len(table), np.nan)
    for group in sorted(set(groups)):
        out = np.array([each == group for each in groups])
        fitted = fit_power(rows.take(~out), batch[~out], step_s[~out], measured[~out])
        residual[out] = np.log(power_fraction(fitted, rows.take(out), batch[out], step_s[out]) / measured[out])
    return residual


def write_power_curves(path) -> None:
    """Fit the packaged table and write the coefficients and bands to `path` (data/power/power_curves.csv)."""
    table = packaged_table()
    rows = energy_rows(table)
    batch = table["avg_batch_size"].to_numpy(float)
    step_s = batch / table["output_tokens_per_s"].to_numpy(float)
    measured = table["avg_power_w_per_gpu"].to_numpy(float) / rows.facts["board_power_w"]
    fitted = fit_power(rows, batch, step_s, measured) | {"ceiling": CEILING}
    names = [f"{a.name}|{gpu.name}" for a, gpu in zip(rows.architectures, rows.gpus)]
    source = "fit to energy_llm.csv (ML.ENERGY leaderboard, 2026-02-16), calibration/energy.py"
    lines = ["gpu,item,value,unit,low,high,basis,source"]

    def line(gpu, item, value, unit, low="", high="", basis="computed", origin=source):
        lines.append(f'{gpu},{item},{value},{unit},{low},{high},{basis},"{origin}"')

    for item in ("floor", "memory", "compute"):
        line("h100", item, f"{fitted[item]:.4g}", "fraction of board power")
        line("b200", item, f"{fitted[item] * fitted[f'{item}_blackwell']:.4g}", "fraction of board power")
    for item in ("compute_fp8", "kv", "experts", "experts_expert_parallel", "sharpness"):
        line("all", item, f"{fitted[item]:.4g}", "1")
    line("all", "compute_fp4", f"{fitted['compute_fp8']:.4g}", "1", basis="guess", origin="taken as fp8")
    line("all", "ceiling", CEILING, "fraction of board power")
    for name, groups, told in (
        ("band", names, "each model on each GPU left out of the fit"),
        ("band_other_gpu", list(table["gpu"]), "each GPU left out of the fit"),
    ):
        low, high = np.exp(np.quantile(-power_residuals(table, groups), [0.1, 0.9]))
        line("all", name, 1, "true over predicted", f"{low:.3f}", f"{high:.3f}", origin=f"P10 and P90, {told}")
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(lines) + "\n")
