"""The pages build without a warning, their links lead somewhere, and the commands that they name exist."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from gateway.cli.main import VERBS, load
from node_agent.cli import main as node_main
from update.publish.spec import load_spec

ROOT = Path(__file__).parents[2]
AT_THE_ROOT = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
MAX_README_LINES = 150
GUIDES = sorted([*(ROOT / "docs" / "how-to").glob("*.md"), *(ROOT / "docs" / "tutorials").glob("*.md"), ROOT / "README.md"])


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[str]:
    """Lines of a console, and code in the text, that begin with one of our programs."""
    lines = text.replace("\\\n", " ").splitlines()
    typed = [line.removeprefix("$ ").removeprefix("sudo ") for line in lines]
    quoted = re.findall(r"`([^`\n]+)`", text)
    yield from (re.split(r"[;>|&#]| 2>", each)[0] for each in (*typed, *quoted) if re.match(r"(fieldrelay|update) [a-z-]", each))


@pytest.mark.parametrize("name", AT_THE_ROOT)
def test_every_link_of_a_page_at_the_root_leads_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    targets = re.findall(r"\]\(([^)#]*)(#[^)]*)?\)", text)
    files = [target for target, _ in targets if "://" not in target]
    assert [target for target in files if not (ROOT / target).exists()] == []
    missing = [anchor for target, anchor in targets if not target and anchor.removeprefix("#") not in anchors(text)]
    assert missing == []


def test_the_readme_is_short_and_says_which_python_was_tested() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= MAX_README_LINES
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert requires == ">=3.11"
    assert any("3.11 is tested" in line and "3.12 and 3.13" in line and "not tested" in line for line in lines)


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "cache")]
    done = subprocess.run([*command, "docs", str(tmp_path / "html")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_command_of_a_guide_exists_with_its_options(page: Path) -> None:
    for line in commands(page.read_text()):
        program, *words = shlex.split(line)
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        known = _node_options(words) if program == "update" else _options(words)
        assert [option for option in options if option not in known] == [], line


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_toml_of_a_guide_is_toml_and_a_bundle_can_be_meant(page: Path, tmp_path: Path) -> None:
    for text in re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        values = tomllib.loads(text)
        if "bundle" in values:
            for each in (*values.get("images", ()), *values.get("scripts", ())):
                (tmp_path / each["file"]).touch()
            (tmp_path / "SPEC.toml").write_text(text)
            load_spec(tmp_path / "SPEC.toml")


def _options(words: list[str]) -> set[str]:
    """Every option of the commands that a line goes through; each of them must exist."""
    if words == ["--version"]:
        return {"--version"}
    count = 2 if " ".join(words[:2]) in VERBS else 1
    command, rest = load(" ".join(words[:count])), iter(words[count:])
    assert isinstance(command, click.Command)
    known = {"--help", *_of(command)}
    for word in rest:
        if not isinstance(command, click.Group):
            break
        if word.startswith("-"):
            next(rest)  # a group's options all take a value
            continue
        command = command.commands[word]
        known |= _of(command)
    return known


def _of(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def _node_options(words: list[str]) -> set[str]:
    verb = next((word for word in words if word in {"status", "install", "confirm", "rollback", "agent"}), "")
    assert verb or "--now" in words, words
    return _help_of(verb) | _help_of("")


@cache
def _help_of(verb: str) -> set[str]:
    program = str(Path(sys.executable).with_name("update"))
    shown = subprocess.run([program, *verb.split(), "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z-]+", shown))


def test_an_unknown_verb_of_the_node_is_told() -> None:
    assert node_main(["fly"]) == 10
