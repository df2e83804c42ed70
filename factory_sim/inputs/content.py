"""Requests described by what they hold: pages, pictures, minutes of speech, words in a language."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from factory_sim.records import Record


class Content(Record):
    """What goes into a request, or comes out of it."""

    words: NonNegativeFloat = 0.0
    """Words of text. In languages that put no spaces between words (Chinese, Japanese, Thai): words of the English text
    that says the same."""
    characters: NonNegativeFloat = 0.0
    """Characters of text."""
    language: str = "en"
    """Language of the text, ISO 639-1 (ja, de, ...)."""
    pages: NonNegativeFloat = 0.0
    """Pages of documents."""
    pages_as: Literal["text", "image", "both"] = "text"
    """Whether a page is sent as its text, as a picture, or as both."""
    images: tuple[str, ...] = ()
    """Pictures by size in pixels, such as 1024x1024."""
    audio_s: NonNegativeFloat = 0.0
    """Speech or sound, seconds."""
    video_s: NonNegativeFloat = 0.0
    """Video without its sound, seconds."""
    video_size: str = "1280x720"
    """Size of the video frames, pixels."""
    bases: NonNegativeFloat = 0.0
    """Bases of a gene sequence."""
    dna_rule: str = "single-base"
    """How a gene sequence is cut: single-base, 6-mer, 6-mer-overlapping, dna-bpe."""
    samples: NonNegativeFloat = 0.0
    """Samples of one sensor channel."""
    channels: NonNegativeInt = 1
    """Sensor channels."""
    tokens: NonNegativeFloat = 0.0
    """Tokens known otherwise: system prompt, tools."""


class ContentRequest(Record):
    """A request by content: what goes in and what comes out."""

    input: Content = Field(default_factory=Content)
    """Content of the prompt."""
    output: Content = Field(default_factory=Content)
    """Content of the answer."""
    reasoning_tokens: NonNegativeFloat = 0.0
    """Tokens thought before the answer."""
    family: str = "openai"
    """Family of models whose tokenizer and rules apply: openai, anthropic, google, qwen, deepseek, llama, mistral,
    gpt-oss."""
    tokenizer: str | None = None
    """Tokenizer of the text, where it is not the family's: a lever, since fewer tokens say the same."""
