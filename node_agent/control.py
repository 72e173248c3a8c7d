"""One agent per device, and a way to reach it: a lock file, a Unix socket beside it, and word to the service manager.

The lock (flock(2)) belongs to the process and ends with it, so a killed agent never locks the next one out. The socket
takes one word, `look`: ask the assigner now. Only who may enter the state folder (mode 0700) can say it.
"""

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from update.errors import BusyError, StoreError

_SOCKET = "agent.sock"
_LOOK = b"look\n"
_DONE = b"ok\n"
_TIMEOUT_S = 5.0


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the agent's lock; `BusyError` if another process has it."""
    try:
        descriptor = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open the agent's lock in {folder}: {error.strerror or error}") from error
    try:
        _take(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def is_running(folder: Path) -> bool:
    """Whether some process holds the agent's lock."""
    try:
        with only_one(folder):
            return False
    except BusyError:
        return True
    except StoreError:
        return False


@asynccontextmanager
async def listening(folder: Path, look: Callable[[], None]) -> AsyncIterator[None]:
    """Call `look` whenever somebody asks for it, while the context lasts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(_TIMEOUT_S):
                if await reader.readline() == _LOOK:
                    look()
                    writer.write(_DONE)
                    await writer.drain()
        writer.close()

    with _short_path(folder) as path:
        server = await asyncio.start_unix_server(serve, path, limit=64)
        async with server:
            try:
                yield
            finally:
                (folder / _SOCKET).unlink(missing_ok=True)


async def ask_to_look(folder: Path) -> bool:
    """Tell the running agent to look now; False where none answers."""
    with suppress(OSError, TimeoutError), _short_path(folder) as path:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(path, limit=64)
            try:
                writer.write(_LOOK)
                return await reader.readline() == _DONE
            finally:
                writer.close()
    return False


def notify(state: str) -> None:
    """Tell the service manager (sd_notify(3)); nothing happens outside of one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        channel.sendall(state.encode())


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(
            f"an agent is at work in {folder}; `update status` shows it, `update --now` lets it look at once, and for anything "
            "else it must be stopped first (systemctl stop fieldrelay-node)"
        ) from error


@contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """The socket's path below 108 bytes, however deep the folder is (unix(7))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)
