"""What each replication drew once and for all: the error of its profiles and the drift of its demand."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from factory_sim.engine.resolve import ResolvedService

SOURCES = ("profile_error", "profile_error_ttft", "demand_forecast")


def draws(services: Sequence[ResolvedService]) -> pd.DataFrame:
    """The draws as a table: replication, source, service, stage, value (natural log of a factor).

    ``profile_error``: on all step times of the stage; ``profile_error_ttft``: on TTFT beyond those; ``demand_forecast``:
    on demand, for each week since the start (no stage).
    """
    parts = []
    for service in services:
        parts.append(_rows("demand_forecast", service.name, "", service.forecast_drifts))
        for stage in service.fleets:
            parts.append(_rows("profile_error", service.name, stage.stage.name, np.log(stage.slowdowns)))
            parts.append(_rows("profile_error_ttft", service.name, stage.stage.name, np.log(stage.ttft_errors)))
    return pd.concat(parts, ignore_index=True)


def _rows(source: str, service: str, stage: str, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "replication": np.arange(len(values)),
            "source": source,
            "service": service,
            "stage": stage,
            "value": np.asarray(values, dtype=float),
        }
    )
