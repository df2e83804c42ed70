"""Rows of the journal: what one kind of instance of a service did in one stretch, scaled to all of them."""

from factory_sim.engine.outputs import makes
from factory_sim.engine.resolve import ResolvedStage
from factory_sim.engine.stage_pool import COUNTS
from factory_sim.engine.watts import host_watts, idle_watts
from factory_sim.inputs.scenario import Scenario
from factory_sim.units import HOUR_S, WEEK_S

JOB_COUNTS = ("batch_requests_submitted", "batch_requests_dropped", "batch_requests_waiting")
"""Columns that the queue of batch jobs fills in, where a service has one."""


def window_facts(
    scenario: Scenario,
    service: str,
    stage: ResolvedStage,
    values: dict[str, float],
    start_s: float,
    end_s: float,
    up: float,
    down_gpus: float,
    replication: int,
    *,
    label: str | None = None,
    site: str = "main",
    idle: float = 0.0,
    broken_gpus: float = 0.0,
    dark_gpus: float = 0.0,
    clock_energy: float = 1.0,
    pue: float | None = None,
) -> dict:
    """Physical facts of `up` instances over a stretch, from the `values` of one instance and second (`StagePool`).

    `idle` instances are paid for and powered but not needed; `down_gpus` and `broken_gpus` are paid for and serve
    nobody, `dark_gpus` too but draw nothing; `clock_energy` multiplies what busy GPUs draw above idle. Facility energy
    is at `pue` (the site's stated one without it; `at_pue` sets another).
    """
    seconds, size = end_s - start_s, stage.system.gpus
    instance_s, unserving = up * seconds, down_gpus + broken_gpus + dark_gpus
    row = {
        "replication": replication,
        "start_s": start_s,
        "end_s": end_s,
        "week": int(start_s // WEEK_S) + 1,
        "service": service,
        "stage": label or stage.stage.name,
        "site": site,
        "profile": stage.system.profile,
        "gpu": stage.system.gpu,
        "makes": makes(stage.system),
        "trust": stage.system.trust,
        "replicas": float(up),
        "gpus": float((up + idle) * size + unserving),
        "gpu_hours": ((up + idle) * seconds * size + unserving * seconds) / HOUR_S,
        "gpu_hours_down": unserving * seconds / HOUR_S,
        "gpu_hours_broken": broken_gpus * seconds / HOUR_S,
        "busy_fraction": values["busy"] * (up / (up + idle) if idle else 1.0),
        "time_input_s": values["input_time"] * instance_s,
        "time_output_s": values["output_time"] * instance_s,
        "time_idle_s": (1.0 - values["input_time"] - values["output_time"]) * instance_s + idle * seconds,
        "instance_s": instance_s,
        "decode_sequences": values["decode_sequences"],
    }
    row |= {name: values[name] * instance_s for name in COUNTS}
    if clock_energy != 1.0:
        _clock_down(row, values["busy"] * instance_s * size * idle_watts(stage.system.gpu), clock_energy)
    _add_unused(row, stage.system.gpu, instance_s * size, (idle * size + down_gpus + broken_gpus) * seconds)
    row |= {"trained_tokens": 0.0, **dict.fromkeys(JOB_COUNTS, 0.0)}
    return at_pue(row, scenario.places[site].pue if pue is None else pue)


def at_pue(row: dict, pue: float) -> dict:
    """Set the row's facility energy: IT energy times PUE."""
    row["pue"] = pue
    row["facility_energy_j"] = row["it_energy_j"] * pue
    return row


def _add_unused(row: dict, gpu: str, serving_gpu_s: float, unused_gpu_s: float) -> None:
    """Add what powered GPUs that serve nobody draw, and the hosts' share of IT energy."""
    unused_j = idle_watts(gpu) * unused_gpu_s
    gpu_j = row["input_energy_j"] + row["output_energy_j"] + row["idle_energy_j"] + unused_j
    powered_s = serving_gpu_s + unused_gpu_s
    it_j = gpu_j + (host_watts(gpu, gpu_j / powered_s) * powered_s if powered_s else 0.0)
    row |= {"idle_energy_j": row["idle_energy_j"] + unused_j, "gpu_energy_j": gpu_j, "it_energy_j": it_j}


def _clock_down(row: dict, floor_j: float, factor: float) -> None:
    """Scale what busy GPUs draw above idle, joules, by the lower voltage of a lower clock."""
    busy_j = row["input_energy_j"] + row["output_energy_j"]
    if busy_j <= floor_j:
        return
    share = (floor_j + (busy_j - floor_j) * factor) / busy_j
    for name in ("input_energy_j", "output_energy_j"):
        row[name] *= share


def no_values() -> dict[str, float]:
    """Values of an instance that does not exist: nothing."""
    return dict.fromkeys((*COUNTS, "busy", "input_time", "output_time", "decode_sequences", "in_system"), 0.0)
