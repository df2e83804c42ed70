"""Calibrated profiles as they ship: small tables that anyone can read.

`terms.csv`   the parameters of the step-time model: unit, start of the fit, spread, group, meaning
`levels.csv`  what parameters may depend on (GPU, engine, model, their pairs, ...) and how strongly, by group
`effects.csv` the fitted result: for each level and key, the logarithm that is added to a parameter
`engines.csv` settings of the engines that a benchmark does not publish
`index.csv`   one row a measured group: rows, fit range, error, dates

A parameter of a worker is ``prior * exp(sum of the effects of all its keys)``; a key that was never measured adds
nothing, which leaves the prediction to the levels above it.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from factory_sim.errors import ProfileError, closest
from factory_sim.units import GIGABYTE_BYTES


@dataclass(frozen=True)
class Term:
    """One parameter of the step-time model."""

    parameter: str
    unit: str
    """"excess over peak" (the time at the data sheet's peak is multiplied by 1 + it), "x peak" (multiplied by it), "s",
    "odds" or "factor"."""
    prior: float
    """Value before anything is measured."""
    spread: float
    """Standard deviation of the log of the parameter over a level of weight 1."""
    group: str
    """Parameters that levels weigh alike: a column of `levels.csv`."""
    meaning: str
    source: str


@dataclass(frozen=True, eq=False)
class Level:
    """One thing that parameters may depend on."""

    name: str
    keys: tuple[str, ...]
    """Columns whose values make the key of an effect, e.g. ("engine", "gpu")."""
    weights: np.ndarray
    """Standard deviation of its effects over the spread of the parameter, for each term."""


@dataclass(frozen=True)
class Engine:
    """Settings of a serving engine that a benchmark does not publish."""

    name: str
    max_batched_tokens: int
    max_sequences: int
    memory_utilisation: float
    reserve_bytes_per_gpu: float
    free_fraction: float
    """Share of the memory that weights and reserve leave which becomes KV cache."""
    reserved_output_share: float
    """Share of the output that a running sequence holds on average: 1 where the engine reserves it all."""
    source: str


@dataclass(frozen=True)
class Effects:
    """Fitted effects: (level, key) -> logs in the order of the terms."""

    by_key: Mapping[tuple[str, str], np.ndarray]

    def parameters(self, keys: Mapping[str, str]) -> np.ndarray:
        """Return the parameters of a worker with these keys (gpu, engine, model, role, ...)."""
        total = np.log([term.prior for term in terms()])
        for level in levels():
            effect = self.by_key.get((level.name, key_of(level, keys)))
            if effect is not None:
                total = total + effect
        return np.exp(total)

    def known(self, level: str) -> list[str]:
        """Keys of a level that have effects, in the order of the table."""
        return [key for name, key in self.by_key if name == level]


def key_of(level: Level, keys: Mapping[str, str]) -> str:
    """Key of a level: the values of its columns, joined by "|"."""
    return "|".join(keys[name] for name in level.keys)


def _open(name: str, folder: Path | None):
    if folder is not None and not (folder / name).is_file():
        raise ProfileError(
            f"{folder}: no {name} in it; give a folder that `factory-sim profiles import` or `profiles fit` wrote"
        )
    return (folder / name if folder else files("factory_sim.data").joinpath("profiles", name)).open(
        encoding="utf-8", newline=""
    )


def _rows(name: str, folder: Path | None = None) -> list[dict[str, str]]:
    with _open(name, folder) as file:
        return list(csv.DictReader(file))


@cache
def terms() -> tuple[Term, ...]:
    """Parameters of the step-time model, in order."""
    return tuple(
        Term(row["parameter"], row["unit"], float(row["prior"]), float(row["spread"]), row["group"], row["meaning"], row["source"])
        for row in _rows("terms.csv")
    )


@cache
def levels() -> tuple[Level, ...]:
    """Levels of the hierarchical fit, in order."""
    return tuple(
        Level(row["level"], tuple(row["keys"].split()), np.array([float(row[term.group]) for term in terms()]))
        for row in _rows("levels.csv")
    )


@cache
def _engines() -> dict[str, Engine]:
    return {
        row["engine"]: Engine(
            row["engine"],
            int(row["max_batched_tokens"]),
            int(row["max_sequences"]),
            float(row["memory_utilisation"]),
            float(row["reserve_gb_per_gpu"]) * GIGABYTE_BYTES,
            float(row["free_fraction"]),
            float(row["reserved_output_share"]),
            row["source"],
        )
        for row in _rows("engines.csv")
    }


def engine(name: str) -> Engine:
    """Return the settings of an engine; ProfileError names the closest."""
    found = _engines().get(name.lower())
    if found is None:
        raise ProfileError(f"engine '{name}' is not known{closest(name, _engines())}")
    return found


@cache
def effects(folder: Path | None = None) -> Effects:
    """Fitted effects of the packaged profiles, or of a folder that `write_effects` made."""
    order = {term.parameter: index for index, term in enumerate(terms())}
    by_key: dict[tuple[str, str], np.ndarray] = {}
    for row in _rows("effects.csv", folder):
        vector = by_key.setdefault((row["level"], row["key"]), np.zeros(len(order)))
        vector[order[row["parameter"]]] = float(row["log_effect"])
    return Effects(by_key)


@dataclass(frozen=True)
class Group:
    """One measured configuration, and what was measured of it."""

    profile: str
    model: str
    gpu: str
    engine: str
    precision: str
    mode: str
    layout: str
    """Workers of the instance, e.g. `tp8`, `3xdep4-4xdep8`."""
    speculation: str
    rows: int
    concurrency: tuple[float, float]
    """Smallest and largest requests in flight on one instance."""
    isl: tuple[float, float]
    osl: tuple[float, float]
    dates: tuple[str, str]
    """First and last date of its runs ("" where none is published)."""
    tpot_error: float
    """Median absolute error of the fit, fraction."""
    ttft_error: float
    points: tuple[tuple[float, float, float], ...]
    """Measured (isl, osl, concurrency)."""


_GROUP_NAMES = ("profile", "model", "gpu", "engine", "precision", "mode", "layout", "speculation")


@cache
def groups(folder: Path | None = None) -> tuple[Group, ...]:
    """Measured configurations of the packaged profiles, or of a folder, in the order of `index.csv`."""
    return tuple(
        Group(
            *(row[name] for name in _GROUP_NAMES),
            rows=int(row["rows"]),
            concurrency=(float(row["concurrency_least"]), float(row["concurrency_most"])),
            isl=(float(row["isl_least"]), float(row["isl_most"])),
            osl=(float(row["osl_least"]), float(row["osl_most"])),
            dates=(row["first_date"], row["last_date"]),
            tpot_error=float(row["tpot_error"]),
            ttft_error=float(row["ttft_error"]),
            points=tuple(tuple(float(x) for x in point.split("/")) for point in row["points"].split()),
        )
        for row in _rows("index.csv", folder)
    )


@dataclass(frozen=True)
class Band:
    """P10 and P90 of measured over predicted on one rung of trust, from left-out rows."""

    ttft: tuple[float, float]
    tpot: tuple[float, float]


@cache
def bands(folder: Path | None = None) -> dict[tuple[str, str], Band]:
    """Bands by (rung, mode); the packaged ones where `folder` has none."""
    if folder is not None and not (folder / "bands.csv").exists():
        folder = None
    found: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for row in _rows("bands.csv", folder):
        found.setdefault((row["rung"], row["mode"]), {})[row["metric"]] = (float(row["low"]), float(row["high"]))
    return {key: Band(**value) for key, value in found.items()}


@cache
def left_out_errors(folder: Path | None = None) -> dict[tuple[str, str], tuple[float, float]]:
    """(scheme, measurement id) -> log of measured over predicted (TTFT, TPOT) with the row left out of the fit."""
    if folder is not None and not (folder / "residuals.csv").exists():
        folder = None
    return {
        (row["scheme"], row["measurement_id"]): (float(row["log_ttft_error"]), float(row["log_tpot_error"]))
        for row in _rows("residuals.csv", folder)
    }
