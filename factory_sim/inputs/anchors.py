"""Anchors: published throughput of one role (prefill or decode) of a disaggregated system, to hold step times to.

`data/profiles/anchors.csv` says at which point a row of `offline_throughput.csv` was measured; the throughput itself is
read from there. Only throughput is published for such systems, so what rests on an anchor is an estimate.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from factory_sim.errors import ProfileError, closest

_RATE_COLUMN = {"prefill": "prefill_tokens_per_s_per_gpu", "decode": "output_tokens_per_s_per_gpu"}
MODELS = ("DeepSeek-R1", "DeepSeek-V3")
"""Models that the published rows are of (one architecture)."""


@dataclass(frozen=True)
class Anchor:
    """What one role did per GPU, and at which point."""

    name: str
    role: str
    """"prefill" or "decode"."""
    gpu: str
    parallelism: str
    """Layout as published; one instance of it."""
    tokens_per_s_per_gpu: float
    """Tokens that one GPU of the role computed a second: cache hits are taken out."""
    sequences_per_gpu: float
    """Decode: sequences that one GPU runs; 0 for prefill."""
    sequence_tokens: float
    """Decode: cached tokens that a step attends to for each sequence. Prefill: tokens of a prompt."""
    basis: str
    """How the point is known: read, computed or guess."""
    source: str
    note: str


def _rows(*path: str) -> list[dict[str, str]]:
    with files("factory_sim.data").joinpath(*path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def anchors() -> dict[tuple[str, str], Anchor]:
    """All anchors by (role, name), in the order of the table."""
    published = _rows("measurements", "offline_throughput.csv")
    return {(row["role"], row["anchor"]): _anchor(row, published) for row in _rows("profiles", "anchors.csv")}


def _anchor(row: dict[str, str], published: list[dict[str, str]]) -> Anchor:
    column, key = _RATE_COLUMN[row["role"]], ("vendor_source", "published_on")
    (rate,) = [float(r[column]) for r in published if r[column] and all(r[name] == row[name] for name in key)]
    return Anchor(
        name=row["anchor"],
        role=row["role"],
        gpu=row["gpu"],
        parallelism=row["parallelism"],
        tokens_per_s_per_gpu=rate * float(row["computed_share"]),
        sequences_per_gpu=float(row["sequences_per_gpu"] or 0.0),
        sequence_tokens=float(row["sequence_tokens"]),
        basis=row["basis"],
        source=f"{row['vendor_source']}, {row['published_on']}",
        note=row["note"],
    )


def anchor(role: str, name: str) -> Anchor:
    """Return an anchor; ProfileError names the closest."""
    found = anchors().get((role, name))
    if found is None:
        known = [one for of, one in anchors() if of == role]
        raise ProfileError(f"anchor.{role}: '{name}' is not known{closest(name, known)}")
    return found
