"""Tokens of pictures, by the rules that providers publish (``data/tokenization/images.csv``): tiles, patches, fixed."""

import math

from factory_sim.model.token_tables import number, row_of


def image_tokens(rule: str, width_px: float, height_px: float) -> float:
    """Tokens of one image under a provider's rule (a row of images.csv), after the resizing that it does first."""
    row = row_of("images.csv", rule, "image rule")
    return _IMAGE_RULES[row["rule"]](row, float(width_px), float(height_px))


def _fixed(row: dict[str, str], width: float, height: float) -> float:
    return float(row["base_tokens"])


def _tiles(row: dict[str, str], width: float, height: float) -> float:
    """Squares of unit_px that cover the image."""
    small = number(row, "small_px")
    if small is not None and max(width, height) <= small:
        return float(row["small_tokens"])
    width, height = _shrunk(width, height, number(row, "fit_px"), number(row, "short_side_px"))
    unit = float(row["unit_px"])
    tiles = math.ceil(width / unit) * math.ceil(height / unit)
    return float(row["base_tokens"]) + float(row["tokens_per_unit"]) * tiles


def _shrunk(width: float, height: float, fit: float | None, short: float | None) -> tuple[float, float]:
    for limit, side in ((fit, max), (short, min)):
        if limit is not None and side(width, height) > limit:
            scale = limit / side(width, height)
            # Rounded before the tiles are counted, so that 768.0000001 pixels are not a tile more.
            width, height = round(width * scale), round(height * scale)
    return width, height


def _patches(row: dict[str, str], width: float, height: float) -> float:
    """Patches that cover the image, which is first shrunk to the longest edge and to the most tokens allowed."""
    width, height = _shrunk(width, height, number(row, "long_edge_px"), None)
    unit, most = float(row["unit_px"]), number(row, "max_tokens")
    columns, rows = math.ceil(width / unit), math.ceil(height / unit)
    if most is not None and columns * rows > most:
        columns, rows = _largest_grid(width, height, unit, most)
    breaks = (number(row, "row_tokens") or 0.0) * rows
    return float(row["base_tokens"]) + float(row["tokens_per_unit"]) * columns * rows + breaks


def _largest_grid(width: float, height: float, unit: float, most: float) -> tuple[int, int]:
    """Columns and rows of the largest scaled-down image whose patches are at most ``most`` (bisection on the scale)."""
    fits, too_large = 0.0, 1.0
    for _ in range(60):
        scale = (fits + too_large) / 2
        if math.ceil(width * scale / unit) * math.ceil(height * scale / unit) <= most:
            fits = scale
        else:
            too_large = scale
    return math.ceil(width * fits / unit), math.ceil(height * fits / unit)


def _rounded_patches(row: dict[str, str], width: float, height: float) -> float:
    """Sides rounded to whole patches, then scaled into the allowed number of patches."""
    unit, least, most = float(row["unit_px"]), float(row["min_tokens"]), float(row["max_tokens"])
    columns, rows = max(round(width / unit), 1), max(round(height / unit), 1)
    area = width * height / unit**2
    if columns * rows > most:
        shrink = math.sqrt(area / most)
        columns, rows = max(int(width / shrink / unit), 1), max(int(height / shrink / unit), 1)
    elif columns * rows < least:
        grow = math.sqrt(least / area)
        columns, rows = math.ceil(width * grow / unit), math.ceil(height * grow / unit)
    return float(columns * rows) * float(row["tokens_per_unit"])


_IMAGE_RULES = {"fixed": _fixed, "tiles": _tiles, "patches": _patches, "rounded_patches": _rounded_patches}
