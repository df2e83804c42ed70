"""What a service of images or videos has in place of tokens: system, counts, joules and its own audit."""

import numpy as np

from factory_sim.errors import ProfileError, ScenarioError
from factory_sim.inputs import catalog
from factory_sim.inputs.generation import ENGINE, DiffusionSystem
from factory_sim.inputs.services import System
from factory_sim.model.generation import (
    GenerationSystem,
    generation_energy_j,
    generation_model,
    generation_service,
    generation_system,
)
from factory_sim.model.serving import ServingSystem
from factory_sim.model.workload import LengthModel, empirical

UNIT_COLUMNS = {"image": "images", "video": "videos"}
"""Unit of an output -> the count of it in the journal."""
MAKES_TOKENS = "tokens"
"""What the journal says that a language model makes."""


def planned_outputs(model: str, wanted: DiffusionSystem, promise_s: float | None = None) -> GenerationSystem:
    """The server of a stage that makes images or videos.

    Without a stated batch it is the measured one with the most outputs a second of which two take at most `promise_s`
    (who arrives while a batch runs waits for it, then for one's own), else one that fits the promise once.
    Raises ProfileError where no measured batch does.
    """
    asked = {name: getattr(wanted, name) for name in ("inference_steps", "height_px", "width_px", "frames")}
    if wanted.batch is not None or promise_s is None:
        return generation_system(generation_service(model, wanted.gpu, wanted.gpus, wanted.batch, **asked))
    try:
        found = generation_service(model, wanted.gpu, wanted.gpus, max_latency_s=promise_s / 2, **asked)
    except ProfileError:
        found = generation_service(model, wanted.gpu, wanted.gpus, max_latency_s=promise_s, **asked)
    return generation_system(found)


def check_engine(model: str, wanted: System) -> None:
    """Raise ScenarioError where a system of language models is asked to run an image or video model."""
    try:
        catalog.model(model)
    except ScenarioError:
        try:
            name = generation_model(model)
        except ProfileError:
            return  # a name that nobody knows: told as such where the model is looked up
        raise ScenarioError(
            f"system.engine: {name} makes images or videos, which {wanted.engine} does not; write system: "
            f"{{gpu: {wanted.gpu}, engine: {ENGINE}}}, without precision, parallelism and speculation"
        ) from None


def makes(system: ServingSystem) -> str:
    """What a system makes: "tokens", "images" or "videos"."""
    return UNIT_COLUMNS[system.output_unit] if isinstance(system, GenerationSystem) else MAKES_TOKENS


def one_output() -> LengthModel:
    """Every request is one output: isl = osl = 1."""
    return empirical("one output", "an image or a video", np.ones(1), np.ones(1))


def counted_outputs(system: GenerationSystem, tokens: float) -> dict[str, float]:
    """Counts of the journal from the kernel's answer tokens, one an output: images or videos and their seconds."""
    return {
        "input_tokens": 0.0, "cached_input_tokens": 0.0, "output_tokens": 0.0,
        "images": 0.0, "videos": 0.0, UNIT_COLUMNS[system.output_unit]: tokens, "video_s": tokens * system.output_s,
    }  # fmt: skip


def output_joules(system: GenerationSystem, difference: dict, done: np.ndarray, seconds: float) -> dict[str, float]:
    """GPU joules of all played servers over a window, as `watts.window_joules` gives them.

    The batches are those that were handed back in the window: requests of one instance that finished together.
    """
    busy_s = float(np.sum(difference["busy_s"]))
    working, idle, (low, high) = generation_energy_j(system, batches(done), busy_s, seconds * len(difference["busy_s"]))
    return {
        "input_energy_j": 0.0, "output_energy_j": working, "idle_energy_j": idle, "low_energy_j": low,
        "high_energy_j": high,
    }  # fmt: skip


def batches(done: np.ndarray) -> np.ndarray:
    """Sizes of the batches among requests that left: those of one instance that finished at the same moment."""
    ok = done["status"] == 0
    if not ok.any():
        return np.zeros(0, np.int64)
    together = np.stack([done["instance"][ok].astype(float), done["finish_s"][ok]])
    return np.unique(together, axis=1, return_counts=True)[1]


def outputs_share(system: GenerationSystem, totals: dict) -> float:
    """Outputs of each server over what its fastest batch, one after the other, would have made in its busy time."""
    latency_s = system.workers[0].step.base_s
    fastest = float(np.max(np.arange(1, len(latency_s)) / latency_s[1:]))
    return float(np.max(totals["decode_tokens"] / (fastest * np.maximum(totals["busy_s"], 1e-12))))
