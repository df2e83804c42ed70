"""Start a pool near its steady state: put in the requests that would be in the middle of their answers.

Answers have heavy tails: from empty, a pool takes many mean residence times to fill. In equilibrium the requests being
decoded are length-biased and uniformly far along, so that many are offered with what they have done as cached prefix.
"""

import numpy as np

from factory_sim.engine.kernel import Requests
from factory_sim.model.serving import ServingSystem, decode_steps
from factory_sim.model.workload import LengthModel


def in_progress(
    rng: np.random.Generator, lengths: LengthModel, system: ServingSystem, n: int, time_s: float
) -> Requests:
    """`n` requests offered at `time_s` that are in the middle of their answers: lengths biased by OSL, uniform age."""
    isl, osl = lengths.sample(rng, 8 * n + 1000)
    osl = np.minimum(osl, system.max_context_tokens - 1)
    pick = rng.choice(len(osl), size=n, p=osl / osl.sum())
    done = np.floor(rng.random(n) * osl[pick]).astype(np.int64)
    left = osl[pick] - done
    prompt = np.clip(isl[pick] + done, 1, system.max_context_tokens - left)
    return Requests(
        arrival_s=np.full(n, time_s),
        isl=prompt,
        osl=left,
        decode_steps=decode_steps(left, system.tokens_per_step, rng),
        cached_tokens=prompt - 1,
    )
