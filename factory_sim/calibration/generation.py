"""Errors of the image and video models' interpolation and scaling, as bands by rung of trust."""

import numpy as np

from factory_sim.inputs import catalog
from factory_sim.model.generation import _Curve, curves, measured_rows


def _without(curve: _Curve, at: int) -> _Curve:
    kept = np.arange(len(curve.batch)) != at
    return _Curve(curve.parallelism, curve.batch[kept], curve.latency_s[kept], curve.power_w[kept])


def fit_peak_exponent() -> float:
    """Power of the bf16 peak ratio that explains the median ratio of latencies between H100 and B200."""
    ratio = catalog.gpu("b200").peak("bf16") / catalog.gpu("h100").peak("bf16")
    latency = {}
    for row in measured_rows():
        key = (row.model, row.n_gpus, row.ulysses_degree, row.ring_degree, row.batch_size)
        latency.setdefault(key, {})[row.gpu] = row.batch_latency_s
    gains = [np.log(each["h100"] / each["b200"]) for each in latency.values() if len(each) == 2]
    return float(np.median(gains) / np.log(ratio))


def residuals(exponent: float) -> dict[str, np.ndarray]:
    """Rung -> array (n, 2) of log (true / predicted) latency and energy of points left out.

    "interpolated": a batch between two others; "extrapolated": the largest batch; "estimated": all of a
    model on one GPU, from the other by bf16 peak (to the power `exponent`) and board power.
    """
    rows = measured_rows()
    found: dict[str, list[tuple[float, float]]] = {"interpolated": [], "extrapolated": [], "estimated": []}
    groups = sorted({(row.model, row.gpu, row.n_gpus) for row in rows})
    by_way = {}
    for group in groups:
        for curve in curves([row for row in rows if (row.model, row.gpu, row.n_gpus) == group]):
            by_way[(*group, curve.parallelism)] = curve
            for at in range(1, len(curve.batch)):
                inner = at < len(curve.batch) - 1
                latency_s, power_w = _without(curve, at).at(curve.batch[at])
                latency = float(np.log(curve.latency_s[at] / latency_s))
                energy = latency + float(np.log(curve.power_w[at] / power_w))
                found["interpolated" if inner else "extrapolated"].append((latency, energy))
    for (model, gpu, n_gpus, way), curve in by_way.items():
        for other in ("h100", "b200"):
            lender = by_way.get((model, other, n_gpus, way))
            if other == gpu or lender is None:
                continue
            own, lent = catalog.gpu(gpu), catalog.gpu(other)
            latency_s, power_w = lender.at(curve.batch)
            latency = np.log(curve.latency_s / (latency_s * (lent.peak("bf16") / own.peak("bf16")) ** exponent))
            energy = latency + np.log(curve.power_w / (power_w * own.tdp_w / lent.tdp_w))
            found["estimated"] += list(zip(latency, energy))
    return {rung: np.array(values) for rung, values in found.items()}


def write_generation_bands(path) -> None:
    """Write P10 and P90 of true over predicted by rung, and the
    power of the peak, to `path` (data/power/generation.csv)."""
    told = "energy_diffusion.csv (ML.ENERGY leaderboard, 2026-02-16), calibration/generation.py"
    meaning = {
        "measured": "as interpolated: the table has no repeats",
        "interpolated": "a batch size left out between two others",
        "extrapolated": "one batch size left out, the largest too",
        "estimated": "one GPU from the other",
    }
    exponent = fit_peak_exponent()
    left = residuals(exponent)
    lines = ["rung,quantity,value,low,high,unit,points,meaning,source"]
    lines.append(f',peak_exponent,{exponent:.3f},,,1,,power of the dense bf16 peak between GPUs,"{told}"')
    left["extrapolated"] = np.concatenate([left["interpolated"], left["extrapolated"]])
    for rung, words in meaning.items():
        values = left["interpolated" if rung == "measured" else rung]
        for column, quantity in enumerate(("latency", "energy")):
            low, high = np.exp(np.quantile(values[:, column], [0.1, 0.9]))
            lines.append(
                f'{rung},{quantity},1,{low:.3f},{high:.3f},true over predicted,{len(values)},"{words}","{told}"'
            )
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(lines) + "\n")
