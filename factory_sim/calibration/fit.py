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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.calibration import benchmarks, closed_form
from factory_sim.calibration.covariance import covariance_of
from factory_sim.errors import CapacityError
from factory_sim.inputs import catalog, profiles
from factory_sim.inputs.measurements import layout_of
from factory_sim.model import serving, step_time

if TYPE_CHECKING:
    import pandas as pd

NOISE = (0.15, 0.0375)
"""Standard deviation of log TTFT and log TPOT of a run around its own configuration (repeats of the same day)."""
FREEDOM = 4.0
"""Degrees of freedom of the Student-t errors."""
PLAYS = 8
"""Times that all runs are played in a fit."""
STEPS_PER_PLAY = 1
THREADS = 2
"""Runs played, and folds refitted, at once; results do not depend on it."""
DOUBT = 4.0
"""Errors of a run that is unfit as a judge (a suspect flag) over those of others."""
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
        max_batched_tokens=np.array([float(engine.max_batched_tokens) for engine in settings]),
        max_sequences=np.maximum(capacity / held, 1.0),
        attended_cap=np.array([catalog.model(name).sparse_top_tokens or np.inf for name in rows.model]),
    )


def play_runs(task: Problem, statistic: tuple[str, str] = benchmarks.DEFAULT) -> np.ndarray:
    """Play every run with its present parameters; returns log (TTFT s, TPOT s), shape (n, 2).

    `statistic` is what is reported as (TTFT, TPOT): "mean" or "median". A run that cannot be played (its requests do
    not fit) is NaN.
    """
    decode, prefill = task.parameters()
    rows = list(task.rows.itertuples())

    def one(index: int) -> tuple[float, float]:
        layout = layout_of(rows[index])
        parameters = {layout.workers[0].role: prefill[index], layout.workers[-1].role: decode[index]}
        with suppress(CapacityError):
            return benchmarks.reported(play_run(rows[index], layout, parameters), statistic)
        return np.nan, np.nan

    with ThreadPoolExecutor(THREADS) as pool:
        return np.log(np.array(list(pool.map(one, range(len(rows)))), dtype=float).reshape(-1, 2))


def play_run(row, layout, parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Play the benchmark of one row with given parameters of each role."""
    speculation = "mtp" if row.spec_decoding == "mtp" else "none"
    system = serving.assemble(
        row.model, row.gpu, row.backend, row.precision, layout, parameters,
        speculation=speculation, concurrency=row.concurrency / layout.instances,
        max_sequences=int(np.ceil(row.concurrency / layout.instances)),
    )  # fmt: skip
    return benchmarks.play(
        system, row.isl_longest, row.osl_longest, row.low_fraction, int(row.concurrency), layout.instances
    )


def take(task: Problem, index: np.ndarray) -> Problem:
    """Return some runs of a fit with their state."""
    return Problem(
        rows=task.rows.iloc[index].reset_index(drop=True),
        runs=closed_form.take(task.runs, index),
        keys={level: (first[index], second[index]) for level, (first, second) in task.keys.items()},
        names=task.names,
        measured=task.measured[index],
        ratio=task.ratio[index],
        decode=task.decode[index],
        prefill=task.prefill[index],
        weights=task.weights[index],
        effects=task.effects,
    )


def apply_effects(task: Problem, fitted: Problem) -> None:
    """Give the runs of `task` the parameters that the effects of another fit predict for them (same key numbers)."""
    total = [np.zeros_like(task.decode), np.zeros_like(task.decode)]
    for level, effects in fitted.effects.items():
        for side in range(2):
            total[side] += effects[task.keys[level][side]]
    task.decode, task.prefill = total


def fit(rows: "pd.DataFrame", plays: int = PLAYS, progress=None) -> Problem:
    """Fit all usable rows of a table in the form of `measurements.serving()`: closed form first, then by playing.

    Rows with unknown speculation or unknown GPUs are left out. `progress(done, plays)` is called after each play.
    """
    usable = rows[(rows.problem == "") & (rows.spec_decoding != "unknown")].reset_index(drop=True)
    task = solve(problem(usable))
    for done in range(plays):
        refresh(task)
        for _ in range(STEPS_PER_PLAY):
            gauss_newton(task, np.array(NOISE))
            reweigh(task, np.array(NOISE))
        if progress:
            progress(done + 1, plays)
    return task


def refresh(task: Problem) -> None:
    """Play all runs and set the ratio of played to closed form."""
    played = play_runs(task)
    ratio = played - (task.predicted() - task.ratio)
    task.ratio = np.where(np.isfinite(ratio), ratio, task.ratio)


def reweigh(task: Problem, noise: np.ndarray) -> None:
    """Weights of the Student-t errors at the present residuals."""
    doubt = np.where(task.rows.clean, 1.0, DOUBT)[:, None]
    residual = (task.measured - task.predicted()) / (noise * doubt)
    task.weights = (FREEDOM + 1) / (FREEDOM + residual**2) / doubt**2


def solve(task: Problem, steps: int = 9, noise: Sequence[float] = NOISE) -> Problem:
    """Fit by Gauss-Newton, from loose errors to tight ones; changes and returns `task`."""
    for index in range(steps):
        loose = 1.0 + 0.8 * max(0, steps - 4 - index)
        gauss_newton(task, np.array(noise) * loose, damping=0.8 if index < steps - 5 else 1.0)
        if index >= 2:
            reweigh(task, np.array(noise) * loose)
    return task


def gauss_newton(task: Problem, noise: np.ndarray, damping: float = 1.0) -> None:
    """One step: linearise the latencies, regress, move the effects as far as the errors do not grow."""
    decode, prefill, target = linearised(task)
    covariance = kernel(task, decode, prefill)
    covariance[np.diag_indices_from(covariance)] += (noise**2 / task.weights).reshape(-1)
    task.effects, new = posterior(task, decode, prefill, _solve(covariance, target))
    start = (task.decode, task.prefill)
    before = _loss(task, noise)
    for shorter in (1.0, 0.5, 0.25, 0.1):
        task.decode, task.prefill = (
            old + np.clip(damping * shorter * (found - old), -LARGEST_STEP, LARGEST_STEP)
            for old, found in zip(start, new)
        )
        task.prefill = np.where(task.runs.pooled[:, None], task.prefill, task.decode)
        if _loss(task, noise) <= before * 1.01:
            break


def _loss(task: Problem, noise: np.ndarray) -> float:
    """Minus log likelihood of the Student-t errors, up to a constant."""
    residual = (task.measured - task.predicted()) / noise
    return float(np.log1p(residual**2 / FREEDOM).sum())


def _solve(covariance: np.ndarray, target: np.ndarray) -> np.ndarray:
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
    return cho_solve(factor, target, check_finite=False)


def linearised(task: Problem):
    """Return (scaled sensitivities by decode and by prefill worker (2n, k), target (2n,)).

    Sensitivities are times the spread of each parameter, so that an effect is in units of its spread. All of an
    aggregated run belongs to its one worker (first part).
    """
    spread = np.array([term.spread for term in profiles.terms()])
    centre, decode, prefill = closed_form.sensitivities(task.runs, *task.parameters())
    target = task.measured - centre - task.ratio
    target += np.einsum("ijk,ik->ij", decode, task.decode) + np.einsum("ijk,ik->ij", prefill, task.prefill)
    count = len(spread)
    return (decode * spread).reshape(-1, count), (prefill * spread).reshape(-1, count), target.reshape(-1)


def kernel(task: Problem, decode: np.ndarray, prefill: np.ndarray) -> np.ndarray:
    """Prior covariance of the linearised latencies, shape (2n, 2n)."""
    variance = np.array([level.weights**2 for level in profiles.levels()])
    keys = [np.stack([task.keys[level.name][side] for level in profiles.levels()], axis=1) for side in range(2)]
    return covariance_of(
        decode, prefill, keys[0].astype(np.int32), keys[1].astype(np.int32), variance, task.runs.pooled
    )


def posterior(task: Problem, decode: np.ndarray, prefill: np.ndarray, dual: np.ndarray):
    """Return (level -> effects (keys, k), effects of each run's (decode, prefill) worker)."""
    spread = np.array([term.spread for term in profiles.terms()])
    effects, total = {}, [np.zeros_like(task.decode), np.zeros_like(task.decode)]
    for level in profiles.levels():
        found = np.zeros((len(task.names[level.name]), len(spread)))
        for side, part in enumerate((decode, prefill)):
            np.add.at(found, np.repeat(task.keys[level.name][side], 2), part * dual[:, None])
        found *= spread * level.weights**2
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
