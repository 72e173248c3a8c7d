import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.supervision import ServiceManager


@pytest.fixture
def manager() -> Iterator[tuple[socket.socket, str]]:
    """A service manager's end, and its address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(Path(folder) / "notify"))
        bound.settimeout(10)
        yield bound, str(Path(folder) / "notify")


def test_what_is_told_comes_in_one_datagram(manager: tuple[socket.socket, str]) -> None:
    bound, address = manager
    ServiceManager({"NOTIFY_SOCKET": address}).tell("READY=1", "STATUS=serving")
    assert bound.recv(100) == b"READY=1\nSTATUS=serving"


def test_an_abstract_address_is_understood() -> None:
    name = f"fieldrelay-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(f"\0{name}")
        bound.settimeout(10)
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).tell("READY=1")
        assert bound.recv(100) == b"READY=1"


def test_without_a_manager_nothing_is_said() -> None:
    ServiceManager({}).tell("READY=1")
    assert ServiceManager({}).interval_s is None


def test_a_manager_that_is_gone_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("READY=1")
    assert "cannot tell the service manager" in caplog.text


async def test_signs_of_life_come_twice_as_often_as_demanded(manager: tuple[socket.socket, str]) -> None:
    bound, address = manager
    watched = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"})
    assert watched.interval_s == 0.01
    task = asyncio.create_task(watched.keep_alive())
    for _ in range(3):
        assert await asyncio.to_thread(bound.recv, 100) == b"WATCHDOG=1"
    task.cancel()


@pytest.mark.parametrize("nonsense", ["", "soon", "-1"])
async def test_without_a_watchdog_there_is_nothing_to_keep_up(nonsense: str) -> None:
    await ServiceManager({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": nonsense}).keep_alive()
