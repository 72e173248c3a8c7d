"""What the process that mounts and the one that reads say to each other, and the reader's side of it.

A Unix socket of datagrams in order (SOCK_SEQPACKET), one connection for each medium: it is mounted as long as the connection
lives. Each message is one JSON object of at most `MAX_MESSAGE` bytes; an answer may carry one open folder (SCM_RIGHTS, unix(7)).

    {"do": "mount", "name": "sda1"}  ->  {"filesystem": "vfat", "writable": true} + the top folder, read-only
    {"do": "write"}                  ->  {} + the folder FIELDRELAY, writable
    {"do": "done"}                   ->  {} once all is read-only again, and nothing waits to be written
    refusals:                            {"code": "medium.not-allowed", "message": "..."}

The name is all that is asked for: what it is, and whether it may be mounted, the other side judges with its own eyes.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from update.errors import FieldrelayError, MediumFullError, MediumGoneError, MediumRefusedError, MediumUnreadableError

MAX_MESSAGE: Final = 8192
_PATIENCE_S: Final = 180.0
_KINDS: Final[Mapping[str, type[FieldrelayError]]] = {
    kind.code: kind for kind in (MediumFullError, MediumGoneError, MediumRefusedError, MediumUnreadableError)
}


def encode(message: Mapping[str, object]) -> bytes:
    """One datagram."""
    return json.dumps(message).encode()


def decode(data: bytes) -> Mapping[str, object] | None:
    """What a datagram says; None for what is no object, or too long."""
    if len(data) > MAX_MESSAGE:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def refusal(error: FieldrelayError) -> Mapping[str, object]:
    """An error as a message."""
    return {"code": error.code, "message": str(error)[:1000]}


@dataclass(slots=True)
class Handed:
    """A medium that is mounted for us: `descriptor` is its top folder, and whoever takes it closes it.

    `writable`: reports may be written onto it.
    """

    descriptor: int
    writable: bool
    _connection: socket.socket

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[int]:
        """The folder of reports, writable until the end; the caller closes nothing, and must have closed all it opened in it.

        Errors: `MediumFullError`, `MediumGoneError`, `MediumUnreadableError`.
        """
        _, descriptor = await _ask(self._connection, {"do": "write"})
        if descriptor is None:
            raise MediumUnreadableError("the mounter handed over no folder")
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            await _ask(self._connection, {"do": "done"})

    def close(self) -> None:
        """Let the medium be unmounted; idempotent."""
        self._connection.close()


async def hand_over(mounter: Path, name: str) -> Handed:
    """Have the medium of this kernel name mounted.

    Errors: `MediumRefusedError` (also: nobody mounts here), `MediumUnreadableError`, `MediumGoneError`.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        await _connect(connection, mounter)
        said, descriptor = await _ask(connection, {"do": "mount", "name": name})
    except BaseException:  # also when it is cancelled: an open connection would keep the medium mounted
        connection.close()
        raise
    if descriptor is None:
        connection.close()
        raise MediumUnreadableError("the mounter handed over no folder")
    return Handed(descriptor, said.get("writable") is True, connection)


async def _connect(connection: socket.socket, mounter: Path) -> None:
    try:
        await asyncio.get_running_loop().sock_connect(connection, str(mounter))
    except OSError as error:
        why = error.strerror or error
        raise MediumRefusedError(f"nobody mounts media here ({mounter}: {why}); start fieldrelay-mounter") from error


async def _ask(connection: socket.socket, message: Mapping[str, object]) -> tuple[Mapping[str, object], int | None]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await loop.sock_sendall(connection, encode(message))
            await _readable(connection)
            data, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE + 1, 1, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError as error:
        raise MediumUnreadableError(f"the mounter did not answer within {_PATIENCE_S:g} s") from error
    except OSError as error:
        raise MediumGoneError(f"the mounter has let the medium go: {error.strerror}") from error
    descriptor = descriptors[0] if descriptors else None
    said = decode(data) if data else None
    if said is None or "code" in said:
        if descriptor is not None:
            os.close(descriptor)
        raise _named(said)
    return said, descriptor


def _named(said: Mapping[str, object] | None) -> FieldrelayError:
    if said is None:
        return MediumGoneError("the mounter has let the medium go")
    return _KINDS.get(str(said["code"]), MediumUnreadableError)(str(said.get("message", "")))


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection.fileno())
