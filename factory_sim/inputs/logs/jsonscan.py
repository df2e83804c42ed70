"""Reading JSON of any size in bounded memory: one document, several in a row, JSONL, or arrays of records.

`documents` walks a file document by document. `Plan` says what is worth keeping inside one: members to skip without
decoding (prompts, answers), lists to hand over element by element, and everything else decoded as usual. The bare
words NaN and Infinity, which several tools write, are accepted.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
_KEYED = re.compile(rb'("(?:[^"\\]++|\\.)*+(?:"|\Z))(\s*:)?|[\[\]{},]', re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"[^\s,\]}]+")
_CUT_WORD = re.compile(r"\s*(|-|t|tr|tru|f|fa|fal|fals|n|nu|nul|N|Na|-?I(n(f(i(n(it?)?)?)?)?)?|\.|[eE][+-]?)\s*")
_NEXT_DOCUMENT = re.compile(rb"\n(?=[\[{])")
_DECODER = json.JSONDecoder()
_WINDOW_BYTES = 1 << 12
_LINE_BYTES = 1 << 20
SKIP = "skip"


class JsonCut(ValueError):
    """The text ends inside a value."""

    def __init__(self, position: int, inside: str):
        super().__init__(f"cut off {inside}")
        self.position = position


class JsonBad(ValueError):
    """The text is not JSON at `position`."""

    def __init__(self, position: int, message: str):
        super().__init__(message)
        self.position = position


@dataclass(frozen=True)
class Each:
    """Plan for a list: hand each element to `take` and keep `result()` (or nothing) in its place.

    `inner` makes the plan of an element, for elements that are large themselves.
    """

    take: Callable[[Any], None]
    result: Callable[[], Any] | None = None
    inner: "Callable[[], Plan] | None" = None


Plan = dict[str, Any]  # member name -> SKIP, Each, or the Plan of a nested object ("*": any other member)


@dataclass
class Loss:
    """A document or a list that could not be read to its end."""

    position: int
    message: str
    partial: Any = None
    cut: bool = False


@dataclass
class Head:
    """What the first megabytes of a file show: enough to recognise it."""

    kind: str
    """object, array or other."""
    paths: dict[str, Any] = field(default_factory=dict)
    """Dotted member names to their scalar text, "" for containers; lists and the elements of lists add no level."""

    def has(self, *names: str) -> bool:
        """True when every path is there."""
        return all(name in self.paths for name in names)

    def any(self, *names: str) -> bool:
        """True when at least one path is there."""
        return any(name in self.paths for name in names)


def head(data, limit_bytes: int = 4 << 20, depth_limit: int = 4, position: int = 0) -> Head:
    """Return the member paths in the first document of `data` from `position` on, down to `depth_limit` levels."""
    start = after_space(data, position)
    first = data[start : start + 1]
    kind = {b"{": "object", b"[": "array"}.get(first, "other")
    found = Head(kind)
    if kind == "other":
        return found
    stack: list[str] = []  # the member names above, "" for the elements of a list and for the document itself
    key = ""
    for match in _KEYED.finditer(data, start, min(len(data), start + limit_bytes)):
        mark = match.group(0)[:1]
        if mark in b"{[":
            stack.append(key)
            key = ""
        elif mark in b"}]":
            stack.pop()
            key = ""
            if len(stack) <= (kind == "array"):
                break
        elif mark == b",":
            key = ""
        elif match.group(2):
            key = match.group(1)[1:-1].decode("utf-8", "replace")
            levels = [part for part in stack if part]
            if len(levels) < depth_limit:
                found.paths.setdefault(".".join([*levels, key]), _scalar_text(data, match.end()))
    return found


def _scalar_text(data, position: int) -> str:
    at = _SPACE.match(data, position).end()
    string = _STRING.match(data, at, at + 4096)
    if string:
        return string.group(0)[1:-1].decode("utf-8", "replace")
    if data[at : at + 1] in b'{["':
        return ""
    scalar = _SCALAR.match(data, at, at + 64)
    return scalar.group(0).decode("utf-8", "replace") if scalar else ""


def skip(data, position: int) -> int:
    """Return the position after the value that starts at `position`. Raises `JsonCut`."""
    mark = data[position : position + 1]
    if mark == b'"':
        string = _STRING.match(data, position)
        if not string:
            raise JsonCut(len(data), "inside a string")
        return string.end()
    if mark not in b"{[" or not mark:
        scalar = _SCALAR.match(data, position)
        if not scalar:
            raise JsonCut(position, "before a value") if position >= len(data) else JsonBad(position, "no value")
        return scalar.end()
    depth = 0
    for match in _TOKEN.finditer(data, position):
        token = match.group(0)
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return match.end()
        elif len(token) < 2 or not token.endswith(b'"'):
            break
    raise JsonCut(len(data), "inside a list or an object")


def decode(data, position: int, window: int = _WINDOW_BYTES) -> tuple[Any, int]:
    """Decode the value at `position` with a window that grows from `window` bytes. Raises `JsonCut` and `JsonBad`."""
    size = len(data)
    while True:
        raw = data[position : position + window]
        whole = position + len(raw) >= size
        text = raw.decode("utf-8", "replace" if whole else "ignore")
        try:
            value, end = _DECODER.raw_decode(text)
        except json.JSONDecodeError as reason:
            cut = reason.msg.startswith("Unterminated") or _CUT_WORD.fullmatch(text, reason.pos)
            if whole and cut:
                raise JsonCut(size, "inside a value") from None
            if whole or not (cut or reason.pos >= len(text) - 16):
                offset = len(text[: reason.pos].encode())
                raise JsonBad(position + offset, _plain(reason.msg, text[reason.pos : reason.pos + 12])) from None
            window *= 4
            continue
        except RecursionError:
            raise JsonBad(position, "is nested too deeply") from None
        if end == len(text) and isinstance(value, int | float):  # its last digits may stand behind the end
            if whole:
                raise JsonCut(size, "inside a number")
            window *= 4
            continue
        return value, position + (end if text.isascii() else len(text[:end].encode()))


def _plain(message: str, found: str) -> str:
    return f"{message.lower()}, found {found!r}"


def load(data, position: int, plan: Plan | None = None) -> tuple[Any, int, Loss | None]:
    """Decode the value at `position` as `plan` says.

    Returns the value, the position after it, and what was lost: when the text is cut inside a planned list, the
    elements before the cut are kept and the loss tells where. Raises `JsonCut` and `JsonBad` when nothing can be kept.
    """
    if not plan or data[position : position + 1] != b"{":
        value, end = decode(data, position)
        return value, end, None
    found: dict[str, Any] = {}
    at = after_space(data, position + 1)
    if data[at : at + 1] == b"}":
        return found, at + 1, None
    while True:
        key_match = _STRING.match(data, at)
        if not key_match:
            raise _trouble(data, at, "a member name in quotes")
        key = json.loads(key_match.group(0).decode("utf-8", "replace"), strict=False)
        at = after_space(data, key_match.end())
        if data[at : at + 1] != b":":
            raise _trouble(data, at, "':'")
        at = after_space(data, at + 1)
        rule = plan.get(key, plan.get("*"))
        loss = None
        if rule == SKIP:
            at = skip(data, at)
        elif isinstance(rule, Each) and data[at : at + 1] == b"[":
            at, loss = _each(data, at, rule)
            found[key] = rule.result() if rule.result else None
        elif isinstance(rule, dict):
            found[key], at, loss = load(data, at, rule)
        else:
            found[key], at = decode(data, at)
        if loss:
            return found, at, loss
        at = after_space(data, at)
        mark = data[at : at + 1]
        if mark == b"}":
            return found, at + 1, None
        if mark != b",":
            raise _trouble(data, at, "',' or '}'")
        at = after_space(data, at + 1)


def _each(data, position: int, rule: Each) -> tuple[int, Loss | None]:
    """Hand over the elements of the list at `position`; return the position after it and what was lost."""
    at = after_space(data, position + 1)
    if data[at : at + 1] == b"]":
        return at + 1, None
    window = _WINDOW_BYTES
    try:
        while True:
            start, loss = at, None
            if rule.inner:
                element, at, loss = load(data, at, rule.inner())
            else:
                element, at = decode(data, at, window)
                window = max(256, 2 * (at - start))
            rule.take(element)
            if loss:
                return at, loss
            at = after_space(data, at)
            mark = data[at : at + 1]
            if mark == b"]":
                return at + 1, None
            if mark != b",":
                raise _trouble(data, at, "',' or ']'")
            at = after_space(data, at + 1)
    except (JsonCut, JsonBad) as reason:
        return reason.position, Loss(reason.position, str(reason), cut=isinstance(reason, JsonCut))


def documents(data, plan: Callable[[], Plan] | Plan | None = None, spread: bool = True) -> Iterator[tuple[Any, int]]:
    """Yield (value, position) of each document; a `Loss` stands in for one that cannot be read.

    Documents may follow one another with or without newlines (JSONL, appended results). With `spread`, the elements
    of a top-level array come one by one. After a broken document reading goes on at the next line that starts with a
    bracket in its first column. A loss with `partial` holds what could be kept.
    """
    at = after_space(data, 0)
    while at < len(data):
        if data[at : at + 1] in (b",", b"]"):  # documents joined by commas; what is left of a broken array
            at = after_space(data, at + 1)
            continue
        line = _line_value(data, at, spread)
        if line is not None:
            value, end = line
            yield pruned(value, plan() if callable(plan) else plan), at
            at = after_space(data, end)
            continue
        if spread and data[at : at + 1] == b"[":
            at = yield from _spread(data, at, plan)
        else:
            at = yield from _one(data, at, plan() if callable(plan) else plan)
        at = after_space(data, at)


def _line_value(data, position: int, spread: bool) -> tuple[Any, int] | None:
    """The value that fills the line at `position` (JSONL, the usual case), or None."""
    end = data.find(b"\n", position, position + _LINE_BYTES)
    if end < 0 or (spread and data[position : position + 1] == b"["):
        return None
    try:
        return json.loads(data[position:end]), end
    except (ValueError, RecursionError):
        return None


def pruned(value: Any, plan: Plan | None) -> Any:
    """Return what `load` would have kept of a value that is decoded already."""
    if not plan or not isinstance(value, dict):
        return value
    kept = {}
    for key, member in value.items():
        rule = plan.get(key, plan.get("*"))
        if rule == SKIP:
            continue
        if isinstance(rule, Each) and isinstance(member, list):
            for element in member:
                rule.take(pruned(element, rule.inner() if rule.inner else None))
            kept[key] = rule.result() if rule.result else None
        else:
            kept[key] = pruned(member, rule if isinstance(rule, dict) else None)
    return kept


def _one(data, start: int, plan: Plan | None) -> Iterator[tuple[Any, int]]:
    """Yield the document at `start`; return where the next may begin."""
    try:
        value, end, loss = load(data, start, plan)
    except (JsonCut, JsonBad) as reason:
        yield Loss(reason.position, str(reason), cut=isinstance(reason, JsonCut)), start
        return _recover(data, start + 1)
    if not loss:
        yield value, start
        return end
    loss.partial = value
    yield loss, start
    return _recover(data, start + 1)


def _spread(data, position: int, plan) -> Iterator[tuple[Any, int]]:
    """Yield the elements of a top-level array; return where reading may go on."""
    at = after_space(data, position + 1)
    while data[at : at + 1] != b"]":
        end = yield from _one(data, at, plan() if callable(plan) else plan)
        broken = end != at and data[end - 1 : end] == b"\n"
        at = after_space(data, end)
        if broken or at >= len(data):
            return at
        mark = data[at : at + 1]
        if mark == b",":
            at = after_space(data, at + 1)
        elif mark != b"]":
            trouble = _trouble(data, at, "',' or ']'")
            yield Loss(trouble.position, str(trouble)), at
            return _recover(data, at)
    return at + 1


def _recover(data, position: int) -> int:
    match = _NEXT_DOCUMENT.search(data, position)
    return match.end() if match else len(data)


def after_space(data, position: int) -> int:
    """Return the position of the first character from `position` that is no white space."""
    return _SPACE.match(data, position).end()


def _trouble(data, position: int, expected: str) -> ValueError:
    if position >= len(data):
        return JsonCut(len(data), f"where {expected} was expected")
    if data[position : position + 1] == b'"' and not _STRING.match(data, position):
        return JsonCut(len(data), "inside a string")
    found = bytes(data[position : position + 12]).decode("utf-8", "replace")
    return JsonBad(position, f"expected {expected}, found {found!r}")
