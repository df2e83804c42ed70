"""Hierarchical fit of the step-time parameters to measured closed-loop runs.

The log of each parameter of a worker is a start value plus effects of what the worker is: its GPU, engine, precision,
model, layout, and their pairs (`data/profiles/levels.csv`). An effect is normal around zero with the spread of its
parameter (`terms.csv`) times the weight of its level, so that what runs have in common is learnt from all of them and
what sets one apart costs evidence. The fit is the posterior mode: Gauss-Newton steps in which latencies are linear in
the effects, so each step is a Gaussian-process regression whose kernel is ``sum over levels, parameters of
sensitivity x sensitivity x variance`` over pairs of runs that share the key. Errors of log TTFT and log TPOT are
Student-t (weights from the residuals), since a few runs are start-up effects or worse.

Levels and sensitivities come from `closed_form.py`, the level of the prediction from playing (``ratio``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.calibration import closed_form
from factory_sim.inputs import catalog, profiles
from factory_sim.inputs.measurements import layout_of
from factory_sim.model import serving, step_time

if TYPE_CHECKING:
    import pandas as pd

NOISE = (0.10, 0.025)
"""Standard deviation of log TTFT and log TPOT of a run around its own configuration (repeats of the same day)."""
FREEDOM = 4.0
"""Degrees of freedom of the Student-t errors."""
LARGEST_STEP = 0.6
"""Largest change of a log parameter in one Gauss-Newton step."""


@dataclass
class Problem:
    """Runs to fit, the keys of their workers, and the state of the fit."""

    rows: "pd.DataFrame"
    runs: closed_form.Runs
    keys: dict[str, tuple[np.ndarray, np.ndarray]]
    """Level -> integer keys of (decode or aggregated worker, prefill worker) of each run."""
    names: dict[str, list[str]]
    """Level -> text of each integer key."""
    measured: np.ndarray
    """log (TTFT s, TPOT s), shape (n, 2)."""
    ratio: np.ndarray
    """log played over closed form, shape (n, 2)."""
    decode: np.ndarray = field(default=None)
    """Effects on the decode (or aggregated) worker, shape (n, parameters)."""
    prefill: np.ndarray = field(default=None)
    weights: np.ndarray = field(default=None)
    effects: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        shape = (len(self.rows), len(step_time.PARAMETERS))
        self.decode = np.zeros(shape) if self.decode is None else self.decode
        self.prefill = np.zeros(shape) if self.prefill is None else self.prefill
        self.weights = np.ones_like(self.measured) if self.weights is None else self.weights

    def parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """Parameters of the decode (or aggregated) and of the prefill worker of each run."""
        prior = log_priors()
        return np.exp(prior + self.decode), np.exp(prior + self.prefill)

    def predicted(self) -> np.ndarray:
        """log (TTFT s, TPOT s) by the closed form and the ratio."""
        return closed_form.latencies(self.runs, *self.parameters()) + self.ratio


def log_priors() -> np.ndarray:
    """Logs of the starting values, in the order of `step_time.PARAMETERS`."""
    return np.log([term.prior for term in profiles.terms()])


def _stack(facts: Sequence[step_time.WorkerFacts]) -> step_time.WorkerFacts:
    return step_time.WorkerFacts(
        *(np.array([getattr(one, part.name) for one in facts], dtype=float) for part in fields(step_time.WorkerFacts))
    )


def run_date(row) -> str:
    """Date of a run, or its engine version where no date is published."""
    return row.measured_on or row.backend_version or ""


def problem(rows: "pd.DataFrame") -> Problem:
    """Set up the fit of usable rows of `measurements.serving()`."""
    facts, keys, layouts = ([], []), ([], []), []
    for row in rows.itertuples():
        layout = layout_of(row)
        layouts.append(layout)
        speculation = "mtp" if row.spec_decoding == "mtp" else "none"
        for side, worker in enumerate((layout.workers[-1], layout.workers[0])):
            facts[side].append(serving.worker_facts(row.model, row.gpu, row.precision, worker))
            keys[side].append(
                serving.worker_keys(
                    row.model, row.gpu, row.backend, row.precision, worker, speculation, run_date(row),
                    row.origin or "InferenceX",
                )
            )
    codes, names = {}, {}
    for level in profiles.levels():
        text = [[profiles.key_of(level, one) for one in side] for side in keys]
        names[level.name] = list(dict.fromkeys(text[0] + text[1]))
        number = {key: index for index, key in enumerate(names[level.name])}
        codes[level.name] = tuple(np.array([number[key] for key in side]) for side in text)
    measured = np.log(np.stack([rows.ttft_s, rows.tpot_s], axis=1).astype(float))
    return Problem(
        rows=rows,
        runs=_runs(rows, layouts, _stack(facts[0]), _stack(facts[1])),
        keys=codes,
        names=names,
        measured=measured,
        ratio=np.zeros_like(measured),
    )


def _runs(rows, layouts, decode, prefill) -> closed_form.Runs:
    pooled = np.array([layout.pooled for layout in layouts])
    speculative = (rows.spec_decoding == "mtp").to_numpy()
    isl, osl = rows.mean_input_tokens.to_numpy(), rows.mean_output_tokens.to_numpy()
    settings = [profiles.engine(name) for name in rows.backend]
    capacity = np.array(
        [
            step_time.kv_capacity_tokens(
                catalog.model(row.model), catalog.gpu(row.gpu), row.precision, layout.workers[-1].gpus,
                layout.workers[-1].data_parallel_attention, engine,
            )
            for row, layout, engine in zip(rows.itertuples(), layouts, settings)
        ]
    )  # fmt: skip
    held = isl + osl * np.array([engine.reserved_output_share for engine in settings])
    return closed_form.Runs(
        decode=decode,
        prefill=prefill,
        pooled=pooled,
        concurrency=rows.concurrency.to_numpy() / np.array([layout.instances for layout in layouts]),
        isl=isl,
        osl=osl,
        decode_workers=np.array([layout.workers[-1].count for layout in layouts], dtype=float),
        prefill_workers=np.array([layout.workers[0].count for layout in layouts], dtype=float),
        tokens_per_sequence=np.where(speculative, float(serving.tokens_per_sequence("mtp")), 1.0),
        speculative=speculative,
        max_batched_tokens=np.array([float(engine.max_batched_tokens) for engine in settings]),
        max_sequences=np.maximum(capacity / held, 1.0),
        attended_cap=np.array([catalog.model(name).sparse_top_tokens or np.inf for name in rows.model]),
    )


def solve(task: Problem, steps: int = 9, noise: Sequence[float] = NOISE) -> Problem:
    """Fit by Gauss-Newton, from loose errors to tight ones; changes and returns `task`."""
    for index in range(steps):
        loose = 1.0 + 0.8 * max(0, steps - 4 - index)
        gauss_newton(task, np.array(noise) * loose, damping=0.8 if index < steps - 5 else 1.0)
        if index >= 2:
            residual = (task.measured - task.predicted()) / (np.array(noise) * loose)
            task.weights = (FREEDOM + 1) / (FREEDOM + residual**2)
    return task


def gauss_newton(task: Problem, noise: np.ndarray, damping: float = 1.0) -> None:
    """One step: linearise the latencies, regress, move the effects by at most LARGEST_STEP."""
    sensitivity, decode, prefill, target = linearised(task)
    covariance = kernel(task, decode, prefill)
    covariance[np.diag_indices_from(covariance)] += (noise**2 / task.weights).reshape(-1)
    task.effects, new = posterior(task, decode, prefill, _solve(covariance, target))
    for state, found in ((task.decode, new[0]), (task.prefill, new[1])):
        state += np.clip(damping * (found - state), -LARGEST_STEP, LARGEST_STEP)
    task.prefill[~task.runs.pooled] = task.decode[~task.runs.pooled]


def _solve(covariance: np.ndarray, target: np.ndarray) -> np.ndarray:
    from scipy.linalg import cho_factor, cho_solve

    return cho_solve(cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False), target, check_finite=False)


def linearised(task: Problem):
    """Return (latencies, scaled sensitivities by decode and prefill worker (2n, k), target (2n,)).

    Sensitivities are times the spread of each parameter, so that an effect is in units of its spread. All of an
    aggregated run belongs to its one worker (first part).
    """
    spread = np.array([term.spread for term in profiles.terms()])
    centre, decode, prefill = closed_form.sensitivities(task.runs, *task.parameters())
    pooled = task.runs.pooled[:, None, None]
    decode, prefill = np.where(pooled, decode, decode + prefill), np.where(pooled, prefill, 0.0)
    target = task.measured - centre - task.ratio
    target += np.einsum("ijk,ik->ij", decode, task.decode) + np.einsum("ijk,ik->ij", prefill, task.prefill)
    count = len(spread)
    return centre, (decode * spread).reshape(-1, count), (prefill * spread).reshape(-1, count), target.reshape(-1)


def kernel(task: Problem, decode: np.ndarray, prefill: np.ndarray) -> np.ndarray:
    """Prior covariance of the linearised latencies, shape (2n, 2n)."""
    pools = np.flatnonzero(np.repeat(task.runs.pooled, 2))
    prefill = prefill[pools]
    own, cross, pool = decode @ decode.T, decode @ prefill.T, prefill @ prefill.T
    out = np.zeros_like(own)
    for level in profiles.levels():
        first, second = (np.repeat(side, 2).astype(np.int32) for side in task.keys[level.name])
        second = second[pools]
        variance = level.weight**2
        out += np.where(first[:, None] == first[None, :], own, 0.0) * variance
        if len(pools):
            part = np.where(first[:, None] == second[None, :], cross, 0.0) * variance
            out[:, pools] += part
            out[pools, :] += part.T
            out[np.ix_(pools, pools)] += np.where(second[:, None] == second[None, :], pool, 0.0) * variance
    return out


def posterior(task: Problem, decode: np.ndarray, prefill: np.ndarray, dual: np.ndarray):
    """Return (level -> effects (keys, k), effects of each run's (decode, prefill) worker)."""
    spread = np.array([term.spread for term in profiles.terms()])
    effects, total = {}, [np.zeros_like(task.decode), np.zeros_like(task.decode)]
    for level in profiles.levels():
        found = np.zeros((len(task.names[level.name]), len(spread)))
        for side, part in enumerate((decode, prefill)):
            np.add.at(found, np.repeat(task.keys[level.name][side], 2), part * dual[:, None])
        found *= spread * level.weight**2
        effects[level.name] = found
        for side in range(2):
            total[side] += found[task.keys[level.name][side]]
    return effects, total


def effects_table(task: Problem, smallest: float = 1e-4) -> "pd.DataFrame":
    """Effects as a tidy table (level, key, parameter, log_effect); effects below `smallest` are left out."""
    import pandas as pd

    parts = []
    for level, found in task.effects.items():
        key, parameter = np.nonzero(np.abs(found) >= smallest)
        parts.append(
            pd.DataFrame(
                {
                    "level": level,
                    "key": np.array(task.names[level], dtype=object)[key],
                    "parameter": np.array(step_time.PARAMETERS, dtype=object)[parameter],
                    "log_effect": np.round(found[key, parameter], 5),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
