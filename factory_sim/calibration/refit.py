"""Everything that calibration ships, made again from the packaged tables: same tables and code, same bytes.

Each function writes into a folder (made if missing) the files of the same name under `factory_sim/data/`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from factory_sim.calibration import accuracy, energy, energy_steps, fit, online, profile_files
from factory_sim.inputs.measurements import serving

if TYPE_CHECKING:
    import pandas as pd


def write_profiles(folder: Path, task: fit.Problem | None = None, progress=None) -> fit.Problem:
    """Write effects.csv, index.csv and profiles/*.json (data/profiles); returns the fit for `write_accuracy`.

    `task` is a full fit, made when left out; `progress(done, plays)` is called after each play of it.
    """
    task = fit.fit(serving(), progress=progress) if task is None else task
    profile_files.write_profiles(task, folder)
    return task


def write_accuracy(
    folder: Path, schemes=accuracy.SCHEMES, task: fit.Problem | None = None, progress=None
) -> "pd.DataFrame":
    """Write residuals.csv, accuracy.csv and bands.csv (data/profiles) from refits without what is left out.

    `task` is a full fit, made when left out; `progress(scheme, done, folds)`. Returns the table of accuracy.csv.
    """
    residuals = accuracy.crossvalidate(schemes=schemes, task=task, progress=progress)
    found = accuracy.accuracy_table(residuals)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "residuals": residuals[list(accuracy.SHIPPED)],
        "accuracy": found,
        "bands": accuracy.band_table(residuals),
    }
    for name, frame in tables.items():
        frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.5g", lineterminator="\n")
    return found


def write_energy(folder: Path) -> None:
    """Write power_curves.csv and energy_fit.csv (data/power)."""
    folder.mkdir(parents=True, exist_ok=True)
    energy.write_power_curves(folder / "power_curves.csv")
    energy_steps.write_energy_fit(folder / "energy_fit.csv")


def write_online(folder: Path) -> None:
    """Write online_fit.csv (data/online)."""
    folder.mkdir(parents=True, exist_ok=True)
    online.write_online_fit(folder / "online_fit.csv")
