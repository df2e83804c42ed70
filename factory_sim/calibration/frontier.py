"""Frontiers: throughput per GPU against speed per user, simulated on top of what was measured.

Output tokens/s by Little's law from mean TTFT and TPOT, as the measured tables derive it:
``concurrency * mean OSL / (TTFT + TPOT * (mean OSL - 1))``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.calibration import accuracy
from factory_sim.errors import ProfileError
from factory_sim.inputs import profiles
from factory_sim.inputs.measurements import serving
from factory_sim.records import Record
from factory_sim.units import HOUR_S, MILLION

if TYPE_CHECKING:
    import pandas as pd


class FrontierStage(Record):
    """A system whose measured points make a frontier."""

    name: str
    """Name in charts and tables."""
    model: str
    gpu: str
    engine: str
    precision: str
    mode: str
    """agg or disagg."""
    parallelism: tuple[str, ...] = ()
    """Short forms that belong to the stage; all when empty."""
    speculation: tuple[str, ...] = ("none", "mtp")
    """none, mtp."""
    months: tuple[str, ...] = ()
    """Months (YYYY-MM) of the software; all when empty."""
    isl: int = 1024
    osl: int = 1024


TWENTY_X = (
    FrontierStage(name="H200 FP8", model="DeepSeek-R1", gpu="h200", engine="trtllm", precision="fp8", mode="agg",
                  parallelism=("tp8pp1ep1dpaFr1",), speculation=("none",)),
    FrontierStage(name="H200 FP8 MTP, EP, attention DP", model="DeepSeek-R1", gpu="h200", engine="trtllm",
                  precision="fp8", mode="agg", parallelism=("tp8pp1ep8dpaTr1",), speculation=("mtp",)),
    FrontierStage(name="B200 FP4", model="DeepSeek-R1", gpu="b200", engine="trtllm", precision="fp4", mode="agg",
                  parallelism=("tp4pp1ep1dpaFr1",), speculation=("none",)),
    FrontierStage(name="B200 FP4 MTP", model="DeepSeek-R1", gpu="b200", engine="trtllm", precision="fp4", mode="agg",
                  parallelism=("tp4pp1ep4dpaFr1", "tp4pp1ep4dpaTr1"), speculation=("mtp",)),
    FrontierStage(name="B200 FP4 disaggregated", model="DeepSeek-R1", gpu="b200", engine="trtllm", precision="fp4",
                  mode="disagg", months=("2026-01",)),
    FrontierStage(name="GB200 FP4 disaggregated", model="DeepSeek-R1", gpu="gb200", engine="trtllm", precision="fp4",
                  mode="disagg", months=("2026-03",)),
)  # fmt: skip
"""Stages of the main job: DeepSeek-R1, prompts and answers of up to 1,024 tokens."""


def stage_rows(stage: FrontierStage) -> "pd.DataFrame":
    """Measured rows of a stage with known GPUs and speculation; ProfileError if there is none."""
    rows = serving()
    keep = (rows.problem == "") & rows.spec_decoding.isin(stage.speculation)
    for name, value in (("model", stage.model), ("gpu", stage.gpu), ("backend", stage.engine),
                        ("precision", stage.precision), ("mode", stage.mode), ("isl", stage.isl),
                        ("osl", stage.osl)):  # fmt: skip
        keep &= rows[name] == value
    if stage.parallelism:
        keep &= rows.parallelism.isin(stage.parallelism)
    if stage.months:
        keep &= rows.measured_on.str[:7].isin(stage.months)
    if not keep.any():
        raise ProfileError(f"{stage.name}: no measured row with these lengths")
    return rows[keep].sort_values(["spec_decoding", "parallelism", "concurrency"], kind="stable").reset_index(drop=True)


def frontier(
    stages: Sequence[FrontierStage] = TWENTY_X,
    rent_usd_per_gpu_hour: Mapping[str, float] | None = None,
    folder: Path | None = None,
) -> "pd.DataFrame":
    """Measured points of each stage, and the same played: with all data, and with the own configuration left out.

    One row a (stage, kind, measured run): system, kind ("measured", "simulated", "left_out"), parallelism,
    speculation, concurrency, measurement_id, ttft_s, tpot_s, tokens_per_s_per_user, tokens_per_s_per_gpu, its _low and
    _high (the band of TPOT and TTFT), usd_per_million_output_tokens with _low and _high (NaN without rent of the GPU),
    difference (of tokens_per_s_per_gpu to the measured one, fraction), rows_in_group, trust ("extrapolated" where a
    single row was left out).
    """
    import pandas as pd

    residuals = profiles.left_out_errors(folder)
    counts = serving().groupby("group_id").size()
    out = []
    for stage in stages:
        rows = stage_rows(stage)
        found = accuracy.predict_normalised(rows, folder)
        rent = (rent_usd_per_gpu_hour or {}).get(stage.gpu, np.nan)
        for row, one in zip(rows.itertuples(), found.itertuples()):
            few = int(counts[row.group_id])
            measured = _point(row, row.ttft_s, row.tpot_s, rent)
            out.append(_line(stage, row, "measured", measured, measured, "measured", few))
            low, high = (
                _point(row, ttft * 1e-3, tpot * 1e-3, rent)
                for ttft, tpot in ((one.ttft_high_ms, one.tpot_high_ms), (one.ttft_low_ms, one.tpot_low_ms))
            )
            point = _point(row, one.predicted_ttft_ms * 1e-3, one.predicted_tpot_ms * 1e-3, rent)
            out.append(_line(stage, row, "simulated", point | _band(low, high), measured, one.trust, few))
            errors = residuals.get(("group", row.measurement_id))
            if errors is not None:
                without = _point(row, row.ttft_s / np.exp(errors[0]), row.tpot_s / np.exp(errors[1]), rent)
                out.append(_line(stage, row, "left_out", without, measured, "extrapolated", few))
    return pd.DataFrame(out)


def _point(row, ttft_s: float, tpot_s: float, rent: float) -> dict[str, float]:
    answer = row.mean_output_tokens
    rate = row.concurrency * answer / (ttft_s + tpot_s * (answer - 1)) / row.n_gpus
    return {
        "ttft_s": ttft_s,
        "tpot_s": tpot_s,
        "tokens_per_s_per_user": 1 / tpot_s,
        "tokens_per_s_per_gpu": rate,
        "usd_per_million_output_tokens": rent * MILLION / (rate * HOUR_S),
    }


def _band(low: dict[str, float], high: dict[str, float]) -> dict[str, float]:
    return {
        "tokens_per_s_per_gpu_low": low["tokens_per_s_per_gpu"],
        "tokens_per_s_per_gpu_high": high["tokens_per_s_per_gpu"],
        "usd_per_million_output_tokens_low": high["usd_per_million_output_tokens"],
        "usd_per_million_output_tokens_high": low["usd_per_million_output_tokens"],
    }


def _line(stage, row, kind: str, point: dict, measured: dict, trust: str, few: int) -> dict:
    return {
        "system": stage.name, "kind": kind, "parallelism": row.parallelism, "speculation": row.spec_decoding,
        "concurrency": int(row.concurrency), "measurement_id": row.measurement_id, **point,
        "difference": point["tokens_per_s_per_gpu"] / measured["tokens_per_s_per_gpu"] - 1,
        "rows_in_group": few, "trust": trust,
    }  # fmt: skip


def at_speed(points: "pd.DataFrame", tokens_per_s_per_user: float) -> "pd.DataFrame":
    """Frontier of each (system, kind) at a speed per user: log-linear between its points, NaN outside them.

    The frontier is the upper envelope: a point that another beats in both directions is left out.
    """
    import pandas as pd

    out = []
    for (system, kind), part in points.groupby(["system", "kind"], sort=False):
        part = part.sort_values("tokens_per_s_per_user", kind="stable")
        best = part.tokens_per_s_per_gpu.to_numpy() >= part.tokens_per_s_per_gpu[::-1].cummax()[::-1].to_numpy()
        part = part[best]
        speed = np.log(part.tokens_per_s_per_user.to_numpy())
        row = {"system": system, "kind": kind, "tokens_per_s_per_user": tokens_per_s_per_user}
        for name in ("tokens_per_s_per_gpu", "usd_per_million_output_tokens"):
            values = np.log(part[name].to_numpy())
            row[name] = float(
                np.exp(np.interp(np.log(tokens_per_s_per_user), speed, values, left=np.nan, right=np.nan))
            )
        out.append(row)
    return pd.DataFrame(out)
