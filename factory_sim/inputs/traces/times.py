"""Times of tables whose numbers come in more than one unit."""

import numpy as np

from factory_sim.inputs.logs.columns import Mapping
from factory_sim.inputs.logs.records import Complaints

EPOCH_SIZES = (1e8, 1e11, 1e14, 1e17)
"""Seconds, milliseconds, microseconds and nanoseconds since 1970 are at least this large (from 1973 on)."""


def one_unit(frame, plan: Mapping, complaints: Complaints):
    """Turn epoch times in several units into seconds, each by its own size (1e8 s to 1e20 ns): told."""
    import pandas as pd

    if "start" not in plan.roles or plan.roles["start"].unit or plan.start_unit:
        return frame
    name = plan.roles["start"].name
    if pd.api.types.is_datetime64_any_dtype(frame[name]):
        return frame
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy("float64", na_value=np.nan)
    size = np.digitize(values, EPOCH_SIZES)
    size[~np.isfinite(values)] = 0
    counts = np.bincount(size, minlength=len(EPOCH_SIZES) + 1)[1:]
    if np.sum(counts > 0) < 2:
        return frame
    other = (size > 0) & (size != 1 + int(np.argmax(counts)))
    complaints.add_rows(
        "repaired, epoch times in several units: each read by its size", frame.index[other], name, frame[name][other]
    )
    seconds = values * np.array([1.0, 1.0, 1e-3, 1e-6, 1e-9])[size]
    return frame.assign(**{name: np.where(size > 0, seconds, values)})
