"""Spans of a run: which part of a stage's GPUs served, waited, was down or trained, and when."""

import pandas as pd

STATES = ("serving", "idle", "down", "training")


def spans(windows: pd.DataFrame, replication: int) -> pd.DataFrame:
    """Spans of one replication for a Gantt chart: row (service.stage), start_s, end_s, state, share.

    `share` is the state's part of the most GPUs that the stage ever held. Neighbouring spans that are alike are one.
    """
    rows = windows[windows["replication"] == replication]
    seconds = (rows["end_s"] - rows["start_s"]) / 3600.0
    down = rows["gpu_hours_down"] / seconds
    working = rows["gpus"] - down
    trains = rows["trained_tokens"] > 0 if "trained_tokens" in rows else pd.Series(False, index=rows.index)
    table = pd.DataFrame(
        {
            "row": rows["service"].astype(str) + "." + rows["stage"].astype(str),
            "start_s": rows["start_s"],
            "end_s": rows["end_s"],
            "serving": working.where(~trains & (rows["replicas"] > 0), 0.0),
            "idle": working.where(~trains & (rows["replicas"] == 0), 0.0),
            "down": down,
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
