"""Image and video generation: seconds, watts and joules of one batch, from the measured rows of `energy_diffusion.csv`.

A diffusion server takes the requests that wait, up to its batch size, works through the steps of the model, and hands
all outputs back together: one batch is one step of the kernel (`generation_system`), so such services run beside
language models. Nobody waits for a batch to fill.

Between measured batch sizes latency is interpolated; beyond the largest it grows in proportion (outputs per second
stay). Steps scale time in proportion. Another size or length scales it by pixels and frames to the power 1.5, halfway
between layers (1) and attention (2), which also bound the band. Another GPU scales it by the dense bf16 peak to the
power that explains H100 and B200 (0.3: most of this software does not use what newer GPUs offer), at the same fraction
of board power; powers 0 and 1 bound the band. Each of these lowers the trust (`data/power/generation.csv`).
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from factory_sim.errors import ProfileError, closest
from factory_sim.inputs import catalog
from factory_sim.model.energy import power_curve
from factory_sim.model.serving import ServingSystem, StepCosts, Worker

SIZE_EXPONENTS = (1.0, 1.5, 2.0)
"""Low, middle and high power of the number of pixels times frames in the time of a batch."""
BF16_BYTES = 2
"""Bytes of a parameter as measured: all rows are bf16."""
AUDIO_WORDS = ("whisper", "audio", "speech", "tts", "voice", "music", "bark")


@dataclass(frozen=True)
class GenerationRow:
    """One measured batch of one model."""

    measurement_id: str
    model: str
    gpu: str
    n_gpus: int
    ulysses_degree: int
    ring_degree: int
    output_unit: str
    height_px: int
    width_px: int
    frames: int
    fps: float
    inference_steps: int
    batch_size: int
    batch_latency_s: float
    power_w: float
    """Sum over the GPUs."""
    params: float
    """Parameters of the denoiser."""
    source: str


@dataclass(frozen=True)
class GenerationService:
    """A server of one image or video model at one batch size."""

    model: str
    gpu: str
    n_gpus: int
    batch: int
    latency_s: float
    """Seconds of a whole batch, from start to its outputs."""
    outputs_per_s: float
    """Images or videos per second with full batches, one after the other."""
    power_w: float
    """GPU power while it works, W, sum over the GPUs."""
    energy_per_output_j: float
    """GPU energy of one image or video, J."""
    output_unit: str
    """"image" or "video"."""
    latency_band: tuple[float, float]
    """P10 and P90 of true over predicted latency."""
    energy_band: tuple[float, float]
    """P10 and P90 of true over predicted energy."""
    trust: str
    """"measured", "interpolated", "extrapolated" or "estimated"."""
    parallelism: str
    """Sequence parallelism over the GPUs, e.g. "ulysses4 ring1"."""
    max_batch: int
    """Largest measured batch of this model on these GPUs."""
    latency_by_batch_s: tuple[float, ...]
    """Seconds of a batch of 1, 2, ... max_batch."""
    power_by_batch_w: tuple[float, ...]
    """Watts of the GPUs in a batch of 1, 2, ... max_batch."""
    output_s: float
    """Seconds that one video plays, by its frames and their rate; 0 for an image."""
    weight_bytes: float
    """Weights of one copy of the denoiser in bf16; text encoder and autoencoder are not in the table."""
    profile: str
    """Name of the measured rows behind it, as `profiles list` shows it."""
    source: str
    note: str
    """What was scaled, and by what."""


@dataclass(frozen=True)
class GenerationSystem(ServingSystem):
    """A server of an image or video model as the kernel plays it: what its outputs are, and what a batch draws."""

    output_unit: str = "image"
    """"image" or "video"."""
    output_s: float = 0.0
    """Seconds that one video plays; 0 for an image."""
    power_by_batch_w: tuple[float, ...] = ()
    """Watts of all GPUs in a batch of 1, 2, ... outputs."""
    energy_band: tuple[float, float] = (1.0, 1.0)
    """P10 and P90 of true over predicted energy."""
    weight_bytes: float = 0.0


@cache
def measured_rows() -> tuple[GenerationRow, ...]:
    """All rows of the packaged table of diffusion models."""
    path = files("factory_sim.data").joinpath("measurements", "energy_diffusion.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            GenerationRow(
                measurement_id=row["measurement_id"],
                model=row["model"],
                gpu=row["gpu"],
                n_gpus=int(row["n_gpus"]),
                ulysses_degree=int(row["ulysses_degree"]),
                ring_degree=int(row["ring_degree"]),
                output_unit=row["output_unit"],
                height_px=int(float(row["height_px"])),
                width_px=int(float(row["width_px"])),
                frames=int(float(row["frames"] or 1)),
                fps=float(row["fps"] or 0),
                inference_steps=int(float(row["inference_steps"])),
                batch_size=int(row["batch_size"]),
                batch_latency_s=float(row["batch_latency_s"]),
                power_w=float(row["avg_power_w"]),
                params=float(row["total_params_billion"]) * 1e9,
                source=row["source"],
            )
            for row in csv.DictReader(file)
        )


def profile_name(model: str, gpu: str) -> str:
    """Name of the measured rows of a model on a GPU."""
    return f"{model.split('/')[-1]}.{gpu}.diffusion".lower()


@cache
def rows_of_profile(name: str) -> tuple[GenerationRow, ...]:
    """The measured rows of a profile by its name; none where no image or video model has it."""
    return tuple(row for row in measured_rows() if profile_name(row.model, row.gpu) == name)


@cache
def bands() -> dict[str, dict[str, tuple[float, float]]]:
    """Rung -> "latency" or "energy" -> (P10, P90) of true over predicted, as cross-validated."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for row in _fitted():
        if row["rung"]:
            found.setdefault(row["rung"], {})[row["quantity"]] = (float(row["low"]), float(row["high"]))
    return found


def peak_exponent() -> float:
    """Power of the dense bf16 peak by which a GPU is faster than another, as fitted to H100 and B200."""
    return next(float(row["value"]) for row in _fitted() if row["quantity"] == "peak_exponent")


@cache
def _fitted() -> list[dict[str, str]]:
    with files("factory_sim.data").joinpath("power", "generation.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def generation_models() -> tuple[str, ...]:
    """Names of the measured models, in the order of the table."""
    return tuple(dict.fromkeys(row.model for row in measured_rows()))


def generation_model(name: str) -> str:
    """Full name of a model given by its full name, the part after the slash, or a unique part of it (any case).

    Raises ProfileError, for sound and speech with the reason that no table here measures them.
    """
    wanted = name.lower()
    models = generation_models()
    for found in (
        [m for m in models if wanted in (m.lower(), m.lower().split("/")[-1])],
        [m for m in models if wanted in m.lower()],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise ProfileError(f"generation model '{name}' could be {', '.join(found)}")
    if any(word in wanted for word in AUDIO_WORDS):
        raise ProfileError(
            f"generation model '{name}': no table here measures audio or speech generation, so nothing is predicted; "
            "sound that a language model reads or writes is counted in its tokens"
        )
    raise ProfileError(f"generation model '{name}' is not known{closest(name, [m.split('/')[-1] for m in models])}")


@dataclass(frozen=True)
class _Curve:
    """Latency and power of one arrangement over measured batch sizes."""

    parallelism: str
    batch: np.ndarray
    latency_s: np.ndarray
    power_w: np.ndarray

    def at(self, batch) -> tuple[np.ndarray, np.ndarray]:
        """(latency s, power W) at batch sizes: linear between measured ones, proportional beyond the largest."""
        batch = np.asarray(batch, dtype=float)
        inside = np.clip(batch, self.batch[0], self.batch[-1])
        latency_s = np.interp(inside, self.batch, self.latency_s)
        power_w = np.interp(np.log(inside), np.log(self.batch), self.power_w)
        return latency_s * np.maximum(batch / inside, 1.0), power_w


def curves(rows: list[GenerationRow]) -> list[_Curve]:
    """One curve for each way of sequence parallelism among rows of one model, GPU and number of GPUs."""
    found = []
    for ways in sorted({(row.ulysses_degree, row.ring_degree) for row in rows}):
        own = sorted((row for row in rows if (row.ulysses_degree, row.ring_degree) == ways), key=lambda r: r.batch_size)
        found.append(
            _Curve(
                f"ulysses{ways[0]} ring{ways[1]}",
                np.array([row.batch_size for row in own], dtype=float),
                np.array([row.batch_latency_s for row in own]),
                np.array([row.power_w for row in own]),
            )
        )
    return found


def _lender(model: str, gpu: str) -> str:
    """The measured GPU whose rows stand for `gpu`: itself, else the one that lends its power curve, else any."""
    measured = list(dict.fromkeys(row.gpu for row in measured_rows() if row.model == model))
    if gpu in measured:
        return gpu
    near = catalog.gpu(gpu).peak("bf16")
    return min(measured, key=lambda name: abs(np.log(catalog.gpu(name).peak("bf16") / near)))


def generation_service(
    model: str,
    gpu: str,
    n_gpus: int = 1,
    batch: int | None = None,
    *,
    inference_steps: int | None = None,
    height_px: int | None = None,
    width_px: int | None = None,
    frames: int | None = None,
    max_latency_s: float | None = None,
) -> GenerationService:
    """Return what a server of an image or video model does with batches of one size.

    `batch` None takes the measured size with the most outputs per second, within `max_latency_s` where given.
    `inference_steps`, `height_px`, `width_px`, `frames` None take the measured setting. The arrangement over several
    GPUs is the fastest measured one at that batch.

    Raises ProfileError for an unknown model, GPUs in a number that was not measured, or a limit that no batch keeps.
    """
    name, gpu = generation_model(model), catalog.gpu_name(gpu)
    lender = _lender(name, gpu)
    rows = _rows_on(name, lender, n_gpus)
    typical, found = rows[0], curves(rows)
    scale, exponent_band, notes = _scale(typical, gpu, lender, inference_steps, height_px, width_px, frames)
    measured = sorted({row.batch_size for row in rows})
    where = f"{name} on {n_gpus} x {gpu}"
    if batch is None:
        batch = _best_batch(found, measured, scale, max_latency_s, where)
    else:
        batch = _stated_batch(found, int(batch), scale, max_latency_s, where)
    best = min(found, key=lambda curve: float(curve.at(batch)[0]))
    trust = _trust(best, batch, lent=gpu != lender, scaled=bool(notes))
    board = catalog.gpu(gpu).tdp_w / catalog.gpu(lender).tdp_w
    latency_s, power_w = (float(each) * factor for each, factor in zip(best.at(batch), (scale, board)))
    by_latency, by_power = best.at(np.arange(1, max(measured[-1], batch) + 1))
    band = bands()[trust]
    return GenerationService(
        model=name,
        gpu=gpu,
        n_gpus=n_gpus,
        batch=batch,
        latency_s=latency_s,
        outputs_per_s=batch / latency_s,
        power_w=power_w,
        energy_per_output_j=power_w * latency_s / batch,
        output_unit=typical.output_unit,
        latency_band=tuple(b * e for b, e in zip(band["latency"], exponent_band)),
        energy_band=tuple(b * e for b, e in zip(band["energy"], exponent_band)),
        trust=trust,
        parallelism=best.parallelism,
        max_batch=measured[-1],
        latency_by_batch_s=tuple(float(value) * scale for value in by_latency),
        power_by_batch_w=tuple(float(value) * board for value in by_power),
        output_s=(frames or typical.frames) / typical.fps if typical.output_unit == "video" else 0.0,
        weight_bytes=typical.params * BF16_BYTES,
        profile=profile_name(name, lender),
        source=typical.source,
        note="; ".join(notes),
    )


def _rows_on(model: str, gpu: str, n_gpus: int) -> list[GenerationRow]:
    """The measured rows of a model on so many GPUs."""
    own = [row for row in measured_rows() if row.model == model and row.gpu == gpu]
    numbers = sorted({row.n_gpus for row in own})
    if n_gpus not in numbers:
        raise ProfileError(
            f"{model} on {gpu} was measured on {', '.join(map(str, numbers))} GPUs, not {n_gpus}; more GPUs are more "
            "servers beside each other"
        )
    return [row for row in own if row.n_gpus == n_gpus]


def _trust(curve: _Curve, batch: int, lent: bool, scaled: bool) -> str:
    """How far a batch is from the measured ones: on a GPU that lent its rows, or scaled to another setting, further."""
    if lent:
        return "estimated"
    if scaled or batch > curve.batch[-1]:
        return "extrapolated"
    return "measured" if batch in curve.batch else "interpolated"


def _scale(typical: GenerationRow, gpu, lender, inference_steps, height_px, width_px, frames):
    """Return (factor on latency, (low, high) of what is uncertain in it over the middle, notes)."""
    notes, scale = [], 1.0
    steps = inference_steps or typical.inference_steps
    if steps != typical.inference_steps:
        scale *= steps / typical.inference_steps
        notes.append(f"{steps} steps from {typical.inference_steps} in proportion")
    pixels = (height_px or typical.height_px) * (width_px or typical.width_px) * (frames or typical.frames)
    ratio = pixels / (typical.height_px * typical.width_px * typical.frames)
    factors = [(ratio**exponent) for exponent in SIZE_EXPONENTS]
    if ratio != 1.0:
        notes.append(f"{ratio:.3g} times the pixels and frames, to the power {SIZE_EXPONENTS[1]}")
    if gpu != lender:
        peaks = catalog.gpu(lender).peak("bf16") / catalog.gpu(gpu).peak("bf16")
        by_peak = [1.0, peaks ** peak_exponent(), peaks]
        factors = [f * g for f, g in zip(sorted(factors), sorted(by_peak))]
        notes.append(f"{gpu} from {lender} by dense bf16 peak to the power {peak_exponent():.2f}")
    low, middle, high = sorted(factors)
    return scale * middle, (low / middle, high / middle), notes


def _best_batch(found: list[_Curve], measured: list[int], scale: float, max_latency_s: float | None, where: str) -> int:
    """The measured batch with the most outputs per second, within the limit of latency."""
    rates = {}
    for size in measured:
        latency_s = _fastest_s(found, size, scale)
        if max_latency_s is None or latency_s <= max_latency_s:
            rates[size] = size / latency_s
    if not rates:
        raise ProfileError(
            f"{where}: no measured batch keeps a latency of {max_latency_s} s; fewer steps or more GPUs would"
        )
    return max(rates, key=rates.get)


def _stated_batch(found: list[_Curve], batch: int, scale: float, max_latency_s: float | None, where: str) -> int:
    """A batch that was asked for, once it is known to be possible."""
    if batch < 1:
        raise ProfileError(f"batch: must be at least 1, found {batch}")
    latency_s = _fastest_s(found, batch, scale)
    if max_latency_s is not None and latency_s > max_latency_s:
        raise ProfileError(f"{where}: a batch of {batch} takes {latency_s:.3g} s, over {max_latency_s} s")
    return batch


def _fastest_s(found: list[_Curve], batch: int, scale: float) -> float:
    """Latency of a batch in the fastest arrangement."""
    return min(float(curve.at(batch)[0]) for curve in found) * scale


def generation_system(service: GenerationService) -> GenerationSystem:
    """Return the server as the kernel plays it: a request is one output with isl = osl = 1, a step is one batch.

    Waiting requests are taken together, up to `service.batch`; time to first token is time to the output. The error of
    the latency is one of step times, so nothing is left for an error of TTFT beside it.
    """
    latency_s = np.concatenate([[0.0], service.latency_by_batch_s[: service.batch]])
    return GenerationSystem(
        name=f"{service.model} {service.n_gpus}x{service.gpu} batch {service.batch}",
        gpu=service.gpu,
        gpus=service.n_gpus,
        workers=(
            Worker(
                role="both",
                count=1,
                gpus=service.n_gpus,
                step=StepCosts(base_s=latency_s, kv_s=0.0, prefill_s=0.0, pair_s=0.0),
                kv_capacity_tokens=1 << 30,
                max_sequences=service.batch,
                max_batched_tokens=service.batch,
            ),
        ),
        tokens_per_step=1.0,
        max_context_tokens=2,
        model=service.model,
        precision="bf16",
        profile=service.profile,
        trust=service.trust,
        tpot_band=service.latency_band,
        output_unit=service.output_unit,
        output_s=service.output_s,
        power_by_batch_w=service.power_by_batch_w[: service.batch],
        energy_band=service.energy_band,
        weight_bytes=service.weight_bytes,
    )


def generation_energy_j(system: GenerationSystem, batches, busy_s, duration_s):
    """GPU energy of servers that worked on `batches` (sizes, any number of them) while they were busy. J.

    Returns (working, idle, (low, high) of their sum). `busy_s` of all servers, in seconds, draw the mean power of the
    batches weighted by their latency, the rest of `duration_s` (of all servers) the idle power of `power_curve` (an
    estimate). No batches: the power of a batch of one.
    """
    sizes = np.asarray(batches, dtype=np.int64)
    if not len(sizes):
        sizes = np.ones(1, dtype=np.int64)
    latency_s = system.workers[0].step.base_s[sizes]
    power_w = float(np.dot(latency_s, np.asarray(system.power_by_batch_w)[sizes - 1]) / latency_s.sum())
    curve = power_curve(system.gpu)
    idle_w = curve.board_power_w * curve.idle * system.gpus
    working_j, idle_j = power_w * busy_s, idle_w * max(duration_s - busy_s, 0.0)
    bounds = tuple(working_j * system.energy_band[side] + idle_j * curve.idle_band[side] for side in (0, 1))
    return working_j, idle_j, bounds
