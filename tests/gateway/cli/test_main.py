import builtins
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import pytest

from gateway.cli import main as program
from gateway.cli.main import VERBS, Verb, load, main
from update.errors import HardwareError, MissingExtraError

ROOT = Path(__file__).parents[3]


def failing() -> None:
    raise HardwareError("not for this board")


COMMANDS = {
    "good": click.Command("good", callback=lambda: None),
    "status": click.Command("status", callback=lambda: 3),
    "refused": click.Command("refused", callback=failing),
    "picky": click.Command("picky", params=[click.Option(["--number"], type=int)], callback=lambda **_: None),
}


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {name: Verb(f"{__name__}:COMMANDS", "gateway", "") for name in COMMANDS}
    monkeypatch.setattr(program, "VERBS", table)
    monkeypatch.setattr(program, "load", COMMANDS.__getitem__)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_resolves_to_a_command(name: str) -> None:
    assert isinstance(load(name), click.Command)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"fieldrelay {name}" in capsys.readouterr().out


@pytest.mark.parametrize("extra", sorted({verb.extra for verb in VERBS.values()}))
def test_a_missing_extra_is_named(extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def block(name: str, *rest: object) -> object:
        if name.partition(".")[0] in {"click", "sqlalchemy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)  # type: ignore[arg-type]  # handed through as it came

    name = next(name for name, verb in VERBS.items() if verb.extra == extra)
    for module in [each for each in sys.modules if each.startswith(("gateway.cli.", "media.cli")) and each != "gateway.cli.main"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", block)
    assert main([name]) == MissingExtraError.exit_status
    told = capsys.readouterr().err
    assert all(f"locks/{each}.txt" in told for each in extra.split(","))
    assert "fieldrelay[" not in told


@pytest.mark.parametrize("extra", sorted({each for verb in VERBS.values() for each in verb.extra.split(",")}))
def test_what_a_missing_extra_asks_for_is_part_of_the_release(extra: str) -> None:
    assert (ROOT / "locks" / f"{extra}.txt").is_file()
    assert f"{extra}.txt" in (ROOT / "docs" / "how-to" / "install-a-gateway.md").read_text()


def test_a_defect_of_our_own_is_not_taken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "VERBS", {"broken": Verb("gateway.cli.nothing:nothing", "gateway", "")})
    with pytest.raises(ModuleNotFoundError):
        load("broken")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["good"], 0, ""),
        (["status"], 3, ""),
        (["refused"], HardwareError.exit_status, "error: not for this board (trust.hardware)"),
        (["picky", "--number", "x"], 10, "not a valid integer"),
        (["picky", "--nonsense"], 10, "No such option"),
        (["good", "--help"], 0, ""),
    ],
)
@pytest.mark.usefixtures("verbs")
def test_the_exit_status_says_how_it_ended(
    arguments: Sequence[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status"), [([], 10), (["--help"], 0), (["-h"], 0), (["help"], 0), (["--version"], 0), (["fly"], 10)]
)
def test_without_a_verb_there_is_help(arguments: Sequence[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == status
    said = capsys.readouterr()
    assert "fieldrelay" in said.out or "there are: " in said.err


@pytest.mark.usefixtures("verbs")
def test_an_interruption_is_no_stack_trace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_name: str) -> Mapping[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "load", interrupt)
    assert main(["good"]) == 130
    assert "interrupted" in capsys.readouterr().err
