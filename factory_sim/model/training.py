"""Training as an investment: how many tokens, how fast, how often interrupted, and what loss comes out.

Loss: ``L(N, D) = E + A / N^alpha + B / D^beta`` (data/training/scaling_laws.csv). FLOPs: 6 N a token (Kaplan et al. 2020, arXiv
2001.08361; attention over the context is left out, a few per cent at 8k tokens). Check-points: Young 1974,
*A first order approximation to the optimum checkpoint interval*; time with failures: Daly 2006, *A higher order estimate of the
optimum checkpoint interval*, exact for exponential failures.
"""

import csv
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from factory_sim.errors import ScenarioError, closest
from factory_sim.inputs import catalog

FLOPS_PER_PARAMETER_AND_TOKEN = 6.0
"""Two for the forward pass, four for the backward pass."""
DEFAULT_LAW = "besiroglu_2024"


@dataclass(frozen=True)
class ScalingLaw:
    """A parametric law of loss, nats a token."""

    name: str
    irreducible: float
    params_factor: float
    params_exponent: float
    tokens_factor: float
    tokens_exponent: float
    source: str


@cache
def scaling_law(name: str = DEFAULT_LAW) -> ScalingLaw:
    """A packaged law by name; raises ScenarioError for an unknown one."""
    with files("factory_sim.data").joinpath("training", "scaling_laws.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    if name not in rows:
        raise ScenarioError(f"scaling law '{name}' is not known{closest(name, rows)}")
    row = rows[name]
    numbers = [float(row[column]) for column in list(row)[1:6]]
    return ScalingLaw(name, *numbers, row["source"])


def loss(law: ScalingLaw, params: float, tokens: float) -> float:
    """Loss of a model of so many parameters after so many tokens, nats a token."""
    return (
        law.irreducible
        + law.params_factor / params**law.params_exponent
        + law.tokens_factor / tokens**law.tokens_exponent
    )


def optimal_tokens(law: ScalingLaw, params: float) -> float:
    """Tokens for which `params` is the compute-optimal size: alpha A / N^alpha = beta B / D^beta."""
    ratio = law.tokens_exponent * law.tokens_factor / (law.params_exponent * law.params_factor)
    return (ratio * params**law.params_exponent) ** (1.0 / law.tokens_exponent)


def optimal_size(law: ScalingLaw, flops: float) -> tuple[float, float]:
    """(parameters, tokens) with the least loss for a compute budget, 6 N D = `flops`."""
    low, high = 1e6, 1e15
    for _ in range(200):
        middle = math.sqrt(low * high)
        spent = FLOPS_PER_PARAMETER_AND_TOKEN * middle * optimal_tokens(law, middle)
        low, high = (middle, high) if spent < flops else (low, middle)
    params = math.sqrt(low * high)
    return params, flops / (FLOPS_PER_PARAMETER_AND_TOKEN * params)


def converged_tokens(law: ScalingLaw, params: float, within_nats: float = 0.02) -> float:
    """Tokens after which the loss is within `within_nats` of what a model of this size can reach with any number."""
    return (law.tokens_factor / within_nats) ** (1.0 / law.tokens_exponent)


@cache
def measured_mfu() -> dict[str, tuple[float, str]]:
    """Model FLOPs utilisation of real training runs by name: (fraction, source), from tokenization.csv."""
    with (
        files("factory_sim.data")
        .joinpath("tokenization", "tokenization.csv")
        .open(encoding="utf-8", newline="") as file
    ):
        return {
            row["item"]: (float(row["value"]), row["source"])
            for row in csv.DictReader(file)
            if row["topic"] == "training" and row["quantity"] == "model FLOPs utilisation" and row["value"]
        }


def mfu_of(stated: str | float) -> float:
    """A stated utilisation, or that of a measured run by name; raises ScenarioError for an unknown run."""
    if not isinstance(stated, str):
        return float(stated)
    known = measured_mfu()
    if stated not in known:
        raise ScenarioError(f"mfu: no measured training run '{stated}'{closest(stated, known)}")
    return known[stated][0]


def tokens_per_s(gpu: str, gpus: float, params_active: float, precision: str, mfu: float) -> float:
    """Training throughput while nothing interrupts: GPUs x peak x MFU / (6 N)."""
    peak = catalog.gpu(gpu).peak(precision)
    return gpus * peak * mfu / (FLOPS_PER_PARAMETER_AND_TOKEN * params_active)


def checkpoint_interval_s(write_s: float, interruptions_per_s: float) -> float:
    """Work between check-points that loses least time: sqrt(2 x write time x mean time between interruptions)."""
    if interruptions_per_s <= 0.0 or write_s <= 0.0:
        return math.inf
    return math.sqrt(2.0 * write_s / interruptions_per_s)


def expected_duration_s(
    work_s: float, interval_s: float, write_s: float, restart_s: float, interruptions_per_s: float
) -> float:
    """Mean wall-clock time of `work_s` seconds of undisturbed work under exponential interruptions (Daly 2006, eq. 13):
    segments of `interval_s` of work and one check-point, begun anew after each interruption and a restart."""
    if math.isinf(interval_s):
        interval_s, write_s = work_s, 0.0
    segments = work_s / interval_s
    if interruptions_per_s <= 0.0:
        return work_s + segments * write_s
    rate = interruptions_per_s
    return segments * (1.0 / rate + restart_s) * math.expm1(rate * (interval_s + write_s))
