"""Which services make images or videos: what they cost is kept out of every figure per token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

OUTPUTS = {"images": "image", "videos": "video"}
"""What the column `makes` of windows calls the makers of images and videos -> one of it."""


def maker_services(windows: pd.DataFrame) -> dict[str, str]:
    """Service -> "images" or "videos", of those that make any (none in runs whose windows do not tell)."""
    if "makes" not in windows:
        return {}
    made = windows["makes"].astype(str)
    other = made.isin(list(OUTPUTS))
    if not other.any():
        return {}
    return dict(zip(windows["service"][other].astype(str), made[other]))


def of_tokens(table: pd.DataFrame, makers: dict[str, str]) -> np.ndarray:
    """Rows of a table (with a column service) that do not belong to a service of images or videos."""
    if not makers:
        return np.ones(len(table), dtype=bool)
    return ~table["service"].astype(str).isin(list(makers)).to_numpy()


def made_by(table: pd.DataFrame, makers: dict[str, str], made: str) -> np.ndarray:
    """Rows of a table (with a column service) of the services that make `made`."""
    names = [service for service, its in makers.items() if its == made]
    return table["service"].astype(str).isin(names).to_numpy()
