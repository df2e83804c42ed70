"""The kernel: continuous batching of every request on every worker, exact, without visiting iterations one by one."""

from factory_sim.engine.kernel.closed_loop import play_closed_loop
from factory_sim.engine.kernel.pool import Pool
from factory_sim.engine.kernel.requests import Requests

__all__ = ["Pool", "Requests", "play_closed_loop"]
