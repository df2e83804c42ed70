"""Warnings: prices that look wrong, prices that are old."""

from datetime import date

import pytest

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money
from factory_sim.ledger.postings import _moment
from factory_sim.ledger.sanity import money_warnings, rehearse

AT = date(2026, 11, 2)


def warnings(gpus=("h200",), services=("chat",), **money):
    return money_warnings(Money.model_validate(money), gpus, services, AT)


def quote(value, unit, as_of="2026-10-01"):
    return {"value": value, "unit": unit, "as_of": as_of, "source": "test"}


def plan(**given):
    return {"chat": {"output_usd_per_million": 2.0, "as_of": "2026-10-01", "source": "test"} | given}


def test_sound_terms_raise_no_warning():
    assert warnings(plans=plan()) == []


@pytest.mark.parametrize(
    ("money", "hint"),
    [
        ({"plans": plan(output_usd_per_million=2.0e6)}, "USD per token or per million tokens"),
        ({"plans": plan(output_usd_per_million=2.0e-6)}, "USD per token or per million tokens"),
        ({"costs": {"compute": {"prices": {"h200": [quote(2088, "USD/GPU-h")]}}}}, "per server-hour or per month"),
        ({"costs": {"energy": {"price": quote(8, "USD/kWh"), "billed": True}}}, "USD or cents"),
        ({"costs": {"compute": {"kind": "own", "server": {"h200": quote(3e6, "USD/GPU")}}}}, "a server or of a rack"),
    ],
)  # fmt: skip
def test_an_absurd_price_asks_for_its_unit(money, hint):
    found = warnings(**({"plans": plan()} | money))
    assert any(hint in word for word in found), found


def test_old_and_undated_prices_are_named():
    found = warnings(plans=plan(as_of="2025-02-28"))
    assert [word for word in found if "stale" in word] == [
        "plan/chat: stale, of 2025-02-28 and so 1.7 years old when the scenario starts"
    ]
    assert warnings(plans=plan(source="")) == [
        "money.plans.chat: prices without source; what has no source counts as an assumption"
    ]
    [word] = warnings(services=("chat", "code"), plans={"all": {"output_usd_per_million": 2.0}})
    assert word.startswith("money.plans.all: prices without source and as_of")
    [word] = warnings(plans={"chat": {"output_usd_per_million": 2.0}})
    assert word.startswith("money.plans.chat: prices without source and as_of")


def test_a_service_without_a_plan_is_named():
    assert warnings(services=("chat", "code"), plans=plan()) == [
        "money.plans: service 'code' has no plan and earns nothing"
    ]


def test_a_missing_price_is_an_error_before_anything_is_played():
    with pytest.raises(PriceError, match="no price of basis 'spot'"):
        warnings(plans=plan(), costs={"compute": {"basis": "spot"}})


LATE = quote(2, "USD/GPU-h") | {"valid_from": "2026-11-20"}
ALL = {"all": {"request_usd": 1}}
FLEET = [("chat", "old", "h200"), ("chat", "new", "b200")]


def rehearsed(start=AT, days=28.0, **money):
    rehearse(Money.model_validate(money), FLEET, _moment(start), days)


def test_sound_terms_can_be_rehearsed():
    rehearsed(plans=plan())
    rehearsed(plans=plan(), costs={"compute": {"kind": "own"}}, days=0.01)
    rehearsed()


@pytest.mark.parametrize(
    ("money", "message"),
    [
        ({"plans": plan(list_price="openai/gpt-oss-120b@grok", output_usd_per_million=None)}, "did you mean 'groq'"),
        ({"plans": {"chta": {"output_usd_per_million": 1}}}, "did you mean 'chat'"),
        ({"plans": plan(valid_from="2026-11-10")}, "no plan is valid on 2026-11-02"),
        ({"plans": plan(valid_until="2026-11-20")}, "no plan is valid on 2026-11-20"),
        ({"costs": {"compute": {"vintage": "2025-01"}}}, "vintages that have one"),
        ({"costs": {"energy": {"price": "electricity_price_industrial/us-zz/2023"}}}, "did you mean"),
        ({"costs": {"compute_by_stage": {"odl": {"kind": "own"}}}}, "did you mean 'old'"),
        ({"costs": {"staff": quote(5, "USD/kWh")}}, "USD/MW-year is needed"),
        ({"costs": {"compute": {"prices": {"h200": [LATE]}}}}, "no price before"),
        ({"customers": [{"name": "u", "service": "chta", "share": 1}], "plans": plan() | ALL}, "no service 'chta'"),
    ],
)  # fmt: skip
def test_wrong_terms_are_found_before_anything_is_played(money, message):
    with pytest.raises(PriceError, match=message):
        rehearsed(**money)


def test_spot_capacity_is_not_owned_nor_committed():
    fleet = [*FLEET, ("chat", "old-spot", "h200")]
    for compute in ({"kind": "own"}, {"term_years": 1}):
        money = Money.model_validate({"costs": {"compute": compute}})
        with pytest.raises(PriceError, match=r"compute_by_stage: \{old-spot"):
            rehearse(money, fleet, _moment(AT), 1.0)
        rented = {"compute": compute, "compute_by_stage": {"old-spot": {}}}
        rehearse(Money.model_validate({"costs": rented}), fleet, _moment(AT), 1.0)
