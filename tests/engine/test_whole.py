"""A run that thins nothing, as a check on those that do."""

import pytest

from factory_sim.inputs.overrides import parse_scenario
from factory_sim.results.run import run


@pytest.fixture(scope="module")
def played():
    """Figures of half a day of six instances, thinned and whole, and requests that arrived at the pools."""
    from tests.conftest import SMALL

    def play(sampling: dict):
        import copy

        raw = copy.deepcopy(SMALL) | {"duration_days": 0.5}
        service = raw["services"]["chat"]
        service["stages"] = service["stages"][:1]
        service["traffic"]["demand"] = {"load": 0.7}
        raw["simulation"] = {"replications": 2, "profile_error": False, "sampling": sampling}
        result = run(parse_scenario(raw))
        assert [check["check"] for check in result.summary["checks"] if not check["ok"]] == []
        figures = result.figures.query("window == 'whole' and service == 'all'").set_index("figure").value
        return figures, result.tables["audits"].arrived.sum()

    thin = {"window_requests": 3000, "window_s": 900, "warmup_s": 120, "hours_per_window": 24, "sequences_kept": 100}
    return play(thin), play({"mode": "whole"})


def test_whole_plays_every_request_of_every_instance(played):
    (_, few), (whole, every) = played
    assert every == pytest.approx(2 * whole["requests_arrived"], rel=0.02)  # two replications; those begun at the start
    assert few < 0.3 * every


def test_thinned_figures_are_those_of_the_whole(played):
    (thin, _), (whole, _) = played
    for figure in ("output_tokens", "ttft_p50", "tpot_p50", "tpot_p95", "energy", "revenue"):
        assert thin[figure] == pytest.approx(whole[figure], rel=0.1), figure
