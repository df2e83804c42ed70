"""What a scenario says about a service that makes images or videos: its promise, its servers, and what it cannot have."""

from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from factory_sim.records import Name, Record

ENGINE = "diffusion"
"""The engine that says that a system makes images or videos."""
_TOKEN_KEYS = (
    "precision", "parallelism", "speculation", "as_of", "max_sequences", "max_batched_tokens", "kv_cache_tokens",
    "profiles", "anchor", "uneven_ranks",
)  # fmt: skip
"""Keys of the systems of language models."""


class OutputSlo(Record):
    """What a service of images or videos promises its users; there are no tokens, so no TTFT and no TPOT."""

    time_to_output_p95_s: PositiveFloat
    """Promised 95th percentile of the time from a request to its finished image or video, seconds."""

    @property
    def ttft_p95_s(self) -> float:
        """The same limit, as the kernel knows it: an output is one token, the first."""
        return self.time_to_output_p95_s

    @property
    def tpot_p95_s(self) -> float:
        """No limit: there is no second token."""
        return float("inf")

    @model_validator(mode="before")
    @classmethod
    def _no_tokens(cls, raw: Any) -> Any:
        _refuse(raw, ("ttft_p95_s", "tpot_p95_s"), "a promise on tokens; time_to_output_p95_s stands alone")
        return raw


class DiffusionSystem(Record):
    """A server of an image or video model; every instance of a stage is one such server."""

    gpu: Name
    """GPU; h100 and b200 are measured, others estimated (`factory-sim profiles list --mode generation`)."""
    engine: Literal["diffusion"]
    """`diffusion` says that the model makes images or videos."""
    gpus: PositiveInt = 1
    """GPUs of one instance, as measured: 1, 2, 4 or 8 (sequence parallel, the fastest measured way)."""
    batch: PositiveInt | None = None
    """Most requests that are worked on together. Left out: the measured size with the most outputs a second of which two
    batches, one waited for and one's own, take no longer than the promise."""
    inference_steps: PositiveInt | None = None
    """Denoising steps; as measured when left out, else time in proportion."""
    height_px: PositiveInt | None = None
    """Height of an output; as measured when left out, else time by pixels and frames to the power 1.5."""
    width_px: PositiveInt | None = None
    """Width of an output, likewise."""
    frames: PositiveInt | None = None
    """Frames of a video, likewise."""

    @model_validator(mode="before")
    @classmethod
    def _no_tokens(cls, raw: Any) -> Any:
        told = "a key of language models; an image or video model (engine: diffusion) takes gpu, gpus, batch, " \
               "inference_steps, height_px, width_px, frames"  # fmt: skip
        _refuse(raw, _TOKEN_KEYS, told)
        return raw


def _refuse(raw: Any, keys: tuple[str, ...], told: str) -> None:
    found = [key for key in keys if isinstance(raw, dict) and key in raw]
    if found:
        raise ValueError(f"'{found[0]}' is {told}")


def promise_kind(raw: Any) -> str:
    """Which record a promise is: "outputs" where it names the time to an output, else "tokens"."""
    outputs = "time_to_output_p95_s" in raw if isinstance(raw, dict) else isinstance(raw, OutputSlo)
    return "outputs" if outputs else "tokens"


def system_kind(raw: Any) -> str:
    """Which record a system is: "outputs" with engine diffusion, else "tokens"."""
    engine = raw.get("engine") if isinstance(raw, dict) else getattr(raw, "engine", None)
    return "outputs" if engine == ENGINE else "tokens"


def check_service(service) -> None:
    """Raise ValueError where a service (a `Service`) mixes tokens with images or videos."""
    kinds = {stage.name: system_kind(stage.system) for stage in service.stages}
    if len(set(kinds.values())) > 1:
        names = {kind: name for name, kind in reversed(kinds.items())}
        raise ValueError(
            f"stage {names['outputs']!r} makes images or videos (engine: diffusion), stage {names['tokens']!r} tokens; "
            "they are two services"
        )
    promise = promise_kind(service.slo)
    if promise == "outputs" and "tokens" in kinds.values():
        raise ValueError(
            "time_to_output_p95_s is a promise of image and video models (system: {engine: diffusion, ...}); a language "
            "model promises ttft_p95_s and tpot_p95_s"
        )
    if "tokens" in kinds.values():
        return
    if promise == "tokens":
        raise ValueError(
            "ttft_p95_s and tpot_p95_s are promises on tokens; an image or video model promises slo: "
            "{time_to_output_p95_s: ...}"
        )
    for key, told in _of_tokens(service):
        raise ValueError(f"{key} {told}; it has no place in a service of images or videos")


def _of_tokens(service):
    """(key, what is wrong) of every setting that is about tokens."""
    traffic, rules, demand = service.traffic, service.scheduling, service.traffic.demand
    for name in ("reasoning", "common_prompts", "trace", "chats", "reading_tokens_per_s"):
        if getattr(traffic, name) is not None:
            yield f"traffic.{name}", "describes prompts and answers"
    if traffic.lengths != type(traffic).model_fields["lengths"].default:
        yield "traffic.lengths", "are lengths of prompts and answers"
    if service.prefix_cache is not None:
        yield "prefix_cache", "keeps tokens of prompts"
    if service.beside:
        yield "beside", "puts systems of language models behind one router"
    if service.batch is not None:
        yield "batch", "is for jobs of prompts and answers"
    if service.context_window == "refuse":
        yield "context_window", "is a number of tokens"
    if service.admission.user_tokens_per_minute is not None:
        yield "admission.user_tokens_per_minute", "counts tokens (user_requests_per_minute counts outputs)"
    if rules is not None and (rules.order != "chunked_prefill" or rules.preemption != "recompute"):
        yield "scheduling.order and .preemption", "schedule prompts and answers"
    if demand is not None and any(segment.willing_usd_per_million for segment in demand.segments.values()):
        yield "traffic.demand.segments.*.willing_usd_per_million", "is a price of tokens"
