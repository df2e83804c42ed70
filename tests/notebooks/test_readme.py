"""README and documentation do what they say: code blocks run, commands exist and parse, links lead somewhere."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from typer.main import get_command

from factory_sim.cli.app import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def _command_lines() -> list[tuple[str, str]]:
    """(page, command line) of every `factory-sim ...` in a shell block or between backticks."""
    found = []
    for page in PAGES:
        shell = [line for block in _blocks(page, "bash") for line in block.splitlines()]
        inline = re.findall(r"`(factory-sim [^`]+)`", page.read_text(encoding="utf-8"))
        for line in [*shell, *inline]:
            for part in re.split(r"&&|\s#\s", line):
                if part.strip().startswith("factory-sim "):
                    found.append((page.name, part.strip().split(" > ")[0]))
    return list(dict.fromkeys(found))


def _parse(words: list[str]) -> None:
    """Parse as the command line would, without running anything."""
    command = get_command(app)
    while hasattr(command, "commands") and words:
        assert words[0] in command.commands, f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    if words != ["--help"]:
        command.make_context("factory-sim", list(words))


@pytest.mark.parametrize(("page", "line"), _command_lines())
def test_every_command_line_shown_parses(page, line):
    _parse(shlex.split(line)[1:])


def test_the_table_of_commands_is_complete():
    shown = set(re.findall(r"^\| `factory-sim (\w+)", README.read_text(encoding="utf-8"), flags=re.M))
    assert shown == set(get_command(app).commands)


def test_parsing_refuses_what_does_not_exist():
    with pytest.raises(AssertionError, match="no command dance"):
        _parse(["dance"])
    with pytest.raises(Exception, match="--colour"):
        _parse(["run", "x.yaml", "--colour", "red"])


@pytest.mark.parametrize("block", _blocks(README, "python"))
def test_python_of_the_readme_runs(block, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), {})
    assert "requests_completed" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_settings_shown_are_valid():
    from factory_sim.inputs.overrides import load_scenario

    seen = 0
    for _, line in _command_lines():
        words = shlex.split(line)
        files = [word for word in words if word.startswith("scenarios/")]
        if files and "--set" in words:
            settings = [after for word, after in pairwise(words) if word == "--set"]
            load_scenario(ROOT / files[0], settings)
            seen += 1
    assert seen >= 5
