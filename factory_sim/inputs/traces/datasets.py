"""Data sets that benchmark tools play: lengths of prompts and answers, from text or from recorded results."""

from collections.abc import Callable, Iterator

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.inputs.logs import jsonscan
from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.logs.values import number
from factory_sim.inputs.traces.gather import Gather, usable

_ANSWER_KEYS = ("output_tokens", "output_len", "output_length", "expected_output_len")
_BATCH = 4096


def detect(source: Source, head: jsonscan.Head | None) -> tuple[str, str] | None:
    """Return (format, tool) of a benchmark data set or a result with lengths of each request, or None."""
    if source.parquet or head is None or head.kind == "other":
        return None
    if head.has("conversations") or head.any("conversations.value"):
        return "sharegpt_dataset", "ShareGPT conversations (vLLM, SGLang)"
    if head.has("input_lens", "output_lens"):
        return "benchmark_requests", "vLLM or SGLang benchmark result with details"
    if head.has("prompt") and (head.any(*_ANSWER_KEYS) or head.any("completion", "response", "output")):
        return "custom_dataset", "vLLM custom data set"
    return None


def read(source: Source, name: str, rows: Gather, complaints: Complaints, count_tokens) -> None:
    """Read the lengths of a data set into `rows`; texts are counted and forgotten."""
    if name == "benchmark_requests":
        _results(source, rows, complaints)
        return
    count = count_tokens or _default_counter(source.path)
    reader = _sharegpt if name == "sharegpt_dataset" else _custom
    batch: list[tuple[int, int]] = []
    for document, position in jsonscan.documents(source.data):
        if isinstance(document, jsonscan.Loss):
            complaints.add_loss(document, source)
        elif isinstance(document, dict):
            batch.extend(reader(document, position, complaints, count))
        if len(batch) >= _BATCH:
            _add(rows, batch)
    _add(rows, batch)


def _add(rows: Gather, batch: list[tuple[int, int]]) -> None:
    if batch:
        lengths = np.array(batch, np.int64)
        rows.add(isl=lengths[:, 0], osl=lengths[:, 1])
        batch.clear()


def _default_counter(path) -> Callable[[str], int]:
    try:
        import bpe_openai
    except ImportError:
        raise TraceError(
            f"{path}: holds texts, and no tokenizer is installed to count them; install factory-sim[tokenizers], or "
            "give a file with input and output tokens"
        ) from None
    encode = bpe_openai.get_encoding("o200k_base").encode_ordinary
    return lambda text: len(encode(text))


def _sharegpt(document: dict, position: int, complaints: Complaints, count) -> Iterator[tuple[int, int]]:
    """The first question and answer of a conversation, as the benchmark clients use it."""
    turns = [turn for turn in document.get("conversations") or [] if isinstance(turn, dict)]
    texts = [turn.get("value") if isinstance(turn.get("value"), str) else turn.get("content") for turn in turns[:2]]
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        complaints.add("left out, conversations of fewer than two turns (as benchmark clients do)", f"byte {position}")
        return
    yield count(texts[0]), count(texts[1])


def _custom(document: dict, position: int, complaints: Complaints, count) -> Iterator[tuple[int, int]]:
    prompt = document.get("prompt")
    told = next((number(document[key]) for key in _ANSWER_KEYS if key in document), None)
    answer = next(
        (document[key] for key in ("completion", "response", "output") if isinstance(document.get(key), str)), None
    )
    if isinstance(prompt, list):
        prompt = "\n".join(str(part.get("content", "")) if isinstance(part, dict) else str(part) for part in prompt)
    if not isinstance(prompt, str) or (told is None and answer is None) or (told is not None and not usable(told, 0)):
        complaints.add("dropped, no prompt or no length of the answer", f"byte {position}")
        return
    yield count(prompt), int(told) if told is not None else count(answer)


def _results(source: Source, rows: Gather, complaints: Complaints) -> None:
    """Arrays of one or several benchmark results: failed requests are left out, several runs follow each other."""
    end_s = 0.0
    for document, _ in jsonscan.documents(source.data):
        if not isinstance(document, dict) or not isinstance(document.get("input_lens"), list):
            continue
        isl, osl = (
            np.array([number(v) if number(v) is not None else -1 for v in document[key]], np.float64)
            for key in ("input_lens", "output_lens")
        )
        if len(isl) != len(osl):
            raise TraceError(f"{source.path}: input_lens has {len(isl)} and output_lens {len(osl)} entries")
        errors = document.get("errors")
        ok = (
            np.array([not e for e in errors])
            if isinstance(errors, list) and len(errors) == len(isl)
            else np.ones(len(isl), bool)
        )
        rows.failed += int(np.sum(~ok))
        sane = np.array([usable(i, o) for i, o in zip(isl, osl)], bool)
        if np.any(ok & ~sane):
            complaints.add(
                "dropped, no sensible count of tokens", f"{np.sum(ok & ~sane)} requests", int(np.sum(ok & ~sane))
            )
        ok &= sane
        columns = {"isl": isl[ok].astype(np.int64), "osl": osl[ok].astype(np.int64)}
        starts = document.get("start_times")
        if isinstance(starts, list) and len(starts) == len(isl):
            starts = np.array([number(v) if number(v) is not None else np.nan for v in starts], np.float64)[ok]
            columns["arrival_s"] = starts - np.nanmin(starts) + end_s if len(starts) else starts
            end_s = float(np.nanmax(columns["arrival_s"], initial=end_s))
        ttfts = document.get("ttfts")
        if isinstance(ttfts, list) and len(ttfts) == len(isl):
            ttft_s = np.array([number(v) or np.nan for v in ttfts], np.float64)[ok]
            columns["ttft_s"] = ttft_s
        rows.add(**columns)
