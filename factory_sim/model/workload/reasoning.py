"""Reasoning: hidden tokens before the answer, how many of them, and what an effort level changes.

Measured (ServeGen, deepseek-r1): the share of reasoning in the output tokens, as quantiles over requests with its
mean. Assumed: that share does not depend on the length of the output (their joint law is not published), and an
effort level multiplies the reasoning tokens and leaves the answer alone. Factors of effort levels are guesses,
except where the table says so.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from factory_sim.errors import TraceError, closest
from factory_sim.inputs import workloads
from factory_sim.model.workload.quantiles import QuantileCurve

MEASURED = "servegen_deepseek-r1"


@dataclass(frozen=True)
class Reasoning:
    """How output splits into reasoning and answer."""

    name: str
    source: str
    factor: float
    """Multiplies the reasoning tokens of the measured mix; 0 switches reasoning off."""
    max_output_tokens: int = 0
    """Output beyond this is cut, reasoning first kept; 0: no limit."""

    def split(self, rng: np.random.Generator, osl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(osl, reasoning_tokens)``, int64, for measured output lengths `osl` that include reasoning.

        At least one token of answer is left. With a factor of 1 and no limit `osl` comes back unchanged.
        """
        osl = np.asarray(osl, np.int64)
        share = np.minimum(_share_curve().at(rng.standard_normal(len(osl))), 1.0)
        reasoning = np.minimum(np.rint(osl * share).astype(np.int64), osl - 1)
        answer = osl - reasoning
        reasoning = np.rint(reasoning * self.factor).astype(np.int64)
        total = reasoning + answer
        if self.max_output_tokens:
            total = np.minimum(total, self.max_output_tokens)
            reasoning = np.minimum(reasoning, np.maximum(total - 1, 0))
        return total, reasoning


@cache
def _share_curve() -> QuantileCurve:
    probabilities, values = workloads.quantiles(MEASURED, "reason_ratio")
    mean = workloads.statistics(MEASURED, "reason_ratio")["mean"].number
    return QuantileCurve(probabilities, values, mean, name="reason_ratio", smallest=0.01, largest=1.0)


@cache
def effort_levels() -> dict[str, tuple[float, str]]:
    """Return the packaged effort levels: name -> (factor on reasoning tokens, source)."""
    with (workloads.FOLDER / "reasoning_effort.csv").open(encoding="utf-8", newline="") as lines:
        return {row["effort"]: (float(row["reasoning_factor"]), row["source"]) for row in csv.DictReader(lines)}


def reasoning_model(spec: str | Mapping) -> Reasoning:
    """Return how outputs reason: an effort level (``none``, ``low``, ``medium``, ``high``, ``test_time_scaling``), or
    ``{effort: high, max_output_tokens: 65536}``, or ``{factor: 10}``. Raises TraceError."""
    body: Mapping = {"effort": spec} if isinstance(spec, str) else spec
    if not isinstance(body, Mapping) or ("effort" in body) == ("factor" in body):
        raise TraceError(
            f"reasoning: an effort level, or a mapping with either effort or factor, is needed, got {spec!r}"
        )
    for key in body:
        if key not in ("effort", "factor", "max_output_tokens"):
            raise TraceError(
                f"reasoning: unknown key '{key}'{closest(str(key), ['effort', 'factor', 'max_output_tokens'])}"
            )
    limit = body.get("max_output_tokens", 0)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise TraceError(f"reasoning.max_output_tokens: a whole number >= 0 is needed, got {limit!r}")
    if "effort" in body:
        levels = effort_levels()
        if body["effort"] not in levels:
            raise TraceError(f"reasoning.effort: '{body['effort']}' is not known{closest(str(body['effort']), levels)}")
        factor, source = levels[body["effort"]]
        return Reasoning(str(body["effort"]), source, factor, limit)
    factor = body["factor"]
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor <= 1e4:
        raise TraceError(f"reasoning.factor: a number from 0 to 10000 is needed, got {factor!r}")
    return Reasoning(f"factor_{factor:g}", "as described in the scenario", float(factor), limit)
