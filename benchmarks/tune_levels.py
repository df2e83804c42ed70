"""Find the weights of `levels.csv` and the spreads of `terms.csv`: those that make errors of left-out runs small.

    python benchmarks/tune_levels.py OUT [--rounds 10]

Latencies are linear in the effects around a fit, so the error of a block of left-out runs follows from the inverse G of
their covariance without refitting: r_b = inv(G_bb) (G y)_b. With a = G y and the slopes v_b of the loss, its gradient by
the covariance is ``A C' - (A 1) a'`` where A has the columns G_b inv(G_bb) v_b and C the columns G_b r_b, one a block.
Adam moves the logs of weights and spreads a few steps, held near where they started, then all runs are fitted
again with them, since the line is only good nearby. Prints the errors of each scheme as it goes (TPOT then TTFT,
median/mean per cent, aggregated; disaggregated): these are optimistic, `factory-sim profiles crossvalidate` judges.
Writes both tables into OUT. About a minute a round on two cores.
"""

import argparse
import csv
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numba import njit
from scipy.linalg import cho_factor
from scipy.linalg.lapack import dpotri

from factory_sim.calibration import accuracy, fit
from factory_sim.inputs import profiles
from factory_sim.inputs.measurements import serving

SCHEMES = {"concurrency": 0.5, "group": 1.0, "model_gpu": 1.0, "family": 0.6}
"""What is left out, and its part in the loss."""
METRIC_WEIGHT = np.array([0.35, 1.0])
"""Parts of TTFT and TPOT in the loss."""
ROUNDING = np.array([0.10, 0.03])
"""Errors of log TTFT and log TPOT below which the loss is quadratic rather than linear."""
SATURATION = 0.6
"""Error of a log beyond which the loss hardly grows: nothing fits some runs."""
OUTLIER_WEIGHT = 0.15
"""Student-t weight of a run in the full fit below which it does not judge."""
RIDGE = 1e-3
"""Cost of a squared change of a log weight or spread."""
STEPS, RATE = 3, 0.07
"""Adam steps between two fits, and their size."""
FURTHEST = {"weights": (-1.2, 0.9), "spreads": (-0.7, 0.5)}
"""How far logs may move from where they started."""


class Tables:
    """Logs of the weights (levels, groups) and of the spreads (terms), installed in place of the packaged tables."""

    def __init__(self):
        self.terms, self.levels = profiles.terms(), profiles.levels()
        self.groups = list(dict.fromkeys(term.group for term in self.terms))
        self.group = np.array([self.groups.index(term.group) for term in self.terms])
        first = [int(np.argmax(self.group == index)) for index in range(len(self.groups))]
        self.weights = np.log(np.array([level.weights[first] for level in self.levels]))
        self.spreads = np.log([term.spread for term in self.terms])
        self.start = self.weights.copy(), self.spreads.copy()
        self.free = np.array([level.name != "all" for level in self.levels])

    def install(self) -> None:
        """Let the fit use the present values."""
        for values, start, span in zip((self.weights, self.spreads), self.start, FURTHEST.values()):
            np.clip(values, start + span[0], start + span[1], out=values)
        by_term = np.exp(self.weights)[:, self.group]
        levels = tuple(replace(level, weights=row) for level, row in zip(self.levels, by_term))
        terms = tuple(replace(term, spread=float(np.exp(log))) for term, log in zip(self.terms, self.spreads))
        profiles.levels, profiles.terms = lambda: levels, lambda: terms

    def write(self, folder: Path) -> None:
        """Write `levels.csv` and `terms.csv` with the present values."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("levels.csv", "terms.csv"):
            with files("factory_sim.data").joinpath("profiles", name).open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            for index, row in enumerate(rows):
                if name == "levels.csv":
                    row.update({group: f"{np.exp(log):.2g}" for group, log in zip(self.groups, self.weights[index])})
                else:
                    row["spread"] = f"{np.exp(self.spreads[index]):.2g}"
            with (folder / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


@njit(nogil=True)
def _by_pair(decode, prefill, decode_worker, prefill_worker, slope, pooled, out):
    """Add slope x sensitivities of each pair of runs to that of their pair of workers, by parameter."""
    for i in range(len(decode_worker)):
        for j in range(i + 1):
            half = 0.5 if i == j else 1.0
            for first in range(1 + pooled[i]):
                a = decode if first == 0 else prefill
                one = decode_worker[i] if first == 0 else prefill_worker[i]
                for second in range(1 + pooled[j]):
                    b = decode if second == 0 else prefill
                    two = out[one, decode_worker[j] if second == 0 else prefill_worker[j]]
                    for p in range(2):
                        for q in range(2):
                            both = half * (slope[2 * i + p, 2 * j + q] + slope[2 * j + q, 2 * i + p])
                            for k in range(decode.shape[1]):
                                two[k] += a[2 * i + p, k] * b[2 * j + q, k] * both


def _by_level(task: fit.Problem, levels, decode, prefill, slope) -> np.ndarray:
    """Gradient by the variance of each level and parameter, shape (levels, k)."""
    keys = [np.stack([task.keys[level.name][side] for level in levels], axis=1) for side in range(2)]
    unique, worker = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    first, second = worker.reshape(2, -1)
    pairs = np.zeros((len(unique), len(unique), decode.shape[1]))
    _by_pair(decode, prefill, first, second, slope, task.runs.pooled, pairs)
    return np.stack([pairs[one[:, None] == one[None, :]].sum(axis=0) for one in unique.T])


def _left_out(inverse, solved, slopes, blocks):
    """Errors of blocks left out, and their part of the gradient: columns of A and of C."""
    errors, a = np.zeros_like(solved), np.zeros((len(solved), len(blocks)))
    c = np.zeros_like(a)
    for column, block in enumerate(blocks):
        own = inverse[np.ix_(block, block)]
        errors[block] = np.linalg.solve(own, solved[block])
        a[block, column] = np.linalg.solve(own, slopes(errors[block], block))
        c[block, column] = errors[block]
    return errors, inverse @ a, inverse @ c


def loss_and_gradient(task: fit.Problem, tables: Tables):
    """Return (loss, gradient by log weights, gradient by log spreads, text of errors)."""
    decode, prefill, target = fit.linearised(task)
    covariance = fit.kernel(task, decode, prefill)
    covariance[np.diag_indices_from(covariance)] += (np.array(fit.NOISE) ** 2 / task.weights).reshape(-1)
    factor, _ = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
    inverse, _ = dpotri(factor, lower=1, overwrite_c=True)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    solved, clean = inverse @ target, task.rows.clean.to_numpy()
    share = (METRIC_WEIGHT * (clean[:, None] & (task.weights > OUTLIER_WEIGHT)) / clean.sum()).ravel()
    rounding = np.tile(ROUNDING, len(clean))
    slope, loss, told = np.zeros_like(inverse), 0.0, []
    for scheme, part in SCHEMES.items():
        number = task.rows.group_id.factorize()[0] if scheme == "group" else accuracy.folds(task.rows, scheme)
        runs = [np.flatnonzero(number == one) for one in np.unique(number)]
        blocks = [np.stack([2 * one, 2 * one + 1], axis=1).ravel() for one in runs]

        def slopes(errors, block, part=part):
            size = np.hypot(errors, rounding[block])
            return part * share[block] * errors / size * np.exp((rounding[block] - size) / SATURATION)

        errors, a, c = _left_out(inverse, solved, slopes, blocks)
        size = np.hypot(errors, rounding)
        loss += part * float(share @ (SATURATION * (1 - np.exp((rounding - size) / SATURATION))))
        slope += a @ c.T - np.outer(a.sum(axis=1), solved)
        told.append(f"{scheme} {_errors(task, errors.reshape(-1, 2), clean)}")
    by_log = 2 * _by_level(task, tables.levels, decode, prefill, slope) * np.exp(2 * tables.weights)[:, tables.group]
    by_weight = np.stack([by_log[:, tables.group == one].sum(axis=1) for one in range(len(tables.groups))], axis=1)
    by_weight = (by_weight + 2 * RIDGE * (tables.weights - tables.start[0])) * tables.free[:, None]
    return loss, by_weight, by_log.sum(axis=0) + 2 * RIDGE * (tables.spreads - tables.start[1]), " | ".join(told)


def _errors(task: fit.Problem, errors: np.ndarray, clean: np.ndarray) -> str:
    pooled, percent = task.runs.pooled, 100 * np.abs(np.expm1(-errors))
    return "; ".join(
        " ".join(f"{np.median(values):.1f}/{values.mean():.1f}" for values in percent[clean & mode].T[::-1])
        for mode in (~pooled, pooled)
    )


def refit(task: fit.Problem) -> None:
    """Fit again, from where the fit is, with the tables as they are now."""
    noise = np.array(fit.NOISE)
    for steps in (3, 2):
        for _ in range(steps):
            fit.gauss_newton(task, noise)
            fit.reweigh(task, noise)
        if steps == 3:
            fit.refresh(task)


def main() -> None:
    """Tune and write."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("out", type=Path, help="folder to write levels.csv and terms.csv into")
    arguments.add_argument("--rounds", type=int, default=10, help="fits with new weights")
    told = arguments.parse_args()
    tables = Tables()
    tables.install()
    task, step = fit.fit(serving(), plays=2), 0
    moments = [[np.zeros_like(values), np.zeros_like(values)] for values in (tables.weights, tables.spreads)]
    for turn in range(told.rounds):
        for _ in range(STEPS):
            loss, *gradients, errors = loss_and_gradient(task, tables)
            step += 1
            print(f"round {turn} step {step} loss {loss:.4f} | {errors}", flush=True)
            for values, gradient, (mean, square) in zip((tables.weights, tables.spreads), gradients, moments):
                mean += 0.2 * (gradient - mean)
                square += 0.1 * (gradient**2 - square)
                values -= RATE * mean / (1 - 0.8**step) / (np.sqrt(square / (1 - 0.9**step)) + 1e-5)
            tables.install()
        refit(task)
        tables.write(told.out)


if __name__ == "__main__":
    main()
