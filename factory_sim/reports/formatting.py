"""How figures are written for people: three significant digits, a prefix that keeps them short, a unit that fits.

Inside there are seconds, dollars and tokens; a reader wants 38 ms, $0.16 and 1.23 M. Every table, page and chart
takes its spelling from here, so that a figure reads the same everywhere.
"""

import math
import re

UNDEFINED = "–"
TRUST_MARKS = {"measured": "●", "interpolated": "◐", "extrapolated": "○", "estimated": "△"}
TRUST_LETTERS = {"measured": "M", "interpolated": "I", "extrapolated": "X", "estimated": "E"}
"""The same where only ASCII can be printed."""

FIGURE_LABELS = {
    "cost_per_million_output_tokens": "Cost / M output tokens",
    "cost_per_million_input_tokens": "Cost / M input tokens",
    "cost_per_million_tokens": "Cost / M tokens",
    "cost_per_million_trained_tokens": "Cost / M trained tokens",
    "training_days": "Training ends, day",
    "requests_arrived": "Requests arrived",
    "requests_completed": "Requests completed",
    "requests_turned_away": "Requests turned away",
    "batch_output_tokens": "Output tokens of jobs",
    "batch_requests_submitted": "Batch jobs submitted",
    "batch_requests_completed": "Batch jobs answered",
    "batch_within_deadline": "Jobs within deadline",
    "token_wait_p50": "Token waits for reader p50",
    "reader_wait_p95": "Reader waits in all p95",
    "slo_attainment": "Within the promise",
    "gpu_hours": "GPU-hours",
    "cost_reduction_first_to_last_week": "Cost, first / last week",
    "revenue_growth_first_to_last_week": "Revenue, last / first week",
}
ABBREVIATIONS = {
    "ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E", "slo": "SLO", "gpu": "GPU", "gpus": "GPUs", "kv": "KV",
    "npv": "NPV", "irr": "IRR", "pue": "PUE", "isl": "ISL", "osl": "OSL", "mfu": "MFU", "it": "IT", "usd": "USD",
}  # fmt: skip

_COUNT = [(1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k"), (1.0, "")]
_SI = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ")]
_TIME = [(2 * 86400.0, 86400.0, " d"), (7200.0, 3600.0, " h"), (600.0, 60.0, " min"), (1.0, 1.0, " s"),
         (1e-3, 1e-3, " ms"), (0.0, 1e-6, " µs")]  # fmt: skip
_PREFIXED = {"J": ("J", 1.0), "W": ("W", 1.0), "Wh": ("Wh", 1.0), "kWh": ("Wh", 1e3), "MWh": ("Wh", 1e6),
             "B": ("B", 1.0), "bytes": ("B", 1.0), "g": ("g", 1.0), "kg": ("g", 1e3)}  # fmt: skip
_PERCENT = {"%": 1.0, "percent": 1.0, "fraction": 100.0}


def figure_label(figure: str) -> str:
    """Return what people call a figure, e.g. `ttft_p95` is "TTFT p95"."""
    if figure in FIGURE_LABELS:
        return FIGURE_LABELS[figure]
    words = [ABBREVIATIONS.get(word, word) for word in re.split("[_ ]", figure) if word]
    label = " ".join(words)
    return label[:1].upper() + label[1:]


def window_label(window: str) -> str:
    """Return what people call a window: "week 1" for `week_1`, "whole run" for `whole`, a stage by its name."""
    if window == "whole":
        return "whole run"
    return re.sub(r"^stage_", "", window).replace("_", " ")


def unit_label(unit: str) -> str:
    """Return the unit that still has to be said beside a formatted value: none for dollars, seconds and per cent."""
    known = unit in _PREFIXED or unit in _PERCENT or unit in ("s", "ratio", "", "1") or unit.startswith("USD")
    return "" if known else unit


def format_value(value: float | None, unit: str = "", digits: int = 3, exact: bool = False) -> str:
    """Return `value` (in `unit`) in about `digits` significant digits, with prefix and symbol, as "$0.16" or "38.2
    ms".

    Units: USD (with whatever it is per), s, fraction (as per cent), ratio (as 22.0×), J, W, Wh, kWh, bytes, and any
    count ("tokens", "requests", ...), which comes back as a bare number. What is undefined (None, NaN) is a dash. A
    share below one never reads 100 %, one above zero never 0 %. exact: drop trailing zeros, for numbers that are
    given rather than found, as limits ("15 s") and ticks.
    """
    if value is None or math.isnan(value):
        return UNDEFINED
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if unit in _PERCENT:
        percent = _percent(value * _PERCENT[unit], digits)
        return f"{percent.rstrip('0').rstrip('.') if exact and '.' in percent else percent} %"
    scale, suffix = _scale(value, unit, digits)
    symbol = "$" if unit.startswith("USD") else ""
    size = abs(value) / scale
    counted = size == round(size) and scale == 1.0 and unit_label(unit) == unit
    number = f"{size:,.0f}" if counted or not value else f"{size:,.{_places(size, digits, symbol, scale)}f}"
    if exact and "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{'-' if value < 0 else ''}{symbol}{number}{suffix}"


def format_band(low: float | None, value: float | None, high: float | None, unit: str = "", digits: int = 3) -> str:
    """Return "0.15–0.18": both ends in the scale of `value`, whose prefix and symbol are not said again.

    Ends that are far off that scale are written out with their own. No band at all, or one whose ends are written as
    the value is, gives an empty string.
    """
    ends = (low, high)
    if any(end is None or math.isnan(end) for end in ends) or low == high == value:
        return ""
    known = value is not None and math.isfinite(value) and value != 0
    if unit in _PERCENT:
        texts = [_percent(end * _PERCENT[unit], digits) for end in (*ends, value if known else math.inf)]
    elif not known or max(abs(low), abs(high)) / _scale(value, unit, digits)[0] >= 1e5:
        return _joined(*(format_value(end, unit, digits) for end in ends))
    else:
        scale = _scale(value, unit, digits)[0]
        places = _places(abs(value) / scale, digits, unit.startswith("USD"), scale)
        texts = [_end(end / scale, places) for end in (*ends, value)]
    return "" if texts[0] == texts[1] == texts[2] else _joined(*texts[:2])


def format_quantity(value: float | None, unit: str = "", digits: int = 3) -> str:
    """Return `format_value` with the unit said where it is not part of the value: "1.23 M tokens"."""
    return f"{format_value(value, unit, digits)} {unit_label(unit)}".rstrip()


def trust_mark(trust: str | None, ascii_only: bool = False) -> str:
    """Return the sign of a step of the ladder of trust, none for figures that no profile enters."""
    marks = TRUST_LETTERS if ascii_only else TRUST_MARKS
    return marks.get(trust, "") if isinstance(trust, str) else ""


def trust_legend(seen, ascii_only: bool = False) -> str:
    """Return what the signs mean, for those steps of the ladder that are in `seen`, strongest first."""
    marks = TRUST_LETTERS if ascii_only else TRUST_MARKS
    return "   ".join(f"{mark} {trust}" for trust, mark in marks.items() if trust in set(seen))


def _scale(value: float, unit: str, digits: int) -> tuple[float, str]:
    """The divisor and the suffix in which `value` reads well, after rounding (999.6 k is 1.00 M)."""
    size = abs(value) * (1 + 0.5 * 10.0**-digits)
    if unit == "s":
        if value == 0:
            return 1.0, " s"
        scale, suffix = next((scale, suffix) for start, scale, suffix in _TIME if size >= start)
        return scale, suffix
    if unit in _PREFIXED:
        symbol, factor = _PREFIXED[unit]
        found = next((step for step in _SI if size * factor >= step[0]), _SI[-1]) if value else (1.0, "")
        return found[0] / factor, f" {found[1]}{symbol}"
    if unit == "ratio":
        return 1.0, "×"
    return next((step for step in _COUNT if size >= step[0]), (1.0, ""))


def _places(size: float, digits: int, money, scale: float) -> int:
    """Decimal places that show `digits` significant digits of a size > 0, one less below a tenth; cents below $100."""
    if money and scale == 1.0 and 0.095 <= size < 99.995:
        return 2
    if size < 0.095:
        digits = max(1, digits - 1)
    return min(12, max(0, digits - 1 - math.floor(math.log10(size * (1 + 0.5 * 10.0**-digits)))))


def _end(end: float, places: int) -> str:
    """One end of a band; what is not zero does not read as zero."""
    text = f"{end:,.{places}f}"
    return text if end == 0 or text.strip("-0.,") else f"{'>-' if end < 0 else '<'}{10.0**-places:.{places}f}"


def _percent(percent: float, digits: int) -> str:
    """Per cent in `digits` digits, more of them near 0 and 100, so that neither is claimed unless it is true.

    What is within a billionth of 100 is 100: sums of floats come no closer.
    """
    if percent == 0 or abs(percent - 100) < 1e-7:
        return f"{percent:.0f}"
    if math.isinf(percent):
        return "∞"
    if 50 < percent < 100:
        places = max(digits - 2, math.ceil(-math.log10(100 - percent)))
        text = f"{percent:.{places}f}"
        return text if float(text) < 100 else f"{percent:.{places + 1}f}"
    return f"{percent:,.{_places(abs(percent), digits if abs(percent) >= 1 else max(1, digits - 1), False, 1.0)}f}"


def _joined(low: str, high: str) -> str:
    """Both ends of a band; `to` between them where a minus sign would be read as a dash."""
    return f"{low} to {high}" if "-" in low + high else f"{low}–{high}"
