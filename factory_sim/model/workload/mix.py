"""What the requests of a service are like beside their lengths: reasoning, urgency, impatience, common prompts.

A property that is not asked for draws nothing, so that it moves no other number of the run.
"""

from dataclasses import dataclass, replace

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.model.workload.lengths import LengthModel
from factory_sim.model.workload.prefixes import PrefixGroups, group_blocks
from factory_sim.model.workload.reasoning import Reasoning
from factory_sim.streams import stream

_MEAN_OF = 50_000
"""Draws behind the mean length of answers with reasoning, and behind the share that a context window lets in."""
_LEAST_SHARE = 0.001
"""Share of the requests that a context window must let in."""


@dataclass(frozen=True)
class RequestMix:
    """How the requests of one service are drawn."""

    lengths: LengthModel
    """Lengths as measured, before an effort of reasoning changes them."""
    reasoning: Reasoning | None = None
    class_shares: tuple[float, ...] = ()
    """Share of the requests in each class, most urgent first; empty: one class."""
    cancelled_share: float = 0.0
    """Share of the requests whose client goes away."""
    cancelled_after_s: float = 0.0
    """Mean time after arrival at which it does, seconds, exponential."""
    groups: PrefixGroups | None = None
    block_tokens: int = 512
    """Tokens of a block of the prefix cache."""
    refuse: bool = False
    """Requests beyond the context window stay as they are, for the pool to refuse; otherwise they are cut to fit."""

    client_shares: np.ndarray | None = None
    """Falling shares of the clients, by whom session affinity and limits go; None: requests have no client."""
    reading_tokens_per_s: float | None = None
    """Speed of the readers of streamed answers; None: not measured."""

    @property
    def served_lengths(self) -> LengthModel:
        """The lengths that arrive: with the effort of reasoning in the answers."""
        return self.lengths if self.reasoning is None else _with_reasoning(self.lengths, self.reasoning)

    def let_in(self, max_context_tokens: int) -> tuple[LengthModel, float]:
        """Lengths of the requests that a context window lets in, and their share of those that arrive.

        Without `refuse` all are let in. Raises TraceError where (almost) none is.
        """
        lengths = self.served_lengths
        if not self.refuse:
            return lengths, 1.0
        isl, osl = lengths.sample(stream(0, "share within the context window"), _MEAN_OF)
        fits = isl + osl <= max_context_tokens
        share = float(fits.mean())
        if share == 1.0:
            return lengths, share
        if share < _LEAST_SHARE:
            raise TraceError(f"context_window: of these lengths hardly any fit into {max_context_tokens:,} tokens")
        return _within(lengths, max_context_tokens, isl[fits], osl[fits]), share

    def draw(self, rng: np.random.Generator, n: int, max_context_tokens: int) -> dict[str, np.ndarray]:
        """Return the columns of `n` requests by name: isl, osl and those that are asked for, as `Requests` has them."""
        isl, osl = self.lengths.sample(rng, n)
        columns: dict[str, np.ndarray] = {}
        reasoning = None
        if self.reasoning is not None:
            osl, reasoning = self.reasoning.split(rng, osl)
        if not self.refuse:
            osl = np.minimum(osl, max_context_tokens - 1)
            isl = np.minimum(isl, max_context_tokens - osl)
        columns |= {"isl": isl, "osl": osl}
        if reasoning is not None:
            columns["reasoning_tokens"] = np.minimum(reasoning, osl - 1)
        if self.class_shares:
            bounds = np.cumsum(self.class_shares)
            drawn = np.searchsorted(bounds, rng.random(n) * bounds[-1], side="right")
            columns["priority"] = np.minimum(drawn, len(bounds) - 1)
            columns["service"] = columns["priority"]  # the label that a request leaves with
        if self.cancelled_share:
            goes = rng.random(n) < self.cancelled_share
            columns["patience_s"] = np.where(goes, rng.exponential(self.cancelled_after_s, n), np.inf)
        if self.groups is not None:
            group = self.groups.draw(rng, n)
            starts, ids = group_blocks(group, isl, self.groups.tokens, self.block_tokens)
            columns |= {"block_starts": starts, "block_ids": ids}
        if self.client_shares is not None:
            bounds = np.cumsum(self.client_shares)
            drawn = np.searchsorted(bounds, rng.random(n) * bounds[-1], side="right")
            columns["session"] = np.minimum(drawn, len(bounds) - 1)
        return columns


def _within(lengths: LengthModel, window: int, isl: np.ndarray, osl: np.ndarray) -> LengthModel:
    """The lengths that fit into a window, by rejection; `isl`, `osl`: a large sample of them."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        found, held = [], 0
        while held < n:
            more = lengths.sample(rng, 2 * (n - held) + 100)
            fits = more[0] + more[1] <= window
            found.append((more[0][fits], more[1][fits]))
            held += int(fits.sum())
        return tuple(np.concatenate(column)[:n] for column in zip(*found))

    return replace(
        lengths,
        name=f"{lengths.name} within {window} tokens",
        mean_isl=float(isl.mean()),
        mean_osl=float(osl.mean()),
        draw=draw,
    )


def _with_reasoning(lengths: LengthModel, reasoning: Reasoning) -> LengthModel:
    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        isl, osl = lengths.sample(rng, n)
        return isl, reasoning.split(rng, osl)[0]

    _, osl = draw(stream(0, "mean length with reasoning"), _MEAN_OF)
    longest = int(lengths.max_osl * max(reasoning.factor, 1.0))
    return replace(
        lengths,
        name=f"{lengths.name} with reasoning {reasoning.name}",
        source=f"{lengths.source}; reasoning: {reasoning.source}",
        mean_osl=float(osl.mean()),
        max_osl=min(longest, reasoning.max_output_tokens or longest),
        draw=draw,
    )
