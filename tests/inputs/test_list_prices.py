"""List prices are those of genai-prices, whatever the model, day and class."""

import csv
from datetime import UTC, date, datetime
from importlib.resources import files

import pytest
from genai_prices import Usage, calc_price, data_snapshot

from factory_sim.errors import PriceError
from factory_sim.inputs.list_prices import list_price, newest_change

AS_OF = date(2026, 11, 1)


def _table():
    with files("factory_sim.data").joinpath("economics", "token_prices.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", _table(), ids=lambda row: f"{row['model']}@{row['provider']}")
def test_every_list_price_is_what_genai_prices_charges(row):
    listed = list_price(f"{row['model']}@{row['provider']}", AS_OF)
    moment = datetime(2026, 11, 1, 12, tzinfo=UTC)
    amount = 1000
    cached = 400
    usage = Usage(input_tokens=amount, cache_read_tokens=cached, output_tokens=amount)
    provider = next(known for known in data_snapshot.get_snapshot().providers if known.id == row["provider"])
    model = next((known for known in provider.models if known.id == row["model"]), None)
    if model is None:
        charged = float(
            calc_price(usage, row["model"], provider_id=provider.id, genai_request_timestamp=moment).total_price
        )
    else:
        charged = float(model.get_prices(moment).calc_price(usage)["total_price"])
    cached_price = listed.cached_input_usd_per_million
    if cached_price is None:
        cached_price = listed.input_usd_per_million
    mine = (amount - cached) * listed.input_usd_per_million + cached * cached_price
    mine += amount * listed.output_usd_per_million
    assert mine / 1e6 == pytest.approx(charged, rel=1e-9)


@pytest.mark.parametrize(
    "row", [row for row in _table() if row["batch_input_usd_per_mtok"]], ids=lambda row: row["model"]
)
def test_batch_prices_are_those_of_the_table(row):
    listed = list_price(f"{row['model']}@{row['provider']}", AS_OF, "batch")
    assert listed.input_usd_per_million == pytest.approx(float(row["batch_input_usd_per_mtok"]))
    assert listed.output_usd_per_million == pytest.approx(float(row["batch_output_usd_per_mtok"]))


def test_prices_are_those_of_their_day():
    assert list_price("o3@openai", date(2025, 5, 1)).output_usd_per_million == 40
    assert list_price("o3@openai", AS_OF).output_usd_per_million == 8


def test_a_day_after_the_list_says_that_the_price_is_carried_forward():
    assert "carried forward from" in list_price("o3@openai", date(2035, 1, 1)).source
    assert "carried forward" not in list_price("o3@openai", newest_change()).source
    assert date(2026, 1, 1) < newest_change() < date(2035, 1, 1)


def test_long_context_prices_are_there():
    listed = list_price("gpt-5.4@openai", AS_OF)
    assert (listed.long_above_tokens, listed.long_input_usd_per_million) == (272000, 5)
    usage = Usage(input_tokens=300_000, output_tokens=1000)
    charged = calc_price(
        usage, "gpt-5.4", provider_id="openai", genai_request_timestamp=datetime(2026, 11, 1, tzinfo=UTC)
    )
    mine = 0.3 * listed.long_input_usd_per_million + 0.001 * listed.long_output_usd_per_million
    assert mine == pytest.approx(float(charged.total_price))


def test_unknown_names_show_the_nearest():
    with pytest.raises(PriceError, match="did you mean 'groq'"):
        list_price("openai/gpt-oss-120b@grok", AS_OF)
    with pytest.raises(PriceError, match="did you mean 'openai/gpt-oss-"):
        list_price("openai/gpt-oss-121b@groq", AS_OF)


def test_a_class_without_a_price_is_an_error():
    with pytest.raises(PriceError, match="no published batch price"):
        list_price("claude-3-haiku@anthropic", AS_OF, "batch")
