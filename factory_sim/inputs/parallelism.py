"""The short form of a system's parallelism: `tp8pp1ep1dpaFr1` or `P2x8-D1x32dep`."""

import re
from dataclasses import dataclass

from factory_sim.errors import ProfileError

_AGGREGATED = re.compile(r"tp(\d+)(?:pp(\d+))?(?:ep(\d+))?(?:dpa([TF]))?(?:r(\d+))?", re.IGNORECASE)
_POOLED = re.compile(r"P(\d+)x(\d+)(dep|tep|tp)?-D(\d+)x(\d+)(dep|tep|tp)?", re.IGNORECASE)


@dataclass(frozen=True)
class WorkerLayout:
    """Workers of one role in one instance."""

    role: str
    """"both", "prefill" or "decode"."""
    count: int
    gpus: int
    """GPUs of one worker."""
    expert_parallel: int
    data_parallel_attention: bool

    @property
    def kind(self) -> str:
        """dep: data-parallel attention; tep: tensor-parallel attention with expert parallelism; tp: tensor parallel."""
        return "dep" if self.data_parallel_attention else "tep" if self.expert_parallel > 1 else "tp"

    @property
    def name(self) -> str:
        """Kind and GPUs, e.g. tp8, tep4, dep32."""
        return f"{self.kind}{self.gpus}"


@dataclass(frozen=True)
class Layout:
    """How a system is laid out over GPUs: one instance and the number of its copies."""

    workers: tuple[WorkerLayout, ...]
    """One "both" worker, or "prefill" and "decode" workers."""
    instances: int = 1
    """Copies of the instance behind one entrance (`r` of the short form)."""

    @property
    def gpus(self) -> int:
        """GPUs of one instance."""
        return sum(worker.count * worker.gpus for worker in self.workers)

    @property
    def pooled(self) -> bool:
        """True where prefill and decode run on separate workers."""
        return len(self.workers) == 2


def parse_parallelism(text: str) -> Layout:
    """Return the layout of a short form.

    `tp4pp1ep4dpaTr1`: tensor x pipeline GPUs a replica, expert parallelism, attention data parallelism, replicas; all
    but tp may be left out. `P3x4-D4x8dep`: 3 prefill workers of 4 GPUs, 4 decode workers of 8; `dep` = attention data
    parallel, `tep` = tensor parallel with experts spread, `tp` = neither. Prefill workers are `dep` unless said
    otherwise (as in `P1x8tep-D1x8tep`) wherever they have more than one GPU.
    """
    if match := _AGGREGATED.fullmatch(text.strip()):
        tp, pp, ep, dpa, replicas = match.groups()
        gpus = int(tp) * int(pp or 1)
        return Layout(
            (WorkerLayout("both", 1, gpus, int(ep or 1), (dpa or "F").upper() == "T" and gpus > 1),), int(replicas or 1)
        )
    if match := _POOLED.fullmatch(text.strip()):
        count, gpus, kind, decoders, decoder_gpus, decoder_kind = match.groups()
        return Layout(
            (
                _pool("prefill", int(count), int(gpus), (kind or "dep").lower()),
                _pool("decode", int(decoders), int(decoder_gpus), (decoder_kind or "tp").lower()),
            )
        )
    raise ProfileError(
        f"parallelism '{text}' is not understood; use e.g. tp8pp1ep1dpaFr1 (tp8 will do) or P3x4-D4x8dep"
    )


def _pool(role: str, count: int, gpus: int, kind: str) -> WorkerLayout:
    wide = gpus > 1 and kind in ("dep", "tep")
    return WorkerLayout(role, count, gpus, gpus if wide else 1, kind == "dep" and gpus > 1)
