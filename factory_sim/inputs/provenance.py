"""Where a run's inputs came from: digests of the scenario and of every packaged table."""

import hashlib
import json
from importlib import resources
from pathlib import Path

from factory_sim import __version__
from factory_sim.inputs.scenario import Scenario


def digest(scenario: Scenario) -> str:
    """Ten hex digits that name a scenario, its seed and the version: equal inputs, equal name."""
    content = scenario.model_dump(mode="json", exclude={"variants"})
    text = json.dumps([__version__, content], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def provenance(scenario: Scenario, profiles: dict[str, str]) -> dict:
    """Digest and origin of every input of a run: the scenario, the packaged tables, the profiles used."""
    code = _own_policies(scenario)
    return {
        "scenario": {"name": scenario.name, "digest": digest(scenario), "seed": scenario.seed},
        "version": __version__,
        "profiles": profiles,
        "own_profiles": _own_profiles(scenario),
        **({"own_policies": code} if code else {}),
        "tables": _tables(),
    }


def _own_policies(scenario: Scenario) -> dict[str, str]:
    """File of the scenario author's policies -> sha256 of it."""
    scalers = [service.autoscaler.policy for service in scenario.services.values() if service.autoscaler]
    names = sorted({policy.rpartition(":")[0] for policy in scalers if ".py:" in policy})
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names}


def _own_profiles(scenario: Scenario) -> dict[str, str]:
    """Folder of own profiles -> sha256 of the effects in it."""
    folders = {getattr(stage.system, "profiles", None) for service in scenario.services.values() for stage in service.stages}
    return {
        folder: hashlib.sha256((Path(folder) / "effects.csv").read_bytes()).hexdigest()
        for folder in sorted(filter(None, folders))
    }


def _tables() -> dict[str, str]:
    """Path within the package's data -> sha256 of the file."""
    found: dict[str, str] = {}
    pending = [("", resources.files("factory_sim.data"))]
    while pending:
        prefix, folder = pending.pop()
        for item in folder.iterdir():
            if item.name.startswith("__") or item.name.endswith(".pyc"):
                continue
            if item.is_dir():
                pending.append((f"{prefix}{item.name}/", item))
            else:
                found[prefix + item.name] = hashlib.sha256(item.read_bytes()).hexdigest()
    return dict(sorted(found.items()))
