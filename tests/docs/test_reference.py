"""The reference is complete: it is drawn from the code, and names what the code knows."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gateway.cli.main import VERBS, load, main
from node_agent.cli import main as node_main
from node_agent.drivers.driver import RESTART_STATUS
from node_agent.states import Outcome, State
from node_agent.verbs import NOTHING_STATUS
from tests.docs.meanings import MEANINGS
from tests.docs.page_errors import leaves
from tests.docs.pages import FOLDER, PAGES

ROOT = Path(__file__).parents[2]


def configuration_keys() -> Iterator[str]:
    """`section.key` of every row of the page on configuration."""
    section = ""
    for line in (FOLDER / "configuration.md").read_text().splitlines():
        if heading := re.match(r"### `\[+([a-z_.-]+)\]+`", line):
            section = f"{heading[1]}."
        elif line.startswith("## "):
            section = ""
        elif row := re.match(r"\| `([a-z_]+)` \|", line):
            yield f"{section}{row[1]}"


def sample_keys(name: str) -> Iterator[str]:
    section = ""
    for line in (ROOT / "configs" / name).read_text().splitlines():
        if heading := re.fullmatch(r"#?\[+([a-z_.]+)\]+", line):
            section = f"{heading[1]}."
        elif entry := re.match(r"#?([a-z_]+) = ", line):
            yield f"{section}{entry[1]}"


def click_commands(command: object, path: str) -> Iterator[tuple[str, click.Command]]:
    assert isinstance(command, click.Command)
    yield path, command
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from click_commands(each, f"{path} {name}")


@pytest.mark.parametrize("name", PAGES)
def test_a_drawn_page_is_what_the_code_draws(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), "write it anew: make reference"


def test_every_error_is_there_with_its_exit_status() -> None:
    page = (FOLDER / "errors.md").read_text()
    missing = [kind.code for kind in leaves() if f"| `{kind.code}` | {kind.exit_status} |" not in page]
    assert missing == []


def test_every_command_and_option_is_there() -> None:
    page = (FOLDER / "commands.md").read_text()
    for verb in VERBS:
        for path, command in click_commands(load(verb), f"fieldrelay {verb}"):
            assert f"# `{path}`\n" in page
            chapter = page.partition(f"# `{path}`\n")[2].partition("\n#")[0]
            options = [option for parameter in command.params for option in parameter.opts if option.startswith("-")]
            assert [option for option in options if f"`{option}" not in chapter] == []


def test_every_configuration_key_of_the_samples_is_there() -> None:
    shown = set(configuration_keys())
    nested = {"driver.linux.slots.parts"}  # an inline table in the sample, a section of the page
    of_kinds = re.compile(r"attached\.(?=(driver|bootloader)\.[a-z_]+\.)")  # the same options as on a node
    samples = {
        of_kinds.sub("", key) for key in (*sample_keys("gateway.toml"), *sample_keys("media.toml"), *sample_keys("node.toml"))
    }
    assert samples - shown == nested


def test_no_meaning_is_left_of_a_key_that_is_gone() -> None:
    assert set(MEANINGS) - set(configuration_keys()) == set()


def test_every_state_and_outcome_is_there() -> None:
    page = (FOLDER / "states.md").read_text()
    assert [state for state in State if f"| {state} |" not in page] == []
    assert [outcome for outcome in Outcome if f"`{outcome}`" not in page] == []


def test_the_exit_statuses_beside_those_of_errors_are_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (FOLDER / "errors.md").read_text()
    assert f"ends with {NOTHING_STATUS} if there is" in page
    assert f"and with {RESTART_STATUS} if the device" in page
    assert main([]) == 10
    assert node_main(["--config", "/nonexistent", "--json", "status"]) == 11
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"] == "usage.configuration"
