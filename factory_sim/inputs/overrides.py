"""Load a scenario file, apply a named variant and `path=value` settings, and say plainly what is wrong with it."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from factory_sim.errors import ScenarioError, closest
from factory_sim.inputs.scenario import Scenario
from factory_sim.inputs.schema_errors import explained


class _Loader(yaml.SafeLoader):
    """Safe YAML in which dates stay text and a repeated key is an error."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ScenarioError(f"line {key_node.start_mark.line + 1}: key '{key}' stands twice in one mapping")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_scenario(path: str | Path, settings: list[str] = (), variant: str | None = None) -> Scenario:
    """Read the scenario at `path`, apply `variant` and then `settings` (each ``path=value``), and check it.

    A setting's path may leave out ``services.NAME`` when there is one service; items of lists are picked by their name
    or number. Raises ScenarioError with the file, the path in the file, what was found and what would be right.
    """
    path = Path(path)
    raw = _read(path)
    if variant is not None:
        variants = raw.get("variants") or {}
        if variant not in variants:
            raise ScenarioError(f"{path}: variant '{variant}' is not in the file{closest(variant, variants)}")
        for target, value in variants[variant].items():
            _set(raw, target, value, f"{path}: variants.{variant}")
        raw["name"] = f"{raw.get('name', path.stem)}-{variant}"
    for setting in settings:
        target, equals, text = setting.partition("=")
        if not equals or not target.strip():
            raise ScenarioError(f"--set {setting}: write path=value, e.g. --set simulation.replications=16")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise ScenarioError(f"--set {setting}: '{text}' is not a YAML value ({error.__class__.__name__})") from None
        _set(raw, target.strip(), value, f"--set {target.strip()}")
    return parse_scenario(raw, str(path))


def parse_scenario(raw: dict[str, Any], where: str = "scenario") -> Scenario:
    """Check a mapping against the schema; `where` names its origin in errors."""
    try:
        return Scenario.model_validate(raw)
    except ValidationError as error:
        raise ScenarioError(explained(error, raw, Scenario, where)) from None


def scenario_yaml(scenario: Scenario) -> str:
    """The resolved scenario as YAML; every default is written out, so the text stands alone."""
    return yaml.safe_dump(
        scenario.model_dump(mode="json", exclude={"variants"}), sort_keys=False, allow_unicode=True, width=120
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = closest(path.name, [p.name for p in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        raise ScenarioError(f"{path}: no such file{near}") from None
    except IsADirectoryError:
        raise ScenarioError(f"{path}: is a folder; give a scenario file (YAML)") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        raw = yaml.load(text, Loader=_Loader)
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise ScenarioError(f"{path}:{place} not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if raw is None:
        raise ScenarioError(f"{path}: is empty; a scenario needs name, start, duration_days, site and services")
    if not isinstance(raw, dict):
        raise ScenarioError(
            f"{path}: holds a {type(raw).__name__}; a scenario is a mapping with name, start, duration_days, site and services"
        )
    return raw


def _set(raw: dict[str, Any], target: str, value: Any, where: str) -> None:
    """Set the value at a dotted path of the raw mapping, in place."""
    parts = target.split(".")
    services = raw.get("services")
    if parts[0] not in Scenario.model_fields and isinstance(services, dict) and len(services) == 1:
        parts = ["services", next(iter(services)), *parts]
    node: Any = raw
    for depth, part in enumerate(parts[:-1]):
        node = _child(node, part, where, ".".join(parts[:depth]), create=parts[depth + 1])
    last = parts[-1]
    if isinstance(node, list):
        node[_index(node, last, where, ".".join(parts[:-1]))] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ScenarioError(f"{where}: '{'.'.join(parts[:-1])}' holds {node!r}, which has nothing named '{last}'")


def _child(node: Any, part: str, where: str, at: str, create: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, where, at)]
    if not isinstance(node, dict):
        raise ScenarioError(f"{where}: '{at}' holds {node!r}, which has nothing named '{part}'")
    if node.get(part) is None:
        node[part] = {}
    return node[part]


def _index(items: list[Any], part: str, where: str, at: str) -> int:
    names = [str(item.get("name")) if isinstance(item, dict) else "" for item in items]
    if part in names:
        return names.index(part)
    if part.lstrip("-").isdigit() and -len(items) <= int(part) < len(items):
        return int(part)
    raise ScenarioError(
        f"{where}: '{at}' has no item '{part}'{closest(part, [n for n in names if n])} (or a number from 0 to {len(items) - 1})"
    )
