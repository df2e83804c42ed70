"""What customers ask for and when: lengths of requests, arrival times, daily and weekly rhythm."""

from factory_sim.model.workload.arrivals import ArrivalStream, arrival_times, index_of_dispersion
from factory_sim.model.workload.bursts import Burstiness, burstiness_model, measured_burstiness
from factory_sim.model.workload.lengths import LengthModel, length_model, length_model_names
from factory_sim.model.workload.rhythm import RateShape, rate_shape, rate_shape_names

__all__ = [
    "ArrivalStream",
    "Burstiness",
    "LengthModel",
    "RateShape",
    "arrival_times",
    "burstiness_model",
    "index_of_dispersion",
    "length_model",
    "length_model_names",
    "measured_burstiness",
    "rate_shape",
    "rate_shape_names",
]
