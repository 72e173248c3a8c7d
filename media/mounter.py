"""The one process with a privilege: it mounts what the policy allows, and hands the open folder to whoever reads.

It runs as root in a mount namespace of its own, without network (configs/systemd/fieldrelay-mounter.service), and answers one
user only (SO_PEERCRED, unix(7)). It believes nothing of what it is told but a kernel name: it looks at the device itself, reads
the same file of policy, and chooses file system, flags, key and whether reports may be written by that. A medium stays mounted as
long as its connection lives and its device is there; then it is let go with MNT_DETACH. No file on a medium is read here.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from media.config import MediaConfig
from media.handed import MAX_MESSAGE, decode, encode, refusal
from media.locked import unlock
from media.mount import Kernel, Mounted, Owner, mount
from media.policy import Device, Ruling, Taken, rule
from media.probing import LUKS, Probed
from update.errors import BusyError, FieldrelayError, MediumRefusedError, MediumUnreadableError

_LOG = logging.getLogger(__name__)

MAX_MOUNTED: Final = 8
_LOOK_EVERY_S: Final = 1.0
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Eyes:
    """How devices are looked at: by kernel name, by node, and whether they are still there."""

    look: Callable[[str], Device | None]
    probe: Callable[[str], Probed]
    present: Callable[[Device], bool]


class Mounter:
    """Serves `config.media.socket`, for the user `reader` only; `folder` is where mounts are, seen by nobody else."""

    def __init__(self, config: MediaConfig, eyes: Eyes, kernel: Kernel, reader: Owner, folder: Path) -> None:
        self._config = config
        self._eyes = eyes
        self._kernel = kernel
        self._reader = reader
        self._folder = folder
        self._serving: set[asyncio.Task[None]] = set()
        self._names: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; then everything is let go. Errors: `BusyError` where the socket cannot be had."""
        server = self._listen()
        accepting = asyncio.create_task(self._accept(server))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([accepting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if accepting.done():
                accepting.result()
        finally:
            tasks = [accepting, stopping, *self._serving]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            server.close()
            self._config.media.socket.unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        path = self._config.media.socket
        try:
            path.unlink(missing_ok=True)
            server.bind(str(path))
            os.chown(path, self._reader.uid, self._reader.gid)
            path.chmod(0o600)
            server.listen(MAX_MOUNTED)
        except OSError as error:
            server.close()
            raise BusyError(f"cannot listen at {path}: {error.strerror or error}") from error
        return server

    async def _accept(self, server: socket.socket) -> None:
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(server)
            _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            if uid != self._reader.uid or len(self._serving) >= MAX_MOUNTED:
                _LOG.warning("user %s is not served; %s media are mounted", uid, len(self._serving))
                connection.close()
                continue
            task = asyncio.create_task(self._serve(connection))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """One medium, from the first message until the connection ends or the device is gone."""
        loop = asyncio.get_running_loop()
        with connection, ExitStack() as held:
            try:
                said = decode(await loop.sock_recv(connection, MAX_MESSAGE + 1)) or {}
                mounted, device, writable = await self._mount(said, held)
                root = mounted.root()
                try:
                    answer = {"filesystem": mounted.filesystem, "writable": writable}
                    socket.send_fds(connection, [encode(answer)], [root])
                finally:
                    os.close(root)
                _LOG.info("%s is mounted", device.node)
                await self._attend(connection, mounted, device, writable=writable)
            except FieldrelayError as error:
                _LOG.warning("%s (%s)", error, error.code)
                with suppress(OSError):
                    await loop.sock_sendall(connection, encode(refusal(error)))
            except OSError as error:
                _LOG.info("the connection ended: %s", error.strerror)

    async def _mount(self, said: Mapping[str, object], held: ExitStack) -> tuple[Mounted, Device, bool]:
        name = said.get("name")
        if said.get("do") != "mount" or not isinstance(name, str) or len(name) > 32 or name in self._names:
            raise MediumRefusedError("that is no medium that can be mounted now")
        self._names.add(name)
        held.callback(self._names.discard, name)
        device = await asyncio.to_thread(self._eyes.look, name)
        if device is None:
            raise MediumUnreadableError(f"there is no medium {name} any more")
        ruling = rule(device, self._config.policy, self._config.allow)
        if ruling.taken is not Taken.IMPORT:
            raise MediumRefusedError(f"{device.node} is not on the list of [[allow]]")
        return await asyncio.to_thread(self._mount_now, device, ruling, held)

    def _mount_now(self, device: Device, ruling: Ruling, held: ExitStack) -> tuple[Mounted, Device, bool]:
        allow, node = ruling.allow, Path(device.node)
        may_write = allow is not None and allow.write_reports and not device.read_only
        filesystem = device.filesystem
        if filesystem == LUKS:
            unlocked = unlock(device.node, None if allow is None else allow.key_file, writable=may_write)
            held.callback(unlocked.close)
            node = unlocked.node
            filesystem = self._eyes.probe(str(node)).filesystem
        if filesystem not in self._config.policy.filesystems:
            raise MediumRefusedError(f"{device.node} holds {filesystem or 'nothing that is known'}, which is not allowed here")
        mounted = mount(self._kernel, node, filesystem, self._folder / device.name, self._reader)
        held.callback(mounted.release)
        return mounted, device, may_write and filesystem in {"vfat", "exfat"}

    async def _attend(self, connection: socket.socket, mounted: Mounted, device: Device, *, writable: bool) -> None:
        """Answer until the connection ends; look at the device in between."""
        asking = asyncio.create_task(self._answer(connection, mounted, writable=writable))
        try:
            while not asking.done():
                await asyncio.wait([asking], timeout=_LOOK_EVERY_S)
                if not self._eyes.present(device):
                    _LOG.info("%s is gone", device.node)
                    return
            await asking
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _answer(self, connection: socket.socket, mounted: Mounted, *, writable: bool) -> None:
        loop = asyncio.get_running_loop()
        with ExitStack() as writing:
            while data := await loop.sock_recv(connection, MAX_MESSAGE + 1):
                match (decode(data) or {}).get("do"):
                    case "write" if writable:
                        await asyncio.to_thread(writing.close)
                        descriptor = await asyncio.to_thread(writing.enter_context, mounted.writable())
                        socket.send_fds(connection, [encode({})], [descriptor])
                    case "done":
                        await asyncio.to_thread(writing.close)
                        await loop.sock_sendall(connection, encode({}))
                    case _:
                        raise MediumRefusedError("that is not done for this medium")
