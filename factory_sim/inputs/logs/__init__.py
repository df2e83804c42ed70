"""Request logs and traces that users have: recognised, streamed, lengths only."""

from factory_sim.inputs.logs.read import Log, detect, open_log, read_request_log

__all__ = ["Log", "detect", "open_log", "read_request_log"]
