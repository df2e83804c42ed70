"""Capital arithmetic against numpy-financial and against its own definitions."""

import numpy as np
import numpy_financial as npf
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from factory_sim.errors import PriceError
from factory_sim.ledger.capital import (
    annuity,
    annuity_with_residual,
    book_value,
    irr,
    npv,
    payback_years,
    straight_line,
)

# numpy-financial loses its digits (and divides by zero) at rates near the smallest floats; zero itself is fine.
rates = st.just(0.0) | st.floats(1e-4, 0.5)
lives = st.integers(1, 40)
flows = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12)


@settings(deadline=None)
@given(rates, lives)
def test_annuity_is_the_payment_of_numpy_financial(rate, life):
    assert annuity(rate, life) == pytest.approx(-npf.pmt(rate, life, 1), rel=1e-9)


@settings(deadline=None)
@given(rates, lives, st.floats(0, 1))
def test_annuity_with_residual_repays_the_price(rate, life, residual):
    payment = annuity_with_residual(rate, life, residual)
    assert payment == pytest.approx(-npf.pmt(rate, life, 1, -residual), rel=1e-9, abs=1e-12)
    worth = npv(rate, [-1.0, *[payment] * (life - 1), payment + residual])
    assert worth == pytest.approx(0, abs=1e-9)


@settings(deadline=None)
@given(rates, flows)
def test_npv_is_that_of_numpy_financial(rate, values):
    assert npv(rate, values) == pytest.approx(npf.npv(rate, values), rel=1e-9, abs=1e-6)


@settings(deadline=None)
@given(st.floats(1e3, 1e6), st.lists(st.floats(1.0, 1e6), min_size=1, max_size=12))
def test_irr_is_that_of_numpy_financial_for_an_investment(price, returns):
    values = [-price, *returns]
    expected = npf.irr(values)
    assume(np.isfinite(expected) and -0.99 < expected < 1e4)
    assert irr(values) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(st.floats(1e3, 1e6), st.lists(st.floats(1.0, 1e6), min_size=1, max_size=12))
def test_npv_is_zero_at_the_irr(price, returns):
    values = [-price, *returns]
    rate = irr(values)
    assume(rate is not None and rate > -0.9)
    assert npv(rate, values) == pytest.approx(0, abs=1e-6 * price)


def test_irr_needs_flows_of_both_signs():
    assert irr([1.0, 2.0]) is None
    assert irr([-1.0, -2.0]) is None
    assert irr([-100.0, 110.0]) == pytest.approx(0.1)
    assert irr([-100.0, 121.0], [0.0, 2.0]) == pytest.approx(0.1)


def test_payback_is_when_the_money_is_back():
    assert payback_years([-100, 40, 40, 40]) == pytest.approx(2.5)
    assert payback_years([-100, 10, 10]) is None
    assert payback_years([10, 10]) == 0.0


@settings(deadline=None)
@given(st.floats(0.5, 20), st.floats(0, 0.9))
def test_book_value_falls_evenly_to_the_residual(life, residual):
    assert book_value(0.0, life, residual) == pytest.approx(1)
    assert book_value(life, life, residual) == pytest.approx(residual, abs=1e-12)
    assert book_value(2 * life, life, residual) == pytest.approx(residual, abs=1e-12)
    assert book_value(life / 2, life, residual) == pytest.approx(1 - straight_line(life, residual) * life / 2)


def test_capex_without_a_life_is_an_error():
    with pytest.raises(PriceError, match="life of 0 years"):
        annuity(0.1, 0)
    with pytest.raises(PriceError, match="years"):
        straight_line(0)
