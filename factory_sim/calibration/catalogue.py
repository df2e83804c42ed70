"""Questions about profiles, answered as tables: what is measured, one profile, an estimate, a validation, a refit."""

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.calibration import benchmarks, fit, generation_tables, measurement_files, profile_files
from factory_sim.errors import MeasurementError, ProfileError, closest
from factory_sim.inputs import catalog, profiles
from factory_sim.inputs.anchors import MODELS, anchors
from factory_sim.inputs.measurements import serving
from factory_sim.inputs.parallelism import parse_parallelism
from factory_sim.model import trust
from factory_sim.model.anchors import slowness
from factory_sim.model.serving import profile_name, serving_system

if TYPE_CHECKING:
    import pandas as pd

NO_MEASUREMENT = "estimated"


def table(
    model: str = "",
    gpu: str = "",
    engine: str = "",
    precision: str = "",
    mode: str = "",
    trust: str = "",
    most_error: float | None = None,
    least_rows: int = 1,
    folder: Path | None = None,
) -> "pd.DataFrame":
    """Measured configurations that match, anchors, and GPUs with data sheets only (`trust` "estimated", no rows).

    Columns: profile, model, gpu, engine, precision, mode, layout, speculation, trust, rows, concurrency, isl, osl
    (ranges as text), dates, tpot_error_percent, ttft_error_percent (medians of the fit).
    """
    import pandas as pd

    rows = [
        {
            "profile": group.profile, "model": group.model, "gpu": group.gpu, "engine": group.engine,
            "precision": group.precision, "mode": group.mode, "layout": group.layout,
            "speculation": group.speculation, "trust": "measured", "rows": group.rows,
            "concurrency": _range(group.concurrency), "isl": _range(group.isl), "osl": _range(group.osl),
            "dates": " to ".join(dict.fromkeys(date for date in group.dates if date)),
            "tpot_error_percent": round(100 * group.tpot_error, 2),
            "ttft_error_percent": round(100 * group.ttft_error, 2),
        }
        for group in profiles.groups(folder)
    ]  # fmt: skip
    measured = {row["gpu"] for row in rows}
    rows += [
        dict.fromkeys(rows[0], "") | {"profile": f"(any).{name}", "gpu": name, "trust": NO_MEASUREMENT, "rows": 0,
                                      "tpot_error_percent": None, "ttft_error_percent": None}
        for name in catalog.gpus() if name not in measured
    ]  # fmt: skip
    rows += [
        dict.fromkeys(rows[0], "") | {
            "profile": f"(anchor).{one.name}.{one.role}", "model": MODELS[0], "gpu": one.gpu, "precision": "fp8",
            "mode": "disagg", "layout": one.parallelism, "speculation": "none", "trust": NO_MEASUREMENT, "rows": 1,
            "dates": one.source.rpartition(", ")[2], "tpot_error_percent": None, "ttft_error_percent": None,
        }
        for one in anchors().values()
    ]  # fmt: skip
    rows += generation_tables.groups(dict.fromkeys(rows[0], ""))
    wanted = {"gpu": gpu, "engine": engine, "precision": precision, "mode": mode, "trust": trust}
    rows = [
        row for row in rows
        if model.lower() in row["model"].lower()
        and all(not value or row[name] == value.lower() for name, value in wanted.items())
        and (row["rows"] >= least_rows or (row["trust"] == NO_MEASUREMENT and least_rows <= 1))
        and (most_error is None or (row["tpot_error_percent"] or np.inf) <= most_error)
    ]  # fmt: skip
    if not rows:
        raise ProfileError("no profile matches; `factory-sim profiles list` shows all")
    return pd.DataFrame(rows)


def anchor_table(engine: str, folder: Path | None = None) -> "pd.DataFrame":
    """Published throughput of a role beside what the fitted profile of an engine says at the same point.

    Columns: anchor, role, gpu, layout, sequences_per_gpu (decode), context_tokens, published and fitted tokens/s per GPU,
    factor (on the fitted step times), basis (of the point), source.
    """
    import pandas as pd

    found = []
    for one in anchors().values():
        factor = slowness(one, MODELS[0], one.gpu, engine, "fp8", folder=folder)
        found.append(
            {
                "anchor": one.name, "role": one.role, "gpu": one.gpu, "layout": one.parallelism,
                "sequences_per_gpu": one.sequences_per_gpu or None, "context_tokens": one.sequence_tokens,
                "published_tokens_per_s": one.tokens_per_s_per_gpu,
                "fitted_tokens_per_s": round(factor * one.tokens_per_s_per_gpu, 1), "factor": round(factor, 4),
                "basis": one.basis, "source": one.source,
            }
        )  # fmt: skip
    return pd.DataFrame(found)


def _range(span: tuple[float, float]) -> str:
    return f"{span[0]:g}" if span[0] == span[1] else f"{span[0]:g}-{span[1]:g}"


def page(name: str, folder: Path | None = None) -> dict:
    """Return one profile as its file holds it; ProfileError names the closest."""
    root = (folder if folder else files("factory_sim.data").joinpath("profiles")) / "profiles"
    path = root / f"{name.lower()}.json"
    if not path.is_file():
        known = sorted({group.profile for group in profiles.groups(folder)} | set(generation_tables.profile_names()))
        raise ProfileError(f"profile '{name}' is not known{closest(name.lower(), known)}")
    return json.loads(path.read_text(encoding="utf-8"))


def coefficients(found: dict) -> "pd.DataFrame":
    """Coefficients of a profile's newest software, one row a parameter, one column a system and role, with units."""
    import pandas as pd

    meaning = {term.parameter: term.meaning for term in profiles.terms()}
    out = pd.DataFrame({"coefficient": list(found["units"]), "unit": list(found["units"].values())})
    for system in found["systems"]:
        for role, values in system["coefficients"].items():
            name = " ".join(filter(None, (system["layout"], system["speculation"].replace("none", ""), role)))
            out[name.removesuffix(" both")] = [f"{values[key]:.3g}" for key in found["units"]]
    out["meaning"] = [meaning[key] for key in found["units"]]
    return out


def regions(found: dict, folder: Path | None = None) -> "pd.DataFrame":
    """Fit range and error of each system of a profile, and the bands of questions beyond it."""
    import pandas as pd

    rows = [
        {
            "region": " ".join((system["layout"], system["speculation"].replace("none", ""))).strip(),
            "requests in flight": _range(tuple(system["range"]["in_flight"])),
            "isl": _range(tuple(system["range"]["isl"])), "osl": _range(tuple(system["range"]["osl"])),
            **{key.replace("_", " "): f"{value:g}" for key, value in system["error_percent"].items()},
        }
        for system in found["systems"]
    ]  # fmt: skip
    pooled = any("-" in system["layout"] for system in found["systems"])
    for rung, kind in trust.RUNGS.items():
        band = trust.band(rung, pooled, folder)
        spans = {m: _percent_span(getattr(band, m)) for m in ("ttft", "tpot")}
        rows.append(
            {"region": f"{kind}: {rung}" if rung != kind else rung}
            | dict.fromkeys(("requests in flight", "isl", "osl", "ttft p90", "tpot p90"), "")
            | {"ttft median": spans["ttft"], "tpot median": spans["tpot"]}
        )
    return pd.DataFrame(rows)


def _percent_span(factors: tuple[float, float]) -> str:
    low, high = (100 * (factor - 1) for factor in factors)
    return f"{low:+.0f} to {high:+.0f}"


def chart_points(found: dict) -> "pd.DataFrame":
    """Measured and predicted times of a profile's rows, for `reports.charts.accuracy`: metric, group, seconds."""
    import pandas as pd

    points = found["points"]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "metric": metric,
                    "group": points["layout"],
                    "measured": points[f"measured_{metric}_s"],
                    "predicted": points[f"predicted_{metric}_s"],
                }
            )
            for metric in ("ttft", "tpot")
        ],
        ignore_index=True,
    )


def estimate_table(
    model: str,
    gpu: str,
    engine: str,
    precision: str,
    parallelism: str,
    *,
    speculation: str = "none",
    isl: int = 1024,
    osl: int = 1024,
    concurrency=(1, 4, 16, 64, 256),
    as_of: str | None = None,
    predecessor: str | None = None,
    folder: Path | None = None,
) -> "pd.DataFrame":
    """Closed-loop predictions of one system over load, by playing: seconds, tokens/s, bands and trust."""
    import pandas as pd

    layout = parse_parallelism(parallelism)
    rows = []
    for load in concurrency:
        if load < 1:
            raise ProfileError(f"concurrency {load}: must be at least 1")
        system = serving_system(
            model, gpu, engine, precision, layout, speculation=speculation, as_of=as_of, concurrency=load,
            load=(float(isl), float(osl), float(load)), predecessor=predecessor, folder=folder,
        )  # fmt: skip
        ttft, tpot = benchmarks.reported(benchmarks.play(system, isl, osl, 0.8, load), benchmarks.DEFAULT)
        answer = 0.9 * osl
        rate = load * answer / (ttft + tpot * (answer - 1))
        rows.append(
            {
                "concurrency": load, "ttft_s": ttft, "ttft_low_s": ttft * system.ttft_band[0],
                "ttft_high_s": ttft * system.ttft_band[1], "tpot_s": tpot, "tpot_low_s": tpot * system.tpot_band[0],
                "tpot_high_s": tpot * system.tpot_band[1], "output_tokens_per_s_per_gpu": rate / system.gpus,
                "gpus": system.gpus, "trust": system.trust, "profile": system.profile,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def fit_profiles(
    out: Path,
    measurements: Path | None = None,
    *,
    only: bool = False,
    model: str = "",
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Fit the packaged rows, with a user's or without, and write the profiles; returns what to tell, line by line.

    Raises MeasurementError if `out` exists (without `force`) or no row is left.
    """
    import pandas as pd

    if out.exists() and not force:
        raise MeasurementError(f"{out}: exists; give another folder, or --force to overwrite it")
    rows, told = (None if only else serving()), []
    if measurements is not None:
        own, complaints = measurement_files.usable_rows(measurements)
        told.append(f"{measurements}: {len(own)} rows taken")
        told += [f"{measurements}: left out: {text}" for text in complaints]
        rows = own if rows is None else pd.concat([rows, own], ignore_index=True)
    if rows is None:
        raise MeasurementError("--only needs --measurements")
    rows = rows[rows.model.str.lower().str.contains(model.lower(), regex=False)]
    if rows.empty:
        raise MeasurementError(f"no row of a model whose name contains '{model}'")
    task = fit.fit(rows.reset_index(drop=True), progress=progress)
    _write(task, out)
    for group in profiles.groups(out):
        told.append(
            f"{group.profile} {group.layout} {group.speculation}: {group.rows} rows, median error TPOT "
            f"{100 * group.tpot_error:.1f} %, TTFT {100 * group.ttft_error:.1f} %"
        )
    return told


def _write(task, out: Path) -> None:
    """Write profiles to `out` when all of them could be made; what was there is replaced only then."""
    temporary = out.with_name(out.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    profile_files.write_profiles(task, temporary)
    if out.exists():
        shutil.rmtree(out)
    temporary.rename(out)


OTHER_FITS = {
    "energy": ("power/power_curves.csv", "power/energy_fit.csv"),
    "online": ("online/online_fit.csv",),
    "generation": ("power/generation.csv",),
}
"""Fits beside the serving profiles -> the files of the package's data that each makes."""


def fit_other(kind: str, out: Path, *, force: bool = False) -> list[str]:
    """Fit energy, online or generation rows (packaged) and write their files into `out`; returns what to tell.

    Raises MeasurementError if `out` holds such a file (without `force`) or the kind is not known.
    """
    from factory_sim.calibration import energy, energy_steps, generation, online

    writers = {
        "power/power_curves.csv": energy.write_power_curves,
        "power/energy_fit.csv": energy_steps.write_energy_fit,
        "online/online_fit.csv": online.write_online_fit,
        "power/generation.csv": generation.write_generation_bands,
    }
    if kind not in OTHER_FITS:
        raise MeasurementError(f"kind '{kind}' is not known{closest(kind, ('serving', *OTHER_FITS))}")
    targets = {name: out / name for name in OTHER_FITS[kind]}
    for target in targets.values():
        if target.exists() and not force:
            raise MeasurementError(f"{target}: exists; give another folder, or --force to overwrite it")
    for name, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        writers[name](target)
    return [f"{target} written" for target in targets.values()]


def crossvalidate_other(kind: str) -> "pd.DataFrame":
    """Errors (per cent) of energy or online rows with what is named in `left_out` kept from the fit."""
    import pandas as pd

    from factory_sim.calibration.energy_steps import crossvalidate_energy
    from factory_sim.calibration.online import crossvalidate_online

    if kind == "energy":
        rows = [{"left_out": "model on a GPU", "metric": "energy_per_output_token"} | crossvalidate_energy()]
    elif kind == "online":
        rows = [
            {"left_out": told, "metric": metric} | found
            for by, told in (("experiment", "experiment"), ("model", "model on a GPU"))
            for metric, found in crossvalidate_online(by).items()
        ]
    else:
        raise MeasurementError(f"kind '{kind}' is not known{closest(kind, ('serving', 'energy', 'online'))}")
    return pd.DataFrame(rows)


def import_profile(
    file: Path,
    out: Path,
    facts: dict,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Fit one file of benchmark results of any supported tool, beside the packaged rows; returns what to tell.

    The effects of all that was measured stay in the fit, so that few points make a profile.
    """
    import pandas as pd

    from factory_sim.calibration.importers import read_results, to_measurements

    if out.exists() and not force:
        raise MeasurementError(f"{out}: exists; give another folder, or --force to overwrite it")
    inspection = read_results(file)
    taken = to_measurements(inspection, **facts)
    own, complaints = measurement_files.checked(taken, str(file))
    lines = [f"{file}: {inspection.format}, {len(own)} points taken"]
    lines += [f"left out: {text}" for text in [*taken.attrs.get("dropped", []), *complaints]]
    lines += [f"note: {text}" for text in taken.attrs.get("notes", [])]
    rows = pd.concat([serving(), own], ignore_index=True)
    task = fit.fit(rows, plays=2, progress=progress)
    _write(task, out)
    names = sorted({profile_name(row.model, row.gpu, row.backend, row.precision) for row in own.itertuples()})
    found = [page(name, out) for name in names]
    for one in found:
        error = one["error_percent"]
        lines.append(
            f"{one['profile']}: median error of all its rows TPOT {error['tpot_median']} %, TTFT {error['ttft_median']} %"
        )
    alone = own_errors(task, own)
    lines.append(
        f"your {alone['points']} point{'s' * (alone['points'] != 1)} alone, fitted beside the packaged rows: median error TPOT {alone['tpot_median']} %, "
        f"TTFT {alone['ttft_median']} %; P90 {alone['tpot_p90']} and {alone['ttft_p90']} %"
    )
    lines.append(f"written to {out}; a stage uses it with `system: {{..., profiles: {out}}}`")
    return {"lines": lines, "profiles": names, "folder": str(out), "own_error_percent": alone}


def own_errors(task: fit.Problem, own: "pd.DataFrame") -> dict[str, float]:
    """Errors of a fit on the points of one file, per cent, and how many of them were fitted."""
    places = np.flatnonzero(task.rows.measurement_id.isin(own.measurement_id))
    errors = profile_files.played_errors(fit.take(task, places))
    return {"points": len(places)} | profile_files.error_percent(errors)
