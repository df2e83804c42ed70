"""Bad prices in a scenario file: status 2, one message with file, path in the file and what would be right."""

import copy

import pytest
import yaml

from factory_sim import cli


def quote(without=(), **given):
    """A rent with all that it must carry, less the keys named."""
    whole = {"value": 3.0, "unit": "USD/GPU-h", "as_of": "2026-06-01", "source": "contract"} | given
    return {key: value for key, value in whole.items() if key not in without}


def rents(*quotes):
    return {"costs": {"compute": {"prices": {"h200": list(quotes)}}}}


def plan(**given):
    return {"plans": {"chat": given}}


FIRST = quote(valid_from="2026-01-01", valid_until="2026-05-01")
AT_FILE = {
    "unit": (rents(quote(["unit"])), "money.costs.compute.prices.h200.0.unit: is missing"),
    "date": (rents(quote(["as_of"])), "money.costs.compute.prices.h200.0.as_of: is missing"),
    "source": (rents(quote(["source"])), "money.costs.compute.prices.h200.0.source: is missing"),
    "source of a named price": (
        {"costs": {"energy": {"price": quote(["source"], unit="USD/kWh")}}}, "money.costs.energy.price.source: is missing"
    ),
    "gap": (rents(FIRST, quote(valid_from="2026-06-01")), "prices.h200: no price between 2026-05-01 and 2026-06-01"),
    "overlap": (
        rents(FIRST, quote(valid_from="2026-04-01")),
        "prices.h200: prices overlap from 2026-04-01 to 2026-05-01; end the earlier with valid_until: 2026-04-01",
    ),
    "currency of a price": (
        rents(quote(unit="EUR/GPU-h")), "money.costs.compute.prices.h200.0: price in EUR and no rate for it; add money.rates.EUR"
    ),
    "currency of a plan": (plan(output_usd_per_million=1, currency="EUR"), "money.plans.chat: price in EUR and no rate"),
    "negative price": (rents(quote(value=-3)), "money.costs.compute.prices.h200.0: value is -3"),
    "negative plan": (plan(output_usd_per_million=-1), "money.plans.chat.output_usd_per_million: found -1"),
    "never billed": (plan(), "money.plans.chat: nothing in this plan can be billed"),
    "all free": (plan(output_usd_per_million=0), "money.plans.chat: every price of this plan is 0"),
    "no life": ({"costs": {"compute": {"kind": "own", "life_years": 0}}}, "money.costs.compute.life_years: found 0"),
    "no life at all": ({"costs": {"compute": {"kind": "own", "life_years": None}}}, "life_years: None is not a number"),
    "upfront without a term": (
        {"costs": {"compute": {"basis": "reserved_1yr", "upfront": 0.5}}},
        "money.costs.compute: upfront is a part of the whole term's rent; give term_years",
    ),
    "kind": ({"costs": {"compute": {"kind": "owned"}}}, "money.costs.compute: kind 'owned' is not known; did you mean 'own'?"),
    "key": (plan(output_usd_per_milion=1), "money.plans.chat.output_usd_per_milion: unknown key; did you mean 'output_usd_per_million'?"),
    "not a plan": (plan() | {"plans": {"chat": "cheap"}}, "money.plans.chat: found 'cheap'; give a mapping with"),
}  # fmt: skip
BEFORE_PLAY = {
    "unknown provider": (
        plan(list_price="openai/gpt-oss-120b@gorq", as_of="2026-11-01"),
        "money.plans.chat.list_price: provider 'gorq' is not known; did you mean 'groq'?",
    ),
    "unknown model": (
        plan(list_price="openai/gpt-os-120b@groq", as_of="2026-11-01"),
        "money.plans.chat.list_price: provider 'groq' has no model 'openai/gpt-os-120b'; did you mean 'openai/gpt-oss-120b'?",
    ),
    "wrong unit": (rents(quote(unit="USD/kWh")), "money.costs.compute.prices.h200: unit is 'USD/kWh' where USD/GPU-h is needed"),
    "no such row": ({"costs": {"energy": {"price": "electricity_price_industrial/us-tx/2099"}}}, "money.costs.energy.price: price row"),
    "never valid": (plan(output_usd_per_million=1, valid_from="2030-01-01"), "money.plans.chat: no plan is valid on"),
}  # fmt: skip


def ended(tmp_path, monkeypatch, capsys, scenario, money):
    """Exit status and stderr of a run with these terms of money."""
    path = tmp_path / "bad.yaml"
    scenario["money"] = {
        "plans": {"chat": {"output_usd_per_million": 2.0, "source": "s", "as_of": "2026-05-01"}}
    } | money
    path.write_text(yaml.safe_dump(scenario), encoding="utf-8")
    words = ["factory-sim", "run", str(path), "--out", str(tmp_path / "out"), "--no-charts", "--quiet"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", [*AT_FILE, *BEFORE_PLAY])
def test_a_bad_price_is_one_message_and_nothing_is_written(tmp_path, monkeypatch, capsys, small_dict, name):
    money, said = (AT_FILE | BEFORE_PLAY)[name]
    status, told = ended(tmp_path, monkeypatch, capsys, small_dict, copy.deepcopy(money))
    assert status == 2
    assert len(told.splitlines()) == 1
    assert told.startswith(f"error: {tmp_path / 'bad.yaml'}: ")
    assert said in told
    assert not (tmp_path / "out").exists()
