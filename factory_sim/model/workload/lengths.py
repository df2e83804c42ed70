"""Joint lengths of requests: (ISL, OSL) pairs, measured or described.

Measured traces are resampled row by row, so prompt and answer stay together. Of the ServeGen workloads only marginal
quantiles and means are published; their rank correlation is *assumed* to be that of the measured chat traces (see
`ASSUMED_FROM`), with a Gaussian copula, and can be given instead. All lengths are whole tokens, at least 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from factory_sim.errors import TraceError, closest
from factory_sim.inputs import workloads
from factory_sim.inputs.traces.trace import TraceReport
from factory_sim.model.workload.quantiles import QuantileCurve

ASSUMED_FROM = ("azure2023_conv", "mooncake_conversation")
"""Chat traces whose mean Spearman correlation of ISL and OSL stands in where none is published."""

ALIASES = {
    "azure_conv": "azure2023_conv",
    "azure_code": "azure2023_code",
    "mooncake": "mooncake_conversation",
    "arxiv": "arxiv_summarization",
    "agentic": "agentic_claude_code",
}

BENCHMARK_LOW_FRACTION = 0.8
"""InferenceX benchmarks draw prompt and answer lengths uniformly from [0.8 L, L] (README of the measured serving
table)."""


@dataclass(frozen=True)
class LengthModel:
    """A joint distribution of prompt and answer lengths."""

    name: str
    """What was asked for, e.g. ``servegen_deepseek-r1``."""
    source: str
    """Where the numbers come from, with what is assumed."""
    mean_isl: float
    """Mean prompt length, tokens."""
    mean_osl: float
    """Mean answer length, tokens, reasoning included."""
    max_isl: int
    """Largest prompt that can be drawn, tokens."""
    max_osl: int
    """Largest answer that can be drawn, tokens."""
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
    """Draws n pairs."""
    reports: tuple[TraceReport, ...] = ()
    """What the reading of a user's files found, left out and mended."""

    def sample(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return `n` pairs ``(isl, osl)`` as two int64 arrays of shape (n,), each at least 1."""
        return self.draw(rng, n)


def _tokens(values: np.ndarray) -> np.ndarray:
    return np.maximum(np.rint(values), 1).astype(np.int64)


def empirical(name: str, source: str, isl: np.ndarray, osl: np.ndarray) -> LengthModel:
    """Return the model that resamples measured pairs with replacement; lengths of 0 count as 1 token."""
    isl, osl = np.maximum(np.asarray(isl, np.int64), 1), np.maximum(np.asarray(osl, np.int64), 1)
    if len(isl) == 0 or len(isl) != len(osl):
        raise TraceError(f"{name}: as many prompt as answer lengths are needed; got {len(isl)} and {len(osl)}")

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        row = rng.integers(len(isl), size=n)
        return isl[row], osl[row]

    return LengthModel(name, source, float(isl.mean()), float(osl.mean()), int(isl.max()), int(osl.max()), draw)


def from_curves(name: str, source: str, isl: QuantileCurve, osl: QuantileCurve, rank_correlation: float) -> LengthModel:
    """Return the model with two marginal curves and a Gaussian copula of the given Spearman correlation.

    The normal scores have Pearson correlation ``2 sin(pi/6 * rank_correlation)`` (Kruskal 1958).
    """
    if not -1 < rank_correlation < 1:
        raise TraceError(f"{name}: rank_correlation must lie between -1 and 1, got {rank_correlation}")
    r = 2 * np.sin(np.pi / 6 * rank_correlation)

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        first, second = rng.standard_normal((2, n))
        return _tokens(isl.at(first)), _tokens(osl.at(r * first + np.sqrt(1 - r * r) * second))

    largest = round(isl.largest), round(osl.largest)
    return LengthModel(name, source, isl.mean, osl.mean, *largest, draw)


def assumed_rank_correlation() -> float:
    """Return the mean Spearman correlation of ISL and OSL over the measured chat traces (about 0.07)."""
    measured = [workloads.statistics(name, "input_output_correlation")["spearman"].number for name in ASSUMED_FROM]
    return float(np.mean(measured))


def _published_curve(workload: str, quantity: str) -> QuantileCurve:
    mean = workloads.statistics(workload, quantity)["mean"].number
    return QuantileCurve(*workloads.quantiles(workload, quantity), mean, name=f"{workload}: {quantity}")


def _servegen(name: str, rank_correlation: float | None = None) -> LengthModel:
    source = workloads.statistics(name, "output_tokens")["mean"].source
    assumed = rank_correlation is None
    rho = assumed_rank_correlation() if assumed else float(rank_correlation)
    told = f"{source}; marginal quantiles and means; rank correlation {rho:.3f} "
    told += f"assumed as in {' and '.join(ASSUMED_FROM)} (not published)" if assumed else "as given"
    if name == "servegen_mm-image":
        return _multimodal(name, told, rho)
    return from_curves(name, told, _published_curve(name, "input_tokens"), _published_curve(name, "output_tokens"), rho)


def _multimodal(name: str, source: str, rank_correlation: float) -> LengthModel:
    """Prompts of text and images: text tokens + images x tokens of one image (like images within a request)."""
    text, osl = _published_curve(name, "text_tokens"), _published_curve(name, "output_tokens")
    tokens = _published_curve(name, "image_tokens")
    images = QuantileCurve(*workloads.quantiles(name, "image_count"), name=f"{name}: image_count")
    r = 2 * np.sin(np.pi / 6 * rank_correlation)
    mean_images = images.expectation(np.rint)

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        z = rng.standard_normal((4, n))
        pictures = np.rint(images.at(z[2])) * np.rint(tokens.at(z[3]))
        return _tokens(text.at(z[0]) + pictures), _tokens(osl.at(r * z[0] + np.sqrt(1 - r * r) * z[1]))

    largest = round(text.largest + images.largest * tokens.largest)
    told = f"{source}; images per request, tokens per image and text drawn independently (assumed)"
    mean_isl = text.mean + mean_images * tokens.mean
    return LengthModel(name, told, mean_isl, osl.mean, largest, round(osl.largest), draw)


def _number(spec: Mapping, key: str, where: str, default: float | None = None) -> float:
    value = spec.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value) or value < 1:
        raise TraceError(f"{where}.{key}: a number of tokens >= 1 is needed, got {value!r}")
    return float(value)


def _known_keys(spec, keys: set[str], where: str) -> Mapping:
    if not isinstance(spec, Mapping):
        raise TraceError(f"{where}: a mapping with {', '.join(sorted(keys))} is needed, got {spec!r}")
    for key in spec:
        if key not in keys:
            raise TraceError(f"{where}: unknown key '{key}'{closest(str(key), sorted(keys))}")
    return spec


def _fixed(spec) -> LengthModel:
    """Every request alike."""
    spec = _known_keys(spec, {"isl", "osl"}, "lengths.fixed")
    isl, osl = (round(_number(spec, key, "lengths.fixed")) for key in ("isl", "osl"))

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full(n, isl, np.int64), np.full(n, osl, np.int64)

    return LengthModel(f"fixed_{isl}_{osl}", "as described in the scenario", isl, osl, isl, osl, draw)


def _uniform(spec) -> LengthModel:
    """Whole lengths uniform on [floor(low_fraction * L), L], independent, as benchmark clients draw them."""
    spec = _known_keys(spec, {"isl", "osl", "low_fraction"}, "lengths.uniform")
    isl, osl = (round(_number(spec, key, "lengths.uniform")) for key in ("isl", "osl"))
    low = spec.get("low_fraction", BENCHMARK_LOW_FRACTION)
    if isinstance(low, bool) or not isinstance(low, int | float) or not 0 <= low <= 1:
        raise TraceError(f"lengths.uniform.low_fraction: a fraction from 0 to 1 is needed, got {low!r}")
    least = max(1, int(isl * low)), max(1, int(osl * low))

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(least[0], isl + 1, n), rng.integers(least[1], osl + 1, n)

    means = (least[0] + isl) / 2, (least[1] + osl) / 2
    return LengthModel(f"uniform_{isl}_{osl}", f"uniform from {low:g} L to L", *means, isl, osl, draw)


def _geometric(spec) -> LengthModel:
    """Geometric answers (memoryless) and fixed prompts: what the birth-death chain assumes."""
    spec = _known_keys(spec, {"isl", "mean_osl"}, "lengths.geometric")
    isl, mean = round(_number(spec, "isl", "lengths.geometric")), _number(spec, "mean_osl", "lengths.geometric")

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full(n, isl, np.int64), rng.geometric(1 / mean, n).astype(np.int64)

    largest = int(np.ceil(mean * 40))  # beyond with probability e^-40
    return LengthModel(f"geometric_{isl}_{mean:g}", "as described in the scenario", isl, mean, isl, largest, draw)


def _described_curve(spec, where: str) -> QuantileCurve:
    """Quantiles as a user writes them: ``{p50: 800, p90: 2000, p99: 9000, mean: 1200, max: 32000}``."""
    if not isinstance(spec, Mapping):
        raise TraceError(f"{where}: a mapping such as {{p50: 800, p99: 9000, mean: 1200}} is needed, got {spec!r}")
    points = {}
    for key in spec:
        if key in ("mean", "max"):
            continue
        try:
            points[float(str(key).removeprefix("p")) / 100] = _number(spec, key, where)
        except ValueError:
            raise TraceError(f"{where}: unknown key '{key}'; use p1 .. p99.9, mean and max") from None
    p = sorted(points)
    mean = _number(spec, "mean", where) if "mean" in spec else None
    largest = _number(spec, "max", where) if "max" in spec else np.inf
    return QuantileCurve(p, [points[q] for q in p], mean, name=where, largest=largest)


def _quantiles(spec) -> LengthModel:
    spec = _known_keys(spec, {"isl", "osl", "rank_correlation"}, "lengths.quantiles")
    curves = [_described_curve(spec.get(key), f"lengths.quantiles.{key}") for key in ("isl", "osl")]
    rho = float(spec.get("rank_correlation", assumed_rank_correlation()))
    return from_curves("quantiles", f"as described in the scenario; rank correlation {rho:.3f}", *curves, rho)


def _mixture(spec) -> LengthModel:
    """A share of each of several length models: ``[{share: 0.8, lengths: azure2023_conv}, ...]``."""
    if not isinstance(spec, list | tuple) or not spec:
        raise TraceError(f"lengths.mixture: a list of {{share, lengths}} is needed, got {spec!r}")
    parts = [_known_keys(part, {"share", "lengths"}, "lengths.mixture") for part in spec]
    shares = np.array([float(part.get("share", 0)) for part in parts])
    if np.any(~(shares > 0)):
        raise TraceError(f"lengths.mixture: every share must be positive, got {shares.tolist()}")
    shares = shares / shares.sum()
    models = [length_model(part.get("lengths")) for part in parts]

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        which = np.searchsorted(np.cumsum(shares)[:-1], rng.random(n), side="right")
        isl, osl = np.empty((2, n), np.int64)
        for k, model in enumerate(models):
            mine = np.flatnonzero(which == k)
            isl[mine], osl[mine] = model.sample(rng, len(mine))
        return isl, osl

    return LengthModel(
        "mixture of " + ", ".join(model.name for model in models),
        " | ".join(model.source for model in models),
        float(shares @ [model.mean_isl for model in models]),
        float(shares @ [model.mean_osl for model in models]),
        max(model.max_isl for model in models),
        max(model.max_osl for model in models),
        draw,
        tuple(report for model in models for report in model.reports),
    )


def _stretched(spec) -> LengthModel:
    """Another model's lengths, multiplied so that prompts and answers have other means: its shape, not its size."""
    spec = _known_keys(spec, {"lengths", "mean_isl", "mean_osl"}, "lengths.stretched")
    of = length_model(spec.get("lengths"))
    means = [_number(spec, key, "lengths.stretched") for key in ("mean_isl", "mean_osl")]
    factors = means[0] / of.mean_isl, means[1] / of.mean_osl

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        isl, osl = of.sample(rng, n)
        return _tokens(isl * factors[0]), _tokens(osl * factors[1])

    largest = round(of.max_isl * factors[0]), round(of.max_osl * factors[1])
    told = f"{of.source}; prompts x {factors[0]:.4g}, answers x {factors[1]:.4g}"
    return LengthModel(f"stretched {of.name}", told, *means, *largest, draw)


def _trace(spec) -> LengthModel:
    """The lengths of a user's own trace or log, resampled as pairs."""
    spec = _known_keys(spec, {"path"}, "lengths.trace")
    if not isinstance(spec.get("path"), str):
        raise TraceError(f"lengths.trace.path: the path of a trace or log is needed, got {spec.get('path')!r}")
    from factory_sim.inputs.traces import read_trace

    trace = read_trace(spec["path"])
    found = empirical(trace.name, f"{trace.report.tool}: {trace.name}", trace.isl, trace.osl)
    return replace(found, reports=(trace.report,))


def _client_histograms(spec) -> LengthModel:
    """ServeGen's client data: a client and a window by their requests, then prompt and answer from that client's
    histograms.

    Within a client and window the two are independent (only marginals are stored); between clients they go together.
    """
    spec = _known_keys(spec, {"path"}, "lengths.servegen")
    from factory_sim.inputs.traces import read_servegen

    data = read_servegen(str(spec.get("path")))
    if not data.lengths:
        raise TraceError(f"{spec.get('path')}: no client has lengths")
    weight = np.array([part.requests for part in data.lengths])
    weight /= weight.sum()
    sides = [[part.isl for part in data.lengths], [part.osl for part in data.lengths]]

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        which = np.searchsorted(np.cumsum(weight)[:-1], rng.random(n), side="right")
        uniform = rng.random((2, n))
        found = np.empty((2, n), np.int64)
        for k in range(len(weight)):
            mine = np.flatnonzero(which == k)
            for side in (0, 1):
                part = sides[side][k]
                at = np.searchsorted(np.cumsum(part.shares)[:-1], uniform[side, mine], side="right")
                found[side, mine] = _tokens(part.values[at])
        return found[0], found[1]

    means = [float(sum(w * (_tokens(h.values) @ h.shares) for w, h in zip(weight, side))) for side in sides]
    largest = [int(max(_tokens(h.values)[-1] for h in side)) for side in sides]
    told = f"ServeGen client data: {'; '.join(data.report.notes)}"
    return LengthModel(data.name, told, *means, *largest, draw, (data.report,))


def _named(name: str, rank_correlation: float | None = None) -> LengthModel:
    name = ALIASES.get(name, name)
    if name in workloads.trace_index():
        row, columns = workloads.trace_index()[name], workloads.packaged_columns(name)
        return empirical(name, f"{row['source']} ({row['licence']}, {row['date']})", columns["isl"], columns["osl"])
    if name.startswith("benchmark_"):
        try:
            isl, osl = (int(part) for part in name.removeprefix("benchmark_").split("_"))
        except ValueError:
            raise TraceError(f"lengths: '{name}' should read benchmark_ISL_OSL, e.g. benchmark_1024_1024") from None
        return _uniform({"isl": isl, "osl": osl})
    if name in workloads.workload_names() and name.startswith("servegen_"):
        return _servegen(name, rank_correlation)
    raise TraceError(f"lengths: '{name}' is not known{closest(name, length_model_names())}")


def length_model_names() -> list[str]:
    """Return the names that `length_model` knows, beside ``benchmark_ISL_OSL``."""
    servegen = [name for name in workloads.workload_names() if name.startswith("servegen_")]
    return sorted(workloads.trace_index()) + servegen


def _content(spec) -> LengthModel:
    """Requests given as content (pages, images, words of a language...), counted in tokens; all alike."""
    from factory_sim.model.tokenization import content_lengths

    isl, osl = content_lengths(spec)
    return _fixed({"isl": isl, "osl": osl})


DESCRIBED = {
    "content": _content,
    "fixed": _fixed,
    "uniform": _uniform,
    "geometric": _geometric,
    "quantiles": _quantiles,
    "mixture": _mixture,
    "stretched": _stretched,
    "trace": _trace,
    "servegen": _client_histograms,
}


def length_model(spec: str | Mapping) -> LengthModel:
    """Return the joint length distribution that `spec` names or describes.

    A name: a packaged trace (``azure2023_conv``, ``azure2023_code``, ``mooncake_conversation``,
    ``arxiv_summarization``, ``agentic_claude_code``), a ServeGen mixture (``servegen_deepseek-r1``,
    ``servegen_m-large``, ...) or ``benchmark_ISL_OSL``. A mapping of one key: ``{fixed: {isl, osl}}``, ``{uniform:
    {isl, osl, low_fraction}}``, ``{geometric: {isl, mean_osl}}``, ``{quantiles: {isl: {p50: ..., mean: ...}, osl:
    {...}, rank_correlation}}``, ``{mixture: [{share, lengths}, ...]}``, ``{stretched: {lengths, mean_isl,
    mean_osl}}`` (another model's shape with other means), ``{trace: {path}}`` (a file of the user's,
    resampled) or ``{named: {name, rank_correlation}}``.

    Raises TraceError that says what was found and what would be right.
    """
    if isinstance(spec, str):
        return _named(spec)
    if not isinstance(spec, Mapping) or len(spec) != 1:
        raise TraceError(f"lengths: a name or a mapping with one key is needed, got {spec!r}")
    ((kind, body),) = spec.items()
    if kind == "named":
        body = _known_keys(body, {"name", "rank_correlation"}, "lengths.named")
        return _named(str(body.get("name")), body.get("rank_correlation"))
    if kind not in DESCRIBED:
        raise TraceError(f"lengths: '{kind}' is not known{closest(str(kind), [*DESCRIBED, 'named'])}")
    return DESCRIBED[kind](body)
