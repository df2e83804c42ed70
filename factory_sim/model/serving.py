"""What one serving system costs in seconds: the records that the kernel plays.

One serving step of one worker processes ``T`` tokens at once (one for each decoding sequence, or ``1 + k`` where ``k``
drafted tokens are verified, and the tokens of prompts in prefill)::

    step = base_s[T] + kv_s * kv + prefill_s * p + pair_s * q          seconds

with ``kv`` the cached tokens that the decoding sequences attend to, ``p`` the prefill tokens and ``q`` their
(query, key) pairs. `model/step_time.py` derives the four costs from physical terms and fitted efficiencies.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class StepCosts:
    """Seconds of one worker's serving step."""

    base_s: np.ndarray
    """float64, shape (n,): seconds of a step by its tokens T (decode_sequences * tokens_per_sequence + prefill tokens);
    ``base_s[0] == 0``. Longer than the largest step that the worker can run."""
    kv_s: float
    """Seconds for each cached token that a decoding sequence attends to."""
    prefill_s: float
    """Seconds for each prefill token, beyond `base_s`."""
    pair_s: float
    """Seconds for each (query, key) pair of prefill tokens; p tokens after c earlier ones make p*c + p*(p+1)/2 pairs."""
    tokens_per_sequence: int = 1
    """Tokens that a decoding sequence puts into each step: 1 + k with k drafted tokens to verify."""
    attention_cap_tokens: int = 0
    """Sparse attention: a sequence attends to min(held, cap) tokens; 0 means no cap."""


@dataclass(frozen=True)
class Worker:
    """One kind of worker of an instance: an engine process over `gpus` GPUs."""

    role: str
    """"both" (aggregated), "prefill" or "decode"."""
    count: int
    """Identical workers of this role in one instance."""
    gpus: int
    """GPUs of one worker."""
    step: StepCosts
    kv_capacity_tokens: int
    """Tokens of KV cache that one worker holds: (memory - weights - reserve) / bytes a token."""
    max_sequences: int
    """Sequences that one worker runs at once."""
    max_batched_tokens: int
    """Token budget of one step, decode and prefill together (chunked prefill)."""


@dataclass(frozen=True)
class ServingSystem:
    """One instance: the smallest unit that serves a request end to end (a replica, or a prefill-decode unit)."""

    name: str
    gpu: str
    gpus: int
    """All GPUs of the instance: the sum of count * gpus over its workers."""
    workers: tuple[Worker, ...]
    """One worker kind "both", or one "prefill" and one "decode"."""
    tokens_per_step: float
    """Mean tokens that a sequence gains in a decode step; 1.0 without speculation."""
    kv_transfer_s_per_token: float = 0.0
    """Seconds a prompt token to hand its KV from prefill to decode."""
    kv_transfer_latency_s: float = 0.0
    """Seconds a request of that hand-off whatever its length."""
    request_overhead_s: float = 0.0
    """Seconds before a request can be scheduled (frontend, tokenizer): delays TTFT, occupies nothing."""
    max_context_tokens: int = 131072
    profile: str = ""
    """Name of the profile that the step costs come from."""
    trust: str = "estimated"
    """"measured", "interpolated", "extrapolated" or "estimated"."""
    tpot_band: tuple[float, float] = (1.0, 1.0)
    """P10 and P90 of true TPOT over predicted TPOT on this rung of trust."""
    ttft_band: tuple[float, float] = (1.0, 1.0)
    """P10 and P90 of true TTFT over predicted TTFT on this rung of trust."""

    def scaled(self, factor: float) -> "ServingSystem":
        """Return the system with every step time multiplied by `factor`: one draw of the profile's systematic error."""
        return replace(
            self,
            workers=tuple(
                replace(
                    worker,
                    step=replace(
                        worker.step,
                        base_s=worker.step.base_s * factor,
                        kv_s=worker.step.kv_s * factor,
                        prefill_s=worker.step.prefill_s * factor,
                        pair_s=worker.step.pair_s * factor,
                    ),
                )
                for worker in self.workers
            ),
        )


def decode_steps(osl: np.ndarray, tokens_per_step: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """Draw the decode steps that each request needs after its first token: int64, shape of `osl`.

    The mean is (osl - 1) / tokens_per_step, rounded up or down at random so that it is kept in the mean (rounded to the
    nearest without `rng`); never below 1 where osl > 1, never above osl - 1, and exactly osl - 1 where
    ``tokens_per_step == 1``. Requests with osl 1 need no decode step.
    """
    gained = np.asarray(osl, dtype=np.int64) - 1
    if tokens_per_step == 1.0:
        return np.maximum(gained, 0)
    mean = gained / tokens_per_step
    shift = 0.5 if rng is None else rng.random(mean.shape)
    steps = np.floor(mean + shift).astype(np.int64)
    return np.where(gained > 0, np.clip(steps, 1, np.maximum(gained, 1)), 0)
