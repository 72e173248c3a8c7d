from pathlib import Path

import pytest

from node_agent.bootloaders.command_line import CommandLine
from update.errors import BootloaderError, ConfigurationError


def _line(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cmdline"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ["fieldrelay.slot=b\n", "quiet fieldrelay.slot=b ro", "fieldrelay.slot=b fieldrelay.slot=b"])
def test_the_slot_is_read_wherever_it_stands(tmp_path: Path, text: str) -> None:
    assert CommandLine(_line(tmp_path, text)).booted() == "b"


@pytest.mark.parametrize("text", ["", "quiet", "xfieldrelay.slot=b", "fieldrelay.slot=a fieldrelay.slot=b", "fieldrelay.slot="])
def test_no_slot_or_two_different_ones_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BootloaderError):
        CommandLine(_line(tmp_path, text)).booted()


def test_a_board_may_be_told_by_its_root_device(tmp_path: Path) -> None:
    line = _line(tmp_path, "console=ttyS0 root=/dev/mmcblk0p3 ro\n")
    names = {"/dev/mmcblk0p2": "a", "/dev/mmcblk0p3": "b"}
    assert CommandLine(line, r"\broot=(\S+)", names).booted() == "b"


@pytest.mark.parametrize("pattern", ["slot=.", "(", "(slot)=(.)"])
def test_a_pattern_that_cannot_name_a_slot_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError):
        CommandLine(Path("cmdline"), pattern)


def test_an_absent_command_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BootloaderError, match="cannot read"):
        CommandLine(tmp_path / "absent").booted()
