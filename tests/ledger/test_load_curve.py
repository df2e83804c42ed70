"""One H100 at two dollars an hour, played by the kernel from nearly idle to nearly full."""

import numpy as np
import pandas as pd
import pytest

from factory_sim.engine.kernel import Pool, Requests, play_closed_loop
from factory_sim.inputs.money import Money
from factory_sim.inputs.prices import price_book
from factory_sim.ledger.postings import post
from factory_sim.ledger.statements import unit_costs
from factory_sim.model.serving import serving_system
from factory_sim.streams import stream

ISL, OSL, HOURS = 1024, 512, 0.25
LOADS = np.array([0.02, 0.1, 0.3, 0.6, 0.9])
PRICE = {"value": 2.0, "unit": "USD/GPU-h", "as_of": "2026-07-01", "source": "market"}


@pytest.fixture(scope="module")
def curve():
    system = serving_system("Llama-3.1-8B", "h100", "trtllm", "bf16", "tp1pp1ep1dpaFr1")
    requests = 600
    full = play_closed_loop(system, np.full(requests, ISL), np.full(requests, OSL), 128)
    start, end = np.quantile(np.asarray(full["finish_s"]), [0.3, 0.8])
    full_requests_per_s = 0.5 * requests / (end - start)
    windows = [_play(system, load * full_requests_per_s, load) for load in LOADS]
    return full_requests_per_s * OSL, pd.DataFrame(windows)


def _play(system, rate, load):
    """A quarter of an hour of Poisson arrivals, then the rest of those that came; one row of windows."""
    rng = stream(11, "load curve", f"{load:g}")
    n = max(round(rate * HOURS * 3600), 10)
    arrival_s = np.sort(rng.uniform(0, HOURS * 3600, n))
    pool = Pool([(system, 1)])
    pool.offer(Requests(arrival_s, np.full(n, ISL), np.full(n, OSL)))
    end_s = pool.drain()
    totals = pool.totals()
    busy_s = float(np.sum(totals["busy_s"]))
    hours = end_s / 3600
    return {
        "replication": 0, "start_s": 0.0, "end_s": end_s, "service": "chat", "stage": f"{load:g}", "gpu": "h100",
        "gpus": 1.0, "gpu_hours": hours, "gpu_hours_down": 0.0, "requests_completed": float(n),
        "input_tokens": float(n * ISL), "cached_input_tokens": 0.0, "output_tokens": float(n * OSL),
        "reasoning_tokens": 0.0, "time_input_s": 0.0, "time_output_s": busy_s, "time_idle_s": max(end_s - busy_s, 0.0),
        "facility_energy_j": 0.0, "input_energy_j": 0.0, "output_energy_j": 0.0, "idle_energy_j": 0.0,
    }  # fmt: skip


def test_cost_of_output_follows_one_over_the_load(curve):
    full_tokens_per_s, windows = curve
    money = Money.model_validate({"costs": {"compute": {"prices": {"h100": [PRICE]}}}})
    figures = unit_costs(windows, post(windows, money), ["stage"])
    cost = figures.cost_per_million_output_tokens.reindex([f"{load:g}" for load in LOADS]).to_numpy()
    at_full = 2.0 / (full_tokens_per_s * 3600) * 1e6
    # Load is an outcome: the tokens that came out, over those that a full GPU gives.
    load = windows.output_tokens / (windows.end_s - windows.start_s) / full_tokens_per_s
    assert cost * load.to_numpy() == pytest.approx(np.full(len(LOADS), at_full), rel=1e-7)
    assert load.to_numpy() == pytest.approx(LOADS, rel=0.12)
    assert (np.diff(cost) < 0).all()


def test_the_curve_lies_within_the_range_that_a_study_measured(curve):
    full_tokens_per_s, _ = curve
    study = price_book().row("self_hosted_cost_of_output/one-h100-from-near-idle-to-full-load")
    at_full = 2.0 / (full_tokens_per_s * 3600) * 1e6
    # An 8B model is among the cheapest of the study: its full load is near the low end, its 2 % below the high end.
    assert 0.3 * study.low < at_full < 3 * study.low
    assert at_full / LOADS[0] < study.high
