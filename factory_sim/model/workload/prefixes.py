"""Common system prompts: groups of requests whose prompts begin alike, as block ids for a prefix cache."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from factory_sim.errors import TraceError, closest


@dataclass(frozen=True)
class PrefixGroups:
    """A generated share of common system prompts. Popularity falls as rank to the power of -skew (Zipf)."""

    share: float
    """Fraction of the requests that begin with a common prompt."""
    groups: int
    """Number of different common prompts."""
    tokens: int
    """Tokens of a common prompt."""
    skew: float = 1.0
    """Zipf exponent of the groups' popularity; 0: all alike."""

    def popularity(self) -> np.ndarray:
        """Share of each group among the requests that begin with a common prompt, shape (groups,)."""
        weight = np.arange(1, self.groups + 1, dtype=float) ** -self.skew
        return weight / weight.sum()

    def requests_to_know(self, unknown: float) -> int:
        """Requests after which at most the share `unknown` of the common prompts to come was never seen: the least power
        of two with ``sum(p (1 - share p)^n) <= unknown``."""
        popularity, n = self.popularity(), 1
        while self.share and float((popularity * (1.0 - self.share * popularity) ** n).sum()) > unknown:
            n *= 2
        return n

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Return the group of each of `n` requests, int64; -1 begins like no other."""
        bounds = np.cumsum(self.popularity())
        uniform = rng.random((2, n))
        group = np.minimum(np.searchsorted(bounds, uniform[1], side="right"), self.groups - 1)
        return np.where(uniform[0] < self.share, group, -1)


def prefix_groups(spec: Mapping) -> PrefixGroups:
    """Return the groups that ``{share: 0.8, groups: 20, tokens: 2000, skew: 1}`` describes. Raises TraceError."""
    if not isinstance(spec, Mapping):
        raise TraceError(f"prefix groups: a mapping with share, groups and tokens is needed, got {spec!r}")
    for key in spec:
        if key not in ("share", "groups", "tokens", "skew"):
            raise TraceError(
                f"prefix groups: unknown key '{key}'{closest(str(key), ['share', 'groups', 'tokens', 'skew'])}"
            )
    share, groups, tokens, skew = spec.get("share", 1.0), spec.get("groups"), spec.get("tokens"), spec.get("skew", 1.0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise TraceError(f"prefix groups.share: a fraction from 0 to 1 is needed, got {share!r}")
    for name, value in (("groups", groups), ("tokens", tokens)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise TraceError(f"prefix groups.{name}: a whole number >= 1 is needed, got {value!r}")
    if isinstance(skew, bool) or not isinstance(skew, int | float) or not 0 <= skew <= 10:
        raise TraceError(f"prefix groups.skew: a number from 0 to 10 is needed, got {skew!r}")
    return PrefixGroups(float(share), groups, tokens, float(skew))


def group_blocks(
    group: np.ndarray, isl: np.ndarray, tokens: int, block_tokens: int, first_id: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return block ids (CSR offsets and ids, int64) of the common part of each prompt; the rest of a prompt has no id.

    The common part are the whole blocks of `block_tokens` within the first `tokens` tokens of the prompt, and at
    least one token of the prompt stays outside. Group g has the ids ``first_id + g * (tokens // block_tokens) + 0,
    1, ...``.
    """
    size = tokens // block_tokens
    counts = np.where(group >= 0, np.minimum(size, (isl - 1) // block_tokens), 0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    return offsets, first_id + np.repeat(group, counts) * size + place
