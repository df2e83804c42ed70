"""What customers ask for and when: lengths of requests, arrival times, daily and weekly rhythm."""

from factory_sim.model.workload.lengths import LengthModel, length_model, length_model_names

__all__ = ["LengthModel", "length_model", "length_model_names"]
