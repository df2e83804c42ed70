"""The price book: each row has a unit, a source and a date; lookups never guess in silence."""

from datetime import date

import numpy as np
import pytest
from pydantic import ValidationError

from factory_sim.errors import PriceError
from factory_sim.inputs.money import Money
from factory_sim.inputs.prices import Quote, in_dollars, price_book, price_path, quote_row, row_date


def quote(value=2.0, unit="USD/GPU-h", **more):
    return Quote.model_validate({"value": value, "unit": unit, "as_of": "2026-10-01", "source": "test"} | more)


def test_every_row_has_a_unit_a_source_and_a_date():
    for row in price_book().rows():
        assert row.unit, row
        assert row.source, row
        assert row_date(row.as_of), row


def test_market_rents_of_july_2026_are_those_of_the_source():
    book = price_book()
    rents = {gpu: book.find("rental_market", gpu, "2026-07").value for gpu in ("h200", "b200", "gb200")}
    assert rents == {"h200": 2.90, "b200": 3.70, "gb200": 4.00}


def test_several_sources_of_a_vintage_become_their_median_and_spread():
    row = price_book().find("rental_on_demand", "h100", "2025")
    assert row.low < row.value < row.high
    assert (row.low, row.high) == (2.45, 12.29)
    assert row.source.startswith("median of 10 rows of 2025")
    assert row.trust == "list price"


def test_lookups_name_what_exists():
    book = price_book()
    with pytest.raises(PriceError, match="did you mean 'rental_market'"):
        book.find("rental_markt", "h200")
    with pytest.raises(PriceError, match="did you mean 'h200'"):
        book.find("rental_market", "h20")
    with pytest.raises(PriceError, match="it has 2026-07"):
        book.find("rental_market", "h200", "2025-01")
    with pytest.raises(PriceError, match="did you mean 'rental_market/h200/2026-07'"):
        book.row("rental_market/h200/2026-08")


@pytest.mark.parametrize("gone", ["unit", "as_of", "source"])
def test_a_price_without_unit_date_or_source_is_refused(gone):
    given = {"value": 2.0, "unit": "USD/GPU-h", "as_of": "2026-10-01", "source": "test"}
    with pytest.raises(ValidationError, match=gone):
        Quote.model_validate({name: value for name, value in given.items() if name != gone})


def test_negative_prices_and_values_outside_their_range_are_refused():
    with pytest.raises(ValidationError, match="not negative"):
        quote(-1.0)
    with pytest.raises(ValidationError, match="outside its range"):
        quote(1.0, low=2.0, high=3.0)


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "dollars"),
    [
        (87660.0, "USD/GPU-year", "GPU-h", 10.0),
        (80.0, "USD/MWh", "kWh", 0.08),
        (2.0, "USD/Mtok", "token", 2e-6),
        (240000.0, "USD/8-GPU server", "GPU", 30000.0),
        (3.6e6, "USD/rack", "GPU", 50000.0),
        (120.0, "USD/year", "month", 10.0),
    ],
)
def test_units_become_those_of_the_posting(value, unit, wanted, dollars):
    row = in_dollars(quote_row(quote(value, unit), "q"), wanted, {})
    assert row.value == pytest.approx(dollars)
    assert row.unit == f"USD/{wanted}"


def test_a_currency_needs_a_rate_and_says_so_in_the_source():
    row = quote_row(quote(0.2, "EUR/kWh"), "q")
    with pytest.raises(PriceError, match=r"money\.rates\.EUR"):
        in_dollars(row, "kWh", {})
    money = Money.model_validate({"rates": {"EUR": {"usd": 1.15, "as_of": "2026-10-01", "source": "central bank"}}})
    converted = in_dollars(row, "kWh", money.rates)
    assert converted.value == pytest.approx(0.23)
    assert "EUR at 1.15 USD (central bank, 2026-10-01)" in converted.source


def test_a_unit_that_is_not_a_price_is_refused():
    with pytest.raises(PriceError, match="not currency/thing"):
        in_dollars(price_book().row("pue/google-fleet/2025"), "kWh", {})


def test_paths_need_dates_and_no_gaps():
    assert price_path([quote()], "p").constant
    assert not price_path([quote(valid_until="2026-12-01")], "p").constant
    days = np.array([date(2026, 11, 30).toordinal(), date(2026, 12, 1).toordinal()])
    with pytest.raises(PriceError, match="no price from 2026-12-01 on"):
        price_path([quote(valid_until="2026-12-01")], "p").codes(days, "p")
    with pytest.raises(PriceError, match="list of prices is empty"):
        price_path([], "p")
    with pytest.raises(PriceError, match="needs valid_from"):
        price_path([quote(), quote(3.0, valid_from="2026-11-01")], "p")
    with pytest.raises(PriceError, match="two prices are valid from"):
        price_path([quote(valid_from="2026-11-01"), quote(3.0, valid_from="2026-11-01")], "p")


def test_dates_mean_their_last_day():
    assert row_date("2026-04..2026-07") == date(2026, 7, 28)
    assert row_date("2025-10 or later") == date(2025, 10, 28)
    assert row_date("2024") == date(2024, 12, 31)
    assert row_date("") is None
