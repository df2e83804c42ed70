"""Clients of a service: a few make most of the requests, which session affinity and limits by client feel."""

import numpy as np
import pytest

from factory_sim.errors import ScenarioError, TraceError
from factory_sim.inputs.overrides import parse_scenario
from factory_sim.model.workload import shares_of
from factory_sim.results.run import run
from factory_sim.results.store import figures_frame


def whole(result, figure: str) -> float:
    table = figures_frame(result.summary).query("window == 'whole' and service == 'all'").set_index("figure")
    return float(table.loc[figure, "value"])


@pytest.fixture
def chat(small_dict):
    service = small_dict["services"]["chat"]
    service["stages"] = service["stages"][:1]
    small_dict["simulation"] |= {"profile_error": False, "replications": 1}
    return small_dict, service


def test_shares_are_published_ones_or_fall_with_the_rank():
    zipf = shares_of({"count": 100, "skew": 1.0})
    assert zipf[0] / zipf[9] == pytest.approx(10)
    assert zipf.sum() == pytest.approx(1)
    assert np.ptp(shares_of({"count": 7, "skew": 0})) == 0
    measured = shares_of("servegen_m-large")
    assert len(measured) == 162
    assert np.all(np.diff(measured) <= 1e-12)


def test_session_affinity_suffers_from_skew_and_other_routers_do_not(chat):
    small_dict, service = chat
    service["traffic"] |= {"requests": 4000, "demand": {"requests_per_s": 40}}
    times = {}
    for router in ("session_affinity", "least_outstanding"):
        for skew in (0.0, 1.5):
            service["router"], service["traffic"]["clients"] = router, {"count": 400, "skew": skew}
            times[router, skew] = whole(run(parse_scenario(small_dict)), "tpot_p95")
    assert times["session_affinity", 1.5] > 1.3 * times["session_affinity", 0.0]
    assert times["least_outstanding", 1.5] == times["least_outstanding", 0.0]


def test_limits_hold_each_client_to_its_own(chat):
    """Clients that ask for more than the limit get the limit, the others all they ask for."""
    small_dict, service = chat
    rate, per_minute, clients = 8.0, 60.0, {"count": 20, "skew": 1.0}
    service["traffic"] |= {"demand": {"requests_per_s": rate, "patience_hours": 0}, "clients": clients}
    service["admission"] = {"limit": "none", "user_requests_per_minute": per_minute}
    asked = shares_of(clients) * rate
    result = run(parse_scenario(small_dict))
    windows = result.tables["windows"]
    granted = windows.granted_requests.sum() / windows.latent_requests.sum() * rate
    assert granted == pytest.approx(np.minimum(asked, per_minute / 60).sum(), rel=1e-9)
    assert (asked > per_minute / 60).sum() == 2
    service["admission"]["user_requests_per_minute"] = 60 * asked.max() * 1.01
    windows = run(parse_scenario(small_dict)).tables["windows"]
    assert windows.granted_requests.sum() == pytest.approx(windows.latent_requests.sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        ("servegen_m-larg", "did you mean"),
        ({"count": 0}, "clients.count"),
        ({"count": 5, "skew": -1}, "clients.skew"),
        ({"number": 5}, "count: 500"),
    ],
)
def test_wrong_clients_are_refused(chat, clients, message):
    small_dict, service = chat
    service["traffic"]["clients"] = clients
    with pytest.raises((ScenarioError, TraceError), match=message):
        run(parse_scenario(small_dict))


def test_a_thinned_fleet_knows_no_affinity_of_skewed_clients(chat):
    small_dict, service = chat
    service["traffic"]["clients"] = {"count": 5}
    service["router"] = "session_affinity"
    with pytest.raises(ScenarioError, match="traffic.clients: .*thinned"):
        run(parse_scenario(small_dict))
