"""Online experiments played through the kernel: predictions with bands, their errors, cross-validation.

Each row is an experiment of its own: `duration_s` of arrivals at a constant rate, each request one of 100 prompts at
random, the first occurrence of a prompt computed whole and later ones from the prefix cache, clients that leave after
`PATIENCE_S`. The server is a `ServingSystem` built from the fit of `online_fit.py`; means are over completed requests.
"""

import numpy as np

from factory_sim.calibration.error_report import errors, report
from factory_sim.calibration.online_fit import (
    PARAMETERS,
    OnlineFit,
    effects,
    fit_table,
    fitted_rows,
    packaged_table,
    rates,
    read_online_fit,
    steady_state,
    step_terms,
)
from factory_sim.calibration.online_rows import (
    REQUIRED,
    OnlineRows,
    model_on_gpu,
    online_rows,
    reason,
)
from factory_sim.engine.kernel import Pool, Requests
from factory_sim.errors import CapacityError, MeasurementError
from factory_sim.inputs import profiles
from factory_sim.model.serving import ServingSystem, StepCosts, Worker
from factory_sim.model.step_time import experts_touched, kv_bytes_per_token, weight_bytes
from factory_sim.streams import stream

PROMPTS = 100
"""Distinct prompts: 10 groups of 10, as the load generator reports (columns resolved_prompt*)."""
PATIENCE_S = 300.0
"""Time-out of the client: in overloaded runs end-to-end times end just below 300 s."""
COLUMNS = {
    metric: (f"predicted_{metric}_mean_ms", f"{metric}_low_ms", f"{metric}_high_ms")
    for metric in ("ttft", "itl", "e2e")
}
ACTUAL = {"ttft": "ttft_mean_ms", "itl": "tpot_ms_from_requested_length", "e2e": "e2e_mean_ms"}


def online_system(fit: OnlineFit, rows: OnlineRows, index: int) -> ServingSystem:
    """Return the server of one row as the kernel plays it.

    Raises CapacityError where weights and KV cache of one request do not fit the GPUs' memory.
    """
    row = rows.take(np.array([index]))
    gpu_effect, model_effect = effects(fit, row)
    p = fit.parameters
    terms = [float(each[0]) for each in step_terms(p, row, gpu_effect, model_effect)]
    fixed, token, kv, experts, prompt_token = terms
    state = steady_state(p, row, gpu_effect, model_effect)
    most = int(row.max_batched_tokens[0])
    tokens = np.arange(most + 1)
    base_s = fixed + token * tokens + experts * experts_touched(row.facts, tokens)
    base_s[0] = 0.0
    gpus, model, gpu = int(row.tensor[0]), row.models[0], row.gpus[0]
    capacity = _kv_tokens(row)
    if capacity < row.isl[0] + row.osl[0]:
        raise CapacityError(
            f"{model.name} in {row.precision[0]} on {gpus} x {gpu.name}: weights leave no memory for KV"
        )
    waited = max(p["request"] + (p["request_steps"] - 1.5) * float(state.itl_s[0]), 0.0)
    return ServingSystem(
        name=f"{model.name} {gpus}x{gpu.name} {row.precision[0]} vllm",
        gpu=gpu.name,
        gpus=gpus,
        workers=(
            Worker(
                role="both",
                count=1,
                gpus=gpus,
                step=StepCosts(base_s, kv, max(prompt_token - token, 0.0), 0.0),
                kv_capacity_tokens=capacity,
                max_sequences=int(row.max_sequences[0]),
                max_batched_tokens=most,
            ),
        ),
        tokens_per_step=1.0,
        request_overhead_s=waited,
        max_context_tokens=int(row.max_context_tokens[0]),
        profile="online_vllm",
        trust="interpolated",
    )


def _kv_tokens(row: OnlineRows) -> int:
    """Tokens of KV cache of one server: its share of memory less weights and reserve, over 16-bit bytes a token."""
    model, gpu = row.models[0], row.gpus[0]
    reserve = profiles.engine("vllm").reserve_bytes_per_gpu
    free = row.tensor[0] * (gpu.memory_bytes * min(row.memory_utilisation[0], 0.97) - reserve)
    return int((free - sum(weight_bytes(model, row.precision[0]))) / kv_bytes_per_token(model, "bf16"))


def play(fit: OnlineFit, rows: OnlineRows, index: int) -> dict[str, float]:
    """Play one row; return means over completed requests, seconds: ttft, itl, e2e (NaN where none completed)."""
    system = online_system(fit, rows, index)
    rate = float(rates(fit.parameters, rows)[index])
    count = max(int(rate * rows.duration_s[index]), 1)
    isl, osl = int(rows.isl[index]), int(rows.osl[index])
    prompts = stream(0, "online_prompts").integers(PROMPTS, size=count)
    known = np.ones(count, dtype=bool)
    known[np.unique(prompts, return_index=True)[1]] = False
    rest = max(round(fit.parameters["uncached_tokens"]), 1)
    pool = Pool([(system, 1)])
    pool.offer(
        Requests(
            arrival_s=np.arange(count) / rate,
            isl=np.full(count, isl),
            osl=np.full(count, osl),
            cached_tokens=np.where(known, max(isl - rest, 0), 0),
            patience_s=np.full(count, PATIENCE_S),
        )
    )
    pool.drain()
    out = pool.finished()
    done = out["status"] == 0
    if not done.any():
        return {"ttft": np.nan, "itl": np.nan, "e2e": np.nan}
    ttft_s = (out["first_token_s"] - out["arrival_s"])[done]
    e2e_s = (out["finish_s"] - out["arrival_s"])[done]
    itl_s = (e2e_s - ttft_s) / max(osl - 1, 1)
    return {"ttft": float(ttft_s.mean()), "itl": float(itl_s.mean()), "e2e": float(e2e_s.mean())}


def _trust(fit: OnlineFit, rows: OnlineRows) -> list[str]:
    """Rung of each row: model and GPU in the fit, the GPU and precision only, or neither."""
    seen = {tuple(name.split("|")[1:]) for name in fit.model}
    return [
        "interpolated" if name in fit.model else "extrapolated" if (gpu.name, precision) in seen else "estimated"
        for name, gpu, precision in zip(model_on_gpu(rows), rows.gpus, rows.precision)
    ]


def predict(table, fit: OnlineFit, bands):
    """Predict each row of a table; see `validate_online` for the columns of the DataFrame."""
    import pandas as pd

    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise MeasurementError(f"online table: missing columns: {', '.join(missing)}")
    table = table.reset_index(drop=True)
    out = pd.DataFrame({"measurement_id": table.get("measurement_id", pd.Series(range(1, len(table) + 1)))})
    for names in COLUMNS.values():
        for name in names:
            out[name] = np.nan
    out["trust"], out["profile"] = "", ""
    out["reason"] = [reason(row) for row in table.to_dict("records")]
    usable = np.flatnonzero(out["reason"] == "")
    if not len(usable):
        return out
    rows = online_rows(table.iloc[usable])
    for at, (index, trust) in enumerate(zip(usable, _trust(fit, rows))):
        try:
            played = play(fit, rows, at)
        except CapacityError as error:
            out.loc[index, "reason"] = str(error)
            continue
        for metric, (value, low, high) in COLUMNS.items():
            band = bands[trust][metric]
            out.loc[index, [value, low, high]] = 1e3 * played[metric] * np.array([1.0, *band])
        out.loc[index, ["trust", "profile"]] = [trust, "online_vllm"]
    return out


def validate_online(table):
    """Predict latencies of a table with the columns of `online_vllm.csv`; return (DataFrame, report).

    No measured column is read for it. The DataFrame has one row for each row of `table`, in its order: measurement_id,
    ``predicted_{ttft,itl,e2e}_mean_ms`` with ``{ttft,itl,e2e}_{low,high}_ms``, trust, profile, reason; a row that
    cannot be predicted has empty values and a reason. ITL is held against `tpot_ms_from_requested_length`. Trust:
    "interpolated" (model, GPU and precision are in the fit), "extrapolated" (the GPU in that precision is),
    "estimated".
    Raises MeasurementError for missing columns.
    """
    fit, bands = read_online_fit()
    out = predict(table, fit, bands)
    return out, _report(table, out)


def _report(table, out) -> dict:
    nothing = np.full(len(table), np.nan)
    actual = {metric: table[name] if name in table.columns else nothing for metric, name in ACTUAL.items()}
    by = {name: table[name] for name in ("model", "gpu", "precision", "workload")} | {"trust": out["trust"]}
    return report(out, actual, COLUMNS, by)


def left_out(table, groups):
    """Predict each row of a table from a fit without its group; a DataFrame as of `predict`, bands all 1."""
    import pandas as pd

    groups = np.asarray(groups)
    flat = {rung: dict.fromkeys(COLUMNS, (1.0, 1.0)) for rung in ("interpolated", "extrapolated", "estimated")}
    parts = []
    for group in sorted(set(groups)):
        part = predict(table[groups == group], fit_table(table[groups != group]), flat)
        part.index = table.index[groups == group]
        parts.append(part)
    return pd.concat(parts).loc[table.index]


def crossvalidate_online(by: str = "experiment") -> dict[str, dict]:
    """Errors (per cent, form of `error_report.errors`) by metric with each group left out of the fit that predicts it.

    `by`: "experiment", or "model" for each model on a GPU. Bands are the residuals of the other groups.
    """
    table = packaged_table()
    groups = np.asarray(table["experiment"] if by == "experiment" else model_on_gpu(online_rows(table)))
    out = left_out(table, groups)
    found = {}
    for metric, (value, *_) in COLUMNS.items():
        actual, predicted = table[ACTUAL[metric]].to_numpy(float), out[value].to_numpy(float)
        ratio = actual / predicted
        low, high = np.full((2, len(table)), np.nan)
        for group in sorted(set(groups)):
            others = ratio[(groups != group) & np.isfinite(ratio)]
            low[groups == group], high[groups == group] = np.quantile(others, [0.1, 0.9])
        found[metric] = errors(actual, predicted, predicted * low, predicted * high)
    return found


def write_online_fit(path) -> None:
    """Fit the packaged table, cross-validate for the bands, and write `path` (data/online/online_fit.csv)."""
    table = packaged_table()
    fit = fit_table(table)
    told = "fit to online_vllm.csv (inference-sim project, vLLM, 2026-02), calibration/online.py"
    lines = ["part,item,value,low,high,unit,meaning,source"]
    for name, _, _, unit, meaning in PARAMETERS:
        lines.append(f'parameter,{name},{fit.parameters[name]:.5g},,,{unit},"{meaning}","{told}"')
    for part, found, meaning in (
        ("gpu", fit.gpu, "logarithm of the factor on the weights' term"),
        ("model", fit.model, "logarithm of the factor on the step"),
    ):
        lines += [f'{part},{name},{value:.5f},,,1,{meaning},"{told}"' for name, value in found.items()]
    steady = fitted_rows(table)
    unseen = left_out(table, model_on_gpu(online_rows(table)))
    rungs = (
        ("interpolated", left_out(table, table["experiment"]), "P10, P90: each experiment left out"),
        ("extrapolated", unseen, "P10, P90: each model on a GPU left out"),
        ("estimated", unseen, "twice the P80 of absolute errors with each model on a GPU left out: a guess"),
    )
    for rung, out, meaning in rungs:
        for metric, (value, *_) in COLUMNS.items():
            ratio = (table[ACTUAL[metric]] / out[value]).to_numpy(float)[steady]
            low, high = np.quantile(ratio, [0.1, 0.9])
            if rung == "estimated":
                high = np.exp(2 * np.quantile(np.abs(np.log(ratio)), 0.8))
                low = 1 / high
            band = f"band_{rung},{metric},1,{low:.3f},{high:.3f}"
            lines.append(f'{band},true over predicted,"{meaning}","{told}"')
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(lines) + "\n")
