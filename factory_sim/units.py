"""Conversions at the border: inside the program there are seconds, tokens, bytes, watts, joules and dollars."""

MILLISECOND_S = 1e-3
MINUTE_S = 60.0
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
WEEK_S = 7 * DAY_S
YEAR_S = 365.25 * DAY_S

MILLION = 1e6
BILLION = 1e9

GIGABYTE_BYTES = 1e9
TERABYTE_BYTES = 1e12
TERAFLOP = 1e12

KILOWATT_HOUR_J = 3.6e6
MEGAWATT_W = 1e6
