"""Image and video models among the profiles: listed, shown and estimated like any other, with cost."""

import json

import pytest
from typer.testing import CliRunner

from factory_sim.cli.profiles import app
from factory_sim.errors import ProfileError


def answer(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def estimate(*arguments, gpu="h100", model="stable-diffusion-3.5-large", precision="bf16"):
    return answer("estimate", "--model", model, "--gpu", gpu, "--parallelism", "tp1", "--precision", precision, *arguments)


def test_list_covers_every_measured_row_and_its_names_can_be_shown():
    listed = answer("list", "--mode", "generation")
    assert sum(row["rows"] for row in listed) == 1020
    name = listed[0]["profile"]
    shown = answer("show", name)
    assert len(shown) == sum(row["rows"] for row in listed if row["profile"] == name)
    for row in shown:
        assert row["energy_per_output_j"] == pytest.approx(row["power_w"] * row["latency_s"] / row["batch"])


def test_estimate_returns_the_measured_batch_and_prices_it_by_its_seconds():
    (row,) = estimate("--concurrency", 1)
    assert row["trust"] == "measured"
    rent_per_hour = row["rent_usd_per_output"] * row["outputs_per_s"] * 3600
    (other,) = estimate("--concurrency", 4)
    assert rent_per_hour == pytest.approx(other["rent_usd_per_output"] * other["outputs_per_s"] * 3600)
    assert 0.5 < rent_per_hour < 20


def test_gpu_that_nobody_measured_is_estimated_with_a_wider_band():
    (known,), (unknown,) = estimate("--concurrency", 1), estimate("--concurrency", 1, gpu="mi300x")
    assert unknown["trust"] == "estimated"
    assert unknown["latency_high_s"] / unknown["latency_low_s"] > known["latency_high_s"] / known["latency_low_s"]


def test_speech_and_other_precisions_are_refused_with_their_reason():
    with pytest.raises(ProfileError, match="no table here measures audio"):
        estimate(model="whisper-large")
    with pytest.raises(ProfileError, match="bf16 only"):
        estimate(precision="fp8")
