"""A small factory that the tests of results, studies and commands share: two stages, two days, two replications."""

import copy

import pytest

SMALL = {
    "name": "small",
    "seed": 3,
    "start": "2026-07-06T00:00:00+00:00",
    "duration_days": 2,
    "site": {"gpus": 48},
    "services": {
        "chat": {
            "model": "DeepSeek-R1",
            "slo": {"ttft_p95_s": 15, "tpot_p95_s": 0.05},
            "traffic": {
                "lengths": {"uniform": {"isl": 512, "osl": 256, "low_fraction": 0.5}},
                "demand": {"first_stage_capacity_multiple": 3, "rhythm": "servegen_deepseek-r1", "patience_hours": 3},
            },
            "stages": [
                {
                    "name": "old",
                    "from_day": 0,
                    "gpus": 48,
                    "system": {"gpu": "h200", "engine": "trtllm", "precision": "fp8", "parallelism": "tp8pp1ep1dpaFr1"},
                    "change": {"kind": "initial", "duration_days": 0},
                },
                {
                    "name": "new",
                    "from_day": 1,
                    "gpus": 48,
                    "system": {"gpu": "b200", "engine": "trtllm", "precision": "fp4", "parallelism": "tp4pp1ep1dpaFr1"},
                    "change": {"kind": "replace", "duration_days": 0.25, "downtime_minutes": 60},
                },
            ],
        }
    },
    "money": {"plans": {"chat": {"input_usd_per_million": 0.5, "output_usd_per_million": 2.0}}},
    "simulation": {
        "replications": 2,
        "sampling": {
            "window_requests": 600,
            "window_s": 120,
            "warmup_s": 20,
            "hours_per_window": 12,
            "sequences_kept": 100,
        },
    },
}


@pytest.fixture
def small_dict() -> dict:
    """The small scenario as a mapping that a test may change."""
    return copy.deepcopy(SMALL)


@pytest.fixture(scope="session")
def small_scenario():
    """The small scenario."""
    from factory_sim.inputs.overrides import parse_scenario

    return parse_scenario(copy.deepcopy(SMALL))


@pytest.fixture(scope="session")
def small_run(small_scenario):
    """The small scenario, played."""
    from factory_sim.results.run import run

    return run(small_scenario)
