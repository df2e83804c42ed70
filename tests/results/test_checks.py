"""A check that cannot fail checks nothing: runs are spoilt by hand and the check of that law must say so."""

from factory_sim.results.checks import check


def _named(scenario, tables, name):
    return next(row for row in check(scenario, tables) if row["check"] == name)


def test_gpus_that_a_rollout_forgot_or_kept_twice_are_found(small_run):
    windows = small_run.tables["windows"]
    assert _named(small_run.scenario, small_run.tables, "gpus_of_stages")["ok"]
    for factor in (0.5, 1.5):
        spoilt = windows.copy()
        spoilt.loc[spoilt.index[len(spoilt) // 2], "gpus"] *= factor
        found = _named(small_run.scenario, {**small_run.tables, "windows": spoilt}, "gpus_of_stages")
        assert not found["ok"]
        assert "chat holds" in found["detail"]


def test_a_stretch_of_time_without_the_fleet_is_found(small_run):
    windows = small_run.tables["windows"]
    gap = windows[windows["start_s"] != windows["start_s"].sort_values().unique()[1]]
    assert not _named(small_run.scenario, {**small_run.tables, "windows": gap}, "gpus_of_stages")["ok"]
