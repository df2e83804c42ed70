"""Image and video models among the answers of `factory-sim profiles`: measured configurations, a page, an estimate."""

from typing import TYPE_CHECKING, Any

from factory_sim.errors import PriceError, ProfileError
from factory_sim.inputs import catalog
from factory_sim.inputs.prices import price_book
from factory_sim.model.generation import (
    generation_model,
    generation_service,
    measured_rows,
    profile_name,
    rows_of_profile,
)
from factory_sim.units import HOUR_S

if TYPE_CHECKING:
    import pandas as pd

MODE, ENGINE = "generation", "diffusion"
"""What stands in the columns `mode` and `engine` of `profiles list`."""


def is_generation(model: str) -> bool:
    """True for the name (or a unique part) of an image or video model; sound, which nothing measures, is an error."""
    try:
        return bool(generation_model(model))
    except ProfileError as error:
        if "audio" in str(error):
            raise
        return False


def groups(empty: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each model, GPU and number of GPUs that was measured, in the columns of `empty`."""
    found: dict[tuple, list] = {}
    for row in measured_rows():
        found.setdefault((row.model, row.gpu, row.n_gpus), []).append(row)
    told = []
    for (model, gpu, n_gpus), rows in found.items():
        batches = sorted({row.batch_size for row in rows})
        told.append(
            empty
            | {
                "profile": profile_name(model, gpu), "model": model, "gpu": gpu, "engine": ENGINE, "precision": "bf16",
                "mode": MODE, "layout": f"{n_gpus} gpu", "speculation": "none", "trust": "measured", "rows": len(rows),
                "concurrency": f"{batches[0]}-{batches[-1]}", "tpot_error_percent": None, "ttft_error_percent": None,
            }
        )  # fmt: skip
    return told


def profile_names() -> dict[str, tuple[str, str]]:
    """Name of a profile -> (model, GPU)."""
    return {profile_name(row.model, row.gpu): (row.model, row.gpu) for row in measured_rows()}


def of_profile(name: str) -> tuple[str, str] | None:
    """(model, GPU) of a profile name of these rows, or None."""
    return profile_names().get(name.lower())


def page_table(model: str, gpu: str) -> "pd.DataFrame":
    """Measured batches of a model on a GPU: seconds, watts and joules an output, and the setting."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "gpus": row.n_gpus, "parallelism": f"ulysses{row.ulysses_degree} ring{row.ring_degree}",
                "batch": row.batch_size, "latency_s": row.batch_latency_s, "power_w": row.power_w,
                "energy_per_output_j": row.power_w * row.batch_latency_s / row.batch_size, "output": row.output_unit,
                "size": f"{row.width_px}x{row.height_px}" + (f" x {row.frames} frames" if row.frames > 1 else ""),
                "steps": row.inference_steps, "source": row.source,
            }
            for row in measured_rows() if row.model == model and row.gpu == gpu
        ]
    )  # fmt: skip


def estimate_table(model: str, gpu: str, n_gpus: int, batches) -> "pd.DataFrame":
    """Latency, rate, energy and rent of an image or video model over batch sizes, with bands, trust, what was scaled.

    `rent_usd_per_output` is the newest market rent of the GPUs over the outputs of a server that never idles.
    """
    import pandas as pd

    rent = rent_usd_per_hour(gpu)
    rows = []
    for batch in batches:
        service = generation_service(model, gpu, n_gpus, batch)
        (low, high), (energy_low, energy_high) = service.latency_band, service.energy_band
        rows.append(
            {
                "batch": batch, "latency_s": service.latency_s, "latency_low_s": service.latency_s * low,
                "latency_high_s": service.latency_s * high, "outputs_per_s": service.outputs_per_s,
                "energy_per_output_j": service.energy_per_output_j,
                "energy_low_j": service.energy_per_output_j * energy_low,
                "energy_high_j": service.energy_per_output_j * energy_high,
                "rent_usd_per_output": None if rent is None else rent * n_gpus / HOUR_S / service.outputs_per_s,
                "output": service.output_unit, "gpus": n_gpus, "trust": service.trust, "note": service.note,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def measured_batches(model: str, gpu: str, n_gpus: int) -> list[int]:
    """Batch sizes that were measured of a model on so many GPUs (of the GPU that lends its rows, where it has none)."""
    service = generation_service(model, gpu, n_gpus)
    return sorted(
        {row.batch_size for row in rows_of_profile(service.profile) if row.n_gpus == n_gpus}
    )  # fmt: skip


def rent_usd_per_hour(gpu: str) -> float | None:
    """Newest market rent of one GPU, USD an hour; None where no price is in the book."""
    try:
        return price_book().find("rental_market", catalog.gpu_name(gpu)).value
    except PriceError:
        return None
