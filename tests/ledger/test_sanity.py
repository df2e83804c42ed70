"""Warnings: prices that look wrong, prices that are old."""

from datetime import date

import pytest

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money
from factory_sim.ledger.sanity import money_warnings

AT = date(2026, 11, 2)


def warnings(gpus=("h200",), services=("chat",), **money):
    return money_warnings(Money.model_validate(money), gpus, services, AT)


def quote(value, unit, as_of="2026-10-01"):
    return {"value": value, "unit": unit, "as_of": as_of, "source": "test"}


def plan(**given):
    return {"chat": {"output_usd_per_million": 2.0, "as_of": "2026-10-01"} | given}


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
    assert any("plan/chat/output_tokens: stale, of 2025-02-28 and so 1.7 years old" in word for word in found)
    found = warnings(plans={"chat": {"output_usd_per_million": 2.0}})
    assert any("plan/chat/output_tokens: carries no date" in word for word in found)


def test_a_service_without_a_plan_is_named():
    assert warnings(services=("chat", "code"), plans=plan()) == [
        "money.plans: service 'code' has no plan and earns nothing"
    ]


def test_a_missing_price_is_an_error_before_anything_is_played():
    with pytest.raises(PriceError, match="no price of basis 'spot'"):
        warnings(plans=plan(), costs={"compute": {"basis": "spot"}})
