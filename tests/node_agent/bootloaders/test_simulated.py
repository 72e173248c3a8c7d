from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.bootloaders.simulated import SimulatedEnvironment
from update.durable import Disk, Operation
from update.errors import BootloaderError


class _PowerLossError(Exception):
    """The power goes."""


def test_what_is_written_is_read(tmp_path: Path) -> None:
    environment = SimulatedEnvironment(tmp_path / "environment", Disk())
    environment.seed({"bootslot": "a", "gone": "x", "empty": ""})
    environment.write({"bootslot": "b", "gone": "", "args": "root=/dev/vda x=y"})
    assert environment.read() == {"bootslot": "b", "args": "root=/dev/vda x=y"}


@pytest.mark.parametrize("content", [b"\xff\xfe", b"no equals sign\n", b"=value\n", b"a=" + b"x" * (1 << 20)])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "environment").write_bytes(content)
    with pytest.raises(BootloaderError):
        SimulatedEnvironment(tmp_path / "environment", Disk()).read()


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BootloaderError, match="seed"):
        SimulatedEnvironment(tmp_path / "environment", Disk()).read()


@given(st.integers(0, 4))
def test_a_power_loss_leaves_the_old_or_the_new_variables(tmp_path_factory: pytest.TempPathFactory, survived: int) -> None:
    path = tmp_path_factory.mktemp("board") / "environment"
    SimulatedEnvironment(path, Disk()).seed({"bootslot": "a", "upgrade_available": "0"})
    announced: list[Operation] = []

    def lose_power(operation: Operation) -> None:
        if len(announced) == survived:
            raise _PowerLossError
        announced.append(operation)

    with pytest.raises(_PowerLossError):
        SimulatedEnvironment(path, Disk(lose_power)).write({"bootslot": "b", "upgrade_available": "1"})
    found = SimulatedEnvironment(path, Disk()).read()
    assert (found["bootslot"], found["upgrade_available"]) in {("a", "0"), ("b", "1")}
