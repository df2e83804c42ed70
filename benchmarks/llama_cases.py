"""A scenario that benchmarks share: services of Llama-3.1-70B on pairs of H200, with the lengths of Azure's chats."""


def service(load: float, replicas: int) -> dict:
    """A service at a share of its tested capacity."""
    return {
        "model": "Llama-3.1-70B", "slo": {"ttft_p95_s": 4, "tpot_p95_s": 0.05},
        "traffic": {"lengths": "azure2023_conv", "demand": {"load": load}},
        "stages": [{
            "name": "h200", "from_day": 0, "replicas": replicas,
            "system": {"gpu": "h200", "engine": "vllm", "precision": "fp8", "parallelism": "tp2"},
            "change": {"kind": "initial", "duration_days": 0},
        }],
    }  # fmt: skip


def scenario(name: str, days: float, services: dict[str, dict], **simulation) -> dict:
    """A site with as many GPUs as the services hold, and step times without error."""
    replicas = sum(stage["replicas"] for each in services.values() for stage in each["stages"])
    return {
        "name": name, "seed": 5, "start": "2026-07-06T00:00:00+00:00", "duration_days": days,
        "site": {"gpus": 2 * replicas}, "services": services,
        "money": {"plans": {"all": {
            "input_usd_per_million": 0.4, "output_usd_per_million": 0.4, "source": "guess", "as_of": "2026-07-01",
        }}},
        "simulation": {"profile_error": False} | simulation,
    }  # fmt: skip
