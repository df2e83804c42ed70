"""What customers ask for and when: lengths, arrivals, rhythm, clients, sessions, reasoning, common prompts,
replays."""

from factory_sim.model.workload.arrivals import ArrivalStream, arrival_times, index_of_dispersion
from factory_sim.model.workload.bursts import Burstiness, burstiness_like, burstiness_model, measured_burstiness
from factory_sim.model.workload.chats import GENERATED, Chats, chats
from factory_sim.model.workload.clients import (
    Clients,
    ClientStream,
    client_arrivals,
    clients,
    clients_of_folder,
    shares_of,
)
from factory_sim.model.workload.lengths import LengthModel, empirical, length_model, length_model_names
from factory_sim.model.workload.mix import RequestMix
from factory_sim.model.workload.prefixes import PrefixGroups, group_blocks, prefix_groups
from factory_sim.model.workload.reasoning import Reasoning, effort_levels, reasoning_model
from factory_sim.model.workload.replay import (
    request_arrays,
    scale_trace,
    session_starts,
    spread_ticks,
    start_sessions,
    turned,
    with_blocks,
)
from factory_sim.model.workload.rhythm import RateShape, rate_shape, rate_shape_names

__all__ = [
    "GENERATED",
    "ArrivalStream",
    "Burstiness",
    "Chats",
    "ClientStream",
    "Clients",
    "LengthModel",
    "PrefixGroups",
    "RateShape",
    "Reasoning",
    "RequestMix",
    "arrival_times",
    "burstiness_like",
    "burstiness_model",
    "chats",
    "client_arrivals",
    "clients",
    "clients_of_folder",
    "effort_levels",
    "empirical",
    "group_blocks",
    "index_of_dispersion",
    "length_model",
    "length_model_names",
    "measured_burstiness",
    "prefix_groups",
    "rate_shape",
    "rate_shape_names",
    "reasoning_model",
    "request_arrays",
    "scale_trace",
    "session_starts",
    "shares_of",
    "spread_ticks",
    "start_sessions",
    "turned",
    "with_blocks",
]
