"""Reading numbers, units and times as people write them; what cannot be read is None, never 0."""

import math
import re
from datetime import UTC, datetime

_THOUSANDS = re.compile(r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$")
_UNIT_SUFFIX = re.compile(
    r"^(?P<name>.*?)(_in)?_(?P<unit>ns|nanos|nanoseconds?|nano|us|micros|microseconds?|ms|msec|millis|milliseconds?|"
    r"s|sec|secs|seconds?|min|minutes?|h|hours?)$"
)
SECONDS_PER_UNIT = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
}
_UNIT_NAMES = {
    **dict.fromkeys(("ns", "nanos", "nano", "nanosecond", "nanoseconds"), "ns"),
    **dict.fromkeys(("us", "µs", "μs", "micros", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hour", "hours"), "h"),
}
_EPOCH_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (1e8, 1.0))


def number(value: object) -> float | None:
    """Return a finite float, or None for anything else (missing, text, NaN, infinite, a boolean)."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        if _THOUSANDS.match(value):
            value = value.replace(",", "")
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def positive(value: object) -> float | None:
    """Return a number above zero, or None: a stored latency or rate of 0.0 means that it was not measured."""
    found = number(value)
    return found if found is not None and found > 0 else None


def count(value: object) -> int | None:
    """Return a whole number >= 0, or None."""
    found = number(value)
    return round(found) if found is not None and found >= 0 else None


def time_unit(text: object) -> str | None:
    """Return ns, us, ms, s, min or h for the name of a unit of time (also "s/token"), else None."""
    if not isinstance(text, str):
        return None
    return _UNIT_NAMES.get(text.strip().lower().split("/")[0].strip())


def seconds(value: object, unit: object) -> float | None:
    """Return `value` in seconds, or None when the value or its unit is not known."""
    found, name = number(value), time_unit(unit)
    return None if found is None or name is None else found * SECONDS_PER_UNIT[name]


def plain_name(header: str) -> str:
    """Return a column name in lower case with underscores: "Time to First Token (ms)" -> time_to_first_token_ms."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[0-9])(?=[A-Z][a-z])", "_", header.strip().lstrip("\ufeff"))
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def split_unit(name: str) -> tuple[str, str | None]:
    """Split a plain column name into its stem and its unit of time: latency_ms -> (latency, ms)."""
    match = _UNIT_SUFFIX.match(name)
    return (match["name"], _UNIT_NAMES[match["unit"]]) if match else (name, None)


def epoch_seconds(value: object) -> float | None:
    """Return seconds since 1970 from an ISO text or an epoch number in s, ms, us or ns, else None.

    Epoch units differ by a factor of a thousand, so the size tells them apart for the years 1973 to 5138. A text
    without a zone is taken as UTC.
    """
    found = number(value)
    if found is not None:
        for least, factor in _EPOCH_UNITS:
            if found >= least:
                return found * factor
        return None
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip().removesuffix(" UTC"))
        except ValueError:
            return None
    else:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return number(moment.timestamp())
