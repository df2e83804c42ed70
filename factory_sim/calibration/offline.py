"""Published saturated throughput as a check on the profiles: what a full server would give, against what was printed.

Nothing here is fitted. With all requests queued at once a server holds n sequences, and with prompts of I and answers
of O tokens each step decodes n tokens and prefills n I/O: ``tokens/s = n / step``. The vendor's pages state no latency
and take the best settings, so a predicted figure is expected to lie somewhat below the printed one.
"""

import re
from importlib.resources import files

import numpy as np

from factory_sim.errors import FactorySimError, ProfileError
from factory_sim.inputs import catalog
from factory_sim.model.serving import ServingSystem, serving_system

PRECISIONS = {"FP16": "bf16", "BF16": "bf16", "FP8": "fp8", "FP4": "fp4", "NVFP4": "fp4", "MXFP4": "fp4"}
ENGINES = {"TensorRT-LLM": "trtllm", "vLLM": "vllm", "SGLang": "sglang"}
_LAYOUT = re.compile(r"(TP|DEP|EP)(\d+)")


def saturated_tokens_per_s(system: ServingSystem, isl: float, osl: float, batch: float | None = None) -> float:
    """Output tokens/s of one aggregated instance that never lacks requests of one length.

    The batch is the engine's limit, the KV cache's, or `batch`, whichever is least; a share of steps carries a prompt,
    as many as end a request. Raises ProfileError for a system
    with separate prefill workers.
    """
    if len(system.workers) > 1:
        raise ProfileError(f"{system.name}: saturated throughput in closed form is for aggregated systems")
    worker = system.workers[0]
    step = worker.step
    held = isl + osl / 2
    sequences = min(worker.max_sequences, worker.kv_capacity_tokens / (isl + osl), batch or np.inf)
    prompt = isl / osl * system.tokens_per_step
    budget = worker.max_batched_tokens / (step.tokens_per_sequence + prompt)
    sequences = max(min(sequences, budget), 1.0)
    prefill = sequences * prompt
    attended = min(held, step.attention_cap_tokens) if step.attention_cap_tokens else held
    prompts = sequences * system.tokens_per_step / osl
    decode = sequences * step.tokens_per_sequence
    mixed = min(prompts, 1.0)

    def base_s(tokens: float) -> float:
        return step.base_s[min(round(tokens), len(step.base_s) - 1)]

    seconds = (
        (1 - mixed) * base_s(decode)
        + mixed * base_s(decode + isl * max(prompts, 1.0))
        + step.kv_s * sequences * attended
        + step.prefill_s * prefill
        + step.pair_s * prefill * isl / 2
    )
    return float(sequences * system.tokens_per_step / seconds)


def parallelism(text: str) -> str:
    """Short form of a printed parallelism: TP8 -> tp8, DEP4 -> tp4ep4dpaT; ProfileError for pipelines and the rest."""
    found = _LAYOUT.fullmatch(str(text).strip().upper())
    if not found:
        raise ProfileError(f"parallelism '{text}' is not one of TPn, EPn, DEPn")
    kind, gpus = found.groups()
    return {"TP": f"tp{gpus}", "EP": f"tp{gpus}ep{gpus}", "DEP": f"tp{gpus}ep{gpus}dpaT"}[kind]


def offline_checks(since: str = "1.0"):
    """Predict the measured rows of `offline_throughput.csv` of TensorRT-LLM versions from `since` on.

    Returns a DataFrame: model, gpu, precision, parallelism, isl, osl, software_version, measured and predicted output
    tokens/s per GPU, ratio (predicted over measured), trust, reason (of a row without prediction).
    """
    import pandas as pd

    with files("factory_sim.data").joinpath("measurements", "offline_throughput.csv").open("rb") as file:
        table = pd.read_csv(file, low_memory=False)
    table = table[
        (table["row_kind"] == "measured")
        & table["software"].isin(list(ENGINES))
        & table["output_tokens_per_s_per_gpu"].notna()
        & table["isl"].notna()
        & ~table["notes"].fillna("").str.contains("misprint")
    ]
    version = table["software_version"].astype(str).str.extract(r"^(\d+)\.(\d+)").astype(float)
    least = [float(part) for part in since.split(".")]
    table = table[(version[0] > least[0]) | ((version[0] == least[0]) & (version[1] >= least[1]))]
    systems: dict[tuple, ServingSystem | str] = {}
    rows = []
    for row in table.to_dict("records"):
        key = (row["model"], row["gpu"], row["precision"], row["parallelism"], row["software"])
        if key not in systems:
            systems[key] = _system(*key)
        system = systems[key]
        told = isinstance(system, str)
        measured = float(row["output_tokens_per_s_per_gpu"])
        batch = row["batch_size"] if row["batch_size"] == row["batch_size"] else None
        predicted = np.nan if told else saturated_tokens_per_s(system, row["isl"], row["osl"], batch) / system.gpus
        rows.append(
            {
                **{name: row[name] for name in ("model", "gpu", "precision", "parallelism", "isl", "osl")},
                "software_version": row["software_version"],
                "measured_tokens_per_s_per_gpu": measured,
                "predicted_tokens_per_s_per_gpu": predicted,
                "ratio": predicted / measured,
                "trust": "" if told else system.trust,
                "reason": system if told else "",
            }
        )
    return pd.DataFrame(rows)


def _system(model, gpu, precision, printed, software) -> ServingSystem | str:
    """The predicted system of a row, or why there is none."""
    if precision not in PRECISIONS:
        return f"precision '{precision}' is mixed or not known"
    try:
        name = catalog.gpu(gpu).name
        return serving_system(model, name, ENGINES[software], PRECISIONS[precision], parallelism(printed))
    except FactorySimError as error:
        return str(error)


def offline_summary(checks):
    """Median and spread of the ratio by model, GPU and precision: a DataFrame, one row a group of `offline_checks`."""
    kept = checks[checks["ratio"].notna()]
    groups = kept.groupby(["model", "gpu", "precision", "parallelism", "trust"], sort=True)["ratio"]
    return groups.agg(
        rows="size", ratio_p10=lambda r: r.quantile(0.1), ratio_median="median", ratio_p90=lambda r: r.quantile(0.9)
    ).reset_index()
