"""Reading YAML of any size in bounded memory, with the plans of `jsonscan`: events are taken as they come."""

from collections.abc import Iterator
from typing import Any

from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.jsonscan import SKIP, Each, Loss, Plan

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}


class _Text:
    """A readable view of the mapped bytes, which is what the parser asks for."""

    def __init__(self, data, end: int) -> None:
        self.data, self.at, self.end = data, 0, end

    def read(self, size: int = 1 << 16) -> bytes:
        part = bytes(self.data[self.at : min(self.at + size, self.end)])
        self.at += len(part)
        return part


def documents(source: Source, plan: Plan | None = None, end: int | None = None) -> Iterator[Any]:
    """Yield the documents of a YAML file, as `plan` says; a `Loss` for what is not YAML (the rest is not read).

    Only what is before the byte `end` is read. Inside a planned list the elements before the trouble have been handed
    over by then.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = _Text(source.data, len(source.data) if end is None else end)
    events = yaml.parse(text, Loader=loader)
    try:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                yield _Builder(events, yaml).value(next(events), plan)
    except yaml.YAMLError as reason:
        mark = getattr(reason, "problem_mark", None)
        position = mark.index if mark is not None else len(source.data)
        problem = getattr(reason, "problem", None) or str(reason).split("\n")[0]
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        yield Loss(position, f"{line}{problem}", cut=position >= len(source.data) - 1)
    except RecursionError:
        yield Loss(0, "is nested too deeply")


class _Builder:
    """Values from the events of one document; anchors are remembered."""

    def __init__(self, events, yaml) -> None:
        self.events, self.yaml, self.anchors = events, yaml, {}

    def value(self, event, plan: Any = None) -> Any:
        """Build the value that starts with `event`."""
        yaml = self.yaml
        if isinstance(event, yaml.AliasEvent):
            return self.anchors.get(event.anchor)
        if isinstance(event, yaml.ScalarEvent):
            found = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            found = self._sequence(plan)
        else:
            found = self._mapping(plan if isinstance(plan, dict) else None)
        if event.anchor:
            self.anchors[event.anchor] = found
        return found

    def _sequence(self, plan: Any) -> Any:
        found = []
        for event in self.events:
            if isinstance(event, self.yaml.SequenceEndEvent):
                break
            if isinstance(plan, Each):
                plan.take(self.value(event, plan.inner() if plan.inner else None))
            else:
                found.append(self.value(event))
        if isinstance(plan, Each):
            return plan.result() if plan.result else None
        return found

    def _mapping(self, plan: Plan | None) -> dict[str, Any]:
        found = {}
        for event in self.events:
            if isinstance(event, self.yaml.MappingEndEvent):
                break
            key = self.value(event)
            key = key if isinstance(key, str) else str(key)
            rule = plan.get(key, plan.get("*")) if plan else None
            if rule == SKIP:
                self._skip(next(self.events))
            else:
                found[key] = self.value(next(self.events), rule)
        return found

    def _skip(self, event) -> None:
        depth = 0
        while True:
            if isinstance(event, self.yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, self.yaml.CollectionEndEvent):
                depth -= 1
            if depth == 0:
                return
            event = next(self.events)


def _scalar(event) -> Any:
    text = event.value
    if event.style is not None:  # quoted or a block of text
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[:1] in "0123456789+-.":
        try:
            return int(text)
        except ValueError:
            try:
                return float(text)
            except ValueError:
                return text
    return text
