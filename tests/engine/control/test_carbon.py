"""Carbon intensity of the hour: means over stretches, series from files, and emissions that add up."""

import datetime

import numpy as np
import pytest
from bed import play, scenario

from factory_sim import load_scenario, run
from factory_sim.engine.control.carbon import carbon_multiplier
from factory_sim.errors import ScenarioError, TraceError
from factory_sim.inputs.operations import PowerCap
from factory_sim.results.timeline import course
from factory_sim.units import DAY_S, HOUR_S

NOON = datetime.datetime(2026, 7, 6, 12, 0, tzinfo=datetime.UTC)
HOURS = tuple(0.5 + hour / 23 for hour in range(24))


def test_a_stretch_has_the_mean_of_its_hours_by_the_clock_of_the_scenario():
    power = PowerCap(carbon_by_hour=HOURS)
    assert carbon_multiplier(power, NOON, 0.0, HOUR_S) == pytest.approx(HOURS[12])
    assert carbon_multiplier(power, NOON, 11.5 * HOUR_S, 12.5 * HOUR_S) == pytest.approx((HOURS[23] + HOURS[0]) / 2)
    assert carbon_multiplier(power, NOON, 5 * DAY_S, 6 * DAY_S) == pytest.approx(np.mean(HOURS))
    assert carbon_multiplier(None, NOON, 0.0, HOUR_S) == 1.0


def test_a_series_from_a_file_keeps_its_shape_and_begins_again(tmp_path):
    path = tmp_path / "grid.csv"
    path.write_text("t_s,gco2e_per_kwh\n0,100\n3600,300\n7200,200\n")
    power = PowerCap(carbon_series=str(path))
    found = [carbon_multiplier(power, NOON, hour * HOUR_S, (hour + 1) * HOUR_S) for hour in range(4)]
    assert found == pytest.approx([0.5, 1.5, 1.0, 0.5])
    path = tmp_path / "wrong.csv"
    path.write_text("t_s,co2\n0,100\n")
    with pytest.raises(TraceError, match="needs columns t_s"):
        carbon_multiplier(PowerCap(carbon_series=str(path)), NOON, 0.0, HOUR_S)
    with pytest.raises(ScenarioError, match="not both"):
        scenario(site={"gpus": 200, "power": {"carbon_by_hour": HOURS, "carbon_series": "grid.csv"}})


def test_jobs_and_services_emit_by_the_same_hours():
    job = {"gpu": "h100", "gpus": 64, "params_active": 1e9, "mfu": 0.4, "tokens": 1e15}
    site = {"gpus": 200, "power": {"carbon_by_hour": HOURS}}
    windows, _ = play(scenario({"requests_per_s": 50}, site=site, training={"run": job}))
    for _, own in windows.groupby("service"):
        hours = (own.start_s / HOUR_S % 24).astype(int)
        assert own.carbon_multiplier.to_numpy() == pytest.approx(np.array(HOURS)[hours])


def test_emissions_by_the_hour_add_up_to_the_figure():
    settings = ["simulation.replications=1", "duration_days=1", "money.costs.carbon={}",
                f"site.power.carbon_by_hour={list(HOURS)}"]  # fmt: skip
    played = run(load_scenario("scenarios/one-h100.yaml", settings))
    found = played.figures.query("figure == 'carbon' and window == 'whole' and service == 'all'").value.item()
    hours = course(played.tables["windows"], 0, played.tables["postings"])
    assert hours[hours.figure == "carbon"].value.sum() == pytest.approx(1e3 * found)
    assert found > 0
