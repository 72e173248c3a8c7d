"""One agent per device, which can be asked to look."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.control import ask_to_look, is_running, listening, notify, only_one
from update.errors import BusyError, StoreError


def test_a_second_agent_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    with only_one(tmp_path):
        assert is_running(tmp_path)
        with pytest.raises(BusyError, match="update --now"), only_one(tmp_path):
            pass
    assert not is_running(tmp_path)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom node_agent.control import only_one\n"
        "with only_one(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_running(tmp_path)
        holder.kill()
        holder.wait(timeout=30)
    with only_one(tmp_path):
        pass


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="agent's lock"), only_one(tmp_path / "absent"):
        pass


async def test_a_running_agent_is_woken_however_deep_its_folder_lies(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 60) / ("e" * 60)
    folder.mkdir(parents=True)
    looked = asyncio.Event()
    async with listening(folder, looked.set):
        assert await ask_to_look(folder)
        assert looked.is_set()
    assert not await ask_to_look(folder)


async def test_nonsense_on_the_socket_wakes_nobody(tmp_path: Path) -> None:
    looked = asyncio.Event()
    async with listening(tmp_path, looked.set):
        for nonsense in (b"reboot\n", b"look", b"x" * 10_000, b""):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "agent.sock"))
            writer.write(nonsense)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        assert not looked.is_set()


async def test_a_socket_left_behind_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "agent.sock"))
    assert not await ask_to_look(tmp_path)
    looked = asyncio.Event()
    async with listening(tmp_path, looked.set):
        assert await ask_to_look(tmp_path)


def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
