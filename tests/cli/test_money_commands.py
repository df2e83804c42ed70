"""The money commands: what they print, and that bad input ends in one message."""

import json

import pytest
import typer
from typer.testing import CliRunner

from factory_sim.cli import books
from factory_sim.cli import statement as statements
from factory_sim.cli import tokens as token_counts
from factory_sim.errors import FactorySimError
from tests.made_up_run import store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return store(tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture(scope="module")
def app():
    app = typer.Typer()
    for command in (token_counts.tokens, books.reprice, books.explain, statements.statement, books.export):
        app.command(command.__name__)(command)
    return app


def call(app, *words):
    found = CliRunner().invoke(app, [str(word) for word in words])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def test_tokens_of_mixed_content(app, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("こんにちは世界", encoding="utf-8")
    answer = json.loads(
        call(
            app, "tokens", "--text", text, "--image", "1024x1024", "--audio", "90s", "--language", "ja",
            "--family", "qwen", "--out-words", 300, "--list-price", "openai/gpt-oss-120b@groq",
            "--as-of", "2026-11-01", "--json",
        ).stdout
    )  # fmt: skip
    parts = {part["part"]: part for part in answer["parts"]}
    assert parts["image 1024x1024"]["tokens"] == 1225
    assert parts["audio"]["tokens"] == 90 * 13
    assert answer["cost_usd"] == pytest.approx((answer["input_tokens"] * 0.15 + answer["output_tokens"] * 0.6) / 1e6)
    shown = call(app, "tokens", "--words", 100).stdout
    assert "o200k_base" in shown
    assert "USD" in shown


def test_reprice_doubles_exactly(app, folder):
    answer = json.loads(call(app, "reprice", folder, "--scale", "prices=2", "--json").stdout)
    rows = {(r["figure"], r["window"], r["service"]): r for r in answer["figures"]}
    assert rows["revenue", "whole", "all"]["value"] == 2 * rows["revenue", "whole", "all"]["before"]
    assert rows["cost", "week_2", "code"]["value"] == 2 * rows["cost", "week_2", "code"]["before"]
    assert answer["marked"] == ""
    shown = call(app, "reprice", folder, "--set", "plans.chat.output_usd_per_million=9").stdout
    assert "cost_per_million_output_tokens" in shown


def test_reprice_warns_of_absurd_prices(app, folder):
    said = call(app, "reprice", folder, "--set", "plans.chat.output_usd_per_million=2e-6").stderr
    assert "is it USD per token or per million tokens?" in said
    assert call(app, "reprice", folder).stderr == ""


def test_reprice_marks_a_run_that_saw_prices(app, tmp_path):
    seen = store(tmp_path / "run", price_elasticity=-1.1).folder
    assert "answered to money" in json.loads(call(app, "reprice", seen, "--json").stdout)["marked"]
    assert "answered to money" in call(app, "reprice", seen).stderr


def test_explain_prints_the_tree_and_its_classes(app, folder):
    shown = call(app, "explain", folder, "cost").stdout
    assert "rental_market/h200/2026-07" in shown
    assert "GPU-h x 2.9 USD/GPU-h" in shown
    assert "share that rests on assumptions: 0.0%" in shown
    answer = json.loads(call(app, "explain", folder, "margin", "--json").stdout)
    assert [child["label"] for child in answer["tree"]["children"]] == ["revenue", "cost"]
    assert answer["summary"] == {}


def test_statement_by_day(app, folder):
    shown = call(app, "statement", folder, "--period", "day", "--margin", "0.6").stdout
    for words in ("Total revenue", "Rent of GPUs", "npv_usd", "page in", "price_factor_for_margin"):
        assert words in shown
    answer = json.loads(call(app, "statement", folder, "--json").stdout)
    assert answer["figures"]["irr_per_year"] is None or isinstance(answer["figures"]["irr_per_year"], float)
    assert {row["period"] for row in answer["units_by_period"]} == {"week 1", "week 2"}
    assert [row["load"] for row in answer["cost_against_load"]][::11] == [0.02, 1.0]


def test_cost_against_load_is_drawn_and_nothing_written_over(app, folder, tmp_path):
    path = tmp_path / "load.svg"
    call(app, "statement", folder, "--chart", path)
    drawn = path.read_bytes()
    assert drawn.startswith(b"<?xml")
    with pytest.raises(FactorySimError, match="already there"):
        call(app, "statement", folder, "--chart", path)
    assert path.read_bytes() == drawn


def test_export_writes_and_says_where(app, folder, tmp_path):
    shown = call(app, "export", folder, "--xlsx", tmp_path / "a.xlsx", "--csv", tmp_path / "csv").stdout
    assert (tmp_path / "a.xlsx").exists()
    assert len(shown.split()) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tokens"], "nothing to count"),
        (["tokens", "--audio", "90 parsecs"], "is not a number with s, min or h"),
        (["tokens", "--words", "-5"], "at least 0"),
        (["tokens", "--words", "5", "--pages-as", "poem"], "use text, image or both"),
        (["explain", "RUN", "revenu"], "did you mean 'revenue'"),
        (["reprice", "RUN", "--scale", "prices"], "name=factor"),
        (["statement", "RUN", "--period", "year"], "hour, day, week, month"),
        (["statement", "RUN", "--chart", "a.jpg"], r"ends in \.svg or \.png"),
        (["export", "RUN"], "nothing to write"),
        (["export", "nowhere", "--xlsx", "a.xlsx"], "no such run"),
    ],
)
def test_bad_input_is_one_message(app, folder, words, message):
    with pytest.raises(FactorySimError, match=message):
        call(app, *[folder if word == "RUN" else word for word in words])


def test_explain_splits_the_band(app, folder):
    answer = json.loads(call(app, "explain", folder, "cost", "--variance", "--json").stdout)
    assert [part["source"] for part in answer["variance"]] == ["price vintage", "price ranges", "replications"]
    assert sum(part["share"] for part in answer["variance"]) == pytest.approx(1)
    assert "of the variance" in call(app, "explain", folder, "cost", "--variance").stdout
    with pytest.raises(FactorySimError, match="no variance split for 'utilisation'"):
        call(app, "explain", folder, "utilisation", "--variance")  # the made-up run keeps no figures by replication
