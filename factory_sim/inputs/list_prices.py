"""Published API prices by provider, model and day, from the genai-prices package (no network)."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache, lru_cache

from factory_sim.errors import PriceError, closest
from factory_sim.records import Record


class ListPrice(Record):
    """List prices of one model at one provider on one day, USD per million tokens."""

    provider: str
    model: str
    as_of: date
    processing: str
    input_usd_per_million: float
    output_usd_per_million: float
    cached_input_usd_per_million: float | None
    """None where the provider publishes no cached price (cached input then costs what input costs)."""
    long_above_tokens: float | None
    """Prompt length above which the whole request costs the long prices; None where there is one price."""
    long_input_usd_per_million: float | None
    long_output_usd_per_million: float | None
    long_cached_input_usd_per_million: float | None
    source: str


PRICES_AS_OF = date(2026, 11, 1)
"""Day of prices where none is given: the last first-of-month that the packaged price list covers."""

_CONTEXT = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}


def _snapshot():
    from genai_prices import data_snapshot

    return data_snapshot.get_snapshot()


@lru_cache(maxsize=256)
def list_price(reference: str, as_of: date, processing: str = "standard") -> ListPrice:
    """Return the published price of ``model@provider`` on a day, in a processing class.

    The list tells no day on which a model came out, so earlier days carry its first price; days after the newest change
    that the list knows carry its last, and the source says so.
    Raises PriceError for an unknown provider or model (with the nearest names), for a model without token prices, and
    for a processing class that has no published price on that day.
    """
    model_name, _, provider_name = reference.rpartition("@")
    snapshot = _snapshot()
    providers = {provider.id: provider for provider in snapshot.providers}
    if provider_name not in providers:
        raise PriceError(f"list_price: provider '{provider_name}' is not known{closest(provider_name, providers)}")
    provider = providers[provider_name]
    model = next((known for known in provider.models if known.id == model_name), None)
    if model is None:
        try:
            provider, model = snapshot.find_provider_model(model_name, None, provider_name, None)
        except LookupError as error:
            near = closest(model_name, [known.id for known in provider.models])
            raise PriceError(f"list_price: provider '{provider_name}' has no model '{model_name}'{near}") from error
    moment = datetime.combine(as_of, time(12), tzinfo=UTC)
    standard = model.get_prices(moment)
    prices = standard
    if processing != "standard":
        prices = model.get_prices(moment, price_context=_CONTEXT[processing])
        if _levels(prices.input_mtok) == _levels(standard.input_mtok) and (
            _levels(prices.output_mtok) == _levels(standard.output_mtok)
        ):
            raise PriceError(f"list_price: {reference} has no published {processing} price on {as_of}")
    if prices.input_mtok is None or prices.output_mtok is None:
        raise PriceError(f"list_price: {reference} is not priced by input and output tokens")
    return _record(provider.id, model.id, as_of, processing, prices)


@cache
def newest_change() -> date:
    """Newest day on which the packaged list says that a price changed: it is at least that recent."""
    found = date.min
    for provider in _snapshot().providers:
        for model in provider.models:
            priced = model.prices if isinstance(model.prices, list) else []
            for entry in [*priced, *(model.price_variants or ())]:
                found = max(found, getattr(entry.constraint, "start_date", None) or date.min)
    return found


def _levels(price) -> tuple[float | None, float | None, float | None]:
    """Base price, first threshold (tokens) and price above it; providers publish at most one threshold that matters."""
    if price is None:
        return None, None, None
    if isinstance(price, Decimal | int | float):
        return float(price), None, None
    if len(price.tiers) > 1:
        raise PriceError(f"list_price: {len(price.tiers)} context thresholds; one is supported")
    if not price.tiers:
        return float(price.base), None, None
    return float(price.base), float(price.tiers[0].start), float(price.tiers[0].price)


def _record(provider: str, model: str, as_of: date, processing: str, prices) -> ListPrice:
    from importlib.metadata import version

    fresh, threshold, long_fresh = _levels(prices.input_mtok)
    output, output_threshold, long_output = _levels(prices.output_mtok)
    cached, _, long_cached = _levels(prices.cache_read_mtok)
    if threshold is not None and output_threshold is not None and threshold != output_threshold:
        raise PriceError(f"list_price: {model}@{provider} has different thresholds for input and output")
    threshold = threshold if threshold is not None else output_threshold
    has_long = threshold is not None
    late = f"; carried forward from {newest_change()}, the last change that the list knows" if as_of > newest_change() else ""
    return ListPrice(
        provider=provider,
        model=model,
        as_of=as_of,
        processing=processing,
        input_usd_per_million=fresh,
        output_usd_per_million=output,
        cached_input_usd_per_million=cached,
        long_above_tokens=threshold,
        long_input_usd_per_million=(fresh if long_fresh is None else long_fresh) if has_long else None,
        long_output_usd_per_million=(output if long_output is None else long_output) if has_long else None,
        long_cached_input_usd_per_million=(cached if long_cached is None else long_cached) if has_long else None,
        source=f"genai-prices {version('genai-prices')} (provider {provider}, model {model}, {processing}){late}",
    )
