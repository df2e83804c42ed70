"""Figures of training jobs: what was trained, at what cost, and when it ended."""

import pytest

from factory_sim import load_scenario, run
from factory_sim.ledger.accounts import NANO
from factory_sim.units import DAY_S, MILLION

SETTINGS = ["simulation.replications=2", "duration_days=2", "training.fine-tune.gpus=80", "site.gpus=400",
            "training.fine-tune.tokens=1e10", "training.fine-tune.restart_s=60"]  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    return run(load_scenario("scenarios/night-training.yaml", SETTINGS))


def of(trained, service, window="whole"):
    rows = trained.figures[(trained.figures.service == service) & (trained.figures.window == window)]
    return rows.set_index("figure")["value"]


def test_a_job_shows_its_tokens_their_cost_and_the_day_it_ended(trained):
    found = of(trained, "fine-tune")
    own = trained.tables["windows"].query("service == 'fine-tune'")
    postings = trained.tables["postings"]
    paid = postings[(postings.service == "fine-tune") & postings.debit.astype(str).str.startswith("cost")]
    each = paid.groupby("replication").amount_nusd.sum() / NANO
    assert found.trained_tokens == pytest.approx(1e10)
    assert found.training_progress == pytest.approx(1.0)
    assert found.training_days == pytest.approx(own.training_end_s.dropna().median() / DAY_S)
    assert 0 < found.training_days < 2
    assert found.cost_per_million_trained_tokens == pytest.approx((MILLION * each / 1e10).median())


def test_a_job_has_no_figures_of_serving_and_a_service_none_of_training(trained):
    assert not {"revenue", "ttft_p95", "requests_arrived", "output_tokens"} & set(of(trained, "fine-tune").index)
    assert not [name for name in of(trained, "chat").index if "train" in name]
    assert of(trained, "all").trained_tokens == pytest.approx(1e10)
