"""The fit finds what made the data, shares it, and is the same twice."""

import numpy as np
import pytest

from factory_sim.calibration import accuracy, catalogue, closed_form, fit, profile_files
from factory_sim.calibration.covariance import covariance_of
from factory_sim.inputs.measurements import serving
from factory_sim.model.step_time import INDEX, PARAMETERS


@pytest.fixture(scope="module")
def rows():
    table = serving()
    return table[(table.model == "Llama-3.1-70B") & (table.gpu == "h200") & table.clean].reset_index(drop=True)


@pytest.fixture(scope="module")
def pooled_rows():
    table = serving()
    keep = (table.model == "gpt-oss-120b") & (table["mode"] == "disagg") & table.clean
    return table[keep].reset_index(drop=True)


def test_sensitivities_are_the_slopes_of_the_closed_form(pooled_rows):
    task = fit.problem(pooled_rows.head(6))
    decode, prefill = task.parameters()
    centre, by_decode, by_prefill = closed_form.sensitivities(task.runs, decode, prefill)
    moved = decode.copy()
    moved[:, INDEX["weights"]] *= 1.02
    change = closed_form.latencies(task.runs, moved, prefill) - centre
    assert change == pytest.approx(by_decode[:, :, INDEX["weights"]] * np.log(1.02), rel=0.05, abs=1e-6)
    moved = prefill.copy()
    moved[:, INDEX["prefill_flops"]] *= 1.02
    change = closed_form.latencies(task.runs, decode, moved) - centre
    assert change == pytest.approx(by_prefill[:, :, INDEX["prefill_flops"]] * np.log(1.02), rel=0.05, abs=1e-4)


def test_covariance_is_the_sum_over_shared_levels_of_inner_products():
    rng = np.random.default_rng(0)
    decode, prefill = rng.normal(size=(2, 6, 3))
    keys = rng.integers(0, 2, size=(2, 3, 2)).astype(np.int32)
    variance, pooled = np.array([[0.5, 1.0, 0.0], [2.0, 3.0, 0.2]]), np.array([False, True, True])
    found = covariance_of(decode, prefill, keys[0], keys[1], variance, pooled)
    features = np.zeros((6, 2 * 2 * 3))
    for row in range(6):
        for part, own, active in ((decode, keys[0], True), (prefill, keys[1], pooled[row // 2])):
            for level in range(2):
                at = 3 * (2 * level + own[row // 2, level])
                features[row, at : at + 3] += active * np.sqrt(variance[level]) * part[row]
    assert found == pytest.approx(features @ features.T)


def test_times_that_the_closed_form_made_are_found_again(rows):
    task = fit.problem(rows)
    truth = np.zeros_like(task.decode)
    truth[:, INDEX["weights"]], truth[:, INDEX["prefill_flops"]] = 0.2, -0.15
    task.measured = closed_form.latencies(task.runs, np.exp(fit.log_priors() + truth), np.exp(fit.log_priors() + truth))
    fit.solve(task, 7)
    error = np.abs(task.measured - task.predicted())
    assert np.median(error[:, 1]) < 0.005
    assert np.median(error[:, 0]) < 0.02


def test_suspect_runs_weigh_a_sixteenth_of_others(rows):
    task = fit.problem(rows.assign(clean=np.arange(len(rows)) % 2 == 0))
    task.measured = task.predicted()
    fit.reweigh(task, np.array(fit.NOISE))
    assert task.weights[0] == pytest.approx(fit.DOUBT**2 * task.weights[1])


def test_a_fit_beats_its_start_and_is_the_same_twice(rows):
    tables = []
    for _ in range(2):
        task = fit.fit(rows, plays=2)
        tables.append(fit.effects_table(task))
    start = fit.problem(rows)
    before = np.abs(start.measured - fit.play_runs(start))
    after = np.abs(task.measured - fit.play_runs(task))
    assert np.median(after[:, 1]) < 0.5 * np.median(before[:, 1])
    assert tables[0].equals(tables[1])
    assert set(tables[0].parameter) <= set(PARAMETERS)


def test_left_out_rows_are_predicted_without_themselves(rows):
    """Doubling one configuration's measured times must not move what the others predict for it."""
    task = fit.fit(rows, plays=1)
    first = accuracy.left_out(task, "group")
    held = accuracy.folds(task.rows, "group") == 0
    task.measured[held] += np.log(2)
    second = accuracy.left_out(task, "group")
    assert np.array_equal(first[held], second[held])
    assert not np.array_equal(first[~held], second[~held])


@pytest.mark.parametrize("scheme", accuracy.SCHEMES)
def test_every_row_is_left_out_once_with_all_of_its_kind(scheme):
    table = serving()
    table = table[table.clean].reset_index(drop=True)
    number = accuracy.folds(table, scheme)
    kind = {
        "concurrency": ["group_id", "spec_decoding", "concurrency"], "group": ["group_id"],
        "model_gpu": ["model", "gpu"], "family": ["model"], "gpu": ["gpu"],
    }[scheme]  # fmt: skip
    assert table.assign(number=number).groupby(kind).number.nunique().max() == 1


def test_errors_of_ones_own_points_are_those_of_these_points_alone(rows):
    task = fit.fit(rows, plays=1)
    errors, own = profile_files.played_errors(task), rows.iloc[[1, 4, 5]]
    told = catalogue.own_errors(task, own)
    assert told == {"points": 3} | profile_files.error_percent(errors[[1, 4, 5]])
    assert told != {"points": 3} | profile_files.error_percent(errors)
