import pytest

from node_agent.handlers.bootenv import MAX_VARIABLES, boot_variables
from update.bundle.entries import BootVariable
from update.errors import HandlerError


def test_a_later_line_replaces_an_earlier_one() -> None:
    lines = [BootVariable("a", "1"), BootVariable("b", ""), BootVariable("a", "2")]
    assert boot_variables(lines) == {"a": "2", "b": ""}


def test_more_variables_than_an_environment_holds_are_refused() -> None:
    with pytest.raises(HandlerError):
        boot_variables([BootVariable(f"v{number}", "x") for number in range(MAX_VARIABLES + 1)])
