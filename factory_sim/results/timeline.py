"""A replication over time: which part of a stage's GPUs served, waited, was down or trained; load and power."""

import numpy as np
import pandas as pd

from factory_sim.units import DAY_S, HOUR_S

STATES = ("serving", "idle", "down", "broken", "training")
MOST_STEPS = 400
"""A course over time has at most so many steps."""
COUNTS = {
    "requests_completed": "requests_completed",
    "requests_turned_away": "requests_turned_away",
    "requests_arrived": "requests_arrived",
    "demand": "latent_requests",
}
"""Figure of the course -> column of the journal's windows."""


def course(windows: pd.DataFrame, replication: int, postings: pd.DataFrame | None = None) -> pd.DataFrame:
    """Load and power of one replication: start_s, end_s, figure, service (all), value, low, high, unit.

    With `postings` that count emissions (money.costs.carbon) also kilograms of CO2e.

    Counts and joules of the journal are spread evenly over their stretches and summed in steps of 1, 6 or 24 hours, so
    the sum over the steps is that of the journal. Power is mean watts at the meter, training and rented capacity included.
    """
    rows = windows[windows["replication"] == replication]
    start, end = rows["start_s"].to_numpy(float), rows["end_s"].to_numpy(float)
    last = end.max()
    longest = float(np.quantile(end - start, 0.9))
    step = next((s for s in (HOUR_S, 6 * HOUR_S) if s >= longest * (1 - 1e-9) and last <= MOST_STEPS * s), DAY_S)
    edges = np.append(np.arange(0.0, last * (1 - 1e-9), step), last)

    def summed(column: str) -> np.ndarray:
        rate = rows[column].to_numpy(float) / (end - start)
        until = [float((rate * np.clip(edge - start, 0.0, end - start)).sum()) for edge in edges]
        return np.diff(until)

    values = {figure: (summed(column), "requests") for figure, column in COUNTS.items()}
    values["power"] = (summed("facility_energy_j") / np.diff(edges), "W")
    level = _carbon_kg_per_j(rows, postings, replication) if postings is not None else 0.0
    if level:
        rows = rows.assign(carbon_kg=level * rows["facility_energy_j"] * rows["carbon_multiplier"].fillna(1.0))
        values["carbon"] = (summed("carbon_kg"), "kg CO2e")
    parts = [
        pd.DataFrame({"start_s": edges[:-1], "end_s": edges[1:], "figure": figure, "service": "all", "value": value,
                      "low": np.nan, "high": np.nan, "unit": unit})
        for figure, (value, unit) in values.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _carbon_kg_per_j(rows: pd.DataFrame, postings: pd.DataFrame, replication: int) -> float:
    """Kilograms of CO2e per joule at the mean intensity, as the postings have it; zero where nothing is counted."""
    emitted = postings[(postings["line"] == "carbon") & (postings["replication"] == replication)]["quantity"].sum()
    weighted_j = (rows["facility_energy_j"] * rows["carbon_multiplier"].fillna(1.0)).sum()
    return 1e3 * float(emitted) / weighted_j if weighted_j else 0.0


def spans(windows: pd.DataFrame, replication: int) -> pd.DataFrame:
    """Spans of one replication for a Gantt chart: row (service.stage), start_s, end_s, state, share.

    `down` is every GPU that serves nobody and is not out of order: being changed or started, spare, without power.
    `share` is the state's part of the most GPUs that the stage ever held. Neighbouring spans that are alike are one.
    """
    rows = windows[windows["replication"] == replication]
    seconds = (rows["end_s"] - rows["start_s"]) / 3600.0
    down = rows["gpu_hours_down"] / seconds
    working = rows["gpus"] - down
    broken = rows["gpu_hours_broken"] / seconds
    trains = rows["profile"].astype(str).str.startswith("training")
    table = pd.DataFrame(
        {
            "row": rows["service"].astype(str) + "." + rows["stage"].astype(str),
            "start_s": rows["start_s"],
            "end_s": rows["end_s"],
            "serving": working.where(~trains & (rows["replicas"] > 0), 0.0),
            "idle": working.where(~trains & (rows["replicas"] == 0), 0.0),
            "down": down - broken,
            "broken": broken,
            "training": working.where(trains, 0.0),
        }
    )
    most = rows["gpus"].groupby(table["row"]).max()
    long = table.melt(["row", "start_s", "end_s"], STATES, "state", "gpus")
    long = long[long["gpus"] > 1e-9].sort_values(["row", "state", "start_s"], kind="stable")
    long["share"] = (long["gpus"] / long["row"].map(most)).round(3)
    before = long.shift()
    alike = (long[["row", "state", "share"]] == before[["row", "state", "share"]]).all(axis=1)
    number = (~(alike & (long["start_s"] == before["end_s"]))).cumsum()
    joined = long.groupby(number).agg(
        row=("row", "first"),
        start_s=("start_s", "first"),
        end_s=("end_s", "last"),
        state=("state", "first"),
        share=("share", "first"),
    )
    return joined.sort_values(["start_s", "row", "state"], kind="stable", ignore_index=True)
