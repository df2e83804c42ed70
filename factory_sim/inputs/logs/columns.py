"""Which column of a log or trace means what: names people use, units in the names, and the known public traces."""

import re
from dataclasses import dataclass, field

from factory_sim.inputs.logs.values import split_unit

_ALIASES = {
    "start": "timestamp time datetime date start started start_time started_at created created_at create_time "
    "request_time request_start request_start_time request_started_at arrival arrival_time arrived_at arrived "
    "arrival_timestamp arrival_offset ts t request_timestamp request_created_at request_at start_date timestamp_utc "
    "event_time received_at begin_time log_time logged_at "
    "start_timestamp queued_at sent_at relative_time offset",
    "end": "end ended end_time ended_at finish finish_time finished_at completed_at completion_time end_timestamp "
    "request_end request_end_time response_completed_at",
    "first": "completion_start_time first_token_time first_token_at first_token_timestamp",
    "isl": "input_tokens prompt_tokens input_length isl context_tokens request_tokens num_prefill_tokens prompt_len "
    "input_len num_input_tokens num_prompt_tokens prompt_token_count input_token_count tokens_in tokens_prompt "
    "input_toks in_tokens prompt_length usage_prompt_tokens usage_input_tokens native_tokens_prompt prompt_size "
    "tokens_input n_prompt_tokens n_input_tokens number_input_tokens response_usage_prompt_tokens "
    "response_usage_input_tokens",
    "osl": "output_tokens completion_tokens generated_tokens response_tokens output_length osl num_decode_tokens "
    "output_len num_output_tokens num_completion_tokens completion_token_count output_token_count candidates_token_"
    "count tokens_out tokens_completion output_toks out_tokens gen_tokens generation_tokens usage_completion_tokens "
    "usage_output_tokens native_tokens_completion tokens_output n_output_tokens "
    "n_completion_tokens generated_length response_length number_output_tokens response_usage_completion_tokens "
    "response_usage_output_tokens",
    "cached_tokens": "cached_tokens cached_input_tokens cache_read_input_tokens cached_prefix_tokens "
    "prompt_cache_hit_tokens cache_read_tokens native_tokens_cached tokens_cached cached_prompt_tokens "
    "usage_prompt_tokens_details_cached_tokens usage_cache_read_input_tokens num_cached_tokens prefix_length "
    "cached_content_token_count",
    "reasoning_tokens": "reasoning_tokens native_tokens_reasoning thinking_tokens reasoning_output_tokens "
    "usage_completion_tokens_details_reasoning_tokens",
    "e2e": "latency duration e2e e2e_latency total_latency request_duration elapsed elapsed_time total_time "
    "request_latency end_to_end_latency api_time total_duration response_latency processing_time",
    "ttft": "ttft time_to_first_token first_token_latency first_token_delay time_to_first_chunk",
    "status": "status status_code success succeeded http_status http_status_code response_status response_code "
    "outcome is_success ok",
    "error": "error error_code error_type error_message exception error_str",
    "session": "session session_id conversation conversation_id chat_id thread_id",
    "tenant": "user user_id tenant tenant_id customer customer_id team team_id api_key api_key_hash client_id "
    "end_user organization_id org_id virtual_key app_id account_id",
    "model": "model model_name model_id request_model",
    "spend": "spend_usd cost_usd spend cost response_cost total_cost",
    "key": "request_id id litellm_call_id generation_id x_request_id req_id",
}
_ROLE_OF = {name.replace("_", ""): role for role, names in _ALIASES.items() for name in names.split()}
_REQUEST_NAMES = ("request_id", "x_request_id", "req_id")
_TIMED = ("start", "end", "first", "e2e", "ttft")
_SPEND_UNIT = re.compile(r"_(usd|dollars?)$")


@dataclass(frozen=True)
class Column:
    """One recognised column: its plain name, and the unit of time in that name, if any."""

    name: str
    unit: str | None = None


@dataclass(frozen=True)
class Mapping:
    """What each column of one file means."""

    format: str
    tool: str
    roles: dict[str, Column]
    start_unit: str | None = None
    """Unit of start times where the format fixes it and the name does not tell."""
    zero_output_failed: bool = False
    session_relative: bool = False
    """Start times count from the start of each session, which the file does not tell."""
    unitless: list[str] = field(default_factory=list)
    """Columns of latencies whose unit is not in the name; they are not used."""

    @property
    def wanted(self) -> set[str]:
        """Names of the columns to read."""
        return {column.name for column in self.roles.values()}


def _roles(names: list[str]) -> tuple[dict[str, Column], list[str]]:
    """Map roles to columns: the first name wins, but a name with a unit beats one without."""
    roles: dict[str, Column] = {}
    unitless = []
    for name in names:
        stem, unit = split_unit(name)
        role = _ROLE_OF.get(name.replace("_", ""))
        unit_in_name = None
        if role is None or role in _TIMED:
            timed = _ROLE_OF.get(stem.replace("_", ""))
            if unit and timed in _TIMED:
                role, unit_in_name = timed, unit
        if role is None:
            role = _ROLE_OF.get(_SPEND_UNIT.sub("", name).replace("_", ""))
            role = role if role == "spend" else None
        if role is None or (role in roles and not (unit_in_name and roles[role].unit is None and role in _TIMED)):
            continue
        if role in ("e2e", "ttft") and unit_in_name is None:
            unitless.append(name)
            continue
        roles[role] = Column(name, unit_in_name)
    return roles, [name for name in unitless if _ROLE_OF[name.replace("_", "")] not in roles]


def mapping(names: list[str]) -> Mapping | None:
    """Recognise the columns (plain names) of a trace or log of requests; None when they are not one."""
    roles, unitless = _roles(names)
    have = set(names)
    if "isl" not in roles or "osl" not in roles:
        return None
    if {"timestamp", "context_tokens", "generated_tokens"} <= have:
        return Mapping("azure_llm_trace", "Azure LLM inference trace", roles, unitless=unitless)
    if {"timestamp", "request_tokens", "response_tokens"} <= have:
        roles.pop("status", None)
        if "elapsed_time" in have:
            roles["e2e"] = Column("elapsed_time", "s")
        return Mapping("burstgpt", "BurstGPT trace", roles, start_unit="s", zero_output_failed=True)
    if {"session", "turn", "t_s", "cached_prefix_tokens"} <= have:
        roles["start"] = Column("t_s", "s")
        return Mapping("agentic_trace", "agentic session trace", roles, session_relative=True)
    if {"num_prefill_tokens", "num_decode_tokens"} <= have:
        if "arrived_at" in have:
            return Mapping("frontier_trace", "Vidur/Frontier trace", roles, start_unit="s")
        return Mapping("vidur_lengths", "Vidur length trace", roles, unitless=unitless)
    if {"timestamp", "input_length", "output_length"} <= have:
        hashed = "hash_ids" in have
        return Mapping("mooncake_trace" if hashed else "length_trace", "Mooncake trace" if hashed else "length trace",
                       roles, start_unit="ms" if hashed else None, unitless=unitless)
    if "start" not in roles:  # requests all the same, where each has a name and a latency
        named = roles["key"].name in _REQUEST_NAMES if "key" in roles else False
        measured = "e2e" in roles or "ttft" in roles
        return Mapping("gateway_log", "gateway log", roles, unitless=unitless) if named and measured else None
    if {"starttime", "endtime"} <= {name.replace("_", "") for name in have} and "call_type" in have:
        return Mapping("litellm", "LiteLLM", roles, unitless=unitless)
    return Mapping("gateway_log", "gateway log", roles, unitless=unitless)
