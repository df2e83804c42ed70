"""What is wrong with a mapping that a record refused: one line for each mistake, by its path in the file."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from factory_sim.errors import closest
from factory_sim.records import Record

UNIT_WORDS = {
    "_s": "seconds", "_ms": "milliseconds", "_minutes": "minutes", "_hours": "hours", "_days": "days", "_day": "days",
    "_usd": "US dollars", "_w": "watts", "_j": "joules", "_tokens": "tokens", "_bytes": "bytes",
    "_per_s": "a rate per second", "_kwh": "kWh",
}  # fmt: skip
_WRONG_KIND = re.compile(r"^(model|dict|tuple|list|string)_type$")
_MOST = 5
"""Mistakes shown at once."""


def explained(error: ValidationError, raw: Any, record: type[BaseModel], where: str, above: str = "") -> str:
    """Lines for the mistakes of `raw` against `record`: origin, path in the file (below `above`), found, right.

    Of the branches of a choice (a price stated or named, a plan or several) only the one that was meant is told.
    """
    items = [(_file_path(item["loc"], raw, item["type"]), item) for item in error.errors()]
    kept: list[tuple[tuple, dict]] = []
    for path, item in items:
        deeper = any(other[: len(path)] == path and len(other) > len(path) for other, _ in items)
        if _WRONG_KIND.match(item["type"]) and (deeper or any(path == other for other, _ in kept)):
            continue
        kept.append((path, item))
    return "\n".join(_line(path, item, record, where, above) for path, item in kept[:_MOST])


def _file_path(loc: Sequence[Any], raw: Any, kind: str) -> tuple[Any, ...]:
    """The parts of a location that stand in the file: names of branches, tags and validators are left out."""
    path, node = [], raw
    for number, part in enumerate(loc):
        in_list = isinstance(node, list | tuple) and isinstance(part, int) and part < len(node)
        if in_list or (isinstance(node, dict) and part in node):
            node = node[part]
        elif number < len(loc) - 1 or kind != "missing":
            continue
        path.append(part)
    return tuple(path)


def _line(path: tuple, item: dict[str, Any], record: type[BaseModel], where: str, above: str) -> str:
    """One line for one mistake."""
    shown_path = ".".join(str(part) for part in ([above] if above else []) + list(path))
    at = f"{where}: {shown_path}: " if shown_path else f"{where}: "
    kind, found, last = item["type"], item.get("input"), str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return f"{at}unknown key{closest(last, _fields_at(record, path[:-1]))}"
    if kind == "missing":
        return f"{at}is missing; it is needed"
    shown = repr(found) if isinstance(found, (str, int, float, bool, type(None))) else f"a {type(found).__name__}"
    message = item["msg"].removeprefix("Value error, ")
    if kind == "union_tag_invalid":
        known = _quoted(item["ctx"]["expected_tags"])
        return f"{at}kind '{item['ctx']['tag']}' is not known{closest(item['ctx']['tag'], known)}; use one of {', '.join(known)}"
    if kind == "model_type":
        return f"{at}found {shown}; {_wanted(item['ctx']['class_name'])}"
    if kind in {"float_parsing", "int_parsing", "float_type", "int_type"}:
        return f"{at}{shown} is not a number{_unit_hint(last)}"
    if kind == "finite_number":
        return f"{at}{shown} is not a finite number{_unit_hint(last)}"
    if kind == "value_error":
        below = re.match(r"(\w+)\.[\w.-]+: ", message)
        inside = below and below[1] in _fields_at(record, path)
        return f"{at.removesuffix(': ')}.{message}" if inside and shown_path else f"{at}{message}"
    if kind.startswith("date_") and not kind.startswith("datetime"):
        return f"{at}found {shown}; write a date as YYYY-MM-DD"
    if kind == "literal_error":
        known = _quoted(item["ctx"]["expected"])
        return f"{at}{shown} is not known{closest(str(found), known)}; use one of {', '.join(known)}"
    return f"{at}found {shown}; {message[0].lower() + message[1:]}{_unit_hint(last)}"


def _quoted(text: str) -> list[str]:
    """The names in ``'a', 'b' or 'c'``."""
    return re.findall(r"'([^']*)'", text)


def _wanted(name: str) -> str:
    """What a mapping in place of something else would hold."""
    record = next((found for found in _records(Record) if found.__name__ == name), None)
    if record is None:
        return f"a mapping is needed ({name})"
    needed = [key for key, field in record.model_fields.items() if field.is_required()]
    keys = needed or list(record.model_fields)[:4]
    return f"give a mapping with {', '.join(keys)}{'' if needed else ', ...'}"


def _records(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for record in base.__subclasses__():
        yield record
        yield from _records(record)


def _unit_hint(key: str) -> str:
    for suffix, word in sorted(UNIT_WORDS.items(), key=lambda pair: -len(pair[0])):
        if key.endswith(suffix):
            return f" ({key} is a plain number, in {word})"
    return ""


def _fields_at(record: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """Names of the fields that a record at `path` may have, of every record that may stand there."""
    annotations: list[Any] = [record]
    for part in path:
        inside = [found for annotation in annotations for found in _records_in(annotation)]
        fields = [found.model_fields[str(part)] for found in inside if str(part) in found.model_fields]
        if fields:  # else the key of a mapping or the number of a list, which its annotation passes over
            annotations = [field.annotation for field in fields]
    return list(dict.fromkeys(key for a in annotations for found in _records_in(a) for key in found.model_fields))


def _records_in(annotation: Any) -> list[type[BaseModel]]:
    """The record classes inside an annotation such as ``dict[str, Service]`` or ``Rent | Own``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _records_in(argument)]
