"""Small tables of physical facts with round numbers."""

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def make_windows():
    """Build windows: ``make_windows(hours=24, gpu="h200", output_tokens=1e9, ...)``; every column can be given."""

    def build(hours=4, replications=1, service="chat", stage="first", gpu="h200", interval_s=3600.0, **given):
        n = hours * replications
        start_s = np.tile(np.arange(hours) * interval_s, replications)
        columns = {
            "replication": np.repeat(np.arange(replications), hours),
            "start_s": start_s,
            "end_s": start_s + interval_s,
            "week": (start_s // 604800 + 1).astype(int),
            "service": service,
            "stage": stage,
            "profile": "made-up",
            "gpu": gpu,
            "trust": "measured",
            "replicas": 1.0,
            "gpus": 8.0,
            "gpu_hours": 8.0 * interval_s / 3600,
            "gpu_hours_down": 0.0,
            "busy_fraction": 0.75,
            "requests_arrived": 1000.0,
            "requests_completed": 1000.0,
            "requests_turned_away": 0.0,
            "requests_lost": 0.0,
            "requests_within_slo": 1000.0,
            "input_tokens": 1e6,
            "cached_input_tokens": 0.0,
            "output_tokens": 1e6,
            "reasoning_tokens": 0.0,
            "time_input_s": 900.0,
            "time_output_s": 1800.0,
            "time_idle_s": 900.0,
            "gpu_energy_j": 8 * 3.6e6,
            "it_energy_j": 10 * 3.6e6,
            "facility_energy_j": 12 * 3.6e6,
            "input_energy_j": 2 * 3.6e6,
            "output_energy_j": 4 * 3.6e6,
            "idle_energy_j": 2 * 3.6e6,
        }
        columns |= given
        return pd.DataFrame({name: np.broadcast_to(value, n) for name, value in columns.items()})

    return build
