"""The kernel: continuous batching of every request on every worker, exact, without visiting iterations one by one."""

from factory_sim.engine.kernel.pool import Pool, Requests, play_closed_loop

__all__ = ["Pool", "Requests", "play_closed_loop"]
