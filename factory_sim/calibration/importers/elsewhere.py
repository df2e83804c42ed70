"""Files and folders that are no results but that another command reads: say what they are and which command it is."""

from pathlib import Path

from factory_sim.errors import closest

_TABLES = (
    ({"energy_per_output_token_j", "avg_batch_size"}, "a table of energy measurements",
     "factory-sim profiles validate --kind energy --measurements {path}"),
    ({"energy_per_output_j", "batch_latency_s"}, "a table of image and video generation",
     "factory-sim profiles estimate --model ... --gpu ... (the packaged rows)"),
    ({"submitter", "accelerator", "round"}, "a table of MLPerf results", "factory-sim profiles mlperf"),
    ({"output_tokens_per_s_per_gpu", "row_kind", "software"}, "a table of saturated throughput",
     "factory-sim profiles fit"),
)
"""Columns that mark a table -> what it is, the command."""
_RUN_FILES = ("run.json", "summary.json")
_SCENARIO_MARKS = ("services", "site")


def missing(path: Path) -> str:
    """What to say of a path that is not there: the nearest name beside it, or the part of the path that is missing."""
    parent = path.parent
    if not parent.is_dir():
        return f"{path}: is not there, and neither is the folder {parent}"
    names = sorted(item.name for item in parent.iterdir() if not item.name.startswith("."))
    return f"{path}: is not there{closest(path.name, names)}"


def run_folder(path: Path) -> str | None:
    """What to say of a folder that a run of this program wrote, or of such a file in it; None for any other."""
    folder = path if path.is_dir() else path.parent
    if not all((folder / name).is_file() for name in _RUN_FILES) or (path != folder and path.name not in _RUN_FILES):
        return None
    return (
        f"{path}: belongs to a run of this program, not to a benchmark; `factory-sim statement {folder}`, "
        f"`factory-sim timeline {folder}` and `factory-sim explain {folder} FIGURE` show it"
    )


def scenario(path: Path, names: list[str]) -> str | None:
    """What to say of YAML whose members are those of a scenario; None for any other."""
    if not all(mark in names for mark in _SCENARIO_MARKS):
        return None
    return f"{path}: is a scenario, not a result; `factory-sim run {path}` plays it"


def table(path: Path, names: list[str]) -> str | None:
    """What to say of a table with these columns when another command reads it; None for any other."""
    for marks, what, command in _TABLES:
        if marks <= set(names):
            return f"{path}: is {what}, not a result of a benchmark tool; `{command.format(path=path)}` reads it"
    return None
